//! The flight recorder: requests and waits that took `Facts.span_min_ns` or
//! failed, whoever they belong to. Kept in per-CPU arrays that overwrite the
//! oldest, so that a slow sync can be explained after the fact; a healthy request
//! costs one comparison. Written by the hooks, read by the agent when a sync was
//! slow. Spans lie in pages of [`SPANS_PER_PAGE`]: one look-up of the agent reads
//! a page of every CPU.

use crate::keys::InodeKey;

/// Spans in one map value.
pub const SPANS_PER_PAGE: usize = 16;
/// All of RQ_SPANS and WAIT_SPANS, over all possible CPUs, stays below this.
pub const MAX_SPAN_BYTES: usize = 8 << 20;
/// Pages of request spans a CPU at most: 4096 spans.
pub const MAX_REQUEST_PAGES: u32 = 256;
/// Pages of wait spans a CPU at most: 1024 spans.
pub const MAX_WAIT_PAGES: u32 = 64;

/// Pages a CPU of RQ_SPANS and of WAIT_SPANS, powers of two, for so many
/// possible CPUs.
pub const fn span_pages(nr_cpus: usize) -> (u32, u32) {
    let mut requests = MAX_REQUEST_PAGES;
    let mut waits = MAX_WAIT_PAGES;
    while requests > 1 {
        let bytes = requests as usize * size_of::<[RequestSpan; SPANS_PER_PAGE]>()
            + waits as usize * size_of::<[WaitSpan; SPANS_PER_PAGE]>();
        if bytes * nr_cpus <= MAX_SPAN_BYTES {
            break;
        }
        requests /= 2;
        if waits > 1 {
            waits /= 2;
        }
    }
    (requests, waits)
}

/// A request that completed, element of RQ_SPANS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestSpan {
    /// Number of the span on its CPU from 1 on, written last; 0 = being written.
    pub number: u64,
    /// `request.start_time_ns`, 0 = unknown.
    pub start_ns: u64,
    /// First issue, 0 = never issued.
    pub issue_ns: u64,
    /// Completion.
    pub complete_ns: u64,
    /// First sector, 512-byte units; meaningless for a flush.
    pub sector: u64,
    /// `bpf_get_current_pid_tgid` at first issue: tgid << 32 | tid.
    pub submitter: u64,
    /// File of the first bio, `s_dev == 0` if not known.
    pub inode: InodeKey,
    /// Bytes as issued.
    pub nr_bytes: u32,
    /// `request.cmd_flags`.
    pub cmd_flags: u32,
    /// Disk: major << 20 | minor.
    pub dev: u32,
    /// Raw status argument, 0 = success.
    pub status: i32,
    /// `inode.i_rdev` where `source` is BLOCKDEV, else 0.
    pub rdev: u32,
    /// Watched directory of the file, or SLOT_NONE.
    pub root: u16,
    /// One of [`crate::block::file_source`].
    pub source: u8,
    /// Requeues.
    pub nr_requeue: u8,
    /// 1 if `status` is an errno.
    pub status_is_errno: u8,
    /// Zero.
    pub pad: [u8; 7],
}

/// What was waited for ([`WaitSpan::kind`]).
pub mod wait_kind {
    /// A jbd2 commit: `jbd2_start_commit` to `jbd2_end_commit`.
    pub const COMMIT: u16 = 1;
    /// A jbd2 checkpoint: `jbd2_checkpoint` to `jbd2_checkpoint_stats`.
    pub const CHECKPOINT: u16 = 2;
    /// xfs forces its log: `xfs_log_force` to the sync's return.
    pub const LOG_FORCE: u16 = 3;
    /// A sleeping lock: `contention_begin` to `contention_end`.
    pub const LOCK: u16 = 4;
    /// An ext4 fast commit: `ext4_fc_commit_start` to `ext4_fc_commit_stop`.
    pub const FAST_COMMIT: u16 = 5;
}

/// A wait that ended, element of WAIT_SPANS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitSpan {
    /// As in [`RequestSpan`].
    pub number: u64,
    /// Start.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Address of the lock, else 0.
    pub addr: u64,
    /// One of [`wait_kind`].
    pub kind: u16,
    /// Zero.
    pub pad: u16,
    /// File system of the journal, 0 for LOCK.
    pub s_dev: u32,
    /// Transaction of the journal, 0 = unknown.
    pub seq: u32,
    /// Thread that waited or worked.
    pub tid: u32,
    /// COMMIT: start until its handles had ended, ns, 0 = unknown.
    pub flushing_ns: u64,
    /// COMMIT: start until its blocks began to be logged, ns, 0 = unknown.
    pub logging_ns: u64,
}

/// A wait that may be going on. The place stays; `start_ns == 0` means that
/// nothing is.
pub type OpenWait = WaitSpan;

/// Value of FILESYSTEMS (key: s_dev as u32): what its journal does now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsState {
    /// The commit that goes on.
    pub commit: OpenWait,
    /// The checkpoint that goes on.
    pub checkpoint: OpenWait,
}

const _: () = assert!(size_of::<RequestSpan>() == 96);
const _: () = assert!(size_of::<WaitSpan>() == 64);
const _: () = assert!(align_of::<RequestSpan>() == 8);
const _: () = {
    let small = span_pages(2);
    assert!(small.0 == MAX_REQUEST_PAGES && small.1 == MAX_WAIT_PAGES);
    let mut nr_cpus = 1;
    while nr_cpus <= 1024 {
        let (requests, waits) = span_pages(nr_cpus);
        assert!(requests.is_power_of_two() && waits.is_power_of_two());
        let bytes = requests as usize * size_of::<[RequestSpan; SPANS_PER_PAGE]>()
            + waits as usize * size_of::<[WaitSpan; SPANS_PER_PAGE]>();
        assert!(bytes * nr_cpus <= MAX_SPAN_BYTES);
        nr_cpus *= 2;
    }
};
