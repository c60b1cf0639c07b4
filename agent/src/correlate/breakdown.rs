//! Where a sync's wall time went. In: the sync, the disks under its file
//! system, requests and waits that overlap it. Out: [`Partition`]: each instant
//! goes to the first part that holds (flush, journal, own data, others' data,
//! lock, other), so that the parts sum to the duration exactly. What is tied to
//! nothing is `other`, never hidden. Pure arithmetic; what it means is `judge`'s.

use super::spans::{Span, length, union_within};
use crate::event::{RequestSpan, SyncEvent, WaitSpan};
use crate::incident::Breakdown;

/// See the module's comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Partition {
    pub breakdown: Breakdown,
    /// Part of the others' data, and of a wait for the journal without a request known
    /// to be the file system's, during which one request had been outstanding for at
    /// least half of the call: the disk held it, whoever asked.
    pub held_ns: u64,
}

/// What a partition is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    pub sync: &'a SyncEvent,
    /// Its file system, even where its file is unknown; 0 = unknown.
    pub s_dev: u32,
    /// Leaf disks under it.
    pub disks: &'a [u32],
    /// Completed and outstanding ones; those outstanding end at the sync's exit.
    pub requests: &'a [RequestSpan],
    pub waits: &'a [WaitSpan],
    /// Who asked for a flush may be unknown, since no hook sees the journal.
    pub is_journal_dark: bool,
    /// Nor is it seen who else asks for one: any may be the sync's own.
    pub is_asker_dark: bool,
}

/// A lane counts how many spans of a kind cover an instant.
#[derive(Clone, Copy)]
enum Lane {
    FlushQueue,
    FlushDevice,
    Journal,
    JournalQueue,
    JournalDevice,
    OwnQueue,
    OwnDevice,
    OthersQueue,
    OthersDevice,
    /// Any request of the file system, whatever file: a commit waits for them.
    FsQueue,
    FsDevice,
    Held,
    Lock,
    /// The commit that made the sync return had not begun yet.
    CommitAwaited,
}

const NR_LANES: usize = Lane::CommitAwaited as usize + 1;

/// Partitions the wall time of `evidence.sync`.
pub(crate) fn partition(evidence: &Evidence<'_>) -> Partition {
    let sync = evidence.sync;
    let within = (sync.enter_ns, sync.exit_ns.max(sync.enter_ns));
    let mut sweep = Sweep {
        within,
        edges: Vec::new(),
    };
    for &disk in evidence.disks {
        let windows = flush_windows(disk, evidence);
        for request in evidence.requests.iter().filter(|one| one.dev == disk) {
            sweep.add_request(request, evidence, &windows);
        }
    }
    for wait in evidence.waits {
        if is_journal_wait(wait, evidence.s_dev) {
            sweep.add(Lane::Journal, (wait.start_ns, wait.end_ns));
        } else if wait.kind == "lock" && wait.tid == sync.tid {
            sweep.add(Lane::Lock, (wait.start_ns, wait.end_ns));
        }
    }
    if let Some(span) = awaited_commit(evidence) {
        sweep.add(Lane::CommitAwaited, span);
    }
    let mut found = sweep.sum();
    // When in the call it waited for a CPU is not known: not more than the rest.
    let other_ns = found.breakdown.other_ns;
    found.breakdown.other_cpu_ns = sync.run_delay_ns.min(other_ns);
    found
}

/// A commit, checkpoint or log force of the sync's file system.
pub(crate) fn is_journal_wait(wait: &WaitSpan, s_dev: u32) -> bool {
    wait.kind != "lock" && wait.s_dev != 0 && wait.s_dev == s_dev
}

/// From when the sync had nothing left to do but wait for the commit that it
/// returned after, to when that commit began: its thread was not there yet. One
/// that asked for a flush of its own before the commit's end waited for that
/// instead (ext4_sync_file: first its data, then the commit, or else a flush).
fn awaited_commit(evidence: &Evidence<'_>) -> Option<Span> {
    let sync = evidence.sync;
    let commit = (evidence.waits.iter())
        .filter(|wait| wait.kind == "commit" && is_journal_wait(wait, evidence.s_dev))
        .filter(|wait| wait.start_ns > sync.enter_ns && wait.end_ns <= sync.exit_ns)
        .max_by_key(|wait| wait.end_ns)?;
    if sync.flush_asked_ns != 0 && sync.flush_asked_ns < commit.end_ns {
        return None;
    }
    let own = evidence.requests.iter().filter(|one| is_own(one, sync));
    let data_end_ns = own
        .map(|request| request.complete_ns)
        .filter(|&end_ns| end_ns <= commit.start_ns)
        .max()
        .unwrap_or(0);
    Some((sync.enter_ns.max(data_end_ns), commit.start_ns))
}

