//! The self-probe's helper process: syncs and reads its own binary, opened read-only,
//! and says what it did. In: one byte a step on stdin; out: one line of JSON a step on
//! stdout. It writes nothing; the pages that it drops from the cache are clean.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::messages::{one_line, say};

/// Steps, by the byte that asks for them.
pub const SYNC: u8 = b's';
pub const CACHED: u8 = b'c';
pub const DIRECT: u8 = b'd';

/// Sizes of the direct reads: small, and told apart from what others read.
pub const DIRECT_BYTES: [u64; 4] = [4096, 8192, 12288, 16384];
const PAGE_BYTES: u64 = 4096;
/// Pages, spread over the binary, that are dropped and read again; what is mapped is
/// not dropped.
const CACHED_PAGES: u64 = 16;

/// One call, as the helper made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub op: String,
    /// fd or address.
    pub arg0: u64,
    /// 0 or −errno.
    pub ret: i64,
}

/// The file and what was done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    pub ino: u64,
    pub major: u32,
    pub minor: u32,
    /// Of the mount that it lies on, as in /proc/self/mountinfo.
    pub mount_id: u64,
    pub name: String,
    pub calls: Vec<Call>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    /// Bytes that the kernel asked the device for on behalf of this process;
    /// `None` where it does not account for that.
    pub disk_bytes: Option<u64>,
}

/// Runs until stdin ends.
pub fn probe_main() -> i32 {
    // SAFETY: takes one integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("error: self-probe: {}", one_line(&error)));
            2
        }
    }
}

fn serve() -> anyhow::Result<()> {
    let path = fs::read_link("/proc/self/exe").context("read /proc/self/exe")?;
    let file = open(libc::O_NOATIME).or_else(|_| open(0));
    let file = file.context("open /proc/self/exe")?;
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut step = [0; 1];
    while io::stdin()
        .read(&mut step)
        .context("wait for the next step")?
        == 1
    {
        let line = match step[0] {
            SYNC => serde_json::to_string(&sync(&file, &name)?)?,
            CACHED => serde_json::to_string(&accounted(|| read_cached(&file))?)?,
            DIRECT => serde_json::to_string(&accounted(read_direct)?)?,
            other => bail!("step {other} is unknown"),
        };
        io::stdout()
            .write_all((line + "\n").as_bytes())
            .context("answer")?;
    }
    Ok(())
}

fn open(flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open("/proc/self/exe")
}

/// −errno of the last call, or 0.
fn result(ret: i32) -> i64 {
    if ret == 0 {
        0
    } else {
        -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

/// One call of each kind, and one that fails by a known error: a pipe has nothing to
/// sync. syncfs is left out: it would flush the whole file system.
fn sync(file: &File, name: &str) -> anyhow::Result<Synced> {
    let stat = file.metadata().context("stat /proc/self/exe")?;
    let fd = file.as_raw_fd();
    let (pipe, _writer) = io::pipe().context("make a pipe")?;
    let mut calls = Vec::new();
    let mut call = |op: &str, arg0: u64, ret: i64| {
        calls.push(Call {
            op: op.to_owned(),
            arg0,
            ret,
        });
    };
    // SAFETY: fd and the pipe are open; the mapping is private to this function, made
    // and unmapped with the same length, and only synced.
    unsafe {
        call("fsync", fd as u64, result(libc::fsync(fd)));
        call("fdatasync", fd as u64, result(libc::fdatasync(fd)));
        let map = libc::mmap(
            std::ptr::null_mut(),
            PAGE_BYTES as usize,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            0,
        );
        if map != libc::MAP_FAILED {
            let ret = result(libc::msync(map, PAGE_BYTES as usize, libc::MS_SYNC));
            call("msync", map as u64, ret);
            libc::munmap(map, PAGE_BYTES as usize);
        }
        let ret = result(libc::sync_file_range(fd, 0, PAGE_BYTES as i64, 0));
        call("sync_file_range", fd as u64, ret);
        let nothing = pipe.as_raw_fd();
        call("fsync", nothing as u64, result(libc::fsync(nothing)));
    }
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    Ok(Synced {
        ino: stat.ino(),
        major: libc::major(stat.dev()),
        minor: libc::minor(stat.dev()),
        mount_id: info
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
            .unwrap_or_default(),
        name: name.to_owned(),
        calls,
    })
}

/// What a step made the device read.
fn accounted(step: impl FnOnce() -> io::Result<()>) -> anyhow::Result<ReadBack> {
    let before = read_bytes();
    // A file system that cannot do it is no failure: nothing is then accounted for.
    let _ = step();
    let after = read_bytes();
    Ok(ReadBack {
        disk_bytes: after.zip(before).map(|(after, before)| after - before),
    })
}

fn read_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("read_bytes:")?.trim().parse().ok())
}

/// Through the page cache, which is emptied of these pages first, and without
/// reading ahead.
fn read_cached(file: &File) -> io::Result<()> {
    let pages = file.metadata()?.len() / PAGE_BYTES;
    let advise = |offset: u64, length: u64, advice| {
        // SAFETY: an open descriptor and numbers.
        unsafe {
            libc::posix_fadvise(
                file.as_raw_fd(),
                offset.cast_signed(),
                length.cast_signed(),
                advice,
            )
        }
    };
    advise(0, 0, libc::POSIX_FADV_RANDOM);
    let mut page = vec![0; PAGE_BYTES as usize];
    for nth in 0..CACHED_PAGES.min(pages) {
        let offset = pages * nth / CACHED_PAGES * PAGE_BYTES;
        advise(offset, PAGE_BYTES, libc::POSIX_FADV_DONTNEED);
        file.read_exact_at(&mut page, offset)?;
    }
    Ok(())
}

/// Past the page cache, from the binary's beginning.
fn read_direct() -> io::Result<()> {
    let file = open(libc::O_DIRECT | libc::O_NOATIME).or_else(|_| open(libc::O_DIRECT))?;
    let length = file.metadata()?.len();
    let largest = DIRECT_BYTES[DIRECT_BYTES.len() - 1];
    let mut room = vec![0; (largest + PAGE_BYTES) as usize];
    // Direct I/O wants memory aligned as blocks are.
    let skip = room.as_ptr().align_offset(PAGE_BYTES as usize);
    for bytes in DIRECT_BYTES.into_iter().filter(|bytes| *bytes <= length) {
        file.read_exact_at(&mut room[skip..skip + bytes as usize], 0)?;
    }
    Ok(())
}
