//! What the journals do: jbd2 commits and checkpoints, ext4 fast commits, log
//! forces of xfs.
//!
//! Classic tracepoints, because their records hold the device and transaction
//! where raw ones would need the layout of a module's structs. The same from
//! 5.10 to 7.3 but for fields that are not read:
//! - `jbd2_start_commit`, `jbd2_commit_flushing`, `jbd2_commit_logging`,
//!   `jbd2_end_commit` `{ dev_t dev; char sync_commit; tid_t transaction; … }`,
//!   by the journal's thread
//! - `jbd2_checkpoint { dev_t dev; int result }`, `jbd2_checkpoint_stats
//!   { dev_t dev; tid_t tid; unsigned long chp_time; … }`, by any thread
//! - `ext4_fc_commit_start`, `ext4_fc_commit_stop` `{ dev_t dev; … }`, by the
//!   thread that syncs
//! - raw `xfs_log_force(mp, lsn, ip)`: no argument is read
//!
//! Writes WAIT_SPANS for those that took `span_min_ns`; emits nothing.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use fsyncscope_abi::span::{OpenWait, open_wait_key, wait_kind};

use crate::{
    hooks::{files::open_sync, spans::wait_span},
    kernel::{fact, read::probe},
    maps::{FILESYSTEMS, OPEN_WAITS},
};

/// A field of a classic tracepoint's record. By the helper: the verifier wants
/// offsets into a context to be part of the instruction, and commits are rare.
#[inline(always)]
fn field<T: Copy + Default>(ctx: &TracePointContext, offset: u32) -> T {
    probe(ctx.as_ptr() as u64, offset)
}

/// The event's file system if it is watched, else 0.
#[inline(always)]
fn watched(ctx: &TracePointContext) -> u32 {
    let s_dev = field::<u32>(ctx, fact!(trace_journal_dev));
    // SAFETY: read only.
    if fact!(watch_all) != 0 || unsafe { FILESYSTEMS.get(&s_dev) }.is_some() {
        s_dev
    } else {
        0
    }
}

/// Notes that a wait begins.
#[inline(always)]
fn begin(kind: u16, id: u32, s_dev: u32, seq: u32) {
    let key = open_wait_key(kind, id);
    let fresh = OpenWait {
        // SAFETY: the helper has no preconditions.
        start_ns: unsafe { bpf_ktime_get_ns() },
        kind,
        s_dev,
        seq,
        tid: bpf_get_current_pid_tgid() as u32,
        ..OpenWait::default()
    };
    if let Some(open) = OPEN_WAITS.get_ptr_mut(&key) {
        // SAFETY: one commit, one checkpoint a journal and one fast commit a
        // thread run at a time.
        unsafe { *open = fresh };
    } else {
        // Full: the least recently used goes; that wait is then not told.
        let _ = OPEN_WAITS.insert(&key, &fresh, u64::from(BPF_ANY));
    }
}

/// The wait that is open, if its start was seen.
#[inline(always)]
fn open<'a>(kind: u16, id: u32) -> Option<&'a mut OpenWait> {
    let open = OPEN_WAITS.get_ptr_mut(&open_wait_key(kind, id))?;
    // SAFETY: as in `begin`.
    let open = unsafe { &mut *open };
    (open.start_ns != 0).then_some(open)
}

/// Ends it, and keeps it if it took long enough.
#[inline(always)]
fn end(open: &mut OpenWait) {
    // SAFETY: the helper has no preconditions.
    open.end_ns = unsafe { bpf_ktime_get_ns() };
    if open.end_ns.saturating_sub(open.start_ns) >= fact!(span_min_ns) {
        wait_span(open);
    }
    open.start_ns = 0;
}

/// A commit of the journal begins.
#[tracepoint]
pub fn jbd2_start_commit(ctx: TracePointContext) -> u32 {
    let s_dev = watched(&ctx);
    if s_dev != 0 {
        let seq = field(&ctx, fact!(trace_journal_tid));
        begin(wait_kind::COMMIT, s_dev, s_dev, seq);
    }
    0
}

/// Its handles have ended: now data that it orders is written.
#[tracepoint]
pub fn jbd2_commit_flushing(ctx: TracePointContext) -> u32 {
    if let Some(open) = open(wait_kind::COMMIT, field(&ctx, fact!(trace_journal_dev))) {
        // SAFETY: the helper has no preconditions.
        open.flushing_ns = unsafe { bpf_ktime_get_ns() } - open.start_ns;
    }
    0
}

/// Its blocks are logged.
#[tracepoint]
pub fn jbd2_commit_logging(ctx: TracePointContext) -> u32 {
    if let Some(open) = open(wait_kind::COMMIT, field(&ctx, fact!(trace_journal_dev))) {
        // SAFETY: the helper has no preconditions.
        open.logging_ns = unsafe { bpf_ktime_get_ns() } - open.start_ns;
    }
    0
}

/// It ends.
#[tracepoint]
pub fn jbd2_end_commit(ctx: TracePointContext) -> u32 {
    if let Some(open) = open(wait_kind::COMMIT, field(&ctx, fact!(trace_journal_dev))) {
        end(open);
    }
    0
}

/// A thread makes room in the journal by writing metadata home.
#[tracepoint]
pub fn jbd2_checkpoint(ctx: TracePointContext) -> u32 {
    let s_dev = watched(&ctx);
    if s_dev != 0 {
        begin(wait_kind::CHECKPOINT, s_dev, s_dev, 0);
    }
    0
}

/// A transaction has left the journal; a `chp_time` of 0 is one that needed no
/// checkpoint.
#[tracepoint]
pub fn jbd2_checkpoint_stats(ctx: TracePointContext) -> u32 {
    if field::<u64>(&ctx, fact!(trace_checkpoint_time)) == 0 {
        return 0;
    }
    if let Some(open) = open(wait_kind::CHECKPOINT, field(&ctx, fact!(trace_journal_dev))) {
        end(open);
    }
    0
}

/// A thread begins a fast commit.
#[tracepoint]
pub fn ext4_fc_commit_start(ctx: TracePointContext) -> u32 {
    let s_dev = watched(&ctx);
    if s_dev != 0 {
        begin(
            wait_kind::FAST_COMMIT,
            bpf_get_current_pid_tgid() as u32,
            s_dev,
            0,
        );
    }
    0
}

/// It ends, or has fallen back to a full commit.
#[tracepoint]
pub fn ext4_fc_commit_stop(_ctx: TracePointContext) -> u32 {
    if let Some(open) = open(wait_kind::FAST_COMMIT, bpf_get_current_pid_tgid() as u32) {
        end(open);
    }
    0
}

/// xfs forces its log. Nothing tells the end: the sync returns after it, with at
/// most a flush in between, so the agent takes the sync's return for it.
#[raw_tracepoint(tracepoint = "xfs_log_force")]
pub fn xfs_log_force(_ctx: RawTracePointContext) -> i32 {
    if let Some(state) = open_sync()
        && state.log_force_ns == 0
    {
        // SAFETY: the helper has no preconditions.
        state.log_force_ns = unsafe { bpf_ktime_get_ns() };
    }
    0
}
