//! Writeback errors: who failed, and who was told.
//!
//! - `filemap_set_wb_err(struct address_space *, errseq_t)`: the argument is the
//!   value *before*, so the mapping is read
//! - `file_check_and_advance_wb_err(struct file *, errseq_t old)`
//!
//! Both fire only after an error. Emits [`WbErrRecord`] once per file and errseq
//! value, [`WbTellRecord`] each time.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use fsyncscope_abi::{
    ABI_VERSION, RecordHeader, kind,
    loss::Loss,
    wb::{WbErrRecord, WbTellRecord},
};

use crate::{
    hooks::{files::open_sync, places::mark},
    kernel::{
        fact,
        file::{dentry_of_inode, is_new_place, key_of, place_of, read_names, root_of},
        read::{Mem as _, Probe},
    },
    maps::{FILESYSTEMS, INODES, RING, add_inode, lost},
};

/// Writeback of a file failed.
#[raw_tracepoint(tracepoint = "filemap_set_wb_err")]
pub fn filemap_set_wb_err(ctx: RawTracePointContext) -> i32 {
    let mapping: u64 = ctx.arg(0);
    let inode = Probe::u64(mapping, fact!(address_space_host));
    if inode == 0 {
        return 0;
    }
    let key = key_of::<Probe>(inode);
    // SAFETY: read only.
    if fact!(watch_all) == 0 && unsafe { FILESYSTEMS.get(&key.s_dev) }.is_none() {
        return 0;
    }
    let errseq = Probe::u32(mapping, fact!(address_space_wb_err));
    let dentry = dentry_of_inode(inode);
    let mut known = INODES.get_ptr_mut(&key);
    if known.is_none() {
        known = add_inode(&key);
    }
    let Some(known) = known else {
        return 0;
    };
    // SAFETY: a live map value; a race between two CPUs sends a record twice.
    let known = unsafe { &mut *known };
    if is_new_place(known, place_of::<Probe>(dentry)) {
        // Its directory is looked up again.
        known.root_epoch = 0;
    }
    if known.wb_err == errseq {
        return 0;
    }
    known.wb_err = errseq;
    // SAFETY: the helper has no preconditions.
    known.last_err_ns = unsafe { bpf_ktime_get_ns() };
    mark(&key);
    let Some(mut entry) = RING.reserve::<WbErrRecord>(0) else {
        lost(Loss::RingFull);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved ring memory of this type, written whole before submit.
    unsafe {
        (*record).header = RecordHeader {
            kind: kind::WB_ERR,
            version: ABI_VERSION,
            size: size_of::<WbErrRecord>() as u32,
            ktime_ns: bpf_ktime_get_ns(),
        };
        (*record).inode = key;
        (*record).errseq = errseq;
        // Not that of the entry: its number may have been another file's.
        (*record).root = root_of(dentry, key.s_dev);
        (*record).pad = 0;
        (*record).state = *known;
        read_names(dentry, key.s_dev, &mut (*record).names);
    }
    entry.submit(0);
    0
}

/// A caller is told.
#[raw_tracepoint(tracepoint = "file_check_and_advance_wb_err")]
pub fn file_check_and_advance_wb_err(ctx: RawTracePointContext) -> i32 {
    let file: u64 = ctx.arg(0);
    let inode = Probe::u64(file, fact!(file_f_inode));
    let key = key_of::<Probe>(inode);
    let new = Probe::u32(file, fact!(file_f_wb_err));
    let mut in_sync = 0;
    if let Some(state) = open_sync() {
        state.told_errseq = new;
        in_sync = 1;
    }
    // SAFETY: read only.
    if in_sync == 0 && fact!(watch_all) == 0 && unsafe { FILESYSTEMS.get(&key.s_dev) }.is_none() {
        return 0;
    }
    let Some(mut entry) = RING.reserve::<WbTellRecord>(0) else {
        lost(Loss::RingFull);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: as above.
    unsafe {
        *record = WbTellRecord {
            header: RecordHeader {
                kind: kind::WB_TELL,
                version: ABI_VERSION,
                size: size_of::<WbTellRecord>() as u32,
                ktime_ns: bpf_ktime_get_ns(),
            },
            inode: key,
            pid_tgid: bpf_get_current_pid_tgid(),
            old: ctx.arg::<u64>(1) as u32,
            new,
            comm: bpf_get_current_comm().unwrap_or([0; 16]),
            in_sync,
            pad: 0,
        };
    }
    entry.submit(0);
    0
}
