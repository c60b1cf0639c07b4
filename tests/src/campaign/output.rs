//! The workload's one way out: a line of JSON for each record, on its standard
//! output, which the owner reads all the time. Nothing here touches the disk
//! under test.

use std::io::Write;
use std::sync::Mutex;

use super::record::Record;

/// See the module's comment.
#[derive(Debug, Default)]
pub(super) struct Output {
    turn: Mutex<()>,
}

impl Output {
    /// Says one record. A truth that cannot be told must not pass as one
    /// without entries, so the process ends.
    pub(super) fn say(&self, record: &Record) {
        let mut line = serde_json::to_vec(record).expect("a record has only plain fields");
        line.push(b'\n');
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let mut stdout = std::io::stdout().lock();
        if stdout
            .write_all(&line)
            .and_then(|()| stdout.flush())
            .is_err()
        {
            std::process::exit(2);
        }
    }
}
