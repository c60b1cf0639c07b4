//! The disk of the bench: ext4 on a loop device on a file in tmpfs, so that the
//! disk costs next to nothing and what is measured is the watching. Removed
//! when dropped; what a killed bench left is removed at the next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use fsyncscope_tests::lab::Lab;

use crate::process::{output, say};

const SHM: &str = "/dev/shm";
const PREFIX: &str = "fsyncscope-bench-";
const DISK_BYTES: u64 = 1 << 30;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on Ctrl-C makes the bench end in order, with the disk removed.
pub fn note_interrupts() {
    let handler = on_interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is
        // async-signal-safe, and lives as long as the process.
        unsafe { libc::signal(signal, handler) };
    }
}

/// An error if Ctrl-C was pressed.
pub fn check_interrupt() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// The mounted disk and a folder beside it.
#[derive(Debug)]
pub struct Scene {
    /// Owns the writer of load B.
    pub lab: Lab,
    folder: PathBuf,
    /// `/dev/loopN`.
    pub device: String,
}

impl Scene {
    /// Makes and mounts it.
    pub fn set_up() -> anyhow::Result<Self> {
        remove_leftovers();
        let folder = Path::new(SHM).join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut scene = Scene {
            lab: Lab::open()?,
            folder,
            device: String::new(),
        };
        fs::create_dir(scene.mount())?;
        let image = scene.folder.join("disk");
        let file =
            fs::File::create(&image).with_context(|| format!("create {}", image.display()))?;
        file.set_len(DISK_BYTES)?;
        scene.device = output(
            Command::new("losetup")
                .args(["--find", "--show"])
                .arg(&image),
        )?
        .trim()
        .to_string();
        // The journal and inode tables are written now, not by a thread that
        // adds its own requests in the middle of a round.
        output(
            Command::new("mkfs.ext4")
                .args([
                    "-q",
                    "-E",
                    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                ])
                .arg(&scene.device),
        )?;
        output(Command::new("mount").arg(&scene.device).arg(scene.mount()))?;
        Ok(scene)
    }

    /// Where the disk is mounted.
    pub fn mount(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    /// For what is not to lie on the disk.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(SHM) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let is_dead = owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if is_dead {
            say(format!(
                "removing what a killed bench left: {}",
                entry.path().display()
            ));
            remove(&entry.path());
        }
    }
}

fn remove(folder: &Path) {
    let mount = folder.join("mnt");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == mount.to_str())
    {
        complain(output(Command::new("umount").arg(&mount)));
    }
    let image = folder.join("disk");
    let devices = output(
        Command::new("losetup")
            .args(["--noheadings", "--output", "NAME", "--associated"])
            .arg(&image),
    );
    for device in devices.unwrap_or_default().split_whitespace() {
        complain(output(Command::new("losetup").args(["--detach", device])));
    }
    complain(fs::remove_dir_all(folder).context("remove the folder of the bench"));
}

fn complain<T>(result: anyhow::Result<T>) {
    if let Err(err) = result {
        say(format!("clean-up: {err:#}"));
    }
}
