//! Block requests: state while in flight, the record of one that failed or was
//! slow, and what is accumulated per inode and per device.

use crate::{
    RecordHeader,
    hist::Hist,
    keys::{InodeKey, Names, SLOT_NONE},
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
    /// REQ_OP_SECURE_ERASE
    pub const SECURE_ERASE: u8 = 5;
    /// REQ_OP_WRITE_ZEROES
    pub const WRITE_ZEROES: u8 = 9;

    /// Whether requests of this operation may carry pages of files. Those that only
    /// name a range carry none, or the driver's own; of zone management the bios
    /// have no vector to begin with.
    #[inline(always)]
    pub const fn has_pages(op: u8) -> bool {
        !matches!(op, FLUSH | DISCARD | SECURE_ERASE | WRITE_ZEROES)
    }
}

/// Bits of `nvme_request.status` once the driver has shifted the phase bit out
/// (NVMe base specification, completion queue entry; drivers/nvme/host, the same
/// from 5.10 to 7.3).
pub mod nvme_status {
    /// Status code.
    pub const SC: u16 = 0x00ff;
    /// Status code type, and code.
    pub const TYPE_AND_CODE: u16 = 0x07ff;
    /// Command retry delay: index into the controller's CRDT1 to CRDT3.
    pub const CRD: u16 = 0x1800;
    /// Do not retry.
    pub const DNR: u16 = 0x4000;
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
    /// `nvme_request.status` of the last attempt that had one, 0 = none: bits of
    /// [`nvme_status`].
    pub nvme_status: u16,
    /// `nvme_request.retries`: how often the driver had sent it again.
    pub nvme_retries: u8,
    /// 1 if an attempt after that of `nvme_status` had none.
    pub is_nvme_ok: u8,
    /// Zero.
    pub pad: [u8; 4],
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
    /// As in [`RqState`].
    pub nvme_status: u16,
    /// As in [`RqState`].
    pub nvme_retries: u8,
    /// 1 if NVMe multipath took the bios back to send them by another path.
    pub is_failover: u8,
    /// Zero.
    pub pad: [u8; 6],
    /// `gendisk.disk_name` of the request's own disk, which for a path of NVMe
    /// multipath is not that of `dev`.
    pub disk_name: [u8; DISK_NAME_LEN],
    /// Names of `inode`.
    pub names: Names,
}

/// DISK_NAME_LEN (include/linux/blkdev.h, genhd.h before 5.18).
pub const DISK_NAME_LEN: usize = 32;

/// Value of INODE (key: [`InodeKey`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeState {
    /// Totals since the entry exists.
    pub counters: InodeCounters,
    /// When a request of the file or its writeback last failed; 0 = never, or a
    /// sync of the file was sent since.
    pub last_err_ns: u64,
    /// `d_parent` of the dentry that was walked, 0 = none.
    pub parent: u64,
    /// `d_name.hash` of that dentry: a new file may have the number of an old one, and
    /// files are renamed.
    pub name_hash: u32,
    /// `mapping.wb_err` when it was last reported, for deduplication.
    pub wb_err: u32,
    /// Watched directory the file lies under, or SLOT_NONE; valid in `root_epoch`, and
    /// for `parent` and `name_hash`.
    pub root: u16,
    /// EPOCH in which dentries were walked, 0 = never.
    pub root_epoch: u16,
    /// Zero.
    pub pad: u32,
}

impl InodeState {
    /// That of a file of which nothing is known yet.
    pub const fn fresh() -> Self {
        InodeState {
            counters: InodeCounters {
                nr_requests: 0,
                nr_bytes: 0,
                device_ns: 0,
                nr_errors: 0,
            },
            last_err_ns: 0,
            parent: 0,
            name_hash: 0,
            wb_err: 0,
            root: SLOT_NONE,
            root_epoch: 0,
            pad: 0,
        }
    }
}

/// Value of PLACES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// `struct dentry *` of the directory of the file that was last here, 0 = none.
    pub parent: u64,
    /// That file's name, root and epoch.
    pub word: u64,
    /// 1 if INODES holds more than a root of a file of this place.
    pub is_counted: u64,
    /// Zero: a value lies in one cache line.
    pub pad: u64,
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

/// Key of NVME_ERRORS: disk, status code type and code.
#[inline(always)]
pub const fn nvme_error_key(dev: u32, status: u16) -> u64 {
    (dev as u64) << 32 | (status & nvme_status::TYPE_AND_CODE) as u64
}

