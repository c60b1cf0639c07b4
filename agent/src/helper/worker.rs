//! The parent's side of requests: a helper that answers one at a time, with a
//! deadline. In: [`Request`]s. Out: [`Answer`]s or why there is none. A helper
//! that misses its deadline is killed and left behind, another takes its
//! place; with too many left behind nothing more is asked.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::protocol::{Answer, Asked, Progress, Request, Told};
use super::spawn::HelperCommand;

/// Helpers that may hang in the kernel at once.
const MAX_STUCK: usize = 4;
/// Requests that may wait in a [`WorkerHandle`].
const MAX_WAITING: usize = 64;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No answer in time; the helper was killed.
    #[error("no answer from the helper within {} ms{}", waited.as_millis(), at(progress.as_ref()))]
    Deadline {
        /// The deadline.
        waited: Duration,
        /// What it was doing last.
        progress: Option<Progress>,
    },
    /// Too many helpers hang; none was asked.
    #[error("{stuck} helpers hang in the kernel, none asked")]
    TooManyStuck {
        /// How many.
        stuck: usize,
    },
    /// No helper could be started.
    #[error("start helper: {0}")]
    Spawn(#[source] io::Error),
    /// It ended without an answer.
    #[error("the helper ended without an answer")]
    Died,
    /// The worker's task is gone, or its queue is full.
    #[error("the helper is busy")]
    Busy,
}

fn at(progress: Option<&Progress>) -> String {
    progress.map_or_else(String::new, |at| {
        format!(", last at the {} of pid {}", at.step, at.pid)
    })
}

/// Counts since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Requests.
    pub asked: u64,
    /// Answers.
    pub answered: u64,
    /// Helpers killed at their deadline.
    pub deadline_kills: u64,
    /// Helpers started.
    pub spawned: u64,
    /// Requests refused since too many helpers hang.
    pub refused: u64,
    /// Helpers killed but not yet dead.
    pub stuck_now: usize,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// A helper that answers requests.
pub struct Worker {
    command: HelperCommand,
    running: Option<Running>,
    stuck: Vec<Child>,
    stats: WorkerStats,
}

impl Worker {
    /// A worker; its helper is started at the first request.
    #[must_use]
    pub fn new(command: HelperCommand) -> Self {
        Self {
            command,
            running: None,
            stuck: Vec::new(),
            stats: WorkerStats::default(),
        }
    }

    /// Counts so far.
    pub fn stats(&mut self) -> WorkerStats {
        self.reap();
        WorkerStats {
            stuck_now: self.stuck.len(),
            ..self.stats
        }
    }

    /// Asks, and waits at most `deadline`. Dropped while it waits, it leaves
    /// an answer that the next request passes over by its id.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn ask(
        &mut self,
        request: Request,
        deadline: Duration,
    ) -> Result<Answer, WorkerError> {
        self.stats.asked += 1;
        let until = Instant::now() + deadline;
        let id = self.stats.asked;
        self.start()?;
        let mut line = serde_json::to_vec(&Asked { id, request })
            .map_err(|error| WorkerError::Spawn(error.into()))?;
        line.push(b'\n');
        let Some(mut running) = self.running.take() else {
            return Err(WorkerError::Died);
        };
        let mut progress = None;
        let exchange = exchange(&mut running, id, &line, &mut progress);
        match timeout_at(until, exchange).await {
            Ok(Some(answer)) => {
                self.running = Some(running);
                self.stats.answered += 1;
                Ok(answer)
            }
            // Dropped: tokio kills and reaps it.
            Ok(None) => Err(WorkerError::Died),
            Err(_) => {
                self.stats.deadline_kills += 1;
                let mut child = running.child;
                // A process in D state dies only when its I/O ends: keep it
                // to count it, do not wait for it.
                let _ = child.start_kill();
                self.stuck.push(child);
                Err(WorkerError::Deadline {
                    waited: deadline,
                    progress,
                })
            }
        }
    }

    /// Lets go of those that died after all.
    fn reap(&mut self) {
        self.stuck
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    fn start(&mut self) -> Result<(), WorkerError> {
        self.reap();
        if self.running.is_some() {
            return Ok(());
        }
        if self.stuck.len() >= MAX_STUCK {
            self.stats.refused += 1;
            return Err(WorkerError::TooManyStuck {
                stuck: self.stuck.len(),
            });
        }
        let mut child = self
            .command
            .spawn(&["discover".into()])
            .map_err(WorkerError::Spawn)?;
        self.stats.spawned += 1;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(WorkerError::Died);
        };
        self.running = Some(Running {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        });
        Ok(())
    }

    /// Runs as a task of its own; several may ask, in turn.
    #[must_use]
    pub fn into_handle(mut self) -> WorkerHandle {
        let (tx, mut rx) = mpsc::channel::<Job>(MAX_WAITING);
        tokio::spawn(async move {
            while let Some(job) = rx.recv().await {
                let result = self.ask(job.request, job.deadline).await;
                // Whoever asked may have gone away.
                let _ = job.reply.send((result, self.stats()));
            }
        });
        WorkerHandle { tx }
    }
}

