//! Who asks the device to flush its cache.
//!
//! - `block_bio_queue(struct bio *)`; `(struct request_queue *, struct bio *)`
//!   before 5.11
//!
//! The flush request itself is shared and issued by a kworker; a bio with
//! REQ_PREFLUSH is queued in the context of the thread that asks: the caller of
//! the sync, or the journal's thread. Emits nothing; notes it in the open sync.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    hooks::files::open_sync,
    kernel::{
        arg0_or_1, fact,
        read::{Addr, Mem, Probe, Typed},
    },
};

/// A bio is queued.
#[inline(always)]
fn queued<M: Mem>(bio: Addr) {
    if M::u32(bio, fact!(bio_bi_opf)) & fact!(req_preflush) == 0 {
        return;
    }
    if let Some(state) = open_sync() {
        // SAFETY: the helper has no preconditions.
        state.flush_asked_ns = unsafe { bpf_ktime_get_ns() };
        state.nr_flush = state.nr_flush.saturating_add(1);
    }
}

/// Typed form, `bio` first.
#[btf_tracepoint(function = "block_bio_queue")]
pub fn block_bio_queue_typed(ctx: BtfTracePointContext) -> i32 {
    queued::<Typed>(ctx.arg(0));
    0
}

/// Raw form, position from BTF.
#[raw_tracepoint(tracepoint = "block_bio_queue")]
pub fn block_bio_queue(ctx: RawTracePointContext) -> i32 {
    queued::<Probe>(arg0_or_1(&ctx, fact!(arg_bio_queue_bio) == 1));
    0
}
