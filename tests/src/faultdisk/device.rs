//! From the served file to a mounted file system: loop device with direct I/O,
//! mkfs, mount, and the way back. Also the layout questions whose answers a
//! rule needs: which sectors hold a file, where file data begins.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::FsKind;
use crate::proc::run;

const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;

/// `struct loop_info64` of include/uapi/linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of include/uapi/linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

fn empty_info() -> LoopInfo64 {
    // SAFETY: all fields are integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// A bound loop device.
#[derive(Debug)]
pub struct LoopDev {
    path: PathBuf,
    dev: (u32, u32),
}

impl LoopDev {
    /// Binds a free loop device to this file, with direct I/O. The label (at
    /// most 63 bytes) is what a later clean-up knows the device by: the path of
    /// the file may lie in a mount that is gone by then.
    pub fn attach(file: &Path, label: &str) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .with_context(|| format!("open {}", path.display()))
        };
        let backing = open(file)?;
        let control = open(Path::new("/dev/loop-control"))?;
        let mut info = empty_info();
        info.flags = LO_FLAGS_DIRECT_IO;
        let length = label.len().min(info.file_name.len() - 1);
        info.file_name[..length].copy_from_slice(&label.as_bytes()[..length]);
        let config = LoopConfig {
            fd: backing.as_raw_fd() as u32,
            block_size: 512,
            info,
            reserved: [0; 8],
        };
        for _ in 0..32 {
            // SAFETY: the request takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
            if number < 0 {
                return Err(io::Error::last_os_error()).context("find a free loop device");
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            // SAFETY: `config` outlives the call and has the kernel's layout.
            let bound = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config) };
            if bound == 0 {
                let found = LoopDev {
                    path,
                    dev: (7, number as u32),
                };
                found.prepare()?;
                return Ok(found);
            }
            let err = io::Error::last_os_error();
            // Somebody else was faster: ask for the next free one.
            if err.raw_os_error() != Some(libc::EBUSY) {
                return Err(err).with_context(|| format!("configure {}", path.display()));
            }
        }
        anyhow::bail!("find a free loop device: all taken while asking")
    }

    /// Checks that direct I/O is on, and keeps a block request from being
    /// larger than a FUSE request: one is to arrive as one.
    fn prepare(&self) -> anyhow::Result<()> {
        let sys = Path::new("/sys/block").join(self.name());
        let dio = fs::read_to_string(sys.join("loop/dio"))?;
        if dio.trim() != "1" {
            detach_loop(&self.path)?;
            anyhow::bail!("{}: no direct I/O on the served file", self.path.display());
        }
        let limit = fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit")
            .ok()
            .and_then(|pages| pages.trim().parse::<u64>().ok())
            .unwrap_or(256);
        let max_kb = (limit * 4).min(1024);
        fs::write(sys.join("queue/max_sectors_kb"), max_kb.to_string())
            .with_context(|| format!("set max_sectors_kb of {}", self.path.display()))
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `loopN`.
    pub fn name(&self) -> String {
        format!("loop{}", self.dev.1)
    }

    /// Major and minor number.
    pub fn dev(&self) -> (u32, u32) {
        self.dev
    }
}

/// Unbinds a loop device and waits until it is free; one that is not bound is
/// no error.
pub fn detach_loop(path: &Path) -> anyhow::Result<()> {
    let device = File::open(path).with_context(|| format!("open {}", path.display()))?;
    // SAFETY: the request takes no argument.
    if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _) } != 0 {
        let err = io::Error::last_os_error();
        if err.raw_os_error() != Some(libc::ENXIO) {
            return Err(err).with_context(|| format!("detach {}", path.display()));
        }
    }
    // The kernel unbinds at the last close.
    drop(device);
    let until = Instant::now() + Duration::from_secs(10);
    while read_loop_label(path).is_some() {
        if Instant::now() > until {
            anyhow::bail!("detach {}: still in use after 10 s", path.display());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The label of a bound loop device.
pub fn read_loop_label(path: &Path) -> Option<String> {
    let device = File::open(path).ok()?;
    let mut info = empty_info();
    // SAFETY: `info` is writable and has the kernel's layout.
    let known = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &mut info) };
    let end = info.file_name.iter().position(|&b| b == 0)?;
    (known == 0).then(|| String::from_utf8_lossy(&info.file_name[..end]).into_owned())
}

/// Metadata and journal at the front: high sectors are file data.
const EXT4_OPTIONS: &str = "nodiscard,lazy_itable_init=0,lazy_journal_init=0,packed_meta_blocks=1";

/// Makes an ext4 on what lies behind the first `offset_bytes` of an image.
pub fn make_ext4_at(image: &Path, offset_bytes: u64, size_bytes: u64) -> anyhow::Result<()> {
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-b", "4096", "-E"]);
    command.arg(format!("{EXT4_OPTIONS},offset={offset_bytes}"));
    command.arg(image);
    command.arg(((size_bytes - offset_bytes) / 4096).to_string());
    run(&mut command).map(|_| ())
}

