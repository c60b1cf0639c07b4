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
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use fsyncscope_abi::span::{FsState, OpenWait, wait_kind};

use crate::{
    hooks::{files::open_sync, spans::wait_span},
    kernel::{fact, read::probe},
    maps::{FAST_COMMITS, FILESYSTEMS},
};

/// A field of a classic tracepoint's record. By the helper: the verifier wants
/// offsets into a context to be part of the instruction, and commits are rare.
#[inline(always)]
fn field<T: Copy + Default>(ctx: &TracePointContext, offset: u32) -> T {
    probe(ctx.as_ptr() as u64, offset)
}

/// The event's file system, if it is watched.
#[inline(always)]
fn watched<'a>(ctx: &TracePointContext) -> Option<(u32, &'a mut FsState)> {
    let s_dev = field(ctx, fact!(trace_journal_dev));
    let mut state = FILESYSTEMS.get_ptr_mut(&s_dev);
    if state.is_none() && fact!(watch_all) != 0 {
        let _ = FILESYSTEMS.insert(&s_dev, &FsState::default(), u64::from(BPF_NOEXIST));
        state = FILESYSTEMS.get_ptr_mut(&s_dev);
    }
    // SAFETY: a live map value; a journal commits and checkpoints one at a time.
    Some((s_dev, unsafe { &mut *state? }))
}

/// A wait that begins.
#[inline(always)]
fn begin(kind: u16, s_dev: u32, seq: u32) -> OpenWait {
    OpenWait {
        // SAFETY: the helper has no preconditions.
        start_ns: unsafe { bpf_ktime_get_ns() },
        kind,
        s_dev,
        seq,
        tid: bpf_get_current_pid_tgid() as u32,
        ..OpenWait::default()
    }
}

/// How long it has gone on, ns.
#[inline(always)]
fn age(open: &OpenWait) -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }.saturating_sub(open.start_ns)
}

/// Ends it, if its start was seen, and keeps it if it took long enough.
#[inline(always)]
fn end(open: &mut OpenWait) {
    if open.start_ns == 0 {
        return;
    }
    let age_ns = age(open);
    if age_ns >= fact!(span_min_ns) {
        open.end_ns = open.start_ns + age_ns;
        wait_span(open);
    }
    open.start_ns = 0;
}

/// A commit of the journal begins.
#[tracepoint]
pub fn jbd2_start_commit(ctx: TracePointContext) -> u32 {
    if let Some((s_dev, fs)) = watched(&ctx) {
        let seq = field(&ctx, fact!(trace_journal_tid));
        fs.commit = begin(wait_kind::COMMIT, s_dev, seq);
    }
    0
}

/// Its handles have ended: now data that it orders is written.
#[tracepoint]
pub fn jbd2_commit_flushing(ctx: TracePointContext) -> u32 {
    if let Some((_, fs)) = watched(&ctx)
        && fs.commit.start_ns != 0
    {
        fs.commit.flushing_ns = age(&fs.commit);
    }
    0
}

/// Its blocks are logged.
#[tracepoint]
pub fn jbd2_commit_logging(ctx: TracePointContext) -> u32 {
    if let Some((_, fs)) = watched(&ctx)
        && fs.commit.start_ns != 0
    {
        fs.commit.logging_ns = age(&fs.commit);
    }
    0
}

/// It ends.
#[tracepoint]
pub fn jbd2_end_commit(ctx: TracePointContext) -> u32 {
    if let Some((_, fs)) = watched(&ctx) {
        end(&mut fs.commit);
    }
    0
}

/// A thread makes room in the journal by writing metadata home.
#[tracepoint]
pub fn jbd2_checkpoint(ctx: TracePointContext) -> u32 {
    if let Some((s_dev, fs)) = watched(&ctx) {
        fs.checkpoint = begin(wait_kind::CHECKPOINT, s_dev, 0);
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
    if let Some((_, fs)) = watched(&ctx) {
        end(&mut fs.checkpoint);
    }
    0
}

/// A thread begins a fast commit.
#[tracepoint]
pub fn ext4_fc_commit_start(ctx: TracePointContext) -> u32 {
    if let Some((s_dev, _)) = watched(&ctx) {
        let fresh = begin(wait_kind::FAST_COMMIT, s_dev, 0);
        if let Some(open) = FAST_COMMITS.get_ptr_mut(&fresh.tid) {
            // SAFETY: only this thread writes its entry.
            unsafe { *open = fresh };
        } else {
            let _ = FAST_COMMITS.insert(&fresh.tid, &fresh, u64::from(BPF_ANY));
        }
    }
    0
}

/// It ends, or has fallen back to a full commit.
#[tracepoint]
pub fn ext4_fc_commit_stop(_ctx: TracePointContext) -> u32 {
    if let Some(open) = FAST_COMMITS.get_ptr_mut(&(bpf_get_current_pid_tgid() as u32)) {
        // SAFETY: as above.
        end(unsafe { &mut *open });
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
