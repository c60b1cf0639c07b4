//! The workload of a campaign against known truth: one process, several threads
//! and files, every kind of sync, each call recorded as its caller saw it.
//!
//! `config` is what it is told, `random` what it draws from, `record` what it
//! says, `files` makes the calls, `worker` is a thread, `run` the process;
//! [`Workload`] is the owner's handle. What the disk does to it is `faultdisk`'s
//! matter, what an agent makes of it the campaign's.

mod config;
mod files;
mod output;
pub mod random;
mod record;
mod run;
mod stacks;
mod uring;
mod worker;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

pub use config::WorkloadConfig;
pub use record::{Call, CallRecord, Record};
pub use run::workload_main;

use crate::lab::Lab;
use crate::proc;

/// First argument of a workload; see [`crate::dispatch`].
pub const WORKLOAD_SUBCOMMAND: &str = "__workload";

/// How long it may take to make its files.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running workload, ended when dropped.
#[derive(Debug)]
pub struct Workload {
    process: Child,
    stdin: Option<ChildStdin>,
    records: Receiver<Record>,
    taken: Vec<Record>,
    stderr: PathBuf,
}

impl Workload {
    /// Starts one, and returns when its files are made and its threads work.
    pub fn start(lab: &Lab, config: &WorkloadConfig) -> anyhow::Result<Self> {
        let stderr = lab.dir().join("workload.err");
        let mut command = lab.helper(WORKLOAD_SUBCOMMAND);
        command
            .arg(serde_json::to_string(config)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?);
        let mut process = proc::spawn(command).context("start the workload")?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().context("a workload without stdout")?;
        let (sender, records) = mpsc::channel();
        thread::Builder::new()
            .name("workload-reader".into())
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // A line that cannot be read is a missing answer, which
                    // the owner reports.
                    let Ok(record) = serde_json::from_str(&line) else {
                        break;
                    };
                    if sender.send(record).is_err() {
                        break;
                    }
                }
            })?;
        let mut workload = Workload {
            process,
            stdin,
            records,
            taken: Vec::new(),
            stderr,
        };
        workload.wait_for("its files", START_LIMIT, |record| {
            matches!(record, Record::Ready)
        })?;
        Ok(workload)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// All records since the last time.
    pub fn take(&mut self) -> Vec<Record> {
        self.taken.extend(self.records.try_iter());
        std::mem::take(&mut self.taken)
    }

    /// Makes it say where all files lie that last; among the records when this
    /// returns. Opens files: not to be asked for while the disk holds requests.
    pub fn map(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.tell("map")?;
        self.wait_for("its map", limit, |record| matches!(record, Record::Mapped))
    }

    /// Makes all threads rest, each after the call in hand and one more sync on
    /// each of its descriptors, so that no error is owed to anyone.
    pub fn pause(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.tell("pause")?;
        self.wait_for("its rest", limit, |record| matches!(record, Record::Paused))
    }

    /// Makes them work again.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.tell("resume")
    }

    fn tell(&mut self, word: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("the workload was ended")?;
        writeln!(stdin, "{word}").with_context(|| format!("tell the workload to {word}"))
    }

    fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        is_it: impl Fn(&Record) -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(record) = self.records.recv_timeout(left) else {
                let said = fs::read_to_string(&self.stderr).unwrap_or_default();
                anyhow::bail!("wait for the workload, {what}: {limit:?}: {}", said.trim());
            };
            let is_last = is_it(&record);
            self.taken.push(record);
            if is_last {
                return Ok(());
            }
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // One that hangs in a sync of a dead disk is killed.
        drop(self.stdin.take());
        let _ = proc::wait(&mut self.process, Duration::from_millis(500));
        let _ = proc::end(&mut self.process, libc::SIGKILL, Duration::from_secs(5));
    }
}
