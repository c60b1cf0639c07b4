//! The lab's directory, and the duty to leave nothing behind: not when a run
//! ends, and not after the owner was killed, whose remains the next run clears.
//!
//! There is no list of what was made, which a kill could leave incomplete: the
//! remains are found where they are. Mounts lie below the directory, loop
//! devices carry its label, processes its name in their environment.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::Context;

use crate::faultdisk::device;
use crate::proc;

/// Environment variable that names the directory under which labs are made.
pub const LAB_VARIABLE: &str = "FSYNCSCOPE_LAB";

/// Environment variable that each process of a lab carries: its directory.
const MEMBER_VARIABLE: &str = "FSYNCSCOPE_LAB_MEMBER";

/// A lab: a directory of its own, and all that lives in it.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    helper: PathBuf,
}

impl Lab {
    /// Opens a new lab, after clearing the remains of labs whose owners died.
    /// Helpers are run from this binary, whose `main` must call
    /// [`crate::dispatch`]; by the kernel's link, since its file may have been
    /// built anew meanwhile.
    pub fn open() -> anyhow::Result<Self> {
        Self::open_with_helper(Path::new("/proc/self/exe"))
    }

    /// The same with another binary for the helpers, for test harnesses, whose
    /// `main` is not theirs.
    pub fn open_with_helper(helper: &Path) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = open_base()?;
        for left in sweep(&base)? {
            eprintln!("lab: left by a dead run and not removable: {left}");
        }
        let pid = std::process::id();
        let start = proc::read_start_time(Path::new("/proc"), pid).context("read own stat")?;
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        // The name tells whose it is from the first moment on.
        let dir = base.join(format!("{pid}-{start}-{nth}"));
        DirBuilder::new()
            .mode(0o755)
            .create(&dir)
            .with_context(|| format!("create {}", dir.display()))?;
        let helper = helper.to_owned();
        Ok(Lab { dir, helper })
    }

    /// The directory of this lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What this lab's loop devices are labelled with.
    pub(crate) fn label(&self) -> String {
        label_of(&self.dir)
    }

    /// A command of this lab: what it starts belongs to the lab and is ended
    /// with it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env(MEMBER_VARIABLE, &self.dir);
        command
    }

    /// The environment variable that makes a process a member of this lab.
    pub fn membership(&self) -> (OsString, OsString) {
        (MEMBER_VARIABLE.into(), self.dir.clone().into())
    }

    /// A command that runs a hidden subcommand of the helper binary.
    pub fn helper(&self, subcommand: &str) -> Command {
        let mut command = self.command(&self.helper);
        command.arg(subcommand);
        command
    }

    /// The helper binary.
    pub fn helper_path(&self) -> &Path {
        &self.helper
    }

    /// All that is left of this lab beside its directory: one line each. Empty
    /// when everything was dropped in order.
    pub fn leftovers(&self) -> Vec<String> {
        leftovers_of(&self.dir)
    }

    /// The same for all labs under this base directory, as an outsider sees
    /// them after the run: directories of labs count as well.
    pub fn leftovers_under(base: &Path) -> Vec<String> {
        let dirs = lab_dirs(base).unwrap_or_default();
        let mut left: Vec<String> = dirs.iter().flat_map(|dir| leftovers_of(dir)).collect();
        left.extend(
            dirs.iter()
                .map(|dir| format!("directory {}", dir.display())),
        );
        left
    }

    /// Where labs are made: `$FSYNCSCOPE_LAB`, else a directory in the system's
    /// temporary one.
    pub fn base() -> PathBuf {
        match env::var_os(LAB_VARIABLE) {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => env::temp_dir().join("fsyncscope-lab"),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for left in clear(&self.dir) {
            eprintln!("lab: not removable: {left}");
        }
    }
}

/// Makes the base directory, for its owner only: its content is run and
/// deleted as root.
fn open_base() -> anyhow::Result<PathBuf> {
    let base = Lab::base();
    let made = DirBuilder::new().mode(0o755).recursive(true).create(&base);
    made.with_context(|| format!("create {}", base.display()))?;
    let base = fs::canonicalize(&base)?;
    let meta = fs::symlink_metadata(&base)?;
    // SAFETY: geteuid cannot fail.
    let me = unsafe { libc::geteuid() };
    anyhow::ensure!(
        meta.uid() == me && meta.mode() & 0o022 == 0,
        "use {}: it belongs to, or is writable by, somebody else",
        base.display()
    );
    Ok(base)
}

fn lab_dirs(base: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        if owner_of(&path).is_some() {
            dirs.push(path);
        }
    }
    Ok(dirs)
}

/// The pid and start time in the name of a lab's directory.
fn owner_of(dir: &Path) -> Option<(u32, u64)> {
    let mut parts = dir.file_name()?.to_str()?.split('-');
    let owner = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some(owner)
}

