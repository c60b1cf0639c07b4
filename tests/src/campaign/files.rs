//! A file of the workload: descriptors of all kinds on one inode, and the calls
//! on them, each timed and recorded. In: what to call. Out: records. A failed
//! call is recorded and changes nothing: the campaign wants to see what comes
//! after it, too.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::output::Output;
use super::record::{Call, CallRecord, Record};
use super::uring::Uring;
use crate::faultdisk::Stamp;
use crate::faultdisk::device::read_file_sectors;

/// Direct I/O wants memory, offset and length aligned to this.
pub(super) const BLOCK_BYTES: usize = 4096;

/// A block whose memory is aligned to its size.
#[repr(align(4096))]
pub(super) struct Block(pub(super) [u8; BLOCK_BYTES]);

/// See the module's comment.
pub(super) struct SyncedFile {
    pub(super) path: PathBuf,
    pub(super) ino: u64,
    plain: File,
    dsync: Option<File>,
    direct: Option<File>,
    map: Option<Map>,
}

/// What a file is opened for beside buffered writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Nothing.
    Plain,
    /// O_DSYNC and O_DIRECT as well.
    Log,
    /// Mapped.
    Index,
}

impl SyncedFile {
    /// Makes a file of this size, all of its blocks written.
    pub(super) fn create(
        out: &Output,
        path: &Path,
        bytes: usize,
        style: Style,
    ) -> io::Result<Self> {
        let open = |flags: i32| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(flags)
                .open(path)
        };
        let plain = open(0)?;
        let ino = plain.metadata()?.ino();
        // Before the first write, which may fail.
        say_name(out, ino, path);
        let block = [0x5a; BLOCK_BYTES];
        for offset in (0..bytes).step_by(BLOCK_BYTES) {
            plain.write_all_at(&block, offset as u64)?;
        }
        let is_log = style == Style::Log;
        Ok(SyncedFile {
            path: path.to_owned(),
            ino,
            dsync: is_log.then(|| open(libc::O_DSYNC)).transpose()?,
            direct: is_log.then(|| open(libc::O_DIRECT)).transpose()?,
            map: (style == Style::Index)
                .then(|| Map::new(&plain, bytes))
                .transpose()?,
            plain,
        })
    }

    /// Says that the inode has this name now.
    pub(super) fn say_name(&self, out: &Output, path: &Path) {
        say_name(out, self.ino, path);
    }

    /// Says that its sectors may become another's: before it is cut or deleted.
    pub(super) fn say_displaced(&self, out: &Output) {
        say_place(out, self.ino, Vec::new());
    }

    /// Says where it lies now.
    pub(super) fn say_place(&self, out: &Output) {
        if let Ok(sectors) = read_file_sectors(&self.path) {
            say_place(out, self.ino, sectors);
        }
    }

    /// A buffered write: an error of it is one of memory or of a file system
    /// that is read-only by now.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.plain.write_all_at(bytes, offset)
    }

    /// Cuts it.
    pub(super) fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.plain.set_len(bytes)
    }

    /// Hands what is dirty to writeback, and does not wait.
    pub(super) fn start_writeback(&self, out: &Output) {
        out.say(&Record::Background {
            ino: self.ino,
            at_ns: Stamp::now().monotonic_ns,
        });
        let fd = self.plain.as_raw_fd();
        record(out, Call::StartWriteback, self.ino, || {
            // SAFETY: plain syscall on an open descriptor.
            errno_of(
                unsafe { libc::sync_file_range(fd, 0, 0, libc::SYNC_FILE_RANGE_WRITE) } as isize,
            )
        });
    }

    /// fsync, fdatasync or a sync_file_range that waits.
    pub(super) fn sync(&self, out: &Output, call: Call) -> bool {
        const WAIT: u32 = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let fd = self.plain.as_raw_fd();
        record(out, call, self.ino, || {
            // SAFETY: plain syscalls on an open descriptor.
            errno_of(unsafe {
                match call {
                    Call::Fdatasync => libc::fdatasync(fd),
                    Call::SyncFileRange => libc::sync_file_range(fd, 0, 0, WAIT),
                    _ => libc::fsync(fd),
                }
            } as isize)
        })
    }

    /// The same by a ring.
    pub(super) fn sync_by(&self, out: &Output, uring: &mut Uring) -> bool {
        let fd = self.plain.as_raw_fd();
        record(out, Call::UringFsync, self.ino, || uring.fsync(fd))
    }

    /// msync of all of it.
    pub(super) fn msync(&self, out: &Output) -> bool {
        let Some(map) = &self.map else { return false };
        record(out, Call::Msync, self.ino, || {
            // SAFETY: the range is the mapping's own.
            errno_of(unsafe { libc::msync(map.start, map.bytes, libc::MS_SYNC) } as isize)
        })
    }

    /// A write that is a sync.
    pub(super) fn dsync_write(&self, out: &Output, offset: u64, bytes: &[u8]) -> bool {
        let fd = raw(&self.dsync);
        record(out, Call::DsyncWrite, self.ino, || {
            pwrite(fd, offset, bytes)
        })
    }

    /// A write past the page cache.
    pub(super) fn direct_write(&self, out: &Output, offset: u64, block: &Block) -> bool {
        let fd = raw(&self.direct);
        record(out, Call::DirectWrite, self.ino, || {
            pwrite(fd, offset, &block.0)
        })
    }

    /// A read from the disk.
    pub(super) fn read_cold(&self, out: &Output, offset: u64) -> bool {
        let fd = self.plain.as_raw_fd();
        let mut block = [0_u8; BLOCK_BYTES];
        let length = BLOCK_BYTES as i64;
        // SAFETY: plain syscall on an open descriptor; dirty pages stay.
        unsafe { libc::posix_fadvise(fd, offset as i64, length, libc::POSIX_FADV_DONTNEED) };
        record(out, Call::Read, self.ino, || {
            // SAFETY: the buffer is writable for its length.
            errno_of(unsafe {
                libc::pread(fd, block.as_mut_ptr().cast(), block.len(), offset as i64)
            })
        })
    }

    /// One sync on each descriptor, each of which is told of an error of its
    /// own: afterwards none is owed.
    pub(super) fn settle(&self, out: &Output) {
        self.sync(out, Call::Fsync);
        for file in [&self.dsync, &self.direct].into_iter().flatten() {
            let fd = file.as_raw_fd();
            record(out, Call::Fsync, self.ino, || fsync(fd));
        }
        if self.map.is_some() {
            self.msync(out);
        }
    }
}

