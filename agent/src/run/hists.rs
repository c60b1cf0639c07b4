//! Makes the keys of the histograms, which the kernel allocates one by one from 6.1 on.
//! In: keys that are wanted. Out: map entries; a key that the kernel has no memory for
//! at that moment stays wanted.

use std::{thread, time::Duration};

use anyhow::Context as _;
use aya::maps::{MapError, PerCpuValues};
use fsyncscope_abi::{
    block::BlockHist,
    hist::{Hist, HistKey, NR_BUCKETS},
};

use crate::probe::maps::Maps;

/// BPF_NOEXIST (include/uapi/linux/bpf.h).
pub(super) const NO_EXIST: u64 = 1;

/// The kernel's allocator begins with one entry of this size at hand on each CPU and makes
/// others in an interrupt once that is given away, with what memory it finds without waiting
/// (kernel/bpf/memalloc.c). The second of two keys in a row may come too early.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// A histogram of nothing.
const NO_HIST: Hist = Hist {
    sum_ns: 0,
    nr_errors: 0,
    pad: 0,
    buckets: [0; NR_BUCKETS],
};

/// Whose histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Syncs of a directory, in HIST.
    Syncs(HistKey),
    /// Requests of a disk, in BLOCK_HIST.
    Requests(u64),
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// It is there, or was before.
    There,
    /// The map is full: of kernels before 6.1 with many CPUs the histograms are few.
    NoRoom,
    /// No memory at hand.
    NotYet,
}

/// Keys that are wanted and not made yet. What has none is watched all the same; but it has
/// no latency in /metrics, and of a disk no rate is known.
#[derive(Default)]
pub struct Hists {
    wanted: Vec<Key>,
    is_told: bool,
}

impl Hists {
    /// To be made by the next [`Hists::make`].
    pub(super) fn want(&mut self, key: Key) {
        self.wanted.push(key);
    }

    /// Makes what is wanted, once a broker or a disk is new; what the kernel has no memory
    /// for stays wanted. Waits for 20 ms at most, and not while it is known to have none.
    ///
    /// # Errors
    /// When a map refuses an entry for another reason; what is not made stays wanted.
    pub fn make(&mut self, maps: &mut Maps) -> anyhow::Result<()> {
        let tries = if self.is_told { 0 } else { TRIES };
        self.make_by(tries, |key| insert(maps, key), || thread::sleep(PAUSE))?;
        match (self.wanted.len(), self.is_told) {
            (0, true) => log::info!("the kernel has memory for all histograms again"),
            (0, _) | (_, true) => {}
            (lacking, false) => log::warn!(
                "the kernel has no memory at hand for {lacking} histograms: what they count is missing until it has; asked again every second"
            ),
        }
        self.is_told = !self.wanted.is_empty();
        Ok(())
    }

    fn make_by(
        &mut self,
        mut tries: usize,
        mut insert: impl FnMut(Key) -> anyhow::Result<Made>,
        mut pause: impl FnMut(),
    ) -> anyhow::Result<()> {
        let mut is_full = false;
        let mut refused = Ok(());
        let mut later = Vec::new();
        for key in std::mem::take(&mut self.wanted) {
            let mut made = insert(key);
            while matches!(made, Ok(Made::NotYet)) && tries > 0 {
                tries -= 1;
                pause();
                made = insert(key);
            }
            match made {
                Ok(Made::There) => {}
                Ok(Made::NoRoom) => is_full = true,
                Ok(Made::NotYet) => later.push(key),
                Err(error) => {
                    later.push(key);
                    refused = Err(error);
                }
            }
        }
        self.wanted = later;
        if is_full {
            log::warn!(
                "more directories and disks than this kernel's histograms have room for: some are without latency in /metrics"
            );
        }
        refused
    }
}

fn insert(maps: &mut Maps, key: Key) -> anyhow::Result<Made> {
    match key {
        Key::Syncs(key) => made(maps.hist.insert(&key, zeroes(NO_HIST)?, NO_EXIST))
            .context("count a directory's syncs: insert into HIST"),
        Key::Requests(key) => {
            let empty = BlockHist {
                nr_bytes: 0,
                device: NO_HIST,
                queue: NO_HIST,
            };
            made(maps.block_hist.insert(&key, zeroes(empty)?, NO_EXIST))
                .context("count a disk's requests: insert into BLOCK_HIST")
        }
    }
}

fn made(result: Result<(), MapError>) -> Result<Made, MapError> {
    let error = match create(result) {
        Ok(()) => return Ok(Made::There),
        Err(error) => error,
    };
    match errno_of(&error) {
        Some(libc::E2BIG) => Ok(Made::NoRoom),
        Some(libc::ENOMEM) => Ok(Made::NotYet),
        _ => Err(error),
    }
}

/// A key that is there already keeps its value.
pub(super) fn create(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(error) if errno_of(&error) == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn errno_of(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn zeroes<T: aya::Pod>(value: T) -> anyhow::Result<PerCpuValues<T>> {
    let cpus =
        aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("read {path}: {error}"))?;
    Ok(PerCpuValues::try_from(vec![value; cpus.get() as usize])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::sys::SyscallError;
    use std::io;

    fn refused(errno: i32) -> Result<(), MapError> {
        Err(MapError::SyscallError(SyscallError {
            call: "bpf_map_update_elem",
            io_error: io::Error::from_raw_os_error(errno),
        }))
    }

    #[test]
    fn only_a_refusal_that_is_no_lack_is_an_error() {
        assert_eq!(made(Ok(())).unwrap(), Made::There);
        assert_eq!(made(refused(libc::EEXIST)).unwrap(), Made::There);
        assert_eq!(made(refused(libc::E2BIG)).unwrap(), Made::NoRoom);
        assert_eq!(made(refused(libc::ENOMEM)).unwrap(), Made::NotYet);
        assert!(made(refused(libc::EPERM)).is_err());
    }

    fn wanting(count: u64) -> Hists {
        Hists {
            wanted: (0..count).map(Key::Requests).collect(),
            is_told: false,
        }
    }

    #[test]
    fn a_key_that_came_too_early_is_made_a_moment_later() {
        let mut hists = wanting(8);
        // One at hand, the next one after a pause.
        let at_hand = std::cell::Cell::new(1);
        let mut made = Vec::new();
        let insert = |key| match at_hand.replace(0) {
            0 => Ok(Made::NotYet),
            _ => {
                made.push(key);
                Ok(Made::There)
            }
        };
        hists.make_by(TRIES, insert, || at_hand.set(1)).unwrap();
        assert_eq!(made.len(), 8);
        assert_eq!(hists.wanted, []);
    }

    #[test]
    fn what_cannot_be_made_now_stays_wanted_and_nothing_waits_for_long() {
        let mut hists = wanting(3);
        let mut pauses = 0;
        let insert = |key| match key {
            Key::Requests(1) => Ok(Made::NoRoom),
            _ => Ok(Made::NotYet),
        };
        hists.make_by(TRIES, insert, || pauses += 1).unwrap();
        assert_eq!(hists.wanted, [Key::Requests(0), Key::Requests(2)]);
        assert_eq!(pauses, TRIES);
        // Later, without a pause; nor is one forgotten that is refused for another reason.
        let insert = |key| match key {
            Key::Requests(0) => Err(anyhow::anyhow!("not permitted")),
            _ => Ok(Made::There),
        };
        assert!(hists.make_by(0, insert, || unreachable!()).is_err());
        assert_eq!(hists.wanted, [Key::Requests(0)]);
    }
}
