//! A process that is no broker: it writes and syncs one file, on the broker's
//! disk or another, and must never be joined to the broker.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use super::sync::Calls;
use crate::lab::Lab;
use crate::proc;

/// First argument of a bystander; see [`crate::dispatch`].
pub const BYSTANDER_SUBCOMMAND: &str = "__bystander";

#[derive(Debug, Parser)]
#[command(name = "bystander", no_binary_name = true)]
struct Args {
    /// The file to write.
    #[arg(long)]
    file: PathBuf,
    /// Bytes of each write; all go to the beginning of the file.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// Pause between two writes.
    #[arg(long)]
    every_ms: u64,
}

/// Runs a bystander: write, fsync, and so on until standard input ends; errors
/// are counted, not fatal. Prints its fsync calls as JSON.
pub fn bystander_main(args: &[OsString]) -> anyhow::Result<u8> {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(err) => {
            err.print()?;
            return Ok(2);
        }
    };
    let (sender, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(sender);
    });
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&args.file)
        .with_context(|| format!("open {}", args.file.display()))?;
    let mut fsync = Calls::default();
    let mut bytes = vec![0; args.bytes];
    loop {
        file.seek(SeekFrom::Start(0))?;
        // A failed write has its own line in no count, and the sync tells.
        let _ = file.write_all(&bytes);
        match file.sync_all() {
            Ok(()) => fsync.ok += 1,
            Err(_) => fsync.failed += 1,
        }
        bytes
            .iter_mut()
            .for_each(|byte| *byte = byte.wrapping_add(1));
        let pause = Duration::from_millis(args.every_ms);
        if !matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    println!("{}", serde_json::to_string(&fsync)?);
    Ok(0)
}

/// A running bystander, ended when dropped.
#[derive(Debug)]
pub struct Bystander {
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Bystander {
    /// Starts one that writes and syncs this file, with a pause after each time.
    pub fn start(lab: &Lab, file: &Path, every: Duration) -> anyhow::Result<Self> {
        let mut command = lab.helper(BYSTANDER_SUBCOMMAND);
        command.arg("--file").arg(file);
        command.args(["--every-ms", &every.as_millis().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = proc::spawn(command).context("start the bystander")?;
        let stdin = process.stdin.take();
        Ok(Bystander { process, stdin })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Makes it stop, and returns its fsync calls.
    pub fn finish(&mut self) -> anyhow::Result<Calls> {
        drop(self.stdin.take());
        let status = proc::wait(&mut self.process, Duration::from_secs(30))?;
        let status = status.context("end the bystander: still there after 30 s")?;
        anyhow::ensure!(status.success(), "the bystander failed: {status}");
        let stdout = self.process.stdout.take();
        let stdout = stdout.context("the bystander's counts were read before")?;
        serde_json::from_reader(stdout).context("parse the bystander's counts")
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = proc::end(&mut self.process, libc::SIGKILL, Duration::from_secs(5));
    }
}
