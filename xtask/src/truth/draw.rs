//! The faults of a campaign, each drawn from the seed and its own number, so
//! that one alone can be played again. In: seed, number, file systems. Out: a
//! [`Fault`]: what is done, where, how often. Pure; the sectors are looked up
//! by `aim` when the disk is there.

use fsyncscope_tests::campaign::random::Random;
use fsyncscope_tests::faultdisk::FsKind;
use serde::{Deserialize, Serialize};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A write of file data fails while somebody waits for it.
    WriteError,
    /// A write of file data fails in writeback; nobody asks until later.
    BackgroundError,
    /// A cache flush fails.
    FlushError,
    /// A read of file data fails.
    ReadError,
    /// A write to the journal fails.
    JournalError,
    /// A write to the inode tables fails.
    TableError,
    /// A write of file data is held.
    WriteDelay,
    /// A cache flush is held.
    FlushDelay,
    /// A write to the journal is held.
    JournalDelay,
    /// The disk is gone.
    Gone,
    /// Nothing at all. Never drawn: it is what windows without effect become.
    Healthy,
}

impl Kind {
    /// All that are drawn, in the order of the table.
    pub const ALL: [Kind; 10] = [
        Kind::WriteError,
        Kind::BackgroundError,
        Kind::FlushError,
        Kind::ReadError,
        Kind::JournalError,
        Kind::TableError,
        Kind::WriteDelay,
        Kind::FlushDelay,
        Kind::JournalDelay,
        Kind::Gone,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Kind::WriteError => "write error",
            Kind::BackgroundError => "writeback error, told later",
            Kind::FlushError => "flush error",
            Kind::ReadError => "read error",
            Kind::JournalError => "journal write error",
            Kind::TableError => "inode table write error",
            Kind::WriteDelay => "write held",
            Kind::FlushDelay => "flush held",
            Kind::JournalDelay => "journal write held",
            Kind::Gone => "disk gone",
            Kind::Healthy => "nothing",
        }
    }

    /// Whether it makes requests wait, and none fail.
    pub fn is_delay(self) -> bool {
        matches!(
            self,
            Kind::WriteDelay | Kind::FlushDelay | Kind::JournalDelay
        )
    }
}

/// How often each is drawn.
const KINDS: &[(u64, Kind)] = &[
    (26, Kind::WriteError),
    (10, Kind::BackgroundError),
    (7, Kind::FlushError),
    (4, Kind::ReadError),
    (6, Kind::JournalError),
    (3, Kind::TableError),
    (17, Kind::WriteDelay),
    (17, Kind::FlushDelay),
    (8, Kind::JournalDelay),
    (2, Kind::Gone),
];

/// Errors of writes and reads. Linux hands them from FUSE through the loop
/// device to the block layer as statuses of their own.
const ERRNOS: &[(u64, i32)] = &[
    (60, libc::EIO),
    (15, libc::ENODATA),
    (10, libc::ENOSPC),
    (10, libc::ETIMEDOUT),
    (5, libc::EILSEQ),
];

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its number in the campaign, from 1.
    pub nth: u64,
    /// On this file system.
    pub is_xfs: bool,
    /// What.
    pub kind: Kind,
    /// The error answered, 0 for none.
    pub errno: i32,
    /// How long answers are held, 0 for not.
    pub delay_ms: u64,
    /// How many requests it touches; `None`: all until it is healed.
    pub count: Option<u64>,
    /// Meanwhile a flush is held for so long, 0 for none: two faults at once.
    pub flush_ms: u64,
    /// Of file data: one file rather than any.
    pub is_one_file: bool,
    /// Which file, and other choices that need the disk at hand.
    pub choice: u64,
}