/// Journal or metadata of the file system `s_dev`. The file of an xfs log write
/// is unknown: REQ_META on its disk stands for it.
pub(crate) fn is_journal(request: &RequestSpan, s_dev: u32) -> bool {
    match request.file_source.as_str() {
        "blockdev" => s_dev != 0 && request.rdev == s_dev,
        "page" | "direct" => false,
        _ => request.op != "flush" && has_flag(request, "meta"),
    }
}

/// Data of the file that is synced; syncfs syncs every file. Where one of the two
/// files is not known (a request that has not completed, a sync on xfs of 5.10), what
/// the sync's own thread wrote during the call.
pub(crate) fn is_own(request: &RequestSpan, sync: &SyncEvent) -> bool {
    if sync.file.s_dev == 0 || request.file.s_dev == 0 {
        return is_issued_by(request, sync);
    }
    request.file_source != "blockdev"
        && request.file.s_dev == sync.file.s_dev
        && (request.file.ino == sync.file.ino || sync.op == "syncfs")
}

/// A write of data that the sync's own thread issued during the call.
fn is_issued_by(request: &RequestSpan, sync: &SyncEvent) -> bool {
    request.op == "write"
        && request.file_source != "blockdev"
        && request.tid != 0
        && request.tid == sync.tid
        && (sync.enter_ns..=sync.exit_ns).contains(&request.issue_ns)
        && !has_flag(request, "meta")
}

fn has_flag(request: &RequestSpan, flag: &str) -> bool {
    request.flags.iter().any(|known| known == flag)
}

/// When a request began to wait and when it was issued; the latter is its
/// completion if it never was. None if nothing is known of its begin.
pub(crate) fn begin_and_issue(request: &RequestSpan) -> Option<(u64, u64)> {
    match (request.start_ns, request.issue_ns) {
        (0, 0) => None,
        (0, issue_ns) => Some((issue_ns, issue_ns)),
        (start_ns, 0) => Some((start_ns, request.complete_ns)),
        (start_ns, issue_ns) => Some((start_ns.min(issue_ns), issue_ns)),
    }
}

/// Times at which a flush of `disk` can be one that the sync waits for.
fn flush_windows(disk: u32, evidence: &Evidence<'_>) -> Vec<Span> {
    let sync = evidence.sync;
    let within = (sync.enter_ns, sync.exit_ns);
    if evidence.is_asker_dark {
        return vec![within];
    }
    let mut windows: Vec<Span> = Vec::new();
    if sync.flush_asked_ns != 0 {
        // A flush that was issued before does not cover what was written since:
        // the block layer starts another one after it, and that one is waited for.
        let own_end = evidence
            .requests
            .iter()
            .filter(|request| request.dev == disk && request.op == "flush")
            .filter_map(|request| {
                let (_, issue_ns) = begin_and_issue(request)?;
                (issue_ns >= sync.flush_asked_ns).then_some((issue_ns, request.complete_ns))
            })
            .min();
        windows.push((
            sync.flush_asked_ns,
            own_end.map_or(sync.exit_ns, |(_, end_ns)| end_ns),
        ));
    }
    windows.extend(
        evidence
            .waits
            .iter()
            .filter(|wait| is_journal_wait(wait, evidence.s_dev) && wait.kind != "checkpoint")
            .map(|wait| (wait.start_ns, wait.end_ns)),
    );
    windows.extend(evidence.requests.iter().filter_map(|request| {
        let is_log_write = request.dev == disk
            && is_journal(request, evidence.s_dev)
            && (has_flag(request, "preflush") || has_flag(request, "fua"));
        let (begin_ns, _) = begin_and_issue(request).filter(|_| is_log_write)?;
        Some((begin_ns, request.complete_ns))
    }));
    let windows = union_within(windows, within);
    if windows.is_empty() && evidence.is_journal_dark {
        return vec![within];
    }
    windows
}

/// Edges of all spans, to be passed over in order of time.
struct Sweep {
    within: Span,
    edges: Vec<(u64, bool, Lane)>,
}

impl Sweep {
    fn add(&mut self, lane: Lane, span: Span) {
        let span = (span.0.max(self.within.0), span.1.min(self.within.1));
        if span.0 < span.1 {
            self.edges.push((span.0, true, lane));
            self.edges.push((span.1, false, lane));
        }
    }

