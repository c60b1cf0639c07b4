//! The parent's side of following a log: a helper that follows, restarted if
//! it dies, and watched for silence. In: [`FollowOptions`]. Out:
//! [`FollowEvent`]s over a channel. The log may lie on the hung disk: then the
//! helper falls silent, and that is reported.

use std::{ffi::OsString, io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::spawn::HelperCommand;
use crate::brokerlog::{FollowEvent, FollowOptions};

/// Lines that may wait for the event loop; then the helper waits.
const CAPACITY: usize = 256;
/// The helper speaks once a second, so this is no slow poll but a hang.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Restarts in a row without one line in between.
const MAX_RESTARTS: u32 = 5;
/// A line of 64 KiB, each byte escaped, and its frame.
const MAX_LINE_BYTES: u64 = 512 * 1024;

/// A followed log. Dropped, it ends its helper.
pub struct Follower {
    rx: mpsc::Receiver<FollowEvent>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts to follow.
    ///
    /// # Errors
    /// If the helper cannot be started.
    pub fn start(command: HelperCommand, options: FollowOptions) -> io::Result<Self> {
        let child = command.spawn(&arguments(&options))?;
        let (tx, rx) = mpsc::channel(CAPACITY);
        let task = tokio::spawn(run(command, options, child, tx));
        Ok(Self { rx, task })
    }

    /// The next event; `None` when following has ended for good.
    pub async fn recv(&mut self) -> Option<FollowEvent> {
        self.rx.recv().await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn arguments(options: &FollowOptions) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["follow".into(), options.file.clone().into()];
    if let Some(root) = &options.root {
        words.extend(["--root".into(), root.clone().into()]);
    }
    if let Some((ino, offset)) = options.resume {
        words.extend(["--resume".into(), format!("{ino}:{offset}").into()]);
    }
    words.extend(["--history".into(), options.history_bytes.to_string().into()]);
    words
}

async fn run(
    command: HelperCommand,
    mut options: FollowOptions,
    mut child: tokio::process::Child,
    tx: mpsc::Sender<FollowEvent>,
) {
    let mut restarts = 0;
    loop {
        let before = options.resume;
        let Some(why) = pass_on(&mut child, &mut options, &tx).await else {
            return;
        };
        restarts = if options.resume == before {
            restarts + 1
        } else {
            0
        };
        // What was history for the first helper was read by it.
        options.history_bytes = 0;
        let next = if restarts < MAX_RESTARTS {
            command.spawn(&arguments(&options)).ok()
        } else {
            None
        };
        let ended = FollowEvent::Ended {
            why,
            restarted: next.is_some(),
        };
        let (Ok(()), Some(next)) = (tx.send(ended).await, next) else {
            return;
        };
        child = next;
        sleep(Duration::from_millis(200)).await;
    }
}

/// Passes events on until the helper ends; `None` if nobody listens any more.
async fn pass_on(
    child: &mut tokio::process::Child,
    options: &mut FollowOptions,
    tx: &mpsc::Sender<FollowEvent>,
) -> Option<String> {
    let Some(stdout) = child.stdout.take() else {
        return Some("helper has no output".to_owned());
    };
    let mut reader = BufReader::new(stdout);
    let mut heard = Instant::now();
    let mut silent = false;
    let mut ino = options.resume.map_or(0, |(ino, _)| ino);
    let mut line = Vec::new();
    loop {
        // A time-out in the middle of a line keeps what was read of it.
        let mut limited =
            (&mut reader).take(MAX_LINE_BYTES - (line.len() as u64).min(MAX_LINE_BYTES - 1));
        match timeout(SILENT_AFTER, limited.read_until(b'\n', &mut line)).await {
            Err(_) => {
                if !silent {
                    silent = true;
                    let for_ms = heard.elapsed().as_millis() as u64;
                    tx.send(FollowEvent::Silent { for_ms }).await.ok()?;
                }
                continue;
            }
            Ok(Ok(0)) => return Some("helper ended".to_owned()),
            Ok(Err(error)) => return Some(format!("read from helper: {error}")),
            Ok(Ok(_)) => {}
        }
        heard = Instant::now();
        let event = serde_json::from_slice::<FollowEvent>(&line);
        line.clear();
        let Ok(event) = event else { continue };
        if std::mem::take(&mut silent) {
            tx.send(FollowEvent::Resumed).await.ok()?;
        }
        match &event {
            FollowEvent::Opened {
                ino: opened,
                offset_bytes,
                ..
            } => {
                ino = *opened;
                options.resume = Some((ino, *offset_bytes));
            }
            FollowEvent::Line { end_bytes, .. } => options.resume = Some((ino, *end_bytes)),
            FollowEvent::Alive { .. } => {
                if tx.is_closed() {
                    return None;
                }
                continue;
            }
            _ => {}
        }
        tx.send(event).await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    #[tokio::test]
    async fn real_helper_follows_a_file() {
        let dir = TestDir::new("follower");
        dir.write("server.log", "old\n");
        let options = FollowOptions {
            file: dir.path().join("server.log"),
            history_bytes: 100,
            ..FollowOptions::default()
        };
        let mut follower = Follower::start(HelperCommand::test_binary(), options).unwrap();
        assert!(matches!(
            follower.recv().await,
            Some(FollowEvent::Opened { size_bytes: 4, .. })
        ));
        let Some(FollowEvent::Line { text, stamp, .. }) = follower.recv().await else {
            panic!("no line")
        };
        assert_eq!((text.as_str(), stamp.history), ("old", true));
        dir.write("server.log", "old\nnew\n");
        let event = follower.recv().await;
        assert!(
            matches!(
                event,
                Some(FollowEvent::Line { .. } | FollowEvent::Truncated)
            ),
            "{event:?}"
        );
    }

    #[tokio::test]
    async fn silence_and_its_end_are_told() {
        let script = r#"echo '{"ev":"alive","ino":1,"offset_bytes":0}'; sleep 4; echo '{"ev":"rotated"}'; read l"#;
        let mut follower =
            Follower::start(HelperCommand::script(script), FollowOptions::default()).unwrap();
        assert!(matches!(
            follower.recv().await,
            Some(FollowEvent::Silent { for_ms: 2900.. })
        ));
        assert_eq!(follower.recv().await, Some(FollowEvent::Resumed));
        assert_eq!(follower.recv().await, Some(FollowEvent::Rotated));
    }

    #[tokio::test]
    async fn helper_that_always_dies_is_given_up() {
        let mut follower =
            Follower::start(HelperCommand::script("exit 1"), FollowOptions::default()).unwrap();
        let mut restarted = Vec::new();
        while let Some(FollowEvent::Ended {
            restarted: again, ..
        }) = follower.recv().await
        {
            restarted.push(again);
        }
        assert_eq!(restarted, [true, true, true, true, false]);
    }
}
