//! Sync system calls: fsync, fdatasync, msync, sync_file_range, syncfs.
//!
//! Emits a [`SyncRecord`] for a call that failed or took `slow_ns`, and for the
//! first one on a file after an error; counts every
//! call in HIST. Two forms: classic tracepoints `sys_enter_*`/`sys_exit_*`,
//! whose record is `{ u64 common; int nr; u64 args[6] }` / `{ …; long ret }`
//! (kernel/trace/trace_syscalls.c, 5.10 to 7.3), and fentry/fexit on
//! `__x64_sys_*`/`__arm64_sys_*(const struct pt_regs *)`, which tax no other
//! system call. The agent attaches one of them.
//!
//! Syncs that no such call makes are opened and closed in `files`, by the same
//! functions.
//!
//! A thread is in at most one sync, so OPS is keyed by tid and its entry stays:
//! after a thread's first sync both ends are one look-up.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{fentry, fexit, tracepoint},
    programs::{FEntryContext, FExitContext, TracePointContext},
};
use fsyncscope_abi::{
    ABI_VERSION, RecordHeader,
    hist::{Hist, HistKey, NR_BUCKETS, bucket_of},
    keys::{SLOT_NONE, Target, target_flags},
    kind,
    loss::Loss,
    sync::{AFTER_ERROR, InodeCounters, SyncRecord, SyncState, op},
};

use crate::{
    hooks::files::{open_sync, reach_by_fd},
    kernel::{fact, file::read_names_checked, read::probe, task::run_delay_ns},
    maps::{HIST, INODES, OPS, RING, SCRATCH_HIST, TARGETS, epoch, lost},
};

/// MS_SYNC (include/uapi/asm-generic/mman-common.h): without it msync starts
/// nothing and waits for nothing.
const MS_SYNC: u64 = 4;

/// The entry of a watched process; without one its syncs are not followed.
#[inline(always)]
pub fn target_of(tgid: u32) -> Option<Target> {
    // SAFETY: values are replaced whole by the agent.
    match unsafe { TARGETS.get(&tgid) } {
        Some(target) => Some(*target),
        None if fact!(watch_all) != 0 => Some(Target {
            broker: SLOT_NONE,
            flags: 0,
        }),
        None => None,
    }
}

/// A watched process enters a sync. Who it is, is looked up once per thread and epoch.
#[inline(always)]
fn enter(op: u8, arg0: u64, arg1: u64, arg2: u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let now_epoch = epoch();
    let known = OPS.get_ptr_mut(&(pid_tgid as u32));
    if let Some(state) = known {
        // SAFETY: only this thread's hooks write its entry, and they do not nest.
        let state = unsafe { &mut *state };
        if state.pid_tgid == pid_tgid && state.target_epoch == now_epoch {
            if state.enter_ns != 0 {
                lost(Loss::LostExit);
            }
            let target = Target {
                broker: state.broker,
                flags: u16::from(state.flags) & target_flags::EMIT_ALL,
            };
            *state = SyncState {
                arg0,
                arg1,
                arg2,
                ..begun(op, pid_tgid, target, now_epoch)
            };
            if op::is_silent(op) {
                reach_by_fd(state);
            }
            return;
        }
    }
    enter_first(op, arg0, arg1, arg2);
    // Not in there: on 5.10 a chain of calls has 512 bytes of stack.
    if op::is_silent(op)
        && let Some(state) = open_sync()
    {
        reach_by_fd(state);
    }
}

/// The first sync of a thread, or its first since the agent has changed what is watched.
#[inline(never)]
fn enter_first(op: u8, arg0: u64, arg1: u64, arg2: u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(target) = target_of((pid_tgid >> 32) as u32) else {
        return;
    };
    open(&SyncState {
        arg0,
        arg1,
        arg2,
        ..begun(op, pid_tgid, target, epoch())
    });
}

/// A sync that begins now.
#[inline(always)]
pub fn begun(op: u8, pid_tgid: u64, target: Target, target_epoch: u16) -> SyncState {
    SyncState {
        // SAFETY: the helper has no preconditions.
        enter_ns: unsafe { bpf_ktime_get_ns() },
        pid_tgid,
        root: SLOT_NONE,
        broker: target.broker,
        op,
        flags: target.flags as u8,
        target_epoch,
        run_delay_ns: run_delay_ns(),
        ..SyncState::default()
    }
}