impl Fault {
    /// Fault `nth` of a campaign.
    pub fn draw(seed: u64, nth: u64, on: &[FsKind]) -> Fault {
        let mut random = Random::new(seed, nth);
        let is_xfs = random.pick(on).is_some_and(|fs| *fs == FsKind::Xfs);
        let kind = random.weighted(KINDS);
        // Drawn always, so that one choice does not move the others.
        let errno = random.weighted(ERRNOS);
        let mostly = random.log_between(5, 3_000);
        let seldom = random.log_between(3_000, 30_000);
        let is_seldom = random.below(100) < 3;
        let few = random.between(2, 5);
        let once_few_all = random.weighted(&[(70, 1), (22, 2), (8, 3)]);
        let is_one_file = random.below(100) < 60;
        let choice = random.next();
        let overlap_ms = random.log_between(100, 2_000);
        let is_overlapping = random.below(100) < 12;
        let is_any_errno = matches!(
            kind,
            Kind::WriteError | Kind::BackgroundError | Kind::ReadError
        );
        let delay_ms = match (kind.is_delay(), is_seldom) {
            (false, _) => 0,
            (true, false) => mostly,
            (true, true) => seldom,
        };
        Fault {
            nth,
            is_xfs,
            kind,
            errno: match (kind.is_delay(), is_any_errno) {
                (true, _) => 0,
                (false, true) => errno,
                (false, false) => libc::EIO,
            },
            delay_ms,
            count: match (once_few_all, kind.is_delay()) {
                (2, _) if delay_ms < 3_000 => Some(few),
                // Held for ever is the same as gone.
                (3, false) => None,
                _ => Some(1),
            },
            flush_ms: match kind {
                Kind::WriteError | Kind::BackgroundError | Kind::WriteDelay if is_overlapping => {
                    overlap_ms
                }
                _ => 0,
            },
            is_one_file,
            choice,
        }
    }

    /// A window in which nothing is done.
    pub fn none(is_xfs: bool) -> Fault {
        Fault {
            nth: 0,
            is_xfs,
            kind: Kind::Healthy,
            errno: 0,
            delay_ms: 0,
            count: Some(1),
            flush_ms: 0,
            is_one_file: false,
            choice: 0,
        }
    }

    /// In words, for progress and the list of misses.
    pub fn name(&self) -> String {
        let mut text = self.kind.name().to_owned();
        if self.delay_ms > 0 {
            text += &format!(" {} ms", self.delay_ms);
        }
        if self.errno != 0 && self.errno != libc::EIO {
            text += &format!(" {}", super::known::errno_name(self.errno));
        }
        match self.count {
            Some(1) => {}
            Some(count) => text += &format!(" × {count}"),
            None => text += " until healed",
        }
        if self.flush_ms > 0 {
            text += &format!(" and a flush held {} ms", self.flush_ms);
        }
        text + if self.is_xfs { " on xfs" } else { " on ext4" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_depends_on_seed_and_number_alone() {
        let both = [FsKind::Ext4, FsKind::Xfs];
        let draw = |nth| Fault::draw(3, nth, &both);
        assert_eq!(draw(9), draw(9));
        assert_ne!(draw(9), draw(10));
        assert_ne!(draw(9), Fault::draw(4, 9, &both));
    }

    #[test]
    fn three_hundred_faults_hold_every_kind_and_fit_their_time() {
        for seed in 1..=3 {
            let faults: Vec<Fault> = (1..=300)
                .map(|nth| Fault::draw(seed, nth, &[FsKind::Ext4]))
                .collect();
            for kind in Kind::ALL {
                assert!(faults.iter().any(|fault| fault.kind == kind), "{kind:?}");
            }
            let held_ms = |fault: &Fault| fault.delay_ms * fault.count.unwrap_or(1);
            let held_s: u64 = faults.iter().map(held_ms).sum::<u64>() / 1000;
            assert!(held_s < 1200, "{held_s} s");
            assert!(faults.iter().all(|fault| !fault.is_xfs));
            assert!(faults.iter().all(|fault| {
                fault.kind.is_delay() == (fault.delay_ms > 0)
                    && (fault.errno == 0) == fault.kind.is_delay()
            }));
        }
    }
}