async fn exchange(
    running: &mut Running,
    id: u64,
    line: &[u8],
    progress: &mut Option<Progress>,
) -> Option<Answer> {
    running.stdin.write_all(line).await.ok()?;
    while let Ok(Some(line)) = running.lines.next_line().await {
        // What is no JSON, or belongs to an earlier request, is passed over.
        let Ok(told) = serde_json::from_str::<Told>(&line) else {
            continue;
        };
        if told.id != id {
            continue;
        }
        if told.progress.is_some() {
            *progress = told.progress;
        }
        if let Some(answer) = told.result {
            return Some(answer);
        }
    }
    None
}

/// An answer, or why there is none, and the worker's counts.
pub type Reply = (Result<Answer, WorkerError>, WorkerStats);

struct Job {
    request: Request,
    deadline: Duration,
    reply: oneshot::Sender<Reply>,
}

/// Asks a [`Worker`] that runs as a task.
#[derive(Clone)]
pub struct WorkerHandle {
    tx: mpsc::Sender<Job>,
}

impl WorkerHandle {
    /// As [`Worker::ask`]; the deadline counts from when its turn comes.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn ask(&self, request: Request, deadline: Duration) -> Result<Answer, WorkerError> {
        self.ask_counted(request, deadline).await?.0
    }

    /// The same, with the worker's counts so far: hangs are losses that lower
    /// a verdict's confidence.
    ///
    /// # Errors
    /// [`WorkerError::Busy`] only; others come inside.
    pub async fn ask_counted(
        &self,
        request: Request,
        deadline: Duration,
    ) -> Result<Reply, WorkerError> {
        let (reply, answer) = oneshot::channel();
        self.tx
            .try_send(Job {
                request,
                deadline,
                reply,
            })
            .map_err(|_| WorkerError::Busy)?;
        answer.await.map_err(|_| WorkerError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd_request() -> Request {
        Request::FdPath {
            proc_root: "/proc".into(),
            pid: std::process::id(),
            fd: 0,
        }
    }

    #[tokio::test]
    async fn real_helper_answers_several_requests() {
        let handle = Worker::new(HelperCommand::test_binary()).into_handle();
        for _ in 0..3 {
            let answer = handle
                .ask(fd_request(), Duration::from_secs(20))
                .await
                .unwrap();
            assert!(matches!(answer, Answer::FdPath { .. }), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn hung_helper_is_killed_and_replaced_and_its_place_named() {
        let mut worker = Worker::new(HelperCommand::script(
            r#"read l; echo '{"id":1,"progress":{"pid":42,"step":"cmdline"}}'; exec sleep 1000"#,
        ));
        let error = worker
            .ask(fd_request(), Duration::from_millis(400))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no answer from the helper within 400 ms, last at the cmdline of pid 42"
        );
        assert_eq!(worker.stats().deadline_kills, 1);
        worker.command = HelperCommand::script(
            r#"read l; echo noise; echo '{"id":2,"result":{"answer":"fd_path","path":"/x"}}'; read l"#,
        );
        let answer = worker
            .ask(fd_request(), Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(answer, Answer::FdPath { path: "/x".into() });
        assert_eq!(worker.stats().spawned, 2);
        for _ in 0..500 {
            if worker.stats().stuck_now == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the killed helper still counts as stuck");
    }

    #[tokio::test]
    async fn helper_that_ends_is_an_error_and_not_the_end() {
        let mut worker = Worker::new(HelperCommand::script("exit 1"));
        for _ in 0..2 {
            assert!(matches!(
                worker.ask(fd_request(), Duration::from_secs(10)).await,
                Err(WorkerError::Died)
            ));
        }
        assert_eq!(worker.stats().spawned, 2);
    }

    #[tokio::test]
    async fn too_many_stuck_helpers_refuse_further_requests() {
        let mut worker = Worker::new(HelperCommand::script("exit 0"));
        for _ in 0..MAX_STUCK {
            // Alive, as one in D state would be after the kill.
            worker
                .stuck
                .push(HelperCommand::script("exec sleep 1000").spawn(&[]).unwrap());
        }
        let outcome = worker.ask(fd_request(), Duration::from_secs(1)).await;
        assert!(matches!(
            outcome,
            Err(WorkerError::TooManyStuck { stuck: 4 })
        ));
        assert_eq!(worker.stats().refused, 1);
    }
}
