//! The flight recorder: writes RQ_SPANS and WAIT_SPANS, which overwrite their
//! oldest. Called by `block` for a request that took `span_min_ns` or failed, and
//! by `journal` and `lock` for a wait; a healthy request never comes here. Emits
//! nothing: the agent reads the spans when a sync was slow.

use aya_ebpf::{bindings::BPF_ANY, maps::PerCpuArray};
use fsyncscope_abi::{
    block::{RqState, file_source, req_op},
    keys::{InodeKey, SLOT_NONE},
    span::{SPANS_PER_PAGE, WaitSpan},
};

use crate::{
    kernel::{
        fact,
        file::{dentry_of_inode, read_names, root_of},
        page::{Owner, owner_of},
        read::{Addr, Mem},
        request::dev_of_bio,
    },
    maps::{
        INODES, RQ_SPAN_HEAD, RQ_SPANS, SCRATCH_SPAN_NAMES, SPAN_NAMES, WAIT_SPAN_HEAD, WAIT_SPANS,
        epoch,
    },
};

/// Keeps the compiler from moving a store across: `number` is cleared before the
/// other fields change and set after them, for the agent that reads meanwhile.
#[inline(always)]
fn barrier() {
    // SAFETY: no instruction; a clobber of memory.
    unsafe { core::arch::asm!("", options(nostack)) }
}

/// Number and place of this CPU's next span. The head moves first: a completion
/// that interrupts this one gets the next place.
#[inline(always)]
fn claim<T>(
    head: &PerCpuArray<u64>,
    pages: &PerCpuArray<[T; SPANS_PER_PAGE]>,
    nr_pages: u32,
) -> Option<(u64, *mut T)> {
    let head = head.get_ptr_mut(0)?;
    // SAFETY: this CPU's element.
    let at = unsafe { *head };
    // SAFETY: likewise.
    unsafe { *head = at + 1 };
    barrier();
    let page = (at / SPANS_PER_PAGE as u64) as u32 & (nr_pages - 1);
    let page = pages.get_ptr_mut(page)?;
    // SAFETY: within the page.
    let place = unsafe { page.cast::<T>().add(at as usize % SPANS_PER_PAGE) };
    Some((at + 1, place))
}

/// Keeps a request that completed now.
#[inline(never)]
pub fn request_span<M: Mem>(state: &RqState, bio: Addr, start_ns: u64, now: u64, status: i32) {
    let op = state.cmd_flags as u8;
    let mut owner = if op == req_op::FLUSH {
        Owner {
            source: file_source::FLUSH,
            ..Owner::UNKNOWN
        }
    } else if req_op::has_pages(op) {
        owner_of::<M>(bio)
    } else {
        Owner::UNKNOWN
    };
    if owner.source == file_source::UNKNOWN && state.cmd_flags & fact!(req_meta) != 0 {
        owner.source = file_source::META;
        owner.rdev = dev_of_bio(bio);
    }
    let root = if owner.key.s_dev == 0 {
        SLOT_NONE
    } else {
        place_of(&owner.key, owner.inode)
    };
    let Some((number, span)) = claim(&RQ_SPAN_HEAD, &RQ_SPANS, fact!(request_span_pages)) else {
        return;
    };
    // SAFETY: this CPU's element; whoever interrupts claims another one.
    let span = unsafe { &mut *span };
    span.number = 0;
    barrier();
    span.start_ns = start_ns;
    span.issue_ns = state.issue_ns;
    span.complete_ns = now;
    span.sector = state.sector;
    span.submitter = state.pid_tgid;
    span.inode = owner.key;
    span.nr_bytes = state.nr_bytes;
    span.cmd_flags = state.cmd_flags;
    span.dev = state.dev;
    span.status = status;
    span.rdev = owner.rdev;
    span.root = root;
    span.source = owner.source;
    span.nr_requeue = state.nr_requeue as u8;
    span.status_is_errno = fact!(complete_status_is_errno) as u8;
    barrier();
    span.number = number;
}

/// Watched directory of a file; the first time, its names are kept.
#[inline(always)]
fn place_of(key: &InodeKey, inode: Addr) -> u16 {
    if let Some(known) = INODES.get_ptr(key) {
        // SAFETY: a live map value.
        let known = unsafe { &*known };
        if known.root_epoch == epoch() {
            return known.root;
        }
    }
    let dentry = dentry_of_inode(inode);
    if SPAN_NAMES.get_ptr(key).is_none()
        && let Some(names) = SCRATCH_SPAN_NAMES.get_ptr_mut(0)
    {
        // SAFETY: this CPU's scratch, of completions only, which do not nest.
        let names = unsafe { &mut *names };
        read_names(dentry, key.s_dev, names);
        let _ = SPAN_NAMES.insert(key, names, u64::from(BPF_ANY));
    }
    root_of(dentry, key.s_dev)
}

/// Keeps a wait that ended.
#[inline(always)]
pub fn wait_span(wait: &WaitSpan) {
    let Some((number, span)) = claim(&WAIT_SPAN_HEAD, &WAIT_SPANS, fact!(wait_span_pages)) else {
        return;
    };
    // SAFETY: as in `request_span`.
    let span = unsafe { &mut *span };
    span.number = 0;
    barrier();
    span.start_ns = wait.start_ns;
    span.end_ns = wait.end_ns;
    span.addr = wait.addr;
    span.kind = wait.kind;
    span.s_dev = wait.s_dev;
    span.seq = wait.seq;
    span.tid = wait.tid;
    span.flushing_ns = wait.flushing_ns;
    span.logging_ns = wait.logging_ns;
    barrier();
    span.number = number;
}