/// Makes a file system on the device.
pub fn make_fs(device: &Path, fs: FsKind) -> anyhow::Result<()> {
    let mut command = match fs {
        FsKind::Ext4 => {
            let mut command = Command::new("mkfs.ext4");
            command.args(["-q", "-F", "-E", EXT4_OPTIONS]);
            command
        }
        FsKind::Xfs => {
            let mut command = Command::new("mkfs.xfs");
            command.args(["-q", "-f", "-K"]);
            command
        }
    };
    run(command.arg(device)).map(|_| ())
}

/// Mounts the device.
pub fn mount(device: &Path, dir: &Path, fs: FsKind) -> anyhow::Result<()> {
    let mut command = Command::new("mount");
    command.args(["-t", fs.name()]);
    if fs == FsKind::Ext4 {
        command.args(["-o", "errors=remount-ro"]);
    }
    run(command.arg(device).arg(dir)).map(|_| ())
}

/// Unmounts; if the mount stays busy, detaches it from the tree.
pub fn unmount(dir: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
    let umount = |flags| {
        // SAFETY: `name` is a valid C string.
        if unsafe { libc::umount2(name.as_ptr(), flags) } == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    };
    for _ in 0..25 {
        match umount(libc::UMOUNT_NOFOLLOW) {
            // A process that was just killed may still be closing its files.
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {
                thread::sleep(Duration::from_millis(20));
            }
            // Not mounted (any more).
            Err(err) if matches!(err.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                return Ok(());
            }
            Err(_) => break,
            Ok(()) => return Ok(()),
        }
    }
    umount(libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW)
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [FiemapExtent; 128],
}

/// The sectors of the disk (first and last, both included) that hold a file
/// now, in the order of the file. Nothing is flushed for this: blocks that are
/// not allocated yet have no sector.
pub fn read_file_sectors(path: &Path) -> anyhow::Result<Vec<(u64, u64)>> {
    const UNPLACED: u32 = 0x0000_0002 | 0x0000_0004 | 0x0000_0200; // unknown, delalloc, inline
    let what = || format!("map {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOATIME)
        .open(path)
        .with_context(what)?;
    // SAFETY: all fields are integers, for which zero is a value.
    let mut map: Box<Fiemap> = unsafe { Box::new(std::mem::zeroed()) };
    map.length = u64::MAX;
    map.extent_count = map.extents.len() as u32;
    // SAFETY: the kernel writes at most `extent_count` extents behind the head.
    if unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &mut *map) } != 0 {
        return Err(io::Error::last_os_error()).with_context(what);
    }
    let mapped = map.mapped_extents as usize;
    if mapped == map.extents.len() {
        anyhow::bail!("map {}: more than {mapped} extents", path.display());
    }
    Ok(map.extents[..mapped]
        .iter()
        .filter(|extent| extent.flags & UNPLACED == 0)
        .map(|extent| {
            let first = extent.physical / 512;
            (first, first + extent.length.div_ceil(512) - 1)
        })
        .collect())
}

/// The first sector behind ext4's packed metadata and journal, from where on
/// blocks hold files and directories.
pub fn read_ext4_data_start(device: &Path) -> anyhow::Result<u64> {
    let groups = run(Command::new("dumpe2fs").arg(device))?;
    let journal = run(Command::new("debugfs").args(["-R", "stat <8>"]).arg(device))?;
    parse_ext4_data_start(&groups, &journal)
        .with_context(|| format!("find where data begins on {}", device.display()))
}

fn parse_ext4_data_start(groups: &str, journal: &str) -> Option<u64> {
    let block_bytes: u64 = groups
        .lines()
        .find_map(|line| line.strip_prefix("Block size:"))?
        .trim()
        .parse()
        .ok()?;
    let last_of = |range: &str| -> Option<u64> {
        let range = range.split_whitespace().next()?;
        range.rsplit('-').next()?.parse().ok()
    };
    let tables = groups
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Inode table at "));
    let last_table = tables.filter_map(last_of).max()?;
    // `(0-4095):1058-5153, (4096-…):…`, on the lines behind "EXTENTS:".
    let (_, extents) = journal.split_once("EXTENTS:")?;
    let last_journal = extents
        .split(',')
        .filter_map(|extent| last_of(extent.rsplit(':').next()?.trim()))
        .max()?;
    Some((last_table.max(last_journal) + 1) * (block_bytes / 512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_begins_behind_tables_and_journal() {
        let groups = "Block size:               4096\n\
                      \x20 Inode table at 66-577 (+66)\n\
                      \x20 Inode table at 578-1089 (bg #0 + 578)\n";
        let journal = "Inode: 8\nEXTENTS:\n(0-4095):1090-5185, (4096-8191):6000-10095\n";
        assert_eq!(parse_ext4_data_start(groups, journal), Some(10_096 * 8));
    }
}
