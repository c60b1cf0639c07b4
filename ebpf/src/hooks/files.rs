//! The file of a sync, as the file system itself names it: msync has no
//! descriptor and may reach several files, and this needs no walk of the
//! descriptor table.
//!
//! - `ext4_sync_file_enter(struct file *, int datasync)`, 5.10 to 7.3
//! - `xfs_file_fsync(struct xfs_inode *)`, 5.10 to 7.3
//! - `btrfs_sync_file(struct file *, int)` to 6.18, `btrfs_sync_file_enter` in 7.3

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use fsyncscope_abi::{block::InodeState, keys::InodeKey, loss::Loss, sync::SyncState};

use crate::{
    kernel::{
        fact,
        file::{dentry_of_inode, key_of, read_names, root_of},
        read::{Addr, Mem, Probe, Typed},
    },
    maps::{INODES, NAMES, OPS, SCRATCH_NAMES, epoch, lost},
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
    let now_epoch = epoch();
    if let Some(known) = INODES.get_ptr(&key) {
        // SAFETY: a live map value.
        let known = unsafe { &*known };
        state.snap = known.counters;
        if known.root_epoch == now_epoch {
            state.root = known.root;
            return;
        }
    }
    first_seen(state, &key, dentry, now_epoch);
}

/// Once per file and epoch: where it lies, and its names.
#[inline(never)]
fn first_seen(state: &mut SyncState, key: &InodeKey, dentry: Addr, now_epoch: u16) {
    let root = root_of(dentry, key.s_dev);
    state.root = root;
    if let Some(known) = INODES.get_ptr_mut(key) {
        // SAFETY: a live map value; both writers of these fields write the same.
        unsafe {
            (*known).root = root;
            (*known).root_epoch = now_epoch;
        }
    } else {
        let fresh = InodeState {
            root,
            root_epoch: now_epoch,
            ..InodeState::default()
        };
        if INODES.insert(key, &fresh, u64::from(BPF_NOEXIST)).is_err() {
            lost(Loss::InodeFull);
        }
    }
    if let Some(names) = SCRATCH_NAMES.get_ptr_mut(0) {
        // SAFETY: this CPU's scratch; the program does not sleep in between.
        let names = unsafe { &mut *names };
        read_names(dentry, names);
        let _ = NAMES.insert(key, names, u64::from(BPF_ANY));
    }
}

/// ext4, typed: `file` is the first argument.
#[btf_tracepoint(function = "ext4_sync_file_enter")]
pub fn ext4_sync_file_enter_typed(ctx: BtfTracePointContext) -> i32 {
    if let Some(state) = open_sync() {
        from_file::<Typed>(state, ctx.arg(0));
    }
    0
}

/// ext4, raw.
#[raw_tracepoint(tracepoint = "ext4_sync_file_enter")]
pub fn ext4_sync_file_enter(ctx: RawTracePointContext) -> i32 {
    if let Some(state) = open_sync() {
        from_file::<Probe>(state, ctx.arg(0));
    }
    0
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

/// xfs: `struct xfs_inode` embeds the inode.
#[raw_tracepoint(tracepoint = "xfs_file_fsync")]
pub fn xfs_file_fsync(ctx: RawTracePointContext) -> i32 {
    if let Some(state) = open_sync() {
        let ip: u64 = ctx.arg(0);
        let inode = ip + u64::from(fact!(xfs_inode_i_vnode));
        reached::<Probe>(state, inode, dentry_of_inode(inode));
    }
    0
}