/// Key of HEADS: the name of an NVMe disk (its first 16 bytes, as two little-endian
/// words; behind its NUL may be anything, see [`cut`]) without the controller's
/// number, so that the head nvme0n1 and its paths nvme0c1n1 and nvme0c2n1 have one
/// key; 0 for any other disk. Words and shifts only, and no loop: a program may not
/// index its stack on 5.10, whose verifier also refuses a loop whose end falls into
/// its beginning.
#[inline(always)]
pub const fn head_key(name: [u64; 2]) -> u64 {
    if name[0] as u32 != u32::from_le_bytes(*b"nvme") {
        return 0;
    }
    let step = HeadKey {
        key: 0xcbf2_9ce4_8422_2325,
        is_controller: false,
    };
    let (word, is_whole) = cut(name[0]);
    let rest = if is_whole { 0 } else { cut(name[1]).0 };
    let step = step.next(word >> 32).next(word >> 40);
    let step = step.next(word >> 48).next(word >> 56);
    let step = step.next(rest).next(rest >> 8);
    let step = step.next(rest >> 16).next(rest >> 24);
    let step = step.next(rest >> 32).next(rest >> 40);
    step.next(rest >> 48).next(rest >> 56).key
}

/// A word of a name up to its NUL, and whether it has one. 5.10 copies the name of an
/// NVMe path out of its stack, with what lay there behind it.
#[inline(always)]
const fn cut(word: u64) -> (u64, bool) {
    // The lowest of these bits is the top one of the first byte that is 0.
    let nul = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
    let below = !nul & nul.wrapping_sub(1);
    (word & below, nul != 0)
}

/// FNV-1a over what is not the controller's number.
#[derive(Clone, Copy)]
struct HeadKey {
    key: u64,
    is_controller: bool,
}

impl HeadKey {
    #[inline(always)]
    const fn next(self, word: u64) -> Self {
        let byte = word & 0xff;
        let is_controller = match byte as u8 {
            b'c' => true,
            b'n' => false,
            _ => self.is_controller,
        };
        if byte == 0 || is_controller {
            return HeadKey {
                is_controller,
                ..self
            };
        }
        HeadKey {
            key: (self.key ^ byte).wrapping_mul(0x0100_0000_01b3),
            is_controller,
        }
    }
}

/// The name of a disk as [`head_key`] takes it.
#[must_use]
pub fn name_words(name: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let word = u128::from_le_bytes(bytes);
    [word as u64, (word >> 64) as u64]
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

const _: () = assert!(size_of::<RqState>() == 56);
const _: () = assert!(size_of::<RequestRecord>() == 16 + 40 + 24 + 16 + 16 + 8 + 32 + 512);
const _: () = assert!(size_of::<InodeState>() == 64);
const _: () = assert!(size_of::<FlushState>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> u64 {
        head_key(name_words(name))
    }

    #[test]
    fn a_path_has_the_key_of_its_head() {
        assert_eq!(key("nvme0c0n1"), key("nvme0n1"));
        assert_eq!(key("nvme0c17n1"), key("nvme0n1"));
        assert_eq!(key("nvme12c345n67"), key("nvme12n67"));
    }

    /// Seen on 5.10, at some boots: no request of a path was known.
    #[test]
    fn what_lies_behind_a_name_does_not_count() {
        for name in ["nvme0n1", "nvme0c0n1", "nvme1c17n2", "nvme12c345n6"] {
            for garbage in [0x01, b'c', b'n', 0x80, 0xff] {
                let mut bytes = [garbage; 16];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                bytes[name.len()] = 0;
                let word = u128::from_le_bytes(bytes);
                let words = [word as u64, (word >> 64) as u64];
                assert_eq!(head_key(words), key(name), "{name}, {garbage:#x}");
            }
        }
        let full = u128::from_le_bytes(*b"nvme1234567890n1");
        assert_ne!(
            head_key([full as u64, (full >> 64) as u64]),
            key("nvme1234567890n")
        );
    }

    #[test]
    fn other_disks_have_other_keys_and_no_nvme_disk_has_none() {
        let names = ["nvme0n1", "nvme0n2", "nvme1n1", "nvme10n1", "nvme1n10"];
        for (at, name) in names.iter().enumerate() {
            assert_ne!(key(name), 0);
            for other in &names[..at] {
                assert_ne!(key(name), key(other), "{name}, {other}");
            }
        }
        for name in ["sda", "vda", "dm-0", "nvm", "", "loop0"] {
            assert_eq!(key(name), 0, "{name}");
        }
    }

    #[test]
    fn what_names_a_range_has_no_pages() {
        let with: [u8; 3] = [req_op::READ, req_op::WRITE, 7];
        assert!(with.iter().all(|&op| req_op::has_pages(op)));
        let without = [
            req_op::FLUSH,
            req_op::DISCARD,
            req_op::SECURE_ERASE,
            req_op::WRITE_ZEROES,
        ];
        assert!(!without.iter().any(|&op| req_op::has_pages(op)));
    }
}
