//! The disk of a guest: a file that is served by the lab's faultdisk, with a file
//! system made on it here (the guest has no tools). In: size, file system. Out:
//! the file that QEMU opens, rules in force, what happened.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use fsyncscope_tests::faultdisk::{self, Command, Control, FsKind, Rule, TruthEntry, device};
use fsyncscope_tests::guest::stack::FIRST_SECTOR;
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;

/// Enough for xfs, and for ext4 to make blocks of 4 KiB: with smaller ones a request
/// may hold blocks of two files. Sparse, in memory.
const SIZE_BYTES: u64 = 512 << 20;

/// A disk that fails on demand. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct GuestDisk {
    mountpoint: PathBuf,
    truth: PathBuf,
    control: Control,
    server: Child,
}

impl GuestDisk {
    /// Serves a new one below this folder of the lab. `has_stack`: its file system
    /// begins where the guest's partition does.
    pub fn serve(lab: &Lab, dir: &Path, fs: FsKind, has_stack: bool) -> anyhow::Result<Self> {
        let mountpoint = dir.join("fuse");
        fs::create_dir_all(&mountpoint)
            .with_context(|| format!("create {}", mountpoint.display()))?;
        let (socket, truth) = (dir.join("control.sock"), dir.join("truth.ndjson"));
        let errors = dir.join("server.err");
        let mut command = lab.helper(faultdisk::SUBCOMMAND);
        command
            .arg("--mountpoint")
            .arg(&mountpoint)
            .arg("--socket")
            .arg(&socket)
            .arg("--truth")
            .arg(&truth)
            .args(["--size", &SIZE_BYTES.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors)?);
        let server = proc::spawn(command).context("start the disk server")?;
        let mut disk = GuestDisk {
            mountpoint,
            truth,
            control: Control::new(socket),
            server,
        };
        disk.wait_until_served(&errors)?;
        match has_stack {
            true => device::make_ext4_at(&disk.file(), FIRST_SECTOR * 512, SIZE_BYTES)?,
            false => device::make_fs(&disk.file(), fs)?,
        }
        Ok(disk)
    }

    fn wait_until_served(&mut self, errors: &Path) -> anyhow::Result<()> {
        let stdout = self.server.stdout.take().context("server without stdout")?;
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(read.is_ok_and(|bytes| bytes > 0));
        });
        if ready.recv_timeout(Duration::from_secs(30)) == Ok(true) {
            return Ok(());
        }
        let why = fs::read_to_string(errors).unwrap_or_default();
        bail!("start the disk server: {}", why.trim())
    }

    /// What QEMU opens.
    pub fn file(&self) -> PathBuf {
        self.mountpoint.join("disk")
    }

    /// Puts these rules in force, in place of all others.
    pub fn set_rules(&self, rules: Vec<Rule>) -> anyhow::Result<()> {
        self.control.send(&Command::Set { rules }).map(|_| ())
    }

    /// No rules, and what is held is answered.
    pub fn clear(&self) -> anyhow::Result<()> {
        self.control.send(&Command::Clear)?;
        self.control.send(&Command::Release).map(|_| ())
    }

    /// What happened so far.
    pub fn truth(&self) -> anyhow::Result<Vec<TruthEntry>> {
        faultdisk::read_truth(&self.truth)
    }
}

impl Drop for GuestDisk {
    fn drop(&mut self) {
        // QEMU may be gone in the middle of a request that is held.
        let _ = self.clear();
        if let Err(err) = device::unmount(&self.mountpoint) {
            eprintln!("xtask: unmount {}: {err}", self.mountpoint.display());
        }
        drop(self.server.stdin.take());
        let _ = proc::end(&mut self.server, libc::SIGTERM, Duration::from_secs(5));
    }
}
