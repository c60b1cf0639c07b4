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
    detail::Detail,
    event::{Counters, InFlightRequest, InFlightSync, Summary, SummaryRow},
    helper::ThreadState,
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

/// Forgets threads that are gone, once there are many: each leaves its entry. Gives
/// how many were in a sync whose end was not seen.
pub fn forget_ended(maps: &mut Maps, proc: &Path) -> u64 {
    let all: Vec<_> = maps.ops.iter().filter_map(Result::ok).collect();
    let is_crowded = all.len() > MANY_THREADS;
    let mut unseen = 0;
    for (tid, state) in all {
        let is_idle = state.enter_ns == 0;
        if (is_idle && !is_crowded) || !is_gone(proc, &state) {
            continue;
        }
        // The number may be another thread's by now.
        let is_same = maps.ops.get(&tid, 0).is_ok_and(|now| now == state);
        if is_same && maps.ops.remove(&tid).is_ok() {
            unseen += u64::from(!is_idle);
        }
    }
    unseen
}

/// More than brokers have that sync: below, entries of threads that ended do no harm.
const MANY_THREADS: usize = 2048;

/// True if the thread whose sync this is or was has ended.
fn is_gone(proc: &Path, state: &SyncState) -> bool {
    let (pid, tid) = (state.pid_tgid >> 32, state.pid_tgid as u32);
    !proc.join(format!("{pid}/task/{tid}")).exists()
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
            requests.retain(|rq| rq.op == FLUSH);
        }
        requests.sort_by_key(|rq| rq.issue_ns);
        requests.truncate(PER_DISK);
        all.append(requests);
    }
    all
}

/// Requests outstanding: disk → how many.
pub fn outstanding_counts(maps: &Maps) -> BTreeMap<u32, u64> {
    // All, and flushes alone.
    let mut counts = BTreeMap::<u32, (u64, u64)>::new();
    for (_, state) in maps.rqs.iter().filter_map(Result::ok) {
        if state.dev != 0 {
            let count = counts.entry(state.dev).or_default();
            let is_outstanding = state.issue_ns != 0;
            count.0 += u64::from(is_outstanding);
            count.1 += u64::from(is_outstanding && state.cmd_flags as u8 == req_op::FLUSH);
        }
    }
    let told = |(dev, (all, flushes)): (u32, (u64, u64))| {
        let is_idle = all > 0 && is_idle(Path::new(SYS), dev);
        (dev, if is_idle { flushes } else { all })
    };
    counts.into_iter().map(told).collect()
}

/// Name of the operation that the kernel counts in no flight of a disk: its
/// request is the block layer's own (blk_kick_flush). A lost completion of one
/// lasts until the next flush, which takes the same request.
const FLUSH: &str = "flush";

/// True if the kernel says that the disk has no request in flight but flushes:
/// what else the map holds of it has then completed unseen. sysfs answers from
/// memory, however the disk is. False where it does not know the disk, and for the
/// head of NVMe multipath, which has no queue of its own (no `mq`): some kernels
/// count nothing in flight there while its paths have much.
fn is_idle(sys: &Path, dev: u32) -> bool {
    let (major, minor) = (dev >> 20, dev & 0xf_ffff);
    let disk = sys.join(format!("dev/block/{major}:{minor}"));
    let is_zero = |text: String| text.split_whitespace().all(|count| count == "0");
    disk.join("mq").exists() && fs::read_to_string(disk.join("inflight")).is_ok_and(is_zero)
}

