//! Whether a sync took longer than its bytes need, and where its time went.
//! In: the sync, the rate of its disks, the requests that were in flight
//! meanwhile. Out: [`Stall`]: the excess, the breakdown, the requests. What it
//! means is decided in `judge`.

use super::memory::Memory;
use super::spans::{Span, length, union_within};
use crate::event::{InFlightRequest, RequestEvent, SyncEvent};
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
    /// All bytes that its disks wrote during the call, if those explain it
    /// better than its own: it waited behind them.
    pub moved_bytes: u64,
    /// Time that those bytes need.
    pub needed_ns: u64,
    /// Time beyond it.
    pub excess_ns: u64,
    pub breakdown: Breakdown,
    /// Part of the breakdown's rest during which journal or metadata requests
    /// of the file system were in flight.
    pub journal_ns: u64,
    /// Part of the rest during which some other request had been in its disk
    /// for longer than half of the call: the disk held it, whoever asked.
    pub held_ns: u64,
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

    /// Time during which requests of its disks account for the sync.
    pub(crate) fn device_ns(&self) -> u64 {
        self.breakdown.flush_ns + self.breakdown.own_data_ns + self.journal_ns + self.held_ns
    }
}

/// Measures `sync`; for one in flight `exit_ns` is now.
pub(crate) fn measure(
    sync: &SyncEvent,
    disks: &[u32],
    rate: Option<u64>,
    moved_bytes: u64,
    memory: &Memory,
    outstanding: &[InFlightRequest],
) -> Stall {
    let within = (sync.enter_ns, sync.exit_ns);
    let duration_ns = sync.exit_ns.saturating_sub(sync.enter_ns);
    let own_bytes = sync.delta.nr_bytes;
    let per_second = u128::from(rate.unwrap_or(UNKNOWN_RATE).max(1));
    let time_of = |bytes: u64| {
        u64::try_from(u128::from(bytes) * 1_000_000_000 / per_second).unwrap_or(u64::MAX)
    };
    let moved_bytes = if rate.is_some() && moved_bytes >= MIN_MOVED_BYTES.max(own_bytes) {
        moved_bytes
    } else {
        0
    };
    let needed_ns = time_of(own_bytes).max(time_of(moved_bytes));

    let overlapping = || {
        memory.slow().filter(|request| {
            disks.contains(&request.dev)
                && begin_ns(request) < sync.exit_ns
                && request.complete_ns > sync.enter_ns
        })
    };
    let waiting: Vec<&InFlightRequest> = outstanding
        .iter()
        .filter(|request| disks.contains(&request.dev) && request.issue_ns < sync.exit_ns)
        .collect();
    let still = |request: &InFlightRequest| (request.issue_ns, sync.exit_ns);

    let is_flush = |request: &&RequestEvent| request.op == "flush";
    let is_own = |request: &&RequestEvent| request.file.s_dev != 0 && request.file == sync.file;
    let is_journal = |request: &&RequestEvent| {
        request.file_source == "blockdev" && request.rdev == sync.file.s_dev
            || request.file_source == "meta"
    };
    let long = |span: &Span| length(&union_within([*span], within)) * 2 >= duration_ns;

    let mut flushes: Vec<Span> = overlapping().filter(is_flush).map(span_of).collect();
    flushes.extend(
        waiting
            .iter()
            .filter(|request| request.op == "flush")
            .map(|request| still(request)),
    );
    let mut spans = Vec::new();
    let flush_ns = grow(&mut spans, flushes, within);
    let own_data_ns = grow(
        &mut spans,
        overlapping().filter(is_own).map(span_of).collect(),
        within,
    );
    let journal_ns = grow(
        &mut spans,
        overlapping().filter(is_journal).map(span_of).collect(),
        within,
    );
    let mut held: Vec<Span> = overlapping().map(span_of).filter(long).collect();
    held.extend(waiting.iter().map(|request| still(request)).filter(long));
    let held_ns = grow(&mut spans, held, within);

    let mut requests: Vec<RequestEvent> = overlapping()
        .filter(|request| {
            is_flush(request) || is_own(request) || is_journal(request) || long(&span_of(request))
        })
        .cloned()
        .collect();
    requests.sort_by_key(|request| {
        std::cmp::Reverse(request.complete_ns.saturating_sub(begin_ns(request)))
    });
    requests.truncate(MAX_REQUESTS);
    let mut outstanding: Vec<InFlightRequest> = waiting.into_iter().cloned().collect();
    outstanding.sort_by_key(|request| request.issue_ns);
    outstanding.truncate(MAX_REQUESTS);

    Stall {
        own_bytes,
        moved_bytes,
        rate,
        needed_ns,
        excess_ns: duration_ns.saturating_sub(needed_ns),
        breakdown: Breakdown {
            flush_ns,
            own_data_ns,
            other_ns: duration_ns.saturating_sub(flush_ns + own_data_ns),
        },
        journal_ns,
        held_ns,
        requests,
        outstanding,
    }
}

/// Adds `more` to `spans`; returns by how much they cover more than before.
fn grow(spans: &mut Vec<Span>, more: Vec<Span>, within: Span) -> u64 {
    let before = length(&union_within(spans.iter().copied(), within));
    spans.extend(more);
    length(&union_within(spans.iter().copied(), within)) - before
}

/// When a request began to wait: its allocation where known, else its issue.
fn begin_ns(request: &RequestEvent) -> u64 {
    match (request.start_ns, request.issue_ns) {
        (0, 0) => request.complete_ns,
        (0, issue_ns) => issue_ns,
        (start_ns, 0) => start_ns,
        (start_ns, issue_ns) => start_ns.min(issue_ns),
    }
}

fn span_of(request: &RequestEvent) -> Span {
    // A flush waits in the block layer's own queue for the one before it: only
    // its time in the device says that the device is slow.
    let begin = if request.op == "flush" && request.issue_ns != 0 {
        request.issue_ns
    } else {
        begin_ns(request)
    };
    (begin, request.complete_ns)
}
