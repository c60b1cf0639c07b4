//! Readings of the kernel's maps that the loop takes at its ticks: syncs in
//! flight, requests outstanding, bytes by disk, losses. Reads maps, and the
//! kernel's own account of requests in flight and of programs.

use std::{collections::BTreeMap, fs, path::Path};

use fsyncscope_abi::{
    block::req_op,
    loss::{Loss, RECURSION},
    sync::SyncState,
};

use crate::{
    decode::{FlagMasks, counters, decode_in_flight, decode_outstanding, sync_op_name},
    event::{Counters, InFlightRequest, InFlightSync, Summary, SummaryRow},
    histogram::{HistAccumulator, percentiles},
    probe::{maps::Maps, recursion_misses},
};

/// Where the kernel tells of its disks.
const SYS: &str = "/sys";

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
    for (dev, requests) in &mut by_disk {
        if is_idle(Path::new(SYS), *dev) {
            continue;
        }
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
    for (dev, count) in &mut counts {
        if *count > 0 && is_idle(Path::new(SYS), *dev) {
            *count = 0;
        }
    }
    counts
}

/// True if the kernel says that the disk has no request in flight: what the map
/// holds of it has then completed unseen. sysfs answers from memory, however the
/// disk is. False where it does not know the disk, as for hidden paths.
fn is_idle(sys: &Path, dev: u32) -> bool {
    let (major, minor) = (dev >> 20, dev & 0xf_ffff);
    let path = sys.join(format!("dev/block/{major}:{minor}/inflight"));
    fs::read_to_string(path).is_ok_and(|text| text.split_whitespace().all(|count| count == "0"))
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
    let in_programs = Loss::ALL.iter().filter_map(|class| {
        let total = maps.loss.get(&(*class as u32), 0).ok()?.iter().sum();
        Some((class.name(), total))
    });
    in_programs
        .chain([(RECURSION, recursion_misses())])
        .filter(|(_, total)| *total > 0)
        .map(|(class, total)| (class.to_owned(), total))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    #[test]
    fn a_disk_is_idle_only_if_the_kernel_says_so() {
        let sys = TestDir::new("idle");
        let (dev, file) = (7 << 20 | 3, "dev/block/7:3/inflight");
        assert!(!is_idle(sys.path(), dev), "a disk that sysfs does not know");
        sys.write(file, "       0        1\n");
        assert!(!is_idle(sys.path(), dev));
        sys.write(file, "       0        0\n");
        assert!(is_idle(sys.path(), dev));
    }
}
