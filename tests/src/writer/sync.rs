//! The sync calls, each counted by its outcome: the writer's counts are the
//! truth that histograms are checked against, so nothing syncs but through
//! here. Atomics, since a lock would be felt at full speed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::config::SyncCall;

/// Calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Returned success.
    pub ok: u64,
    /// Returned an error.
    pub failed: u64,
}

impl Calls {
    /// All that returned.
    pub fn total(self) -> u64 {
        self.ok + self.failed
    }
}

/// What a writer called. A call that hangs at the end is in none of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Flushes of a partition that came to an end, failed ones included.
    pub flushes: u64,
    /// Sync calls, by the name of the syscall; only those that were made.
    pub ops: BTreeMap<String, Calls>,
}

impl Counts {
    /// The calls of one name; none if it was never called.
    pub fn of(&self, op: &str) -> Calls {
        self.ops.get(op).copied().unwrap_or_default()
    }
}

const NAMES: [&str; 5] = ["fsync", "fdatasync", "sync_file_range", "syncfs", "msync"];
const MSYNC: usize = 4;

/// Makes the calls.
#[derive(Debug, Default)]
pub(super) struct Syncer([(AtomicU64, AtomicU64); 5]);

impl Syncer {
    pub(super) fn counts(&self, flushes: u64) -> Counts {
        let calls = self.0.iter().map(|(ok, failed)| Calls {
            ok: ok.load(Ordering::SeqCst),
            failed: failed.load(Ordering::SeqCst),
        });
        let named = NAMES.map(str::to_owned).into_iter().zip(calls);
        Counts {
            flushes,
            ops: named.filter(|(_, calls)| calls.total() > 0).collect(),
        }
    }

    pub(super) fn fsync(&self, file: &File) -> io::Result<()> {
        self.sync(file, SyncCall::Fsync)
    }

    pub(super) fn sync(&self, file: &File, call: SyncCall) -> io::Result<()> {
        const RANGE: u32 = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let fd = file.as_raw_fd();
        // SAFETY: plain syscalls on an open descriptor.
        let done = unsafe {
            match call {
                SyncCall::Fsync => libc::fsync(fd),
                SyncCall::Fdatasync => libc::fdatasync(fd),
                SyncCall::SyncFileRange => libc::sync_file_range(fd, 0, 0, RANGE),
                SyncCall::Syncfs => libc::syncfs(fd),
            }
        };
        self.count(call as usize, done)
    }

    pub(super) fn msync(&self, map: &Map) -> io::Result<()> {
        // SAFETY: the range is the mapping's own.
        let done = unsafe { libc::msync(map.start, map.bytes, libc::MS_SYNC) };
        self.count(MSYNC, done)
    }

    fn count(&self, op: usize, done: i32) -> io::Result<()> {
        let outcome = match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        let (ok, failed) = &self.0[op];
        let calls = if outcome.is_ok() { ok } else { failed };
        calls.fetch_add(1, Ordering::SeqCst);
        outcome
    }
}

/// A shared, writable mapping of a whole file.
#[derive(Debug)]
pub(super) struct Map {
    start: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread is tied to it.
unsafe impl Send for Map {}

impl Map {
    pub(super) fn new(file: &File, bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        let nowhere = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(nowhere, bytes, protection, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Map { start, bytes })
    }

    /// Writes at an offset, which wraps at the end.
    pub(super) fn put(&mut self, offset: u64, entry: &[u8]) {
        let room = self.bytes - entry.len();
        let offset = (offset as usize) % (room + 1);
        // SAFETY: `offset + entry.len()` is at most the mapping's length.
        unsafe {
            let to = self.start.cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(entry.as_ptr(), to, entry.len());
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody borrows from it.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}

/// The number of flushes so far, in a mapped file: the owner reads it without a
/// word from the writer, which has better things to do at full speed.
#[derive(Debug)]
pub(super) struct Progress(Map);

// SAFETY: the mapping is only ever accessed as one atomic.
unsafe impl Sync for Progress {}

impl Progress {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(path)?;
        file.set_len(8)?;
        Ok(Progress(Map::new(&file, 8)?))
    }

    fn cell(&self) -> &AtomicU64 {
        // SAFETY: eight bytes at the start of a page, alive as long as `self`,
        // and nothing but this atomic touches them.
        unsafe { AtomicU64::from_ptr(self.0.start.cast()) }
    }

    pub(super) fn add_one(&self) {
        self.cell().fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn flushes(&self) -> u64 {
        self.cell().load(Ordering::SeqCst)
    }

    /// What an owner sees.
    pub(super) fn read(path: &Path) -> io::Result<u64> {
        let bytes = std::fs::read(path)?;
        let bytes = bytes.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_counted_under_its_own_name() {
        let path = std::env::temp_dir().join(format!("fsyncscope-syncer-{}", std::process::id()));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&path).unwrap();
        file.set_len(4096).unwrap();
        let map = Map::new(&file, 4096).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let syncer = Syncer::default();
        syncer.fsync(&file).unwrap();
        syncer.sync(&file, SyncCall::Fdatasync).unwrap();
        syncer.sync(&file, SyncCall::SyncFileRange).unwrap();
        syncer.sync(&file, SyncCall::Syncfs).unwrap();
        syncer.msync(&map).unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        syncer.fsync(&pipe).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let counts = syncer.counts(0);
        assert_eq!(counts.of("fsync"), Calls { ok: 1, failed: 1 });
        for op in &NAMES[1..] {
            assert_eq!(counts.of(op), Calls { ok: 1, failed: 0 }, "{op}");
        }
    }
}
