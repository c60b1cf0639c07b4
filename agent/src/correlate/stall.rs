//! Whether a sync took longer than its bytes need, and where its time went.
//! In: the sync, the rate of its disks, the requests and waits that were under
//! way meanwhile. Out: [`Stall`]: the excess, the breakdown, the requests. What
//! it means is decided in `judge`.

use super::breakdown::{Evidence, begin_and_issue, is_journal, is_own, partition};
use super::commit::{Commit, longest_commit};
use super::memory::Memory;
use super::neighbours::{Household, Others, find_others};
use crate::event::{InFlightRequest, RequestEvent, RequestSpan, SyncEvent, WaitSpan};
use crate::incident::Breakdown;

/// Assumed where a disk's rate is not known yet: attached a moment ago.
const UNKNOWN_RATE: u64 = 50_000_000;
/// The excess must also be this share of the whole: rates are estimates.
const MIN_EXCESS_PERCENT: u64 = 25;
/// Bytes that others must have moved through the disk during the call before
/// they can explain it: below, the disk's rate of late says nothing of its ability.
const MIN_MOVED_BYTES: u64 = 16 << 20;
/// Requests shown of one sync.
const MAX_REQUESTS: usize = 10;

/// See the module's comment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stall {
    /// Bytes of the file that completed during the call.
    pub own_bytes: u64,
    /// Bytes per second that the disks wrote lately; absent if unknown.
    pub rate: Option<u64>,
    /// All bytes that its disks wrote during the call but those of neighbours,
    /// if these explain it better than its own: it waited behind them.
    pub moved_bytes: u64,
    /// Time that those bytes need.
    pub needed_ns: u64,
    /// Time beyond it.
    pub excess_ns: u64,
    pub breakdown: Breakdown,
    /// The commit that it waited for longest.
    pub commit: Option<Commit>,
    /// See [`super::breakdown::Partition`].
    pub held_ns: u64,
    /// The flight recorder was overwritten for a part of the call.
    pub has_gap: bool,
    /// Who else used its disks.
    pub others: Others,
    /// Time that the neighbours' bytes need.
    pub others_need_ns: u64,
    /// Slow requests that overlapped, longest first.
    pub requests: Vec<RequestEvent>,
    /// The same for those not completed yet, oldest first.
    pub outstanding: Vec<InFlightRequest>,
}

impl Stall {
    /// A finding: longer than `stall_ns` beyond what its bytes need.
    pub(crate) fn is_stalled(&self, duration_ns: u64, stall_ns: u64) -> bool {
        self.excess_ns > stall_ns
            && u128::from(self.excess_ns) * 100
                > u128::from(duration_ns) * u128::from(MIN_EXCESS_PERCENT)
    }

    /// Neighbours took the disk: at least half of the time a request of theirs
    /// was outstanding, half of the bytes were theirs, and as many as the disk
    /// carries in half of the time. One that is merely held moves no bytes.
    pub(crate) fn is_neighbours(&self, duration_ns: u64) -> bool {
        self.others.busy_ns * 2 >= duration_ns
            && self.others.nr_bytes * 2 >= self.others.all_bytes.max(self.own_bytes)
            && self.others_need_ns.saturating_mul(2) >= duration_ns
    }

    /// Time during which requests tied to the sync account for it.
    pub(crate) fn tied_ns(&self) -> u64 {
        let parts = &self.breakdown;
        parts.flush_ns + parts.own_data_ns + parts.journal_queue_ns + parts.journal_device_ns
    }

    /// The same with a request that its disk held, whoever asked.
    pub(crate) fn device_ns(&self) -> u64 {
        self.tied_ns() + self.held_ns
    }
}

/// What a sync is measured against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// Its file system.
    pub s_dev: u32,
    /// Leaf disks under it.
    pub disks: &'a [u32],
    /// Bytes per second that they wrote lately.
    pub rate: Option<u64>,
    /// All bytes that they wrote during the call.
    pub moved_bytes: u64,
    /// See [`Evidence`].
    pub is_journal_dark: bool,
    /// See [`Evidence`].
    pub is_asker_dark: bool,
    /// It has not returned.
    pub is_in_flight: bool,
    /// What belongs to its broker.
    pub household: Household<'a>,
    /// Requests that have not completed.
    pub outstanding: &'a [InFlightRequest],
}

