//! A disk that fails on demand: FUSE server, loop device, file system.
//!
//! `rule` decides, `queue` keeps the time, `server` serves, `truth` writes down
//! what happened, `control` changes the rules, `device` makes a mounted disk of
//! it, and [`FaultDisk`] is the owner's handle on all of that.
//!
//! Limits, which are those of loop over FUSE and like those of a real disk
//! whose cache flush is not queued: reads and writes are held independently of
//! each other, but while a *flush* is held, reads and writes behind it wait in
//! the kernel (the loop worker and the inode lock) and reach the server after.

pub mod control;
pub mod device;
pub mod queue;
pub mod rule;
pub mod server;
pub mod truth;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use serde::{Deserialize, Serialize};

pub use control::{Command, Control};
pub use device::LoopDev;
pub use rule::{Op, Rule, RuleOp};
pub use server::Stats;
pub use truth::{Stamp, TruthEntry, TruthRequest, read_truth};

use crate::lab::Lab;
use crate::proc;

/// First argument of a disk server; see [`crate::dispatch`].
pub const SUBCOMMAND: &str = "__faultdisk";

/// The file system on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsKind {
    /// ext4, its metadata and journal packed at the front.
    Ext4,
    /// xfs.
    Xfs,
}

impl FsKind {
    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            FsKind::Ext4 => "ext4",
            FsKind::Xfs => "xfs",
        }
    }
}

/// A mounted disk that fails on demand. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct FaultDisk {
    name: String,
    size_bytes: u64,
    fuse_dir: PathBuf,
    mountpoint: PathBuf,
    truth_path: PathBuf,
    control: Control,
    server: Child,
    loop_dev: Option<LoopDev>,
    is_mounted: bool,
}

impl FaultDisk {
    /// Makes a disk of this size, held in memory, with a file system on it, and
    /// mounts it below the lab's directory.
    pub fn create(lab: &Lab, name: &str, size_bytes: u64, fs: FsKind) -> anyhow::Result<Self> {
        let dir = lab.dir().join("disks").join(name);
        let fuse_dir = dir.join("fuse");
        let mountpoint = lab.dir().join("mnt").join(name);
        fs::create_dir_all(&fuse_dir)?;
        fs::create_dir_all(&mountpoint)?;
        let socket = dir.join("control.sock");
        let truth_path = dir.join("truth.ndjson");
        let mut command = lab.helper(SUBCOMMAND);
        command
            .arg("--mountpoint")
            .arg(&fuse_dir)
            .arg("--socket")
            .arg(&socket)
            .arg("--truth")
            .arg(&truth_path)
            .args(["--size", &size_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("server.err"))?);
        let server = proc::spawn(command).context("start the disk server")?;
        let mut disk = FaultDisk {
            name: name.to_owned(),
            size_bytes,
            fuse_dir,
            mountpoint,
            truth_path,
            control: Control::new(socket),
            server,
            loop_dev: None,
            is_mounted: false,
        };
        disk.wait_until_served(&dir)?;
        let label = format!("{}:{name}", lab.label());
        let loop_dev = LoopDev::attach(&disk.fuse_dir.join("disk"), &label)?;
        let device = loop_dev.path().to_owned();
        disk.loop_dev = Some(loop_dev);
        device::make_fs(&device, fs)?;
        device::mount(&device, &disk.mountpoint, fs)?;
        disk.is_mounted = true;
        Ok(disk)
    }

