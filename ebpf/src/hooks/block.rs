//! Block requests: issue, requeue, complete.
//!
//! - `block_rq_issue(rq)`, `block_rq_requeue(rq)`; `(q, rq)` before 5.10.137
//! - `block_rq_complete(rq, int errno | blk_status_t, unsigned nr_bytes)`;
//!   errno to 5.15, blk_status_t since; fires before the bios are ended, so the
//!   chain from request to file is whole
//!
//! Has `report` send a record for a request that failed or took
//! `request_slow_ns`; counts all of a watched disk in BLOCK_HIST, FLUSHES and,
//! for data of known files, INODES. Below the level `full` issue and requeue are
//! not attached, and `done` has the completion.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use fsyncscope_abi::{
    block::{InodeState, RqState, block_hist_key, nvme_error_key, req_op},
    facts::{UNKNOWN, detail},
    loss::Loss,
};

use crate::{
    hooks::{
        done::done,
        places::mark,
        report::{begin, send},
        spans::request_span,
        sync::add,
    },
    kernel::{
        arg0_or_1, fact,
        page::owner_of,
        read::{Addr, Mem, Probe, Typed, key_of},
        request::{dev_of_disk, disk_of, head_of},
    },
    maps::{
        BLOCK_HIST, DEVS, FLUSHES, INODES, NVME_ERRORS, RQS, WATCHED_SINCE, atomic_add, epoch, lost,
    },
};

/// Disk of `rq` if it is watched, else 0. Asked once per request object and epoch.
#[inline(always)]
pub fn watched_disk<M: Mem>(rq: Addr) -> u32 {
    let disk = disk_of::<M>(rq);
    if disk == 0 {
        return 0;
    }
    let dev = dev_of_disk::<M>(disk);
    // SAFETY: read only.
    if dev != 0 && unsafe { DEVS.get(&dev) }.is_some() {
        return dev;
    }
    let head = head_of(disk);
    if head == 0 && fact!(watch_all) != 0 {
        dev
    } else {
        head
    }
}

/// A request goes to the driver.
#[inline(always)]
fn issued<M: Mem>(rq: Addr) {
    let now_epoch = epoch();
    if let Some(state) = RQS.get_ptr_mut(&key_of(rq)) {
        // SAFETY: a request is issued by one CPU at a time.
        let state = unsafe { &mut *state };
        if state.epoch == now_epoch {
            if state.dev == 0 {
                return;
            }
            if state.issue_ns == 0 || is_reused::<M>(state, rq) {
                state.nr_requeue = 0;
                start::<M>(state, rq);
            }
            return;
        }
    }
    first_issue::<M>(rq, now_epoch);
}

/// When the request was allocated, CLOCK_MONOTONIC ns; 0 = not known.
#[inline(always)]
pub fn started<M: Mem>(rq: Addr) -> u64 {
    if fact!(request_start_time_ns) == UNKNOWN {
        0
    } else {
        M::u64(rq, fact!(request_start_time_ns))
    }
}

/// True if the request was allocated anew since its last issue: its completion
/// was not seen. The hook runs in interrupts too, and the kernel does not run it
/// inside itself.
#[inline(always)]
fn is_reused<M: Mem>(state: &RqState, rq: Addr) -> bool {
    let is_new = started::<M>(rq) > state.issue_ns;
    let is_other = M::u64(rq, fact!(request_sector)) != state.sector
        && M::u32(rq, fact!(request_data_len)) >= state.nr_bytes;
    if is_new || is_other {
        lost(Loss::MissedComplete);
    }
    is_new || is_other
}

/// Notes the start of a use of the request.
#[inline(always)]
fn start<M: Mem>(state: &mut RqState, rq: Addr) {
    state.sector = M::u64(rq, fact!(request_sector));
    state.nr_bytes = M::u32(rq, fact!(request_data_len));
    state.cmd_flags = M::u32(rq, fact!(request_cmd_flags));
    state.pid_tgid = bpf_get_current_pid_tgid();
    state.nvme_status = 0;
    state.nvme_retries = 0;
    state.is_nvme_ok = 0;
    // SAFETY: the helper has no preconditions.
    state.issue_ns = unsafe { bpf_ktime_get_ns() };
}