/// Measures `sync`; for one in flight `exit_ns` is now.
pub(crate) fn measure(sync: &SyncEvent, scene: &Scene<'_>, memory: &Memory) -> Stall {
    let duration_ns = sync.exit_ns.saturating_sub(sync.enter_ns);
    let own_bytes = sync.delta.nr_bytes;
    let per_second = u128::from(scene.rate.unwrap_or(UNKNOWN_RATE).max(1));
    let time_of = |bytes: u64| {
        u64::try_from(u128::from(bytes) * 1_000_000_000 / per_second).unwrap_or(u64::MAX)
    };
    let mut overlapping = overlapping(sync, scene.disks, memory);
    let others = find_others(sync, &scene.household, &overlapping, &memory.recorder);
    // What other processes moved is no excuse: that is what a stall is told for.
    let moved_bytes = scene.moved_bytes.saturating_sub(others.written_bytes);
    let is_flood = scene.rate.is_some() && moved_bytes >= MIN_MOVED_BYTES.max(own_bytes);
    let moved_bytes = if is_flood && !is_passed_over(sync, &overlapping, time_of) {
        moved_bytes
    } else {
        0
    };
    let completed = overlapping.len();
    let mut outstanding: Vec<InFlightRequest> = scene
        .outstanding
        .iter()
        .filter(|request| scene.disks.contains(&request.dev) && request.issue_ns < sync.exit_ns)
        .cloned()
        .collect();
    outstanding.sort_by_key(|request| request.issue_ns);
    overlapping.extend(outstanding.iter().map(|one| span_until(one, sync.exit_ns)));
    let mut waits: Vec<WaitSpan> = memory
        .recorder
        .waits(sync.enter_ns, sync.exit_ns)
        .cloned()
        .collect();
    if scene.is_in_flight {
        waits.extend(memory.recorder.open_waits().map(|wait| WaitSpan {
            end_ns: sync.exit_ns,
            ..wait.clone()
        }));
    }
    let parts = partition(&Evidence {
        sync,
        s_dev: scene.s_dev,
        disks: scene.disks,
        requests: &overlapping,
        waits: &waits,
        is_journal_dark: scene.is_journal_dark,
        is_asker_dark: scene.is_asker_dark,
    });
    // A disk that was idle of late had no chance to show its rate: the file's data
    // needs no longer than its requests took. Those too fast for the recorder are
    // in the sum of device times alone.
    let own_ns = parts.breakdown.own_data_ns.max(sync.delta.device_ns);
    let needed_ns = time_of(own_bytes).min(own_ns).max(time_of(moved_bytes));
    outstanding.truncate(MAX_REQUESTS);
    overlapping.truncate(completed);
    Stall {
        own_bytes,
        moved_bytes,
        rate: scene.rate,
        needed_ns,
        excess_ns: duration_ns.saturating_sub(needed_ns),
        breakdown: parts.breakdown,
        commit: longest_commit(sync, scene.s_dev, &waits, &overlapping, scene.is_in_flight),
        held_ns: parts.held_ns,
        others_need_ns: time_of(others.nr_bytes),
        others,
        has_gap: memory.recorder.has_gap(sync.enter_ns, sync.exit_ns),
        requests: worth_showing(overlapping, sync, scene.s_dev, memory),
        outstanding,
    }
}

/// A request that has not completed, as if it did at this time. Its file is looked up
/// at its completion only.
pub(crate) fn span_until(request: &InFlightRequest, now_ns: u64) -> RequestSpan {
    RequestSpan {
        dev: request.dev,
        op: request.op.clone(),
        flags: request.flags.clone(),
        issue_ns: request.issue_ns,
        complete_ns: now_ns,
        pid: request.pid,
        tid: request.tid,
        ..RequestSpan::default()
    }
}

/// A request of the sync's own was in the device for most of the call, though what
/// was ahead of it there would have gone through in less than half of that time:
/// the device held it while others passed, and their bytes are no excuse.
fn is_passed_over(
    sync: &SyncEvent,
    overlapping: &[RequestSpan],
    time_of: impl Fn(u64) -> u64,
) -> bool {
    let duration_ns = sync.exit_ns.saturating_sub(sync.enter_ns);
    overlapping
        .iter()
        .filter(|request| is_own(request, sync) && request.issue_ns != 0)
        .any(|own| {
            let device_ns = own.complete_ns.saturating_sub(own.issue_ns);
            let ahead = overlapping.iter().filter(|other| {
                other.dev == own.dev
                    && other.issue_ns < own.issue_ns
                    && other.complete_ns > own.issue_ns
            });
            let bytes: u64 = ahead.map(|other| u64::from(other.nr_bytes)).sum();
            device_ns * 2 >= duration_ns && time_of(bytes).saturating_mul(2) < device_ns
        })
}

