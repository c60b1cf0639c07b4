//! The calls that make a sync and are no sync system call, each by its own rule.
//! In: a file. Out: the errno that the caller got.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, Ordering};

use io_uring::{IoUring, opcode, types};

const BLOCK: usize = 4096;
/// RWF_DSYNC (include/uapi/linux/fs.h).
const RWF_DSYNC: i32 = 2;
/// IOCB_CMD_FSYNC (include/uapi/linux/aio_abi.h).
const IOCB_CMD_FSYNC: u16 = 2;

/// How a sync is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A write to a file opened with O_DSYNC.
    Dsync,
    /// pwritev2 with RWF_DSYNC.
    RwfDsync,
    /// A write past the page cache to a file opened with O_DIRECT and O_DSYNC.
    DirectDsync,
    /// fsync by io_uring.
    UringFsync,
    /// A write by io_uring with RWF_DSYNC.
    UringDsync,
    /// fsync by AIO.
    AioFsync,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [
        Kind::Dsync,
        Kind::RwfDsync,
        Kind::DirectDsync,
        Kind::UringFsync,
        Kind::UringDsync,
        Kind::AioFsync,
    ];

    /// As the agent names it.
    pub fn op(self) -> &'static str {
        match self {
            Kind::Dsync | Kind::RwfDsync | Kind::DirectDsync => "dsync",
            Kind::UringFsync | Kind::UringDsync => "io_uring",
            Kind::AioFsync => "aio",
        }
    }
}

/// One block for direct I/O, which wants it aligned.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// A file with one block that is written again and again.
pub struct Target {
    /// Where it lies.
    pub path: PathBuf,
    plain: File,
    dsync: File,
    direct: File,
    nth: AtomicU8,
}

impl Target {
    /// Makes it, its block on the disk.
    pub fn create(path: &Path) -> Target {
        let plain = File::create(path).unwrap();
        plain.write_all_at(&[1; BLOCK], 0).unwrap();
        plain.sync_all().unwrap();
        let open = |flags| {
            let mut options = File::options();
            options.write(true).custom_flags(flags).open(path).unwrap()
        };
        Target {
            path: path.to_owned(),
            plain,
            dsync: open(libc::O_DSYNC),
            direct: open(libc::O_DSYNC | libc::O_DIRECT),
            nth: AtomicU8::new(2),
        }
    }

    /// Writes the block and makes it durable.
    pub fn call(&self, kind: Kind) -> i32 {
        let block = Block([self.nth.fetch_add(1, Ordering::SeqCst); BLOCK]);
        let fd = self.plain.as_raw_fd();
        match kind {
            Kind::Dsync => pwrite(&self.dsync, &block),
            Kind::DirectDsync => pwrite(&self.direct, &block),
            Kind::RwfDsync => {
                let part = libc::iovec {
                    iov_base: (&raw const block.0).cast_mut().cast(),
                    iov_len: BLOCK,
                };
                // SAFETY: one part, readable for its length.
                errno_of(unsafe { libc::pwritev2(fd, &raw const part, 1, 0, RWF_DSYNC) } as i64)
            }
            Kind::UringFsync => {
                self.plain.write_all_at(&block.0, 0).unwrap();
                uring(&opcode::Fsync::new(types::Fd(fd)).build())
            }
            Kind::UringDsync => {
                let write = opcode::Write::new(types::Fd(fd), block.0.as_ptr(), BLOCK as u32);
                uring(&write.rw_flags(RWF_DSYNC).build())
            }
            Kind::AioFsync => {
                self.plain.write_all_at(&block.0, 0).unwrap();
                aio_fsync(fd)
            }
        }
    }
}

fn pwrite(file: &File, block: &Block) -> i32 {
    let outcome = file.write_all_at(&block.0, 0);
    outcome.map_or_else(|err| err.raw_os_error().unwrap(), |()| 0)
}

fn errno_of(done: i64) -> i32 {
    if done >= 0 {
        return 0;
    }
    io::Error::last_os_error().raw_os_error().unwrap()
}

/// One request by a ring of its own; what it points to outlives the call.
fn uring(entry: &io_uring::squeue::Entry) -> i32 {
    let mut ring = IoUring::new(2).unwrap();
    // SAFETY: the completion is waited for below.
    unsafe { ring.submission().push(entry) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    let done = ring.completion().next().unwrap();
    (-done.result()).max(0)
}

/// `struct iocb` (include/uapi/linux/aio_abi.h), little endian.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    reqprio: i16,
    fildes: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event` likewise.
#[repr(C)]
#[derive(Default)]
struct IoEvent {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

fn aio_fsync(fd: RawFd) -> i32 {
    let mut context = 0_u64;
    let mut iocb = Iocb {
        opcode: IOCB_CMD_FSYNC,
        fildes: fd as u32,
        ..Iocb::default()
    };
    let mut list = &raw mut iocb;
    let mut event = IoEvent::default();
    // SAFETY: the kernel writes a context and one event, and reads one iocb; all
    // outlive the completion, which is waited for.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_io_setup, 1, &raw mut context), 0);
        let one = libc::syscall(libc::SYS_io_submit, context, 1, &raw mut list);
        assert_eq!(one, 1, "{}", io::Error::last_os_error());
        let (at_least, at_most) = (1_i64, 1_i64);
        let done = libc::syscall(
            libc::SYS_io_getevents,
            context,
            at_least,
            at_most,
            &raw mut event,
            null_mut::<libc::timespec>(),
        );
        assert_eq!(done, 1, "{}", io::Error::last_os_error());
        libc::syscall(libc::SYS_io_destroy, context);
    }
    (-event.res).max(0) as i32
}
