//! The file of a sync, as the file system itself names it: msync has no
//! descriptor and may reach several files, and this needs no walk of the
//! descriptor table.
//!
//! - `ext4_sync_file_enter(struct file *, int datasync)`, 5.10 to 7.3
//! - `ext4_sync_file_exit(struct inode *, int ret)`, 5.10 to 7.3
//! - `xfs_file_fsync(struct xfs_inode *)` and `xfs_dir_fsync`, 5.10 to 7.3
//! - `btrfs_sync_file(struct file *, int)` to 6.18, `btrfs_sync_file_enter` in 7.3
//!
//! On ext4, at the level `full`, a sync that no sync system call made is opened and
//! closed here: writes with O_DSYNC or RWF_DSYNC, io_uring, AIO. xfs tells no end of a
//! sync, nor does btrfs before 7: there such a sync is not followed, since it would
//! hang for ever.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use fsyncscope_abi::{
    facts::detail,
    keys::{InodeKey, Target},
    sync::{AFTER_ERROR, BY_FD, InodeCounters, SyncState, op},
};

use crate::{
    hooks::{
        places::{recall, remember},
        sync::{begun, close, open, target_of},
    },
    kernel::{
        fact,
        fd::file_of_fd,
        file::{
            dentry_of_inode, is_new_place, key_of, place_of, read_names, root_of, watched_root_of,
        },
        read::{Addr, Mem, Probe, Typed},
        task::is_kernel_thread,
    },
    maps::{FILESYSTEMS, INODES, NAMES, OPS, SCRATCH_NAMES, add_inode, epoch},
};

/// The sync that this thread is in, if it is watched.
#[inline(always)]
pub fn open_sync<'a>() -> Option<&'a mut SyncState> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let state = OPS.get_ptr_mut(&(pid_tgid as u32))?;
    // SAFETY: only this thread's hooks write its entry.
    let state = unsafe { &mut *state };
    (state.enter_ns != 0 && state.pid_tgid == pid_tgid).then_some(state)
}

/// The call has reached a file.
#[inline(always)]
fn reached<M: Mem>(state: &mut SyncState, inode: Addr, dentry: Addr) {
    let key = key_of::<M>(inode);
    state.inode = key;
    state.dentry = dentry;
    state.nr_files = state.nr_files.saturating_add(1);
    let now_epoch = state.target_epoch;
    let place = place_of::<M>(dentry);
    if recall(state, &key, place, now_epoch) {
        return;
    }
    if let Some(known) = INODES.get_ptr(&key) {
        // SAFETY: a live map value.
        let known = unsafe { &*known };
        state.snap = known.counters;
        if known.last_err_ns != 0 {
            state.flags |= AFTER_ERROR;
        }
        // A new file may have an old one's number, and files are renamed.
        let is_same = known.parent == place.0 && known.name_hash == place.1;
        if known.root_epoch == now_epoch && is_same {
            state.root = known.root;
            remember(state, &key, place, now_epoch);
            return;
        }
    } else {
        state.snap = InodeCounters::default();
    }
    first_seen(state, &key, now_epoch);
}

/// Names the file of a call by its descriptor, where no event of a file system
/// has named it.
#[inline(never)]
pub fn reach_by_fd(state: &mut SyncState) {
    let file = file_of_fd(state.arg0);
    if file != 0 {
        state.flags |= BY_FD;
        from_file::<Probe>(state, file);
    }
}

/// Once per file, place and epoch: where it lies, and its names.
#[inline(never)]
fn first_seen(state: &mut SyncState, key: &InodeKey, now_epoch: u16) {
    let dentry = state.dentry;
    let place = place_of::<Probe>(dentry);
    let root = root_of(dentry, key.s_dev);
    state.root = root;
    let mut known = INODES.get_ptr_mut(key);
    if known.is_none() {
        known = add_inode(key);
    }
    if let Some(known) = known {
        // SAFETY: a live map value; both writers of these fields write the same.
        unsafe {
            is_new_place(&mut *known, place);
            (*known).root = root;
            (*known).root_epoch = now_epoch;
        }
    }
    if let Some(names) = SCRATCH_NAMES.get_ptr_mut(0) {
        // SAFETY: this CPU's scratch; the program does not sleep in between.
        let names = unsafe { &mut *names };
        read_names(dentry, key.s_dev, names);
        let _ = NAMES.insert(key, names, u64::from(BPF_ANY));
    }
}

/// ext4, typed: `file` is the first argument.
#[btf_tracepoint(function = "ext4_sync_file_enter")]
pub fn ext4_sync_file_enter_typed(ctx: BtfTracePointContext) -> i32 {
    ext4_entered::<Typed>(ctx.arg(0));
    0
}

