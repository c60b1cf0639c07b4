//! Block requests: state while in flight, the record of one that failed or was
//! slow, and what is accumulated per inode and per device.

use crate::{
    RecordHeader,
    hist::Hist,
    keys::{InodeKey, Names},
    sync::InodeCounters,
};

/// Low eight bits of `request.cmd_flags` (include/linux/blk_types.h, REQ_OP_*;
/// checked in 5.10 and 7.3).
pub mod req_op {
    /// REQ_OP_READ
    pub const READ: u8 = 0;
    /// REQ_OP_WRITE
    pub const WRITE: u8 = 1;
    /// REQ_OP_FLUSH
    pub const FLUSH: u8 = 2;
    /// REQ_OP_DISCARD
    pub const DISCARD: u8 = 3;
}

/// Value of RQS (key: `struct request *` as u64). Request objects belong to one
/// queue and are recycled, so the entry stays; `issue_ns == 0` means idle.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RqState {
    /// First issue of this use, CLOCK_MONOTONIC; 0 = not in flight.
    pub issue_ns: u64,
    /// `request.__sector` at issue (512-byte units).
    pub sector: u64,
    /// `request.__data_len` at issue.
    pub nr_bytes: u32,
    /// `request.cmd_flags` at issue.
    pub cmd_flags: u32,
    /// `bpf_get_current_pid_tgid` at first issue: tgid << 32 | tid.
    pub pid_tgid: u64,
    /// Disk: major << 20 | minor; 0 = not a watched disk (in this epoch).
    pub dev: u32,
    /// Requeues of this use.
    pub nr_requeue: u16,
    /// EPOCH in which `dev` was decided.
    pub epoch: u16,
    /// `request.start_time_ns` of the use whose failure was reported: a write
    /// that is sequenced with flushes completes once more. 0 = none, or unknown.
    pub told_start_ns: u64,
}

/// How the file of a request was found ([`RequestRecord::file_source`]).
pub mod file_source {
    /// Not looked for, or not found.
    pub const UNKNOWN: u8 = 0;
    /// bio → page → folio head → mapping → host, and host agrees.
    pub const PAGE: u8 = 1;
    /// bi_private is an iomap_dio: direct I/O of that file.
    pub const DIRECT: u8 = 2;
    /// The page belongs to a block device: metadata or journal of `rdev`.
    pub const BLOCKDEV: u8 = 3;
    /// A flush request: has no file.
    pub const FLUSH: u8 = 4;
    /// REQ_META without a page cache page (xfs log and buffers).
    pub const META: u8 = 5;
}

/// Ring record of a request that failed, or took longer than
/// `Facts.request_slow_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// kind = REQUEST
    pub header: RecordHeader,
    /// `struct request *`, to join with in-flight state.
    pub rq: u64,
    /// `request.start_time_ns`, 0 = unknown.
    pub start_ns: u64,
    /// First issue, 0 = never issued.
    pub issue_ns: u64,
    /// Completion.
    pub complete_ns: u64,
    /// First sector, 512-byte units; u64::MAX for a flush.
    pub sector: u64,
    /// Bytes of the request as issued.
    pub nr_bytes: u32,
    /// Bytes this completion is about.
    pub done_bytes: u32,
    /// `request.cmd_flags`.
    pub cmd_flags: u32,
    /// Raw status argument: a `blk_status_t`, or an errno where
    /// `status_is_errno` (5.10 to 5.15) is 1. 0 = success.
    pub status: i32,
    /// Disk: major << 20 | minor.
    pub dev: u32,
    /// Device whose metadata it is: `inode.i_rdev` where `file_source` is BLOCKDEV,
    /// `bio.bi_bdev.bd_dev` where it is META (0 before 5.12), else 0.
    pub rdev: u32,
    /// File of the request (first bio whose file is known).
    pub inode: InodeKey,
    /// Failed requests of this inode so far, this one included.
    pub nr_errors: u64,
    /// 1 if `status` is an errno.
    pub status_is_errno: u8,
    /// One of [`file_source`].
    pub file_source: u8,
    /// 1 if first and last bio belong to different files.
    pub spans_files: u8,
    /// Requeues.
    pub nr_requeue: u8,
    /// Watched directory of the file, or SLOT_NONE.
    pub root: u16,
    /// Zero.
    pub pad: u16,
    /// Names of `inode`.
    pub names: Names,
}

/// Value of INODE (key: [`InodeKey`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeState {
    /// Totals since the entry exists.
    pub counters: InodeCounters,
    /// When a request of the file or its writeback last failed; 0 = never, or a
    /// sync of the file was sent since.
    pub last_err_ns: u64,
    /// Sector of it.
    pub last_err_sector: u64,
    /// Raw status of it.
    pub last_err_status: i32,
    /// Disk of it.
    pub last_err_dev: u32,
    /// `mapping.wb_err` when it was last reported, for deduplication.
    pub wb_err: u32,
    /// Watched directory the file lies under, or SLOT_NONE; valid in `root_epoch`.
    pub root: u16,
    /// EPOCH in which dentries were walked, 0 = never.
    pub root_epoch: u16,
}

/// Value of BLOCK_HIST, one per CPU (key: disk << 32 | op, see [`block_hist_key`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHist {
    /// Bytes completed.
    pub nr_bytes: u64,
    /// Issue to completion.
    pub device: Hist,
    /// Allocation to issue, of requests whose allocation time is known.
    pub queue: Hist,
}

/// Key of BLOCK_HIST.
#[inline(always)]
pub const fn block_hist_key(dev: u32, op: u8) -> u64 {
    (dev as u64) << 32 | op as u64
}

/// Value of FLUSHES (key: disk as u32): device cache flushes of one disk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushState {
    /// Flush requests completed.
    pub seq: u64,
    /// Sum of their device time.
    pub device_ns: u64,
    /// Issue of the last completed one.
    pub last_issue_ns: u64,
    /// Completion of the last completed one.
    pub last_complete_ns: u64,
    /// Failed flush requests.
    pub nr_errors: u64,
}

const _: () = assert!(size_of::<RqState>() == 48);
const _: () = assert!(size_of::<RequestRecord>() == 16 + 40 + 24 + 16 + 16 + 512);
const _: () = assert!(size_of::<InodeState>() == 64);
const _: () = assert!(size_of::<FlushState>() == 40);
