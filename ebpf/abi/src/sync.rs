//! Sync operations: state while in flight, and the record of one that failed or
//! was slow.

use crate::{
    RecordHeader,
    keys::{InodeKey, Names},
};

/// Which system call, or what else made the sync ([`SyncState::op`]).
pub mod op {
    /// `fsync(2)`
    pub const FSYNC: u8 = 1;
    /// `fdatasync(2)`
    pub const FDATASYNC: u8 = 2;
    /// `msync(2)` with MS_SYNC
    pub const MSYNC: u8 = 3;
    /// `sync_file_range(2)`: proves no durability.
    pub const SYNC_FILE_RANGE: u8 = 4;
    /// `syncfs(2)`
    pub const SYNCFS: u8 = 5;
    /// Inside another system call: a write with O_DSYNC, O_SYNC or RWF_DSYNC.
    /// This one and those below are opened and closed by the file system's own
    /// tracepoints.
    pub const DSYNC: u8 = 6;
    /// In a worker of io_uring, which belongs to the process that asked.
    pub const IO_URING: u8 = 7;
    /// In a kernel thread, for a caller that is not known: AIO.
    pub const AIO: u8 = 8;
    /// The last one.
    pub const LAST: u8 = AIO;

    /// True if the call's first argument is a descriptor.
    pub const fn has_fd(op: u8) -> bool {
        matches!(op, FSYNC | FDATASYNC | SYNC_FILE_RANGE | SYNCFS)
    }

    /// True for a call of which no file system tells the file.
    pub const fn is_silent(op: u8) -> bool {
        matches!(op, SYNC_FILE_RANGE | SYNCFS)
    }

    /// True for a sync that began in the file system, not with a system call.
    pub const fn is_opened_by_file_system(op: u8) -> bool {
        op >= DSYNC
    }
}

/// Bit of [`SyncState::flags`] beside [`crate::keys::target_flags`]: a request or
/// the writeback of the file had failed before the call reached it. Its record is
/// sent even if it succeeds fast.
pub const AFTER_ERROR: u8 = 1 << 7;

/// Flag of a sync whose file was found by its descriptor: no event of the file
/// system named it.
pub const BY_FD: u8 = 1 << 6;

/// What block requests did to one inode (value part of INODE), or the
/// difference over one sync.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeCounters {
    /// Completed data requests.
    pub nr_requests: u64,
    /// Bytes of those.
    pub nr_bytes: u64,
    /// Sum of complete − issue.
    pub device_ns: u64,
    /// Failed requests.
    pub nr_errors: u64,
}

/// Value of OPS (key: tid as u32). The entry of a thread stays and is reused;
/// `enter_ns == 0` means that no sync is in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncState {
    /// CLOCK_MONOTONIC at enter, 0 = idle.
    pub enter_ns: u64,
    /// `bpf_get_current_pid_tgid`: tgid << 32 | tid.
    pub pid_tgid: u64,
    /// fd (fsync, fdatasync, sync_file_range, syncfs) or start address (msync).
    pub arg0: u64,
    /// Length in bytes (msync), offset (sync_file_range), else 0.
    pub arg1: u64,
    /// Flags (msync, sync_file_range), else 0.
    pub arg2: u64,
    /// The (last) file that the file system's own tracepoint named in this
    /// call; `s_dev == 0` if none did yet.
    pub inode: InodeKey,
    /// `struct dentry *` of that file, for its names.
    pub dentry: u64,
    /// INODE counters of that file when the call reached the file system.
    pub snap: InodeCounters,
    /// When this thread last submitted a bio with PREFLUSH in this call, 0 = never.
    pub flush_asked_ns: u64,
    /// Lock that this thread waits for, 0 = none.
    pub lock: u64,
    /// Since when.
    pub lock_ns: u64,
    /// xfs: when this thread first forced the log in this call, 0 = never.
    pub log_force_ns: u64,
    /// errseq value handed to this caller by file_check_and_advance_wb_err, 0 = none.
    pub told_errseq: u32,
    /// Which directory the file lies under (ROOTS), or SLOT_NONE.
    pub root: u16,
    /// Broker slot of the process.
    pub broker: u16,
    /// One of [`op`].
    pub op: u8,
    /// [`crate::keys::target_flags`] as they were at enter, [`AFTER_ERROR`], [`BY_FD`].
    pub flags: u8,
    /// How many files the call reached (msync, syncfs may reach several).
    pub nr_files: u16,
    /// Bios with PREFLUSH submitted by this thread in this call.
    pub nr_flush: u16,
    /// EPOCH in which `broker` and the target's flags were looked up.
    pub target_epoch: u16,
    /// `task.sched_info.run_delay` at enter: how long this thread had waited for a
    /// CPU since its start, ns; 0 where the kernel does not keep it.
    pub run_delay_ns: u64,
}

/// Ring record of a sync that failed, was slow, or belongs to a probe.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncRecord {
    /// kind = SYNC
    pub header: RecordHeader,
    /// The state at exit.
    pub state: SyncState,
    /// CLOCK_MONOTONIC at exit.
    pub exit_ns: u64,
    /// Return value: 0, or −errno.
    pub ret: i64,
    /// How long this thread waited for a CPU in the call, ns.
    pub run_delay_ns: u64,
    /// INODE counters at exit minus `state.snap`.
    pub delta: InodeCounters,
    /// `task.comm` of the caller, cut at 15 bytes by the kernel.
    pub comm: [u8; 16],
    /// Names of `state.inode`.
    pub names: Names,
}

const _: () = assert!(size_of::<InodeCounters>() == 32);
const _: () = assert!(size_of::<SyncState>() == 152);
const _: () = assert!(size_of::<SyncRecord>() == 16 + 152 + 24 + 32 + 16 + 512);
