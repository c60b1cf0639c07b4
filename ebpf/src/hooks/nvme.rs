//! What an NVMe controller answered: the status of a command that did not succeed,
//! and how often the driver has sent it again.
//!
//! - `nvme_complete_rq(struct request *req)`, the same from 5.10 to 7.3; a module's
//!   event where nvme_core is one
//!
//! Fires before the driver decides: a command that is done reaches
//! `block_rq_complete` next, one that is tried again `block_rq_requeue`, and of one
//! that goes to another path the bios are stolen. Emits nothing: the request's entry
//! keeps it for the record of a failed or slow request, NVME_ERRORS counts it. A
//! command without status and retries costs one read.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use fsyncscope_abi::{
    block::{RqState, nvme_error_key, nvme_status},
    loss::Loss,
};

use crate::{
    hooks::block::watched_disk,
    kernel::{
        fact,
        read::{Addr, Mem as _, Probe, probe},
    },
    maps::{NVME_ERRORS, RQS, atomic_add, epoch, lost},
};

/// Status and retries of the driver's part of a request. They lie in one word.
#[inline(always)]
pub fn read_answer(rq: Addr) -> (u16, u8) {
    let part = rq + u64::from(fact!(request_size));
    let (status, retries) = (fact!(nvme_request_status), fact!(nvme_request_retries));
    let start = status & !7;
    let word = Probe::u64(part, start);
    let in_word = retries & !7 == start;
    (
        (word >> ((status & 7) * 8)) as u16,
        if in_word {
            (word >> ((retries & 7) * 8)) as u8
        } else {
            probe(part, retries)
        },
    )
}

/// Counts a command that ended with a status.
#[inline(always)]
fn count(dev: u32, status: u16) {
    let key = nvme_error_key(dev, status);
    if NVME_ERRORS.get_ptr(&key).is_none() {
        // Another CPU may have been first.
        let _ = NVME_ERRORS.insert(&key, &0, u64::from(BPF_NOEXIST));
    }
    match NVME_ERRORS.get_ptr_mut(&key) {
        Some(count) => atomic_add(count, 1),
        None => lost(Loss::HistFull),
    }
}

/// A command ended.
#[inline(always)]
fn answered(rq: Addr) {
    let (status, retries) = read_answer(rq);
    if status == 0 && retries == 0 {
        return;
    }
    if RQS.get_ptr(&rq).is_none() {
        // Issued before the agent came.
        let state = RqState {
            dev: watched_disk::<Probe>(rq),
            epoch: epoch(),
            ..RqState::default()
        };
        if state.dev == 0 {
            return;
        }
        if RQS.insert(&rq, &state, u64::from(BPF_ANY)).is_err() {
            lost(Loss::RqsFull);
        }
    }
    let Some(state) = RQS.get_ptr_mut(&rq) else {
        return;
    };
    // SAFETY: a request completes on one CPU at a time.
    let state = unsafe { &mut *state };
    if state.dev == 0 {
        return;
    }
    state.nvme_retries = retries;
    let failed = status & nvme_status::TYPE_AND_CODE != 0;
    state.is_nvme_ok = u8::from(!failed);
    if failed {
        state.nvme_status = status;
        count(state.dev, status);
    }
}

/// The end of a command.
#[raw_tracepoint(tracepoint = "nvme_complete_rq")]
pub fn nvme_complete_rq(ctx: RawTracePointContext) -> i32 {
    answered(ctx.arg(0));
    0
}