/// Bytes written so far by disk.
pub fn written_bytes(maps: &Maps, detail: Detail) -> BTreeMap<u32, u64> {
    if detail == Detail::Low {
        let disks = maps.devs.keys().filter_map(Result::ok);
        return disks
            .filter_map(|dev| Some((dev, written_by_kernel(Path::new(SYS), dev)?)))
            .collect();
    }
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

/// The kernel's own account of a disk, answered from memory: its seventh number is
/// sectors written (Documentation/block/stat.rst).
fn written_by_kernel(sys: &Path, dev: u32) -> Option<u64> {
    let (major, minor) = (dev >> 20, dev & 0xf_ffff);
    let text = fs::read_to_string(sys.join(format!("dev/block/{major}:{minor}/stat"))).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
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

/// Whether a thread that was seen in `op` is still in it, by the system call and
/// the kernel stack that /proc shows of it. None: they do not tell.
pub fn is_in_op(op: &str, thread: &ThreadState) -> Option<bool> {
    let calls: &[libc::c_long] = match op {
        "fsync" => &[libc::SYS_fsync],
        "fdatasync" => &[libc::SYS_fdatasync],
        "msync" => &[libc::SYS_msync],
        "sync_file_range" => &[libc::SYS_sync_file_range],
        "syncfs" => &[libc::SYS_syncfs],
        "dsync" => WRITES,
        // A worker is in no call of its own.
        _ => {
            let is_syncing = |frame: &String| SYNC_FRAMES.iter().any(|name| frame.contains(name));
            return (!thread.stack.is_empty()).then(|| thread.stack.iter().any(is_syncing));
        }
    };
    let is_in = |call: i64| calls.contains(&call);
    thread
        .syscall_known
        .then(|| thread.syscall.is_some_and(is_in))
}

/// Calls in which a write may have to be durable before they return.
const WRITES: &[libc::c_long] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
    libc::SYS_io_submit,
    libc::SYS_io_uring_enter,
];

/// One of these is in the stack of every thread that is in a sync of a file.
const SYNC_FRAMES: [&str; 2] = ["sync_file", "vfs_fsync"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    fn thread(syscall: Option<i64>, stack: &[&str]) -> ThreadState {
        ThreadState {
            syscall,
            syscall_known: true,
            stack: stack.iter().map(|frame| (*frame).to_owned()).collect(),
            ..ThreadState::default()
        }
    }

    #[test]
    fn a_thread_is_in_a_sync_by_its_call() {
        let writing = thread(Some(libc::SYS_pwrite64), &[]);
        let waiting = thread(Some(libc::SYS_futex), &[]);
        assert_eq!(is_in_op("dsync", &writing), Some(true));
        assert_eq!(is_in_op("dsync", &waiting), Some(false));
        assert_eq!(is_in_op("fsync", &writing), Some(false));
        assert_eq!(is_in_op("fsync", &ThreadState::default()), None);
    }

    #[test]
    fn a_thread_is_gone_once_proc_has_it_no_more() {
        let proc = TestDir::new("gone");
        let state = SyncState {
            pid_tgid: 7 << 32 | 8,
            ..SyncState::default()
        };
        assert!(is_gone(proc.path(), &state));
        proc.write("7/task/8/comm", "x");
        assert!(!is_gone(proc.path(), &state));
    }

    #[test]
    fn a_worker_is_in_a_sync_by_its_stack() {
        let syncing = thread(None, &["submit_bio_wait+0x1/0x2", "ext4_sync_file+0x3/0x4"]);
        let idle = thread(None, &["io_wq_worker+0x1/0x2"]);
        for op in ["io_uring", "aio"] {
            assert_eq!(is_in_op(op, &syncing), Some(true));
            assert_eq!(is_in_op(op, &idle), Some(false));
            assert_eq!(is_in_op(op, &thread(None, &[])), None);
        }
    }

    #[test]
    fn bytes_written_are_the_kernels_where_no_request_is_seen() {
        let sys = TestDir::new("stat");
        let dev = 7 << 20 | 3;
        assert_eq!(written_by_kernel(sys.path(), dev), None);
        let stat = "   41  0  328  2  1000  12  8192  77  0  88  79  0  0  0  0  9  3\n";
        sys.write("dev/block/7:3/stat", stat);
        assert_eq!(written_by_kernel(sys.path(), dev), Some(8192 * 512));
    }

    #[test]
    fn a_disk_is_idle_only_if_the_kernel_says_so() {
        let sys = TestDir::new("idle");
        let (dev, file) = (7 << 20 | 3, "dev/block/7:3/inflight");
        assert!(!is_idle(sys.path(), dev), "a disk that sysfs does not know");
        sys.write("dev/block/7:3/mq/0/cpu_list", "0\n");
        sys.write(file, "       0        1\n");
        assert!(!is_idle(sys.path(), dev));
        sys.write(file, "       0        0\n");
        assert!(is_idle(sys.path(), dev));
        sys.write("dev/block/259:0/inflight", "       0        0\n");
        assert!(
            !is_idle(sys.path(), 259 << 20),
            "a head that counts nothing"
        );
    }
}
