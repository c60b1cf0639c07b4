//! Ties a failed sync to what failed below it. In: the sync, what is
//! remembered, the disks under its file system. Out: a [`Join`] that says how
//! it was tied and to which requests. A request of another file is never tied,
//! nor one of another device. All times are of one clock, and a completion is
//! stamped before its bios end, so that no slack is needed: what completed after
//! the sync's exit did not make it fail.

use super::memory::Memory;
use crate::event::{FileId, RequestEvent, SyncEvent, WbErrEvent};

/// A failed journal write explains failures of its file system for this long
/// (until the operator acts it stays aborted, but proof fades).
const JOURNAL_NS: u64 = 60_000_000_000;
/// Requests shown of one sync.
const MAX_REQUESTS: usize = 10;

/// How a failed sync was tied to a cause.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum How {
    /// A request of the file failed during the call.
    During,
    /// A request of the file failed earlier; the call was the first to be told.
    Late {
        /// Age of the failure when the call began.
        by_ns: u64,
        /// The errseq value told is that of the recorded writeback error.
        by_errseq: bool,
    },
    /// A device flush failed during the call on a disk under the file system.
    Flush,
    /// A journal or metadata request of the file system failed.
    Journal,
    /// Requests of the file failed, but their records are missing.
    Counters,
    /// Writeback of the file failed, but no request was seen.
    WbErr {
        /// errno that writeback met.
        errno: i32,
        /// Age of the failure when the call began, 0 = during it.
        by_ns: u64,
    },
    /// It succeeded, although data of its file had been lost before.
    Silent {
        /// Age of the loss when the call began.
        by_ns: u64,
    },
    /// Nothing was seen below the call.
    Nothing,
}

/// See the module's comment.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub how: How,
    /// Oldest first.
    pub requests: Vec<RequestEvent>,
}

/// Ties `sync`, whose file system `s_dev` lies on `disks`, to its cause.
pub(crate) fn join_failed(sync: &SyncEvent, s_dev: u32, disks: &[u32], memory: &Memory) -> Join {
    if sync.file.s_dev != 0
        && let Some(join) = join_by_file(sync, &sync.file, memory)
    {
        return join;
    }
    if s_dev != 0 {
        // An aborted journal leaves the file system read-only until it is
        // mounted again: EROFS is told for as long.
        let is_aborted = [libc::EROFS, libc::ESHUTDOWN]
            .map(i64::from)
            .contains(&-sync.ret);
        let journal = memory.failed_fileless().filter(|request| {
            request.is_metadata_of(s_dev)
                && request.complete_ns <= sync.exit_ns
                && (is_aborted || request.complete_ns + JOURNAL_NS >= sync.enter_ns)
        });
        if let Some(mut join) = tied(How::Journal, journal) {
            let flushes: Vec<RequestEvent> = (join.requests.iter())
                .flat_map(|request| memory.flushes_below(request))
                .cloned()
                .collect();
            join.requests.extend(flushes);
            join.requests.sort_by_key(|request| request.complete_ns);
            join.requests.dedup();
            join.requests.truncate(MAX_REQUESTS);
            return join;
        }
    }
    let flush = memory.failed_fileless().filter(|request| {
        request.op == "flush" && disks.contains(&request.dev) && is_during(request, sync)
    });
    if let Some(join) = tied(How::Flush, flush) {
        return join;
    }
    if sync.delta.nr_errors > 0 {
        return Join {
            how: How::Counters,
            requests: Vec::new(),
        };
    }
    if let Some(wb_err) = wb_err_of(sync, &sync.file, memory) {
        let how = How::WbErr {
            errno: wb_err.errno,
            by_ns: sync.enter_ns.saturating_sub(wb_err.time_ns),
        };
        return Join {
            how,
            requests: Vec::new(),
        };
    }
    Join {
        how: How::Nothing,
        requests: Vec::new(),
    }
}

fn join_by_file(sync: &SyncEvent, file: &FileId, memory: &Memory) -> Option<Join> {
    // No room and a broken medium are told apart; other errnos become one another.
    let is_no_space = -sync.ret == i64::from(libc::ENOSPC);
    let epoch = Epoch::of(sync, file, memory);
    let before_exit = || {
        memory.failed_of(file).filter(|request| {
            request.complete_ns <= sync.exit_ns
                && request.op != "read"
                && (request.errno == libc::ENOSPC) == is_no_space
        })
    };
    let of_epoch = || before_exit().filter(|request| epoch.holds(request));
    let during = of_epoch().filter(|request| is_during(request, sync));
    if let Some(join) = tied(How::During, during) {
        return Some(join);
    }
    let first = of_epoch().next().or_else(|| before_exit().next())?;
    let how = How::Late {
        by_ns: sync.enter_ns.saturating_sub(first.complete_ns),
        by_errseq: epoch.is_known && sync.told_errseq != 0,
    };
    tied(how.clone(), of_epoch()).or_else(|| tied(how, before_exit()))
}

