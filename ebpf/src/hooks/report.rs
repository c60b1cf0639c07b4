//! The record of a request that failed or was slow: which files its bios carry,
//! each counted and told once.
//!
//! Called by `block` inside block_rq_complete, where the chain from request to
//! file is whole. A merged request may carry several files, so all its bios are
//! walked, bounded; the steps are global functions, which the verifier checks
//! once whatever the number of calls. They take numbers only, so what they share
//! lives in per-CPU scratch.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use fsyncscope_abi::{
    ABI_VERSION, RecordHeader,
    block::{RequestRecord, RqState, file_source, req_op},
    keys::{InodeKey, SLOT_NONE},
    kind,
    loss::Loss,
};

use crate::{
    hooks::places::mark_apart,
    kernel::{
        fact,
        file::{dentry_of_inode, read_names, root_of},
        page::owner_of,
        read::{Addr, Mem as _, Probe},
        request::{dev_of_bio, disk_of, read_name_of_disk},
    },
    maps::{INODES, RING, add_inode, atomic_add, lost},
};

/// Bios of a failed or slow request that are looked at.
const MAX_BIOS: u32 = 256;

/// Everything that a record says of one request, while its bios are walked.
/// Lives in per-CPU scratch: it is too large for the stack, and functions that
/// the verifier checks on their own take numbers only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Report {
    /// The request as it was issued.
    pub state: RqState,
    /// `struct request *`.
    pub rq: Addr,
    /// Its first bio.
    pub first: Addr,
    /// `request.start_time_ns`, 0 = unknown.
    pub start_ns: u64,
    /// Completion, CLOCK_MONOTONIC ns.
    pub now: u64,
    /// Issue to completion.
    pub device_ns: u64,
    /// Bytes that this completion is about.
    pub done_bytes: u32,
    /// Raw status argument, 0 = success.
    pub status: i32,
    /// 1 for one whose bios multipath failover has stolen.
    pub is_failover: u8,
    /// Where the walk stands, and what it found there.
    pub(super) bio: Addr,
    pub(super) inode: Addr,
    pub(super) key: InodeKey,
    /// Failed requests of that file so far.
    pub(super) nr_errors: u64,
    pub(super) rdev: u32,
    pub(super) source: u8,
    pub(super) any: u8,
    pub(super) pad: u8,
}

/// Scratch of `report`.
#[map]
static SCRATCH_REPORT: PerCpuArray<Report> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn scratch<'a>() -> Option<&'a mut Report> {
    // SAFETY: this CPU's element; only the completion program uses it, and it
    // does not nest on one CPU.
    SCRATCH_REPORT
        .get_ptr_mut(0)
        .map(|report| unsafe { &mut *report })
}

/// A report of one request, to be filled in and given to [`send`]. It is built in
/// place: up to 6.12 a chain of calls has 512 bytes of stack in all.
#[inline(always)]
pub fn begin<'a>(state: &RqState, rq: Addr, now: u64) -> Option<&'a mut Report> {
    let report = scratch()?;
    report.state = *state;
    report.rq = rq;
    report.first = 0;
    report.start_ns = 0;
    report.now = now;
    report.device_ns = 0;
    report.done_bytes = 0;
    report.status = 0;
    report.is_failover = 0;
    report.bio = 0;
    report.inode = 0;
    report.key.ino = 0;
    report.key.s_dev = 0;
    report.rdev = 0;
    report.source = file_source::UNKNOWN;
    report.any = 0;
    Some(report)
}

/// Walks the bios of a failed or slow request and sends one record per run of
/// bios of one file (for a flush: one). Counts the failure for each file.
#[inline(always)]
pub fn send(report: &mut Report) {
    let op = report.state.cmd_flags as u8;
    if !req_op::has_pages(op) || report.first == 0 {
        if op == req_op::FLUSH {
            report.source = file_source::FLUSH;
        }
        fsyncscope_emit(0);
        return;
    }
    report.bio = report.first;
    for _ in 0..MAX_BIOS {
        if fsyncscope_walk(0) != 0 {
            return;
        }
    }
    lost(Loss::WalkCut);
}

