//! Readings of the kernel's maps that the loop takes at its ticks: syncs in
//! flight, requests outstanding, bytes by disk, losses. Reads maps only.

use std::collections::BTreeMap;

use fsyncscope_abi::{block::req_op, loss::Loss, sync::SyncState};

use crate::{
    decode::{FlagMasks, counters, decode_in_flight, decode_outstanding, sync_op_name},
    event::{Counters, InFlightRequest, InFlightSync, Summary, SummaryRow},
    histogram::{HistAccumulator, percentiles},
    probe::maps::Maps,
};

/// Outstanding requests told per disk.
const PER_DISK: usize = 4;

/// Syncs in flight for `min_ns` or longer, oldest first.
pub fn syncs_in_flight(maps: &Maps, now_ns: u64, min_ns: u64) -> Vec<InFlightSync> {
    let mut found: Vec<SyncState> = maps
        .ops
        .iter()
        .filter_map(Result::ok)
        .map(|(_, state)| state)
        .filter(|state| state.enter_ns != 0 && now_ns.saturating_sub(state.enter_ns) >= min_ns)
        .collect();
    found.sort_by_key(|state| state.enter_ns);
    found
        .iter()
        .map(|state| {
            let names = (state.inode.s_dev != 0)
                .then(|| maps.names.get(&state.inode, 0).ok())
                .flatten();
            InFlightSync {
                sync: decode_in_flight(state, names.as_ref(), "", delta(maps, state), now_ns),
                confirmed: None,
                stack: Vec::new(),
            }
        })
        .collect()
}

/// What requests of the sync's file did since it began.
fn delta(maps: &Maps, state: &SyncState) -> Counters {
    if state.inode.s_dev == 0 {
        return Counters::default();
    }
    let Ok(inode) = maps.inodes.get(&state.inode, 0) else {
        return Counters::default();
    };
    let (now, then) = (counters(&inode.counters), counters(&state.snap));
    Counters {
        nr_requests: now.nr_requests.saturating_sub(then.nr_requests),
        nr_bytes: now.nr_bytes.saturating_sub(then.nr_bytes),
        device_ns: now.device_ns.saturating_sub(then.device_ns),
        nr_errors: now.nr_errors.saturating_sub(then.nr_errors),
    }
}

/// True if the thread of `sync` is still in the operation that was seen.
pub fn is_still_in(maps: &Maps, sync: &InFlightSync) -> bool {
    maps.ops
        .get(&sync.sync.tid, 0)
        .is_ok_and(|state| state.enter_ns == sync.sync.enter_ns)
}

/// Oldest outstanding requests of each disk.
pub fn outstanding(maps: &Maps, masks: FlagMasks) -> Vec<InFlightRequest> {
    let mut by_disk: BTreeMap<u32, Vec<InFlightRequest>> = BTreeMap::new();
    for (rq, state) in maps.rqs.iter().filter_map(Result::ok) {
        if state.dev != 0 && state.issue_ns != 0 {
            by_disk
                .entry(state.dev)
                .or_default()
                .push(decode_outstanding(rq, &state, masks));
        }
    }
    let mut all = Vec::new();
    for requests in by_disk.values_mut() {
        requests.sort_by_key(|rq| rq.issue_ns);
        requests.truncate(PER_DISK);
        all.append(requests);
    }
    all
}

/// Requests outstanding: disk → how many.
pub fn outstanding_counts(maps: &Maps) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for (_, state) in maps.rqs.iter().filter_map(Result::ok) {
        if state.dev != 0 {
            *counts.entry(state.dev).or_default() += u64::from(state.issue_ns != 0);
        }
    }
    counts
}

/// Bytes written so far by disk.
pub fn written_bytes(maps: &Maps) -> BTreeMap<u32, u64> {
    let mut written = BTreeMap::new();
    for (key, per_cpu) in maps.block_hist.iter().filter_map(Result::ok) {
        if key as u8 == req_op::WRITE {
            written.insert(
                (key >> 32) as u32,
                per_cpu.iter().map(|hist| hist.nr_bytes).sum(),
            );
        }
    }
    written
}

/// Losses so far by class; classes without any are left out.
pub fn losses(maps: &Maps) -> BTreeMap<String, u64> {
    Loss::ALL
        .iter()
        .filter_map(|class| {
            let total: u64 = maps.loss.get(&(*class as u32), 0).ok()?.iter().sum();
            (total > 0).then(|| (class.name().to_owned(), total))
        })
        .collect()
}

/// Percentiles of all syncs so far, by broker, directory, device and operation.
pub fn summary(maps: &Maps) -> Summary {
    let mut rows = Vec::new();
    for (key, per_cpu) in maps.hist.iter().filter_map(Result::ok) {
        let mut one = HistAccumulator::default();
        one.absorb(key, &per_cpu);
        let Some(totals) = one.get(&key).filter(|totals| totals.count() > 0) else {
            continue;
        };
        let Ok(percentiles) = percentiles(totals) else {
            continue;
        };
        rows.push(SummaryRow {
            broker: key.broker,
            root: key.root,
            dev: key.s_dev,
            op: sync_op_name(key.op as u8),
            count: totals.count(),
            errors: totals.nr_errors,
            p50_ns: percentiles.p50_ns,
            p99_ns: percentiles.p99_ns,
            max_ns: percentiles.max_ns,
        });
    }
    rows.sort_by(|a, b| (a.broker, a.root, &a.op, a.dev).cmp(&(b.broker, b.root, &b.op, b.dev)));
    Summary { rows }
}

/// Number of a sync system call on this architecture.
pub fn syscall_number(op: &str) -> Option<i64> {
    let number = match op {
        "fsync" => libc::SYS_fsync,
        "fdatasync" => libc::SYS_fdatasync,
        "msync" => libc::SYS_msync,
        "sync_file_range" => libc::SYS_sync_file_range,
        "syncfs" => libc::SYS_syncfs,
        _ => return None,
    };
    // c_long is 64 bits on every supported architecture.
    Some(number)
}