/// A request object seen for the first time in this epoch.
#[inline(always)]
fn first_issue<M: Mem>(rq: Addr, now_epoch: u16) {
    let mut state = RqState {
        dev: watched_disk::<M>(rq),
        epoch: now_epoch,
        ..RqState::default()
    };
    if state.dev != 0 {
        start::<M>(&mut state, rq);
    }
    if RQS.insert(&key_of(rq), &state, u64::from(BPF_ANY)).is_err() && state.dev != 0 {
        lost(Loss::RqsFull);
    }
}

/// A request goes back to the queue; it stays in flight.
#[inline(always)]
fn requeued(rq: Addr) {
    if let Some(state) = RQS.get_ptr_mut(&rq) {
        // SAFETY: as in `issued`.
        unsafe {
            if (*state).dev != 0 {
                (*state).nr_requeue = (*state).nr_requeue.saturating_add(1);
            }
        }
    }
}

/// A successful completion of nothing: one of those that waited for a shared
/// flush and are never issued, or the first of the two of a write with
/// PREFLUSH. Not a flush itself, and not a request whose bios multipath failover
/// has stolen, which ends here and must be forgotten.
#[inline(always)]
pub fn is_waiter<M: Mem>(rq: Addr) -> bool {
    M::u32(rq, fact!(request_cmd_flags)) as u8 != req_op::FLUSH
        && M::u64(rq, fact!(request_bio)) != 0
}

/// True for what multipath failover ends: its bios are stolen, so that it ends with
/// none, no byte and no error. A flush never has a bio; it is one if its only answer
/// was a status.
#[inline(always)]
pub fn is_failover(state: &RqState, op: u8) -> bool {
    op != req_op::FLUSH || (state.nvme_status != 0 && state.is_nvme_ok == 0)
}

/// A path that dies fails all that is in flight on it: the first 16 are told, then
/// each power of two.
#[inline(always)]
pub fn is_told_failover(state: &RqState) -> bool {
    if state.nvme_status == 0 {
        return false;
    }
    let key = nvme_error_key(state.dev, state.nvme_status);
    let Some(count) = NVME_ERRORS.get_ptr(&key) else {
        return false;
    };
    // SAFETY: a live map value.
    let count = unsafe { *count };
    count <= 16 || count & (count - 1) == 0
}

/// Sends the record of a request whose bios were stolen: it has no file.
#[inline(never)]
pub fn failed_over<M: Mem>(rq: Addr, state: &RqState, now: u64) {
    if let Some(report) = begin(state, rq, now) {
        report.start_ns = started::<M>(rq);
        report.is_failover = 1;
        send(report);
    }
}