/// ext4, raw.
#[raw_tracepoint(tracepoint = "ext4_sync_file_enter")]
pub fn ext4_sync_file_enter(ctx: RawTracePointContext) -> i32 {
    ext4_entered::<Probe>(ctx.arg(0));
    0
}

#[inline(always)]
fn ext4_entered<M: Mem>(file: Addr) {
    let state = match open_sync() {
        Some(state) => state,
        // Its end is seen at this level only.
        None if fact!(detail) != detail::FULL => return,
        None if open_unannounced::<M>(file) => match open_sync() {
            Some(state) => state,
            None => return,
        },
        None => return,
    };
    from_file::<M>(state, file);
}

/// ext4 leaves, typed: `ret` is the second argument.
#[btf_tracepoint(function = "ext4_sync_file_exit")]
pub fn ext4_sync_file_exit_typed(ctx: BtfTracePointContext) -> i32 {
    ext4_left(ctx.arg::<u64>(1) as i32);
    0
}

/// ext4 leaves, raw.
#[raw_tracepoint(tracepoint = "ext4_sync_file_exit")]
pub fn ext4_sync_file_exit(ctx: RawTracePointContext) -> i32 {
    ext4_left(ctx.arg::<u64>(1) as i32);
    0
}

#[inline(always)]
fn ext4_left(ret: i32) {
    if let Some(state) = open_sync()
        && op::is_opened_by_file_system(state.op)
    {
        let (op, tid) = (state.op, state.pid_tgid as u32);
        close(state, i64::from(ret));
        if op != op::DSYNC {
            // Workers come and go: their entries would fill the map.
            let _ = OPS.remove(&tid);
        }
    }
}

/// Opens a sync that no sync system call has announced: one of a watched process,
/// or one that a kernel thread makes for somebody on a file in a watched directory.
/// True if there is one.
#[inline(always)]
fn open_unannounced<M: Mem>(file: Addr) -> bool {
    let pid_tgid = bpf_get_current_pid_tgid();
    let target = target_of((pid_tgid >> 32) as u32);
    let is_kernel = is_kernel_thread();
    let target = match target {
        Some(target) => target,
        None if is_kernel => {
            let key = key_of::<M>(M::u64(file, fact!(file_f_inode)));
            // SAFETY: read only.
            if unsafe { FILESYSTEMS.get(&key.s_dev) }.is_none() {
                return false;
            }
            let dentry = M::u64(file, fact!(file_f_path_dentry));
            let Some(root) = watched_root_of(dentry, key.s_dev) else {
                return false;
            };
            Target {
                broker: (root >> 16) as u16,
                flags: 0,
            }
        }
        None => return false,
    };
    let op = if is_kernel {
        op::AIO
    } else if is_io_uring_thread() {
        op::IO_URING
    } else {
        op::DSYNC
    };
    open(&begun(op, pid_tgid, target, epoch()));
    true
}

/// A thread that the kernel made in the process for io_uring: a worker
/// (`iou-wrk-PID`) or a poller (`iou-sqp-PID`). Its flag has had several values,
/// the name is the kernel's own from 5.12 on.
#[inline(always)]
fn is_io_uring_thread() -> bool {
    bpf_get_current_comm().is_ok_and(|comm| comm[..4] == *b"iou-")
}

/// btrfs, both names.
#[raw_tracepoint(tracepoint = "btrfs_sync_file")]
pub fn btrfs_sync_file(ctx: RawTracePointContext) -> i32 {
    if let Some(state) = open_sync() {
        from_file::<Probe>(state, ctx.arg(0));
    }
    0
}

#[inline(always)]
fn from_file<M: Mem>(state: &mut SyncState, file: Addr) {
    let inode = M::u64(file, fact!(file_f_inode));
    let dentry = M::u64(file, fact!(file_f_path_dentry));
    reached::<M>(state, inode, dentry);
}

/// xfs, a file.
#[raw_tracepoint(tracepoint = "xfs_file_fsync")]
pub fn xfs_file_fsync(ctx: RawTracePointContext) -> i32 {
    from_xfs(&ctx);
    0
}

/// xfs, a directory.
#[raw_tracepoint(tracepoint = "xfs_dir_fsync")]
pub fn xfs_dir_fsync(ctx: RawTracePointContext) -> i32 {
    from_xfs(&ctx);
    0
}

/// The first argument is a `struct xfs_inode`, which embeds the inode.
#[inline(always)]
fn from_xfs(ctx: &RawTracePointContext) {
    if let Some(state) = open_sync() {
        let ip: u64 = ctx.arg(0);
        let inode = ip + u64::from(fact!(xfs_inode_i_vnode));
        reached::<Probe>(state, inode, dentry_of_inode(inode));
    }
}