/// One step of the walk: looks at one bio; 1 at the end. The verifier checks a
/// global function once, whatever the number of calls.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fsyncscope_walk(_: u64) -> i32 {
    let Some(report) = scratch() else {
        return 1;
    };
    let bio = report.bio;
    let mut owner = owner_of::<Probe>(bio);
    if owner.source == file_source::UNKNOWN && report.state.cmd_flags & fact!(req_meta) != 0 {
        owner.source = file_source::META;
        owner.rdev = dev_of_bio(bio);
    }
    let same = report.any != 0
        && owner.key.ino == report.key.ino
        && owner.key.s_dev == report.key.s_dev
        && owner.source == report.source;
    let size = Probe::u32(bio, fact!(bio_bi_size));
    report.bio = Probe::u64(bio, fact!(bio_bi_next));
    if !same {
        report.inode = owner.inode;
        report.key = owner.key;
        report.rdev = owner.rdev;
        report.source = owner.source;
        if fsyncscope_file(0) != 0 {
            fsyncscope_emit(report.nr_errors);
        }
        report.any = 1;
    }
    if owner.key.s_dev != 0
        && let Some(inode) = INODES.get_ptr_mut(&owner.key)
    {
        // SAFETY: a live map value.
        unsafe { atomic_add(&raw mut (*inode).counters.nr_bytes, u64::from(size)) };
        mark_apart(owner.key.ino, owner.key.s_dev);
    }
    i32::from(report.bio == 0)
}

/// Counts the request for one file of it; 1 if its record is to be sent. It does not
/// send it itself: a chain of calls has 512 bytes of stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fsyncscope_file(_: u64) -> i32 {
    let Some(report) = scratch() else {
        return 0;
    };
    let key = report.key;
    let mut nr_errors = 0;
    if key.s_dev != 0 {
        let mut inode = INODES.get_ptr_mut(&key);
        if inode.is_none() && report.status != 0 {
            inode = add_inode(&key);
        }
        if let Some(inode) = inode {
            // SAFETY: a live map value.
            let inode = unsafe { &mut *inode };
            mark_apart(key.ino, key.s_dev);
            atomic_add(&raw mut inode.counters.nr_requests, 1);
            atomic_add(&raw mut inode.counters.device_ns, report.device_ns);
            if report.status != 0 {
                atomic_add(&raw mut inode.counters.nr_errors, 1);
                nr_errors = inode.counters.nr_errors;
                inode.last_err_ns = report.now;
            }
        }
        // A storm on one file: the first 16, then at each power of two.
        if nr_errors > 16 && nr_errors & (nr_errors - 1) != 0 {
            return 0;
        }
    }
    report.nr_errors = nr_errors;
    1
}

/// Sends the record.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fsyncscope_emit(nr_errors: u64) -> i32 {
    let Some(report) = scratch() else {
        return 0;
    };
    let Some(mut entry) = RING.reserve::<RequestRecord>(0) else {
        lost(Loss::RingFull);
        return 0;
    };
    let record = entry.as_mut_ptr();
    let mut dentry = 0;
    let mut root = SLOT_NONE;
    if report.key.s_dev != 0 {
        dentry = dentry_of_inode(report.inode);
        root = root_of(dentry, report.key.s_dev);
    }
    let state = &report.state;
    let status_is_errno = fact!(complete_status_is_errno) as u8;
    // SAFETY: reserved ring memory of this type, written whole before submit.
    unsafe {
        (*record).header = RecordHeader {
            kind: kind::REQUEST,
            version: ABI_VERSION,
            size: size_of::<RequestRecord>() as u32,
            ktime_ns: report.now,
        };
        (*record).rq = report.rq;
        (*record).start_ns = report.start_ns;
        (*record).issue_ns = state.issue_ns;
        (*record).complete_ns = report.now;
        (*record).sector = state.sector;
        (*record).nr_bytes = state.nr_bytes;
        (*record).done_bytes = report.done_bytes;
        (*record).cmd_flags = state.cmd_flags;
        (*record).status = report.status;
        (*record).dev = state.dev;
        (*record).rdev = report.rdev;
        (*record).inode = report.key;
        (*record).nr_errors = nr_errors;
        (*record).status_is_errno = status_is_errno;
        (*record).file_source = report.source;
        (*record).spans_files = report.any;
        (*record).nr_requeue = if state.nr_requeue > 255 {
            255
        } else {
            state.nr_requeue as u8
        };
        (*record).root = root;
        (*record).nvme_status = state.nvme_status;
        (*record).nvme_retries = state.nvme_retries;
        (*record).is_failover = report.is_failover;
        (*record).pad = [0; 6];
        read_name_of_disk(disk_of::<Probe>(report.rq), &mut (*record).disk_name);
        read_names(dentry, report.key.s_dev, &mut (*record).names);
    }
    entry.submit(0);
    0
}