fn say_name(out: &Output, ino: u64, path: &Path) {
    out.say(&Record::Name {
        at_ns: Stamp::now().monotonic_ns,
        ino,
        path: path.display().to_string(),
    });
}

fn say_place(out: &Output, ino: u64, sectors: Vec<(u64, u64)>) {
    out.say(&Record::Placed {
        at_ns: Stamp::now().monotonic_ns,
        ino,
        sectors,
    });
}

/// Fsyncs a directory.
pub(super) fn sync_dir(out: &Output, path: &Path) -> io::Result<bool> {
    let dir = File::open(path)?;
    let ino = dir.metadata()?.ino();
    let fd = dir.as_raw_fd();
    Ok(record(out, Call::Fsync, ino, || fsync(fd)))
}

fn fsync(fd: RawFd) -> i32 {
    // SAFETY: plain syscall on a descriptor that the caller keeps open.
    errno_of(unsafe { libc::fsync(fd) } as isize)
}

fn raw(file: &Option<File>) -> RawFd {
    file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
}

fn pwrite(fd: RawFd, offset: u64, bytes: &[u8]) -> i32 {
    // SAFETY: the buffer is readable for its length.
    errno_of(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset as i64) })
}

fn errno_of(done: isize) -> i32 {
    if done >= 0 {
        return 0;
    }
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Times a call and says what it returned; true if it succeeded.
fn record(out: &Output, call: Call, ino: u64, run: impl FnOnce() -> i32) -> bool {
    // SAFETY: gettid cannot fail.
    let tid = unsafe { libc::gettid() } as u32;
    let enter_ns = Stamp::now().monotonic_ns;
    let (errno, before_sync_ns) = match call {
        Call::DsyncWrite => super::stacks::watched(run),
        _ => (run(), 0),
    };
    let exit_ns = Stamp::now().monotonic_ns;
    out.say(&Record::Call(CallRecord {
        tid,
        call,
        ino,
        enter_ns,
        exit_ns,
        errno,
        before_sync_ns,
    }));
    errno == 0
}

/// A shared mapping. Written through the file, not through memory: a store to
/// a page that the file system refuses would be a SIGBUS.
struct Map {
    start: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread is tied to it.
unsafe impl Send for Map {}
// SAFETY: nothing reads or writes through it; msync may run anywhere.
unsafe impl Sync for Map {}

impl Map {
    fn new(file: &File, bytes: usize) -> io::Result<Self> {
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
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody borrows from it.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}