/// A request, or a part of it, is done.
#[inline(always)]
fn completed<M: Mem>(rq: Addr, status: i32, nr_bytes: u32) {
    if fact!(detail) == detail::LOW && status == 0 {
        return;
    }
    if status == 0 && nr_bytes == 0 && is_waiter::<M>(rq) {
        return;
    }
    if fact!(detail) != detail::FULL {
        done::<M>(rq, status, nr_bytes);
        return;
    }
    let Some(state) = RQS.get_ptr_mut(&key_of(rq)) else {
        let dev = watched_disk::<M>(rq);
        if dev != 0 {
            let state = RqState {
                dev,
                ..RqState::default()
            };
            unseen::<M>(rq, &state, status, nr_bytes);
        }
        return;
    };
    // SAFETY: a request completes on one CPU at a time.
    let state = unsafe { &mut *state };
    if state.dev == 0 {
        return;
    }
    if state.issue_ns == 0 {
        // The second completion of a flush-sequenced write, or one that never
        // reached the driver. What has been told is not told again.
        if status != 0 {
            let start_ns = started::<M>(rq);
            if start_ns != 0 && start_ns == state.told_start_ns {
                return;
            }
            state.told_start_ns = start_ns;
            unseen::<M>(rq, state, status, nr_bytes);
        }
        return;
    }
    let op = state.cmd_flags as u8;
    let bio = M::u64(rq, fact!(request_bio));
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if bio == 0 && status == 0 && nr_bytes == 0 && is_failover(state, op) {
        // Neither done nor failed: the bios go on by another path, as other
        // requests. What became of a flush nobody knows; the kernel takes it for
        // done.
        if is_told_failover(state) {
            failed_over::<M>(rq, state, now);
        }
        if op != req_op::FLUSH {
            state.issue_ns = 0;
            return;
        }
    }
    let device_ns = now.saturating_sub(state.issue_ns);
    let remaining = M::u32(rq, fact!(request_data_len));
    // A part of a request is no request: its bytes count, not its time.
    let is_done = nr_bytes >= remaining || op == req_op::FLUSH;
    let slow = is_done && device_ns >= fact!(request_slow_ns);
    if op == req_op::FLUSH {
        flushed(state, now, device_ns, status);
    } else if status == 0 && !slow && req_op::has_pages(op) {
        data_done::<M>(rq, bio, nr_bytes, device_ns, is_done);
    }
    let start_ns = started::<M>(rq);
    if let Some(hist) = BLOCK_HIST.get_ptr_mut(&block_hist_key(state.dev, op)) {
        // SAFETY: this CPU's value.
        let hist = unsafe { &mut *hist };
        hist.nr_bytes += u64::from(nr_bytes);
        if is_done || status != 0 {
            add(&mut hist.device, device_ns, status != 0);
            if start_ns != 0 && start_ns <= state.issue_ns {
                add(&mut hist.queue, state.issue_ns - start_ns, false);
            }
        }
    }
    if status != 0 {
        state.told_start_ns = start_ns;
    }
    if (status != 0 || slow)
        && let Some(report) = begin(state, rq, now)
    {
        report.first = bio;
        report.start_ns = start_ns;
        report.device_ns = device_ns;
        report.done_bytes = nr_bytes;
        report.status = status;
        send(report);
    }
    if status != 0 || is_done {
        let queued = start_ns != 0 && start_ns < state.issue_ns;
        let began_ns = if queued { start_ns } else { state.issue_ns };
        if status != 0 || now.saturating_sub(began_ns) >= fact!(span_min_ns) {
            request_span::<M>(state, bio, start_ns, now, status);
        }
        state.issue_ns = 0;
    }
}

/// Counts a healthy data request for its file, or its two files where a merge
/// spans files; of a part of one, the bytes.
#[inline(always)]
pub fn data_done<M: Mem>(rq: Addr, bio: Addr, nr_bytes: u32, device_ns: u64, is_done: bool) {
    let owner = owner_of::<M>(bio);
    if owner.key.s_dev == 0 {
        return;
    }
    if let Some(inode) = INODES.get_ptr_mut(&owner.key) {
        mark(&owner.key);
        // SAFETY: a live map value, added to atomically.
        unsafe { count(&mut *inode, nr_bytes, device_ns, is_done) };
    }
    let tail = M::u64(rq, fact!(request_biotail));
    if tail != bio {
        let last = owner_of::<M>(tail);
        if last.key.s_dev != 0
            && last.key.ino != owner.key.ino
            && let Some(inode) = INODES.get_ptr_mut(&last.key)
        {
            mark(&last.key);
            // SAFETY: as above. The bytes of the request cannot be divided
            // without a walk; the time is the same for both.
            unsafe { count(&mut *inode, 0, device_ns, is_done) };
        }
    }
}