    fn add_request(&mut self, request: &RequestSpan, evidence: &Evidence<'_>, windows: &[Span]) {
        let Some((begin_ns, issue_ns)) = begin_and_issue(request) else {
            return;
        };
        let sync = evidence.sync;
        let whole = (begin_ns, request.complete_ns);
        if whole.1 <= self.within.0 || whole.0 >= self.within.1 {
            return;
        }
        let (queue, device) = ((begin_ns, issue_ns), (issue_ns, request.complete_ns));
        if request.op == "flush" {
            for window in windows {
                for (lane, part) in [(Lane::FlushQueue, queue), (Lane::FlushDevice, device)] {
                    self.add(lane, (part.0.max(window.0), part.1.min(window.1)));
                }
            }
        }
        let (is_journal, is_own) = (is_journal(request, evidence.s_dev), is_own(request, sync));
        let lanes = if is_journal {
            (Lane::JournalQueue, Lane::JournalDevice)
        } else if is_own {
            (Lane::OwnQueue, Lane::OwnDevice)
        } else {
            // Also a flush at times when it is not this sync's: lower in order.
            (Lane::OthersQueue, Lane::OthersDevice)
        };
        self.add(lanes.0, queue);
        self.add(lanes.1, device);
        let is_of_fs = request.file.s_dev != 0 && request.file.s_dev == evidence.s_dev;
        if is_journal || is_own || is_of_fs {
            self.add(Lane::FsQueue, queue);
            self.add(Lane::FsDevice, device);
        }
        let inside = length(&union_within([whole], self.within));
        if !is_journal && !is_own && inside * 2 >= self.within.1 - self.within.0 {
            self.add(Lane::Held, whole);
        }
    }

    fn sum(mut self) -> Partition {
        self.edges.sort_unstable_by_key(|edge| edge.0);
        let mut found = Partition::default();
        let mut counts = [0_u32; NR_LANES];
        let mut last_ns = self.within.0;
        for &(at_ns, is_begin, lane) in &self.edges {
            found.give(at_ns - last_ns, &counts);
            last_ns = at_ns;
            let count = &mut counts[lane as usize];
            *count = if is_begin {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        }
        found.give(self.within.1 - last_ns, &counts);
        found
    }
}

impl Partition {
    /// Gives `ns` to the first part that holds.
    fn give(&mut self, ns: u64, counts: &[u32; NR_LANES]) {
        let has = |lane: Lane| counts[lane as usize] > 0;
        let parts = &mut self.breakdown;
        let (whole, queue, device, is_queue, is_device);
        if has(Lane::FlushQueue) || has(Lane::FlushDevice) {
            (whole, queue, device) = (
                &mut parts.flush_ns,
                &mut parts.flush_queue_ns,
                &mut parts.flush_device_ns,
            );
            (is_queue, is_device) = (has(Lane::FlushQueue), has(Lane::FlushDevice));
        } else if has(Lane::Journal) || has(Lane::JournalQueue) || has(Lane::JournalDevice) {
            (whole, queue, device) = (
                &mut parts.journal_ns,
                &mut parts.journal_queue_ns,
                &mut parts.journal_device_ns,
            );
            (is_queue, is_device) = (has(Lane::FsQueue), has(Lane::FsDevice));
            if has(Lane::Held) && !is_queue && !is_device {
                self.held_ns += ns;
            }
        } else if has(Lane::OwnQueue) || has(Lane::OwnDevice) {
            (whole, queue, device) = (
                &mut parts.own_data_ns,
                &mut parts.own_data_queue_ns,
                &mut parts.own_data_device_ns,
            );
            (is_queue, is_device) = (has(Lane::OwnQueue), has(Lane::OwnDevice));
        } else if has(Lane::OthersQueue) || has(Lane::OthersDevice) {
            if has(Lane::Held) {
                self.held_ns += ns;
            }
            (whole, queue, device) = (
                &mut parts.others_data_ns,
                &mut parts.others_data_queue_ns,
                &mut parts.others_data_device_ns,
            );
            (is_queue, is_device) = (has(Lane::OthersQueue), has(Lane::OthersDevice));
        } else {
            let rest = if has(Lane::Lock) {
                &mut parts.lock_ns
            } else if has(Lane::CommitAwaited) {
                &mut parts.journal_ns
            } else {
                &mut parts.other_ns
            };
            *rest += ns;
            return;
        }
        *whole += ns;
        if is_device {
            *device += ns;
        } else if is_queue {
            *queue += ns;
        }
    }
}

#[cfg(test)]
#[path = "breakdown_tests.rs"]
mod tests;
