//! Locks that a sync waits for.
//!
//! - `contention_begin(void *lock, unsigned int flags)`,
//!   `contention_end(void *lock, int ret)`, from 5.19
//!
//! They fire for every contended lock of the host, so a thread that has no sync
//! open costs one look-up; no map is written there but this thread's own entry
//! and this CPU's array, so no lock is taken inside a lock. Writes WAIT_SPANS for
//! waits of `span_min_ns`; emits nothing.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use fsyncscope_abi::span::{WaitSpan, wait_kind};

use crate::{
    hooks::{files::open_sync, spans::wait_span},
    kernel::fact,
};

/// LCB_F_SPIN and LCB_F_MUTEX (include/trace/events/lock.h; 5.19 to 7.3).
const LCB_F_SPIN: u32 = 1 << 0;
const LCB_F_MUTEX: u32 = 1 << 5;

/// A thread begins to wait. A spinning lock is no wait worth telling, and an
/// interrupt may take one in the thread's name; a mutex is spun on for a while
/// and says so, then again that it sleeps: the first of those counts.
#[raw_tracepoint(tracepoint = "contention_begin")]
pub fn contention_begin(ctx: RawTracePointContext) -> i32 {
    let flags = ctx.arg::<u64>(1) as u32;
    if flags & LCB_F_SPIN != 0 && flags & LCB_F_MUTEX == 0 {
        return 0;
    }
    if let Some(state) = open_sync() {
        let lock: u64 = ctx.arg(0);
        if state.lock != lock {
            state.lock = lock;
            // SAFETY: the helper has no preconditions.
            state.lock_ns = unsafe { bpf_ktime_get_ns() };
        }
    }
    0
}

/// It has the lock, or gave up.
#[raw_tracepoint(tracepoint = "contention_end")]
pub fn contention_end(ctx: RawTracePointContext) -> i32 {
    let Some(state) = open_sync() else {
        return 0;
    };
    let lock: u64 = ctx.arg(0);
    if lock == 0 || state.lock != lock {
        return 0;
    }
    state.lock = 0;
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.saturating_sub(state.lock_ns) >= fact!(span_min_ns) {
        wait_span(&WaitSpan {
            start_ns: state.lock_ns,
            end_ns: now,
            addr: lock,
            kind: wait_kind::LOCK,
            tid: state.pid_tgid as u32,
            ..WaitSpan::default()
        });
    }
    0
}