/// This thread is in a sync from now on.
#[inline(always)]
pub fn open(fresh: &SyncState) {
    let tid = fresh.pid_tgid as u32;
    if let Some(state) = OPS.get_ptr_mut(&tid) {
        // SAFETY: as in `enter`.
        unsafe {
            if (*state).enter_ns != 0 {
                lost(Loss::LostExit);
            }
            *state = *fresh;
        }
    } else if OPS.insert(&tid, fresh, u64::from(BPF_ANY)).is_err() {
        lost(Loss::OpsFull);
    }
}

/// A thread leaves a sync.
#[inline(always)]
fn exit(op: u8, ret: i64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(state) = OPS.get_ptr_mut(&(pid_tgid as u32)) else {
        unmatched(op, pid_tgid);
        return;
    };
    // SAFETY: as in `open`.
    let state = unsafe { &mut *state };
    if state.enter_ns == 0 || state.pid_tgid != pid_tgid {
        unmatched(op, pid_tgid);
        return;
    }
    close(state, ret);
}

/// The sync that this thread is in has come to an end.
#[inline(always)]
pub fn close(state: &mut SyncState, ret: i64) {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let duration_ns = now.saturating_sub(state.enter_ns);
    if state.inode.s_dev == 0 && op::has_fd(state.op) {
        reach_by_fd(state);
    }
    if state.flags & target_flags::EMIT_ALL as u8 == 0 {
        count(state, duration_ns, ret);
    }
    let is_wanted = state.flags & (target_flags::EMIT_ALL as u8 | AFTER_ERROR) != 0;
    if ret < 0 || duration_ns >= fact!(slow_ns) || is_wanted {
        emit(state, now, ret);
    }
    state.enter_ns = 0;
}

/// A sync of a watched process ended whose start was not seen. An msync without
/// MS_SYNC has no start, and is not told from one here: not counted.
#[inline(always)]
fn unmatched(op: u8, pid_tgid: u64) {
    if op == op::MSYNC {
        return;
    }
    let tgid = (pid_tgid >> 32) as u32;
    // SAFETY: read only.
    if unsafe { TARGETS.get(&tgid) }.is_some() {
        lost(Loss::UnmatchedExit);
    }
}

/// Adds the call to its histogram.
#[inline(always)]
fn count(state: &SyncState, duration_ns: u64, ret: i64) {
    let key = HistKey {
        s_dev: state.inode.s_dev,
        broker: state.broker,
        root: state.root,
        op: u32::from(state.op),
    };
    let mut hist = HIST.get_ptr_mut(&key);
    if hist.is_none() {
        // The agent makes the keys it can foresee; this is for the others.
        let Some(empty) = SCRATCH_HIST.get_ptr(0) else {
            return;
        };
        // SAFETY: the scratch element is never written, so it is all zero.
        let _ = HIST.insert(&key, unsafe { &*empty }, u64::from(BPF_ANY));
        hist = HIST.get_ptr_mut(&key);
    }
    match hist {
        // SAFETY: this CPU's value.
        Some(hist) => add(unsafe { &mut *hist }, duration_ns, ret < 0),
        None => lost(Loss::HistFull),
    }
}

/// Adds one value to a histogram of this CPU.
#[inline(always)]
pub fn add(hist: &mut Hist, ns: u64, failed: bool) {
    hist.sum_ns += ns;
    if failed {
        hist.nr_errors += 1;
    }
    let bucket = bucket_of(ns);
    if bucket < NR_BUCKETS {
        hist.buckets[bucket] += 1;
    }
}

/// Sends the record.
#[inline(always)]
fn emit(state: &SyncState, now: u64, ret: i64) {
    let Some(mut entry) = RING.reserve::<SyncRecord>(0) else {
        lost(Loss::RingFull);
        return;
    };
    let mut delta = InodeCounters::default();
    if state.inode.s_dev != 0
        && let Some(inode) = INODES.get_ptr_mut(&state.inode)
    {
        // SAFETY: a live map value; an error of this very instant is sent itself.
        unsafe { (*inode).last_err_ns = 0 };
        // SAFETY: likewise; counters may move meanwhile, which is fine.
        let c = unsafe { &(*inode).counters };
        delta = InodeCounters {
            nr_requests: c.nr_requests.wrapping_sub(state.snap.nr_requests),
            nr_bytes: c.nr_bytes.wrapping_sub(state.snap.nr_bytes),
            device_ns: c.device_ns.wrapping_sub(state.snap.device_ns),
            nr_errors: c.nr_errors.wrapping_sub(state.snap.nr_errors),
        };
    }
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points to reserved ring memory of this type; every field
    // is written before submit.
    unsafe {
        (*record).header = RecordHeader {
            kind: kind::SYNC,
            version: ABI_VERSION,
            size: size_of::<SyncRecord>() as u32,
            ktime_ns: now,
        };
        (*record).state = *state;
        (*record).exit_ns = now;
        (*record).ret = ret;
        (*record).run_delay_ns = run_delay_ns().saturating_sub(state.run_delay_ns);
        (*record).delta = delta;
        (*record).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        read_names_checked(state.dentry, &state.inode, &mut (*record).names);
    }
    entry.submit(0);
}