/// Requests of the disks that overlap the call: from the flight recorder, and
/// those that were reported one by one, each once.
fn overlapping(sync: &SyncEvent, disks: &[u32], memory: &Memory) -> Vec<RequestSpan> {
    let overlaps = |request: &RequestSpan| {
        disks.contains(&request.dev)
            && request.complete_ns > sync.enter_ns
            && begin_and_issue(request).is_some_and(|(begin_ns, _)| begin_ns < sync.exit_ns)
    };
    let mut found: Vec<RequestSpan> = memory
        .recorder
        .requests()
        .filter(|request| overlaps(request))
        .cloned()
        .collect();
    let reported = memory
        .slow()
        .chain(memory.failed_of(&sync.file))
        .chain(memory.failed_fileless());
    for request in reported.map(span_of).filter(overlaps) {
        if !found.iter().any(|known| is_same(known, &request)) {
            found.push(request);
        }
    }
    found
}

/// Tied to the sync, or held for most of it; the longest first.
fn worth_showing(
    mut overlapping: Vec<RequestSpan>,
    sync: &SyncEvent,
    s_dev: u32,
    memory: &Memory,
) -> Vec<RequestEvent> {
    let begin_ns =
        |request: &RequestSpan| begin_and_issue(request).map_or(request.complete_ns, |it| it.0);
    let is_long = |request: &RequestSpan| {
        let (begin_ns, end_ns) = (begin_ns(request), request.complete_ns);
        let inside = end_ns
            .min(sync.exit_ns)
            .saturating_sub(begin_ns.max(sync.enter_ns));
        inside * 2 >= sync.exit_ns.saturating_sub(sync.enter_ns)
    };
    overlapping.retain(|request| {
        request.errno == 0
            && (request.op == "flush"
                || is_own(request, sync)
                || is_journal(request, s_dev)
                || is_long(request))
    });
    overlapping.sort_by_key(|request| {
        std::cmp::Reverse(request.complete_ns.saturating_sub(begin_ns(request)))
    });
    overlapping.truncate(MAX_REQUESTS);
    overlapping
        .iter()
        .map(|request| {
            let reported = memory
                .slow()
                .find(|known| is_same(request, &span_of(known)));
            reported
                .cloned()
                .unwrap_or_else(|| event_of(request, memory))
        })
        .collect()
}

fn is_same(left: &RequestSpan, right: &RequestSpan) -> bool {
    (left.dev, left.complete_ns, left.sector) == (right.dev, right.complete_ns, right.sector)
}

fn span_of(request: &RequestEvent) -> RequestSpan {
    RequestSpan {
        dev: request.dev,
        op: request.op.clone(),
        flags: request.flags.clone(),
        start_ns: request.start_ns,
        issue_ns: request.issue_ns,
        complete_ns: request.complete_ns,
        sector: request.sector,
        nr_bytes: request.nr_bytes,
        status: request.status.clone(),
        errno: request.errno,
        file: request.file.clone(),
        file_source: request.file_source.clone(),
        rdev: request.rdev,
        root: request.root,
        nr_requeue: request.nr_requeue,
        ..RequestSpan::default()
    }
}

fn event_of(span: &RequestSpan, memory: &Memory) -> RequestEvent {
    let names = memory.recorder.names_of(&span.file);
    RequestEvent {
        names: names.unwrap_or_default().to_vec(),
        dev: span.dev,
        op: span.op.clone(),
        flags: span.flags.clone(),
        sector: span.sector,
        nr_bytes: span.nr_bytes,
        start_ns: span.start_ns,
        issue_ns: span.issue_ns,
        complete_ns: span.complete_ns,
        status: span.status.clone(),
        errno: span.errno,
        file_source: span.file_source.clone(),
        file: span.file.clone(),
        rdev: span.rdev,
        root: span.root,
        nr_requeue: span.nr_requeue,
        ..RequestEvent::default()
    }
}

#[cfg(test)]
#[path = "stall_tests.rs"]
mod tests;
