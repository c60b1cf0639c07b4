//! The built-in writer: a stand-in for a broker, for quick tests and machines
//! without Java. Same file layout, same syscalls from threads of the same
//! names, same log lines when they fail, and a command line by which it is
//! found like a broker. What it proves about real brokers is nothing.
//!
//! `config` is what it is told, `sync` makes and counts the calls, `files` are
//! a partition's files and the checkpoints, `applog` prints, `run` is its
//! process, `bystander` is a process that is no broker; [`Writer`] is the
//! owner's handle.

mod applog;
mod bystander;
mod config;
mod files;
mod run;
mod sync;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

pub use bystander::{BYSTANDER_SUBCOMMAND, Bystander, bystander_main};
pub use config::{ExtraSyncs, Pause, SyncCall, WriterConfig};
pub use run::serve_main;
pub use sync::{Calls, Counts};

use crate::lab::Lab;
use crate::proc;
use sync::Progress;

/// Environment variable that carries the writer's configuration as JSON: its
/// command line has to be a broker's.
const CONFIG_VARIABLE: &str = "FSYNCSCOPE_LAB_WRITER";

/// How long it may take to start, and to end beyond a call that hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether these arguments, the program's name included, ask for a writer: they
/// are a broker's, and a configuration is there.
pub fn is_writer_command(args: &[OsString]) -> bool {
    let is_broker = args.first().is_some_and(|name| name == "java")
        && args.iter().any(|arg| arg == "kafka.Kafka");
    is_broker && env::var_os(CONFIG_VARIABLE).is_some()
}

fn config_of_environment() -> Option<serde_json::Result<WriterConfig>> {
    let text = env::var(CONFIG_VARIABLE).ok()?;
    Some(serde_json::from_str(&text))
}

/// A running writer, ended when dropped.
#[derive(Debug)]
pub struct Writer {
    config: WriterConfig,
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    counts: Option<Counts>,
}

impl Writer {
    /// Starts a writer and returns when its files are made and its server.log
    /// is begun, `hold_before_first_sync_ms` before its first sync.
    pub fn start(lab: &Lab, config: WriterConfig) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !config.log_dirs.is_empty(),
            "start the writer: no log.dirs given"
        );
        for dir in [&config.app_log_dir, &config.work_dir] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        fs::write(config.properties_path(), config.render_server_properties())?;
        fs::write(config.log4j_path(), WriterConfig::render_log4j())?;
        let mut process = proc::spawn(render_command(lab, &config)?).context("start the writer")?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().context("writer without stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let writer = Writer {
            config,
            process,
            stdin,
            lines,
            counts: None,
        };
        match writer.lines.recv_timeout(LIMIT) {
            Ok(line) if line == "ready" => Ok(writer),
            _ => anyhow::bail!("start the writer: {}", writer.complaint()),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its configuration.
    pub fn config(&self) -> &WriterConfig {
        &self.config
    }

    /// Its server.log.
    pub fn server_log(&self) -> PathBuf {
        self.config.app_log_dir.join("server.log")
    }

    /// How many flushes of a partition came to an end, failed ones included.
    pub fn flushes(&self) -> anyhow::Result<u64> {
        let path = self.config.progress_path();
        Progress::read(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Waits until so many flushes came to an end, failed ones included. A
    /// writer that has stopped before (all its directories failed, or its
    /// number of flushes is smaller) is an error.
    pub fn wait_for_flushes(&mut self, flushes: u64, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        loop {
            // First: what is printed at the end follows the last flush.
            let is_over = self.take_counts(Duration::from_millis(5))?;
            let done = self.flushes()?;
            if done >= flushes {
                return Ok(());
            }
            anyhow::ensure!(!is_over, "wait for {flushes} flushes: over after {done}");
            anyhow::ensure!(
                Instant::now() < until,
                "wait for {flushes} flushes: {done} in {limit:?}"
            );
        }
    }

    /// Waits until its work is over: `flushes` done, or all directories failed.
    /// It lives on idle, so that what others know of it can be compared.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<Counts> {
        anyhow::ensure!(
            self.take_counts(limit)?,
            "wait for the writer: not over in {limit:?}"
        );
        Ok(self.counts.clone().unwrap_or_default())
    }

    /// Makes it stop after the flush in hand, waits for its end and returns what
    /// it called. A call that hangs is given up after 20 s, and is not counted.
    pub fn finish(&mut self) -> anyhow::Result<Counts> {
        drop(self.stdin.take());
        let counts = self.wait(LIMIT)?;
        proc::wait(&mut self.process, LIMIT).context("wait for the writer's end")?;
        Ok(counts)
    }

    /// Whether the counts are there, waiting for them so long.
    fn take_counts(&mut self, limit: Duration) -> anyhow::Result<bool> {
        if self.counts.is_some() {
            return Ok(true);
        }
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                let counts = serde_json::from_str(&line).context("parse the writer's counts")?;
                self.counts = Some(counts);
                Ok(true)
            }
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                anyhow::bail!("the writer died: {}", self.complaint())
            }
        }
    }

    fn complaint(&self) -> String {
        let text = fs::read_to_string(stderr_path(&self.config)).unwrap_or_default();
        text.trim().to_owned()
    }
}

fn stderr_path(config: &WriterConfig) -> PathBuf {
    config.work_dir.join("writer.err")
}

/// The command line of kafka-run-class.sh, in its order.
fn render_command(lab: &Lab, config: &WriterConfig) -> anyhow::Result<Command> {
    let mut command = lab.command(lab.helper_path());
    command
        .arg0("java")
        .args(["-Xmx256m", "-Xms256m", "-server", "-XX:+UseG1GC"])
        .arg(format!("-Dkafka.logs.dir={}", config.app_log_dir.display()))
        .arg(format!(
            "-Dlog4j.configuration=file:{}",
            config.log4j_path().display()
        ))
        .args(["-cp", "kafka_2.13-3.9.2.jar", "kafka.Kafka"])
        .arg(config.properties_path())
        .env(CONFIG_VARIABLE, serde_json::to_string(config)?)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(stderr_path(config))?);
    Ok(command)
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It ends when its input does; one that hangs in a sync is killed.
        drop(self.stdin.take());
        let _ = proc::wait(&mut self.process, Duration::from_millis(500));
        let _ = proc::end(&mut self.process, libc::SIGKILL, Duration::from_secs(5));
    }
}
