//! Requests at the levels below `full`: known by their end alone.
//!
//! - `block_rq_complete`, see `block`; at `low` all but failures are let go at once.
//!   (block_rq_error, from 5.18, would cost less, but is silent of a flush, and of
//!   what fails on a disk that is gone.)
//!
//! No entry of RQS is made but for a request that failed. A request's time begins
//! with its allocation, so queue and device are one; its record has that as
//! `issue_ns`, and no `start_ns`. A write with PREFLUSH that failed may have died of
//! its flush before it was issued: it has neither.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_ns};
use fsyncscope_abi::{
    block::{RqState, block_hist_key, req_op},
    facts::UNKNOWN,
    loss::Loss,
};

use crate::{
    hooks::{
        block::{data_done, failed_over, is_failover, is_told_failover, started, watched_disk},
        nvme::read_answer,
        report::{Report, begin, send},
        spans::request_span,
        sync::add,
    },
    kernel::{
        fact,
        read::{Addr, Mem, Probe, key_of},
        request::{dev_of_disk, disk_of},
    },
    maps::{BLOCK_HIST, RQS, epoch, lost},
};

/// From here on a fast request counts for its file, too: below, finding the file
/// would cost more than all the rest.
const COUNTED_BYTES: u32 = 64 << 10;

/// A request, or a part of it, is done; not one that waited for a flush.
#[inline(always)]
pub fn done<M: Mem>(rq: Addr, status: i32, nr_bytes: u32) {
    if status != 0 {
        failed(rq, status, nr_bytes);
        return;
    }
    let cmd_flags = M::u32(rq, fact!(request_cmd_flags));
    let op = cmd_flags as u8;
    if nr_bytes == 0 && fact!(nvme_request_status) != UNKNOWN && is_stolen::<M>(rq, op) {
        return;
    }
    let disk = disk_of::<M>(rq);
    if disk == 0 {
        return;
    }
    // The key of a watched disk is there: one look-up for both.
    let mut dev = dev_of_disk::<M>(disk);
    let mut hist = BLOCK_HIST.get_ptr_mut(&block_hist_key(dev, op));
    if hist.is_none() {
        dev = watched_disk::<M>(rq);
        if dev == 0 {
            return;
        }
        hist = BLOCK_HIST.get_ptr_mut(&block_hist_key(dev, op));
    }
    let begin_ns = started::<M>(rq);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // Without accounting (queue/iostats 0) a request has no begin.
    let took_ns = if begin_ns == 0 {
        0
    } else {
        now.saturating_sub(begin_ns)
    };
    let total = M::u32(rq, fact!(request_data_len));
    let is_done = nr_bytes >= total || op == req_op::FLUSH;
    if let Some(hist) = hist {
        // SAFETY: this CPU's value.
        let hist = unsafe { &mut *hist };
        hist.nr_bytes += u64::from(nr_bytes);
        if is_done && begin_ns != 0 {
            add(&mut hist.device, took_ns, false);
        }
    }
    let is_long = took_ns >= fact!(span_min_ns);
    if !is_long && nr_bytes < COUNTED_BYTES {
        return;
    }
    let bio = M::u64(rq, fact!(request_bio));
    let is_slow = is_done && took_ns >= fact!(request_slow_ns);
    if !is_slow && req_op::has_pages(op) {
        data_done::<M>(rq, bio, nr_bytes, took_ns, is_done);
    }
    if is_done && is_long {
        long::<M>(rq, dev, begin_ns, now, u32::from(is_slow));
    }
}

/// One that the flight recorder keeps.
#[inline(never)]
fn long<M: Mem>(rq: Addr, dev: u32, begin_ns: u64, now: u64, is_slow: u32) {
    let Some(report) = begin(&RqState::default(), rq, now) else {
        return;
    };
    let bio = M::u64(rq, fact!(request_bio));
    report.state.issue_ns = begin_ns;
    report.state.sector = M::u64(rq, fact!(request_sector));
    report.state.nr_bytes = M::u32(rq, fact!(request_data_len));
    report.state.cmd_flags = M::u32(rq, fact!(request_cmd_flags));
    report.state.dev = dev;
    request_span::<M>(&report.state, bio, 0, now, 0);
    if is_slow != 0 {
        report.first = bio;
        report.device_ns = now.saturating_sub(begin_ns);
        report.done_bytes = report.state.nr_bytes;
        send(report);
    }
}