    fn wait_until_served(&mut self, dir: &Path) -> anyhow::Result<()> {
        let stdout = self.server.stdout.take().context("server without stdout")?;
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(read.is_ok_and(|bytes| bytes > 0));
        });
        match ready.recv_timeout(Duration::from_secs(10)) {
            Ok(true) => Ok(()),
            _ => {
                let why = fs::read_to_string(dir.join("server.err")).unwrap_or_default();
                anyhow::bail!("start the disk server of {}: {}", self.name, why.trim())
            }
        }
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The size of the disk.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Where the file system is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The block device, `/dev/loopN`.
    pub fn loop_dev(&self) -> &Path {
        let loop_dev = self.loop_dev.as_ref().expect("set by create");
        loop_dev.path()
    }

    /// Major and minor number of the block device.
    pub fn dev(&self) -> (u32, u32) {
        self.loop_dev.as_ref().expect("set by create").dev()
    }

    /// The pid of the server.
    pub fn server_pid(&self) -> u32 {
        self.server.id()
    }

    /// Where the truth is written.
    pub fn truth_path(&self) -> &Path {
        &self.truth_path
    }

    /// Puts these rules in force, in place of all others.
    pub fn set_rules(&self, rules: &[Rule]) -> anyhow::Result<()> {
        let rules = rules.to_vec();
        self.control.send(&Command::Set { rules }).map(|_| ())
    }

    /// No rules. Held requests stay held: see [`FaultDisk::release`].
    pub fn clear(&self) -> anyhow::Result<()> {
        self.control.send(&Command::Clear).map(|_| ())
    }

    /// Answers all held requests now, with the errors they were to get.
    pub fn release(&self) -> anyhow::Result<()> {
        self.control.send(&Command::Release).map(|_| ())
    }

    /// Makes the disk move at most so many bytes a second, 0 for no limit.
    pub fn set_bandwidth(&self, bytes_per_s: u64) -> anyhow::Result<()> {
        self.control
            .send(&Command::Bandwidth { bytes_per_s })
            .map(|_| ())
    }

    /// What the server has counted, all requests.
    pub fn stats(&self) -> anyhow::Result<Stats> {
        self.control.send(&Command::Stats)
    }

    /// What really happened: all entries up to now.
    pub fn truth(&self) -> anyhow::Result<Vec<TruthEntry>> {
        read_truth(&self.truth_path)
    }

    /// The sectors that hold a file now; see [`device::read_file_sectors`].
    pub fn file_sectors(&self, path: &Path) -> anyhow::Result<Vec<(u64, u64)>> {
        device::read_file_sectors(path)
    }

    /// The first and last sector that hold files and directories on ext4,
    /// behind the packed metadata and the journal.
    pub fn data_sectors(&self) -> anyhow::Result<(u64, u64)> {
        let first = device::read_ext4_data_start(self.loop_dev())?;
        Ok((first, self.size_bytes / 512 - 1))
    }

    /// Kills the server: the device vanishes, each request from now on fails.
    pub fn kill_server(&mut self) -> anyhow::Result<()> {
        proc::signal(self.server.id(), libc::SIGKILL)?;
        proc::wait(&mut self.server, Duration::from_secs(10))?
            .context("kill the disk server: still there after 10 s")?;
        Ok(())
    }

    fn take_down(&mut self) -> anyhow::Result<()> {
        // Errors of a server that is gone are expected: the mounts must go
        // all the same.
        let _ = self.control.send(&Command::Clear);
        let _ = self.control.send(&Command::Bandwidth { bytes_per_s: 0 });
        let _ = self.control.send(&Command::Release);
        let mut failed = Vec::new();
        if self.is_mounted {
            let done = device::unmount(&self.mountpoint);
            failed.extend(
                done.err()
                    .map(|err| format!("unmount {}: {err}", self.name)),
            );
            self.is_mounted = false;
        }
        if let Some(loop_dev) = self.loop_dev.take() {
            let done = device::detach_loop(loop_dev.path());
            failed.extend(done.err().map(|err| format!("{err:#}")));
        }
        let done = device::unmount(&self.fuse_dir);
        failed.extend(
            done.err()
                .map(|err| format!("unmount {}: {err}", self.name)),
        );
        // The unmount has ended the server's session; what is left is slow.
        drop(self.server.stdin.take());
        proc::end(&mut self.server, libc::SIGTERM, Duration::from_secs(5))?;
        anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        if let Err(err) = self.take_down() {
            eprintln!("faultdisk {}: {err:#}", self.name);
        }
    }
}

/// Arguments of a disk server.
#[derive(Debug, Parser)]
#[command(name = "faultdisk", no_binary_name = true)]
struct ServeArgs {
    /// Where to mount the served file system.
    #[arg(long)]
    mountpoint: PathBuf,
    /// The control socket to make.
    #[arg(long)]
    socket: PathBuf,
    /// The truth file to make.
    #[arg(long)]
    truth: PathBuf,
    /// Size of the disk in bytes.
    #[arg(long)]
    size: u64,
    /// Keep the content in this file (made anew, sparse), not in memory.
    #[arg(long)]
    backing: Option<PathBuf>,
}

/// Runs a disk server until it is unmounted or its standard input ends, which
/// it does when the owner dies. Prints one line when it serves.
pub fn serve_main(args: &[OsString]) -> anyhow::Result<u8> {
    let args = match ServeArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(err) => {
            err.print()?;
            return Ok(2);
        }
    };
    let content = open_content(args.backing.as_deref(), args.size)?;
    let truth = truth::TruthLog::create(&args.truth)
        .with_context(|| format!("create {}", args.truth.display()))?;
    let disk = Arc::new(server::Disk::new(content, args.size, truth)?);
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        fuser::MountOption::FSName("faultdisk".into()),
        fuser::MountOption::NoDev,
        fuser::MountOption::NoSuid,
    ];
    config.n_threads = Some(2);
    config.clone_fd = true;
    let fs = server::DiskFs(Arc::clone(&disk));
    let session = fuser::Session::new(fs, &args.mountpoint, &config)
        .with_context(|| format!("mount {}", args.mountpoint.display()))?;
    control::serve(&args.socket, disk)?;
    thread::Builder::new()
        .name("owner-watch".into())
        .spawn(|| {
            let mut rest = Vec::new();
            let _ = std::io::stdin().read_to_end(&mut rest);
            std::process::exit(0);
        })?;
    println!("serving {}", args.mountpoint.display());
    session.run().context("serve")?;
    Ok(0)
}

fn open_content(backing: Option<&Path>, size_bytes: u64) -> anyhow::Result<File> {
    let content = match backing {
        Some(path) => File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .with_context(|| format!("create {}", path.display()))?,
        None => {
            // SAFETY: the name is a C string; a descriptor that is not
            // negative is open and ours.
            unsafe {
                let fd = libc::memfd_create(c"faultdisk".as_ptr(), libc::MFD_CLOEXEC);
                if fd < 0 {
                    return Err(std::io::Error::last_os_error()).context("make memory file");
                }
                File::from_raw_fd(fd)
            }
        }
    };
    content.set_len(size_bytes).context("size the content")?;
    Ok(content)
}
