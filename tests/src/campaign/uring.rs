//! fsync by io_uring: one ring a thread, one request at a time. The kernel runs
//! it in a worker of the same process. In: a descriptor. Out: the errno.

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, opcode, types};

/// See the module's comment.
pub(super) struct Uring(IoUring);

impl Uring {
    /// A ring of its own; an error where the kernel has none or forbids it.
    pub(super) fn new() -> io::Result<Self> {
        IoUring::new(2).map(Uring)
    }

    /// The errno of a fsync, 0 for success.
    pub(super) fn fsync(&mut self, fd: RawFd) -> i32 {
        let entry = opcode::Fsync::new(types::Fd(fd)).build();
        // SAFETY: the descriptor stays open until the completion below is there.
        let pushed = unsafe { self.0.submission().push(&entry) };
        if pushed.is_err() {
            return libc::EBUSY;
        }
        loop {
            match self.0.submit_and_wait(1) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return err.raw_os_error().unwrap_or(libc::EIO),
                Ok(_) => {}
            }
            if let Some(done) = self.0.completion().next() {
                return (-done.result()).max(0);
            }
        }
    }
}