/// True if multipath failover has stolen the bios of what ends here without a byte
/// and without an error; a flush of that kind the kernel takes for done.
#[inline(always)]
fn is_stolen<M: Mem>(rq: Addr, op: u8) -> bool {
    let Some(state) = RQS.get_ptr_mut(&key_of(rq)) else {
        return false;
    };
    // SAFETY: a request completes on one CPU at a time.
    let state = unsafe { &mut *state };
    if state.dev == 0 || !is_failover(state, op) {
        return false;
    }
    state.cmd_flags = M::u32(rq, fact!(request_cmd_flags));
    state.sector = M::u64(rq, fact!(request_sector));
    state.nr_bytes = M::u32(rq, fact!(request_data_len));
    if is_told_failover(state) {
        // SAFETY: the helper has no preconditions.
        failed_over::<M>(rq, state, unsafe { bpf_ktime_get_ns() });
    }
    state.nvme_status = 0;
    op != req_op::FLUSH
}

/// A request on any disk failed: told, if the disk is watched, once.
#[inline(never)]
fn failed(rq: Addr, status: i32, nr_bytes: u32) {
    let dev = watched_disk_apart(rq);
    if dev == 0 {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(report) = begin(&RqState::default(), rq, now) else {
        return;
    };
    let begin_ns = started::<Probe>(rq);
    if let Some(known) = RQS.get_ptr(&key_of(rq)) {
        // SAFETY: a live map value.
        let known = unsafe { &*known };
        if begin_ns != 0 && known.told_start_ns == begin_ns {
            return;
        }
        report.state.nvme_status = known.nvme_status;
        report.state.nvme_retries = known.nvme_retries;
    }
    remember_told(rq, dev, begin_ns);
    describe(report, rq, begin_ns);
    report.state.dev = dev;
    let cmd_flags = report.state.cmd_flags;
    report.device_ns = now.saturating_sub(begin_ns);
    report.done_bytes = nr_bytes;
    report.status = status;
    if let Some(hist) = BLOCK_HIST.get_ptr_mut(&block_hist_key(dev, cmd_flags as u8)) {
        // SAFETY: this CPU's value.
        add(unsafe { &mut (*hist).device }, report.device_ns, true);
    }
    request_span::<Probe>(&report.state, report.first, 0, now, status);
    send(report);
}

/// What the request says of itself. Apart from `failed`, whose stack adds to that of
/// the walk over its bios: 5.10 allows 512 bytes to a chain of calls.
#[inline(never)]
fn describe(report: &mut Report, rq: Addr, begin_ns: u64) {
    if report.state.nvme_status == 0 && is_nvme(rq) {
        (report.state.nvme_status, report.state.nvme_retries) = read_answer(rq);
    }
    report.first = Probe::u64(rq, fact!(request_bio));
    if !has_preflush(report.first) {
        report.state.issue_ns = begin_ns;
    }
    report.state.sector = Probe::u64(rq, fact!(request_sector));
    report.state.nr_bytes = Probe::u32(rq, fact!(request_data_len));
    report.state.cmd_flags = Probe::u32(rq, fact!(request_cmd_flags));
}

/// Disk of the request if it is watched, else 0; apart for the same reason.
#[inline(never)]
fn watched_disk_apart(rq: Addr) -> u32 {
    watched_disk::<Probe>(rq)
}

/// Notes that this use of the request was told, and forgets what the controller
/// answered to it.
#[inline(never)]
fn remember_told(rq: Addr, dev: u32, begin_ns: u64) {
    let told = RqState {
        dev,
        epoch: epoch(),
        told_start_ns: begin_ns,
        ..RqState::default()
    };
    if RQS.insert(&key_of(rq), &told, u64::from(BPF_ANY)).is_err() {
        lost(Loss::RqsFull);
    }
}

/// Whether a flush went ahead of the bio's data; its request does not say so any more.
#[inline(always)]
fn has_preflush(bio: Addr) -> bool {
    bio != 0
        && fact!(bio_bi_opf) != UNKNOWN
        && Probe::u32(bio, fact!(bio_bi_opf)) & fact!(req_preflush) != 0
}

/// Whether the driver's own part of the request is that of NVMe.
#[inline(always)]
fn is_nvme(rq: Addr) -> bool {
    fact!(nvme_request_status) != UNKNOWN
        && fact!(request_size) != UNKNOWN
        && fact!(gendisk_disk_name) != UNKNOWN
        && Probe::u32(disk_of::<Probe>(rq), fact!(gendisk_disk_name))
            == u32::from_le_bytes(*b"nvme")
}