/// The errseq value that the sync was told: which failures it stands for. All of
/// them since somebody was told of the value before.
#[derive(Default)]
struct Epoch {
    is_known: bool,
    /// When the last error of the epoch before was met.
    after_ns: u64,
    /// When the last error of this one was met, if one of the next is known; else
    /// errors of this one may be missing, since a storm of them is told once.
    until_ns: Option<u64>,
}

impl Epoch {
    fn of(sync: &SyncEvent, file: &FileId, memory: &Memory) -> Self {
        let Some(last) = wb_err_of(sync, file, memory) else {
            return Self::default();
        };
        let others = || {
            let all = memory.wb_errs_of(file);
            all.filter(|wb_err| !is_same_epoch(wb_err.errseq, last.errseq))
        };
        let before = others().filter(|wb_err| wb_err.time_ns < last.time_ns);
        let is_over = others().any(|wb_err| wb_err.time_ns > last.time_ns);
        Self {
            is_known: true,
            after_ns: before.map(|wb_err| wb_err.time_ns).max().unwrap_or(0),
            until_ns: is_over.then_some(last.time_ns),
        }
    }

    /// A request completes before the error is met that it leads to.
    fn holds(&self, request: &RequestEvent) -> bool {
        let at_ns = request.complete_ns;
        at_ns > self.after_ns && self.until_ns.is_none_or(|until_ns| at_ns <= until_ns)
    }
}

fn wb_err_of<'a>(sync: &SyncEvent, file: &FileId, memory: &'a Memory) -> Option<&'a WbErrEvent> {
    if file.s_dev == 0 {
        return None;
    }
    let mut before = memory
        .wb_errs_of(file)
        .filter(|wb_err| wb_err.time_ns <= sync.exit_ns)
        .rev();
    if sync.told_errseq == 0 {
        return before.next();
    }
    before.find(|wb_err| is_same_epoch(wb_err.errseq, sync.told_errseq))
}

/// errseq values compare without the "seen" flag (bit 12, ERRSEQ_SEEN), which
/// is set by whoever samples the value in between.
pub(crate) fn is_same_epoch(left: u32, right: u32) -> bool {
    const ERRSEQ_SEEN: u32 = 1 << 12;
    left & !ERRSEQ_SEEN == right & !ERRSEQ_SEEN
}

fn is_during(request: &RequestEvent, sync: &SyncEvent) -> bool {
    request.complete_ns >= sync.enter_ns && request.complete_ns <= sync.exit_ns
}

