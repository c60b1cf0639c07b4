//! The parent's side of writing a file (capture, report) that may lie on the
//! hung disk: bytes go to a helper through a bounded queue. In: whole records.
//! Out: counts of what was written and dropped. `write` never waits.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::spawn::HelperCommand;

/// Bytes that may wait while the disk hangs.
pub const MAX_QUEUED_BYTES: u64 = 4 * 1024 * 1024;

/// What the helper says of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "sink", rename_all = "snake_case")]
pub(crate) enum SinkSaid {
    Opened,
    Done,
    Failed { why: String },
}

/// Why no file is written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The helper could not be started.
    #[error("start helper: {0}")]
    Spawn(#[source] io::Error),
    /// The file could not be opened: act, object, reason.
    #[error("{0}")]
    Open(String),
}

/// How it went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkReport {
    /// Bytes handed to the helper.
    pub written_bytes: u64,
    /// Bytes dropped: queue full, or the file failed.
    pub dropped_bytes: u64,
    /// Why the file failed, or did not end in time.
    pub failed: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// A file written by a helper.
pub struct Sink {
    tx: mpsc::UnboundedSender<Vec<u8>>,
    counts: Arc<Counts>,
    task: JoinHandle<Option<String>>,
}

impl Sink {
    /// Opens the file. If the helper has not said yes or no after `deadline`
    /// (the disk hangs), goes on: the queue holds what comes meanwhile.
    ///
    /// # Errors
    /// If the helper cannot be started or says that the file cannot be opened.
    pub async fn open(
        command: &HelperCommand,
        path: &Path,
        deadline: Duration,
    ) -> Result<Self, SinkError> {
        let mut child = command
            .spawn(&["sink".into(), path.into()])
            .map_err(SinkError::Spawn)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(SinkError::Open("helper has no pipes".to_owned()));
        };
        let mut said = BufReader::new(stdout).lines();
        match timeout(deadline, next_said(&mut said)).await {
            Ok(Some(SinkSaid::Failed { why })) => return Err(SinkError::Open(why)),
            Ok(None) => {
                return Err(SinkError::Open(format!(
                    "open {}: helper ended",
                    path.display()
                )));
            }
            Ok(Some(_)) | Err(_) => {}
        }
        let (tx, rx) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(run(child, stdin, said, rx, Arc::clone(&counts)));
        Ok(Self { tx, counts, task })
    }

    /// Queues one whole record; false if it was dropped. Never waits.
    pub fn write(&self, record: &[u8]) -> bool {
        let bytes = record.len() as u64;
        let fits = self.counts.queued.load(Ordering::Relaxed) + bytes <= MAX_QUEUED_BYTES;
        if fits {
            // Counted before the writer can see it, which counts it back.
            self.counts.queued.fetch_add(bytes, Ordering::Relaxed);
            if self.tx.send(record.to_vec()).is_ok() {
                return true;
            }
            self.counts.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.counts.dropped.fetch_add(bytes, Ordering::Relaxed);
        false
    }

    /// Bytes dropped so far.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.counts.queued.load(Ordering::Relaxed)
    }

    /// Ends the file; waits at most `deadline` for the queue to empty.
    pub async fn finish(self, deadline: Duration) -> SinkReport {
        let Self {
            tx,
            counts,
            mut task,
        } = self;
        drop(tx);
        let failed = match timeout(deadline, &mut task).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| Some("writer task ended".to_owned())),
            Err(_) => {
                // Aborted, the task drops the child, which kills it.
                task.abort();
                Some(format!(
                    "not written out within {} ms",
                    deadline.as_millis()
                ))
            }
        };
        SinkReport {
            written_bytes: counts.written.load(Ordering::Relaxed),
            dropped_bytes: counts.dropped.load(Ordering::Relaxed)
                + counts.queued.load(Ordering::Relaxed),
            failed,
        }
    }
}

async fn next_said(said: &mut Lines<BufReader<ChildStdout>>) -> Option<SinkSaid> {
    while let Ok(Some(line)) = said.next_line().await {
        if let Ok(said) = serde_json::from_str(&line) {
            return Some(said);
        }
    }
    None
}

/// Hands records to the helper; why it failed, if it did.
async fn run(
    child: Child,
    mut stdin: ChildStdin,
    mut said: Lines<BufReader<ChildStdout>>,
    mut rx: mpsc::UnboundedReceiver<Vec<u8>>,
    counts: Arc<Counts>,
) -> Option<String> {
    // Held so that the child lives as long as this task.
    let _child = child;
    let mut is_broken = false;
    while let Some(record) = rx.recv().await {
        if stdin.write_all(&record).await.is_err() {
            is_broken = true;
            break;
        }
        counts
            .queued
            .fetch_sub(record.len() as u64, Ordering::Relaxed);
        counts
            .written
            .fetch_add(record.len() as u64, Ordering::Relaxed);
    }
    drop(stdin);
    // From here on `write` drops what it gets.
    rx.close();
    loop {
        match next_said(&mut said).await {
            Some(SinkSaid::Opened) => {}
            Some(SinkSaid::Done) => return None,
            Some(SinkSaid::Failed { why }) => {
                // The end of the run may be days away.
                if is_broken {
                    log::error!("{why}; going on without it");
                }
                return Some(why);
            }
            None => return Some("helper ended".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn real_helper_writes_the_file() {
        let dir = TestDir::new("sink");
        let path = dir.path().join("capture");
        let sink = Sink::open(&HelperCommand::test_binary(), &path, SOON)
            .await
            .unwrap();
        assert!(sink.write(b"one\n") && sink.write(b"two\n"));
        assert_eq!(
            sink.finish(SOON).await,
            SinkReport {
                written_bytes: 8,
                dropped_bytes: 0,
                failed: None
            }
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[tokio::test]
    async fn file_that_cannot_be_opened_is_an_error() {
        let error = Sink::open(
            &HelperCommand::test_binary(),
            Path::new("/nonexistent/x"),
            SOON,
        )
        .await
        .err()
        .unwrap();
        assert!(
            error.to_string().starts_with("open /nonexistent/x: "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn stuck_helper_costs_bounded_memory_and_is_counted() {
        let stuck = HelperCommand::script("exec sleep 1000");
        let sink = Sink::open(&stuck, Path::new("/x"), Duration::from_millis(50))
            .await
            .unwrap();
        let record = vec![b'x'; 100_000];
        let kept = (0..100).filter(|_| sink.write(&record)).count() as u64;
        assert_eq!(kept * 100_000 + sink.dropped_bytes(), 10_000_000);
        assert!(sink.queued_bytes() <= MAX_QUEUED_BYTES);
        let report = sink.finish(Duration::from_millis(100)).await;
        assert_eq!(report.written_bytes + report.dropped_bytes, 10_000_000);
        assert_eq!(
            report.failed.as_deref(),
            Some("not written out within 100 ms")
        );
    }
}
