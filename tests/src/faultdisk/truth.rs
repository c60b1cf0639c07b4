//! The known truth: one line of NDJSON for each request that a rule touched and
//! for each change of the rules, with both clocks at arrival and at reply. It
//! lies in the lab directory, never on the disk itself.
//! In: what the server did. Out: the file, and its entries read back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::rule::{Op, Rule};

/// One moment on both clocks. The second is the clock of the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// `CLOCK_REALTIME`.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
}

impl Stamp {
    /// The present moment.
    pub fn now() -> Self {
        Stamp {
            realtime_ns: read_clock(libc::CLOCK_REALTIME),
            monotonic_ns: read_clock(libc::CLOCK_MONOTONIC),
        }
    }
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A request that a rule touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruthRequest {
    /// Number of the request since the server started, all requests counted.
    pub seq: u64,
    /// What was asked.
    pub op: Op,
    /// First sector (512 bytes) on the disk; 0 for a flush.
    pub sector: u64,
    /// Length; 0 for a flush.
    pub bytes: u64,
    /// The error answered, 0 for success.
    pub errno: i32,
    /// The delay that the rule asked for.
    pub delay_ms: u64,
    /// Index of the rule in the list then in force.
    pub rule: usize,
    /// When it reached the server.
    pub arrival: Stamp,
    /// When it was answered; `None` in a `held` entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Stamp>,
}

/// One line of the truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum TruthEntry {
    /// The rules were changed.
    Rules {
        /// When they came into force.
        at: Stamp,
        /// The new list.
        rules: Vec<Rule>,
    },
    /// A request is being held back; its `request` entry follows at the reply,
    /// and never comes if the server is killed meanwhile.
    Held(TruthRequest),
    /// A request was answered.
    Request(TruthRequest),
}

impl TruthEntry {
    /// The answered request, if this is one.
    pub fn as_request(&self) -> Option<&TruthRequest> {
        match self {
            TruthEntry::Request(request) => Some(request),
            _ => None,
        }
    }
}

/// The writing end. A line is on its way to the file before the answer is on
/// its way to the kernel, so that whoever saw the error finds it here.
#[derive(Debug)]
pub struct TruthLog {
    file: Mutex<File>,
}

impl TruthLog {
    /// Starts the file anew.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(TruthLog {
            file: Mutex::new(File::create(path)?),
        })
    }

    /// Appends one line. A truth that cannot be written must not pass as a
    /// truth without entries, so the server ends.
    pub fn append(&self, entry: &TruthEntry) {
        let mut line = serde_json::to_vec(entry).expect("an entry has only plain fields");
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        if let Err(err) = file.write_all(&line) {
            eprintln!("error: write the truth: {err}");
            std::process::exit(2);
        }
    }
}

/// Reads the entries of a truth file. A last line that is still being written
/// is left out.
pub fn read_truth(path: &Path) -> anyhow::Result<Vec<TruthEntry>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut entries = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        let entry = serde_json::from_str(&line)
            .with_context(|| format!("parse line {} of {}", entries.len() + 1, path.display()))?;
        entries.push(entry);
        line.clear();
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_written() {
        let stamp = Stamp {
            realtime_ns: 7,
            monotonic_ns: 3,
        };
        let entries = [
            TruthEntry::Rules {
                at: stamp,
                rules: vec![Rule::default().errno(5)],
            },
            TruthEntry::Request(TruthRequest {
                seq: 1,
                op: Op::Write,
                sector: 278_528,
                bytes: 4096,
                errno: 5,
                delay_ms: 0,
                rule: 0,
                arrival: stamp,
                reply: Some(stamp),
            }),
        ];
        let path = std::env::temp_dir().join(format!("fsyncscope-truth-{}", std::process::id()));
        let log = TruthLog::create(&path).unwrap();
        entries.iter().for_each(|entry| log.append(entry));
        let read = read_truth(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), entries);
    }
}