fn tied<'a>(how: How, requests: impl Iterator<Item = &'a RequestEvent>) -> Option<Join> {
    let requests: Vec<RequestEvent> = requests.take(MAX_REQUESTS).cloned().collect();
    (!requests.is_empty()).then_some(Join { how, requests })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId { s_dev: 7, ino: 12 };

    fn sync() -> SyncEvent {
        SyncEvent {
            enter_ns: 100_000_000_000,
            exit_ns: 100_010_000_000,
            ret: -5,
            file: FILE,
            told_errseq: 0x2005,
            ..SyncEvent::default()
        }
    }

    fn request(complete_ns: u64, file: FileId) -> RequestEvent {
        RequestEvent {
            dev: 70,
            op: "write".to_owned(),
            errno: 5,
            file_source: "page".to_owned(),
            complete_ns,
            file,
            ..RequestEvent::default()
        }
    }

    fn how(sync: &SyncEvent, requests: &[RequestEvent], wb_errs: &[WbErrEvent]) -> How {
        let mut memory = Memory::new();
        requests
            .iter()
            .for_each(|request| memory.remember_request(request));
        wb_errs
            .iter()
            .for_each(|wb_err| memory.remember_wb_err(wb_err));
        join_failed(sync, 7, &[70], &memory).how
    }

    #[test]
    fn request_of_the_file_during_the_call_is_the_cause() {
        assert_eq!(
            how(&sync(), &[request(100_005_000_000, FILE)], &[]),
            How::During
        );
    }

    #[test]
    fn request_of_another_file_in_the_same_call_is_not() {
        let other = FileId { s_dev: 7, ino: 13 };
        assert_eq!(
            how(&sync(), &[request(100_005_000_000, other)], &[]),
            How::Nothing
        );
        let other = FileId { s_dev: 8, ino: 12 };
        assert_eq!(
            how(&sync(), &[request(100_005_000_000, other)], &[]),
            How::Nothing
        );
    }

    #[test]
    fn earlier_failure_is_told_late_and_errseq_proves_it() {
        let wb_err = WbErrEvent {
            time_ns: 63_000_000_000,
            file: FILE,
            errseq: 0x3005,
            errno: 5,
            ..WbErrEvent::default()
        };
        let early = request(62_999_000_000, FILE);
        assert_eq!(
            how(&sync(), std::slice::from_ref(&early), &[wb_err]),
            How::Late {
                by_ns: 37_001_000_000,
                by_errseq: true
            }
        );
        assert_eq!(
            how(&sync(), &[early], &[]),
            How::Late {
                by_ns: 37_001_000_000,
                by_errseq: false
            }
        );
    }

    #[test]
    fn each_sync_is_told_of_the_failures_since_the_last_one_that_was() {
        let wb_err = |time_ns, errseq| WbErrEvent {
            time_ns,
            file: FILE,
            errseq,
            errno: 5,
            ..WbErrEvent::default()
        };
        let mut memory = Memory::new();
        for (sector, time_ns) in [
            (1, 97_000_000_000),
            (2, 98_000_000_000),
            (3, 100_020_000_000),
        ] {
            memory.remember_request(&RequestEvent {
                sector: Some(sector),
                ..request(time_ns, FILE)
            });
        }
        // The second failure finds the first one not yet told, the third one told.
        memory.remember_wb_err(&wb_err(97_000_100_000, 0x2005));
        memory.remember_wb_err(&wb_err(98_000_100_000, 0x2005));
        memory.remember_wb_err(&wb_err(100_020_100_000, 0x4005));
        let first = join_failed(&sync(), 7, &[70], &memory);
        let sectors = |join: &Join| -> Vec<u64> {
            let listed = join.requests.iter();
            listed.filter_map(|request| request.sector).collect()
        };
        let late = |by_ns| How::Late {
            by_ns,
            by_errseq: true,
        };
        assert_eq!(
            (&first.how, sectors(&first)),
            (&late(3_000_000_000), vec![1, 2])
        );
        let second = SyncEvent {
            enter_ns: 103_020_000_000,
            exit_ns: 103_021_000_000,
            told_errseq: 0x4005,
            ..sync()
        };
        let second = join_failed(&second, 7, &[70], &memory);
        assert_eq!(
            (&second.how, sectors(&second)),
            (&late(3_000_000_000), vec![3])
        );
    }

    #[test]
    fn failed_flush_counts_only_on_a_disk_of_the_file_system() {
        let mut flush = request(100_005_000_000, FileId::default());
        flush.op = "flush".to_owned();
        flush.file_source = "flush".to_owned();
        assert_eq!(how(&sync(), std::slice::from_ref(&flush), &[]), How::Flush);
        flush.dev = 71;
        assert_eq!(how(&sync(), &[flush], &[]), How::Nothing);
    }

    #[test]
    fn journal_write_counts_only_for_its_file_system() {
        let mut journal = request(99_000_000_000, FileId { s_dev: 3, ino: 7 });
        journal.file_source = "blockdev".to_owned();
        journal.rdev = 7;
        assert_eq!(
            how(&sync(), std::slice::from_ref(&journal), &[]),
            How::Journal
        );
        journal.rdev = 8;
        assert_eq!(how(&sync(), &[journal], &[]), How::Nothing);
    }

    #[test]
    fn counters_and_wb_err_stand_in_for_a_missing_record() {
        let mut counted = sync();
        counted.delta.nr_errors = 1;
        assert_eq!(how(&counted, &[], &[]), How::Counters);
        let wb_err = WbErrEvent {
            time_ns: 100_004_000_000,
            file: FILE,
            errseq: 0x2005,
            errno: 28,
            ..WbErrEvent::default()
        };
        assert_eq!(
            how(&sync(), &[], &[wb_err]),
            How::WbErr {
                errno: 28,
                by_ns: 0
            }
        );
    }
}