/// Argument `n` of a classic syscall tracepoint.
#[inline(always)]
fn arg(ctx: &TracePointContext, n: usize) -> u64 {
    // SAFETY: the record holds six arguments from byte 16 on; the agent checks
    // that against tracefs before it attaches.
    unsafe { *ctx.as_ptr().cast::<u64>().add(2 + n) }
}

/// `ret` of a classic syscall tracepoint.
#[inline(always)]
fn ret(ctx: &TracePointContext) -> i64 {
    // SAFETY: `ret` stands at byte 16.
    unsafe { *ctx.as_ptr().cast::<i64>().add(2) }
}

/// Argument `n` of a system call from its `pt_regs`.
#[inline(always)]
fn reg(regs: u64, offset: u32) -> u64 {
    probe(regs, offset)
}

macro_rules! syscall {
    ($name:ident, $op:expr, $args:expr, $enter_tp:ident, $exit_tp:ident, $fentry:ident, $fexit:ident) => {
        #[doc = concat!("Enter of ", stringify!($name), ", classic tracepoint.")]
        #[tracepoint]
        pub fn $enter_tp(ctx: TracePointContext) -> u32 {
            let args = [arg(&ctx, 0), arg(&ctx, 1), arg(&ctx, 2), arg(&ctx, 3)];
            if let Some((a, b, c)) = $args(args) {
                enter($op, a, b, c);
            }
            0
        }
        #[doc = concat!("Exit of ", stringify!($name), ", classic tracepoint.")]
        #[tracepoint]
        pub fn $exit_tp(ctx: TracePointContext) -> u32 {
            exit($op, ret(&ctx));
            0
        }
        #[doc = concat!("Enter of ", stringify!($name), ", fentry on the syscall function.")]
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            let regs: u64 = ctx.arg(0);
            let args = [
                reg(regs, fact!(pt_regs_arg0)),
                reg(regs, fact!(pt_regs_arg1)),
                reg(regs, fact!(pt_regs_arg2)),
                0,
            ];
            if let Some((a, b, c)) = $args(args) {
                enter($op, a, b, c);
            }
            0
        }
        #[doc = concat!("Exit of ", stringify!($name), ", fexit on the syscall function.")]
        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            // The return value follows the arguments; FExitContext::ret needs 5.17.
            exit($op, ctx.arg::<i64>(1));
            0
        }
    };
}

#[inline(always)]
fn fd_only(args: [u64; 4]) -> Option<(u64, u64, u64)> {
    Some((args[0], 0, 0))
}
#[inline(always)]
fn fd_range(args: [u64; 4]) -> Option<(u64, u64, u64)> {
    Some((args[0], args[1], args[3]))
}
#[inline(always)]
fn sync_mapping(args: [u64; 4]) -> Option<(u64, u64, u64)> {
    (args[2] & MS_SYNC != 0).then_some((args[0], args[1], args[2]))
}

syscall!(
    fsync,
    op::FSYNC,
    fd_only,
    enter_fsync,
    exit_fsync,
    fentry_fsync,
    fexit_fsync
);
syscall!(
    fdatasync,
    op::FDATASYNC,
    fd_only,
    enter_fdatasync,
    exit_fdatasync,
    fentry_fdatasync,
    fexit_fdatasync
);
syscall!(
    msync,
    op::MSYNC,
    sync_mapping,
    enter_msync,
    exit_msync,
    fentry_msync,
    fexit_msync
);
syscall!(
    sync_file_range,
    op::SYNC_FILE_RANGE,
    fd_range,
    enter_sync_file_range,
    exit_sync_file_range,
    fentry_sync_file_range,
    fexit_sync_file_range
);
syscall!(
    syncfs,
    op::SYNCFS,
    fd_only,
    enter_syncfs,
    exit_syncfs,
    fentry_syncfs,
    fexit_syncfs
);