/// Adds a completed request, or a part of it, to its file.
#[inline(always)]
fn count(inode: &mut InodeState, nr_bytes: u32, device_ns: u64, is_done: bool) {
    atomic_add(&raw mut inode.counters.nr_bytes, u64::from(nr_bytes));
    if is_done {
        atomic_add(&raw mut inode.counters.nr_requests, 1);
        atomic_add(&raw mut inode.counters.device_ns, device_ns);
    }
}

/// A cache flush is done.
#[inline(always)]
fn flushed(state: &RqState, now: u64, device_ns: u64, status: i32) {
    if let Some(flushes) = FLUSHES.get_ptr_mut(&state.dev) {
        // SAFETY: one flush is in flight per queue; times are for people.
        let flushes = unsafe { &mut *flushes };
        atomic_add(&raw mut flushes.seq, 1);
        atomic_add(&raw mut flushes.device_ns, device_ns);
        flushes.last_issue_ns = state.issue_ns;
        flushes.last_complete_ns = now;
        if status != 0 {
            atomic_add(&raw mut flushes.nr_errors, 1);
        }
    }
}

/// A completion on a watched disk whose issue was not seen: one from before the
/// agent, or a request that failed before it was issued.
#[inline(never)]
fn unseen<M: Mem>(rq: Addr, known: &RqState, status: i32, nr_bytes: u32) {
    if status == 0 {
        // Empty waiters of a shared flush are never issued; and what was in
        // flight when the disk became watched is told from the watch's start.
        let allocated = started::<Probe>(rq);
        let since = WATCHED_SINCE.get(0).copied().unwrap_or(0);
        if nr_bytes != 0 && since != 0 && (allocated == 0 || allocated > since) {
            lost(Loss::UnmatchedComplete);
        }
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(report) = begin(known, rq, now) else {
        return;
    };
    let state = &mut report.state;
    state.issue_ns = 0;
    state.sector = Probe::u64(rq, fact!(request_sector));
    state.nr_bytes = Probe::u32(rq, fact!(request_data_len));
    state.cmd_flags = Probe::u32(rq, fact!(request_cmd_flags));
    state.pid_tgid = 0;
    state.nr_requeue = 0;
    report.first = Probe::u64(rq, fact!(request_bio));
    report.done_bytes = nr_bytes;
    report.status = status;
    request_span::<Probe>(&report.state, report.first, 0, now, status);
    send(report);
}

/// The status argument: errno as it is, blk_status_t as one byte.
#[inline(always)]
fn status_of(raw: u64) -> i32 {
    if fact!(complete_status_is_errno) == 1 {
        raw as i32
    } else {
        (raw & 0xff) as i32
    }
}

/// Issue, typed.
#[btf_tracepoint(function = "block_rq_issue")]
pub fn block_rq_issue_typed(ctx: BtfTracePointContext) -> i32 {
    issued::<Typed>(ctx.arg(0));
    0
}

/// Issue, raw.
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn block_rq_issue(ctx: RawTracePointContext) -> i32 {
    issued::<Probe>(arg0_or_1(&ctx, fact!(arg_issue_rq) == 1));
    0
}

/// Requeue.
#[raw_tracepoint(tracepoint = "block_rq_requeue")]
pub fn block_rq_requeue(ctx: RawTracePointContext) -> i32 {
    requeued(arg0_or_1(&ctx, fact!(arg_requeue_rq) == 1));
    0
}

/// Complete, typed.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_rq_complete_typed(ctx: BtfTracePointContext) -> i32 {
    completed::<Typed>(ctx.arg(0), status_of(ctx.arg(1)), ctx.arg::<u64>(2) as u32);
    0
}

/// Complete, raw.
#[raw_tracepoint(tracepoint = "block_rq_complete")]
pub fn block_rq_complete(ctx: RawTracePointContext) -> i32 {
    completed::<Probe>(ctx.arg(0), status_of(ctx.arg(1)), ctx.arg::<u64>(2) as u32);
    0
}