/// Clears all labs under this base whose owner is gone; returns what resisted.
fn sweep(base: &Path) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    for dir in lab_dirs(base).with_context(|| format!("list {}", base.display()))? {
        let (pid, start) = owner_of(&dir).expect("listed by owner");
        if proc::read_start_time(Path::new("/proc"), pid) != Some(start) {
            left.extend(clear(&dir));
        }
    }
    Ok(left)
}

fn label_of(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("fsyncscope-lab:{name}")
}

/// Ends, unmounts, detaches and removes all of one lab; returns what resisted.
fn clear(dir: &Path) -> Vec<String> {
    let members = || find_members(Path::new("/proc"), dir);
    let until = Instant::now() + Duration::from_secs(10);
    // The disk servers among them: without them no request stays unanswered,
    // and so no process stays unkillable.
    loop {
        let alive = members();
        alive.iter().for_each(|&pid| {
            let _ = proc::signal(pid, libc::SIGKILL);
        });
        if alive.is_empty() || Instant::now() > until {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    for mount in find_mounts(Path::new("/proc"), dir).iter().rev() {
        let _ = device::unmount(mount);
    }
    for device in find_loops(dir) {
        let _ = device::detach_loop(&device);
    }
    // Last in, first out: the served file systems are busy until the loops go.
    for mount in find_mounts(Path::new("/proc"), dir).iter().rev() {
        let _ = device::unmount(mount);
    }
    let mut left = leftovers_of(dir);
    // Never delete through a mount.
    if find_mounts(Path::new("/proc"), dir).is_empty()
        && let Err(err) = fs::remove_dir_all(dir)
        && err.kind() != ErrorKind::NotFound
    {
        left.push(format!("directory {}: {err}", dir.display()));
    }
    left
}

fn leftovers_of(dir: &Path) -> Vec<String> {
    let proc_root = Path::new("/proc");
    let members = find_members(proc_root, dir);
    let processes = members.iter().map(|pid| format!("process {pid}"));
    let mounts = find_mounts(proc_root, dir);
    let mounts = mounts.iter().map(|dir| format!("mount {}", dir.display()));
    let loops = find_loops(dir);
    let loops = loops
        .iter()
        .map(|dev| format!("loop device {}", dev.display()));
    processes.chain(mounts).chain(loops).collect()
}

/// The live processes of a lab, this one never among them.
fn find_members(proc_root: &Path, dir: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc_root) else {
        return Vec::new();
    };
    let mut wanted = format!("{MEMBER_VARIABLE}=").into_bytes();
    wanted.extend(dir.as_os_str().to_owned().into_vec());
    let is_member = |pid: &u32| {
        let environ = fs::read(proc_root.join(pid.to_string()).join("environ"));
        environ.is_ok_and(|text| text.split(|&b| b == 0).any(|item| item == wanted))
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != std::process::id())
        .filter(is_member)
        .filter(|&pid| proc::read_start_time(proc_root, pid).is_some())
        .collect()
}

/// The mounts below a directory, in the order in which they were made.
fn find_mounts(proc_root: &Path, dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(proc_root.join("self/mountinfo")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape_mount)
        .filter(|path| path.starts_with(dir) && path != dir)
        .collect()
}

/// mountinfo writes blanks, tabs, line ends and backslashes as `\ooo`.
fn unescape_mount(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The loop devices that carry a lab's label.
fn find_loops(dir: &Path) -> Vec<PathBuf> {
    let wanted = format!("{}:", label_of(dir));
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        // Only bound ones have this directory.
        .filter(|entry| entry.path().join("loop").is_dir())
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .filter(|path| device::read_loop_label(path).is_some_and(|l| l.starts_with(&wanted)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_in_the_name() {
        assert_eq!(owner_of(Path::new("/x/12-345-0")), Some((12, 345)));
        assert_eq!(owner_of(Path::new("/x/12-345")), None);
        assert_eq!(owner_of(Path::new("/x/cache")), None);
    }

    #[test]
    fn mountinfo_is_unescaped() {
        assert_eq!(unescape_mount(r"/a\040b\134c"), PathBuf::from(r"/a b\c"));
        assert_eq!(unescape_mount(r"/a\9"), PathBuf::from(r"/a\9"));
    }

    #[test]
    fn only_what_lies_below_the_directory_is_a_mount_of_the_lab() {
        let root = env::temp_dir().join(format!("fsyncscope-mounts-{}", std::process::id()));
        fs::create_dir_all(root.join("self")).unwrap();
        let text = "20 1 0:5 / /lab/1-2-0/mnt/a rw - ext4 /dev/loop0 rw\n\
                    21 1 0:6 / /lab/1-2-00/mnt/a rw - ext4 /dev/loop1 rw\n\
                    22 1 0:7 / /lab/1-2-0 rw - tmpfs t rw\n";
        fs::write(root.join("self/mountinfo"), text).unwrap();
        let found = find_mounts(&root, Path::new("/lab/1-2-0"));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, [PathBuf::from("/lab/1-2-0/mnt/a")]);
    }
}
