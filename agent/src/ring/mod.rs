//! Takes records out of the kernel's ring. In: the ring buffer's memory; out:
//! bytes, one record at a time, to `decode`. Does not look into them. `spans`
//! reads the flight recorder, which is no queue.

pub mod spans;

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// Wakes the loop when the ring has records.
pub struct RingWaker {
    fd: AsyncFd<OwnedFd>,
}

impl RingWaker {
    /// Registers the ring with the runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated or registered.
    pub fn new(ring: &RingBuf<MapData>) -> anyhow::Result<Self> {
        // SAFETY: the descriptor is open for the duration of the call.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        let owned = borrowed
            .try_clone_to_owned()
            .context("duplicate the ring's descriptor")?;
        // SAFETY: the descriptor is owned by the AsyncFd, which keeps it open
        // until it has taken it out of the poll set.
        let fd = unsafe { AsyncFd::register_with_interest(owned, Interest::READABLE) }
            .context("poll the ring")?;
        Ok(RingWaker { fd })
    }

    /// Returns once records may be there. After [`drain`] has emptied the ring
    /// the next call waits for new ones.
    ///
    /// # Errors
    /// When polling fails.
    pub async fn readable(&self) -> std::io::Result<()> {
        self.fd.readable().await?.clear_ready();
        Ok(())
    }
}

/// Hands at most `limit` records to `take`; true if the ring was emptied.
pub fn drain(ring: &mut RingBuf<MapData>, limit: usize, mut take: impl FnMut(&[u8])) -> bool {
    for _ in 0..limit {
        match ring.next() {
            Some(record) => take(&record),
            None => return true,
        }
    }
    false
}
