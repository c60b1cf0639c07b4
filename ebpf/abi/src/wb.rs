//! Writeback errors: a mapping's errseq was set, and a caller was told.

use crate::{
    RecordHeader,
    keys::{InodeKey, Names},
};

/// errseq_t (lib/errseq.c): low 12 bits errno, bit 12 SEEN, counter above.
pub mod errseq {
    /// Mask of the errno.
    pub const ERRNO_MASK: u32 = 0xfff;
    /// The error was reported to somebody.
    pub const SEEN: u32 = 0x1000;
}

/// Ring record: `filemap_set_wb_err` on a file of a watched file system; one
/// per inode and errseq value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WbErrRecord {
    /// kind = WB_ERR
    pub header: RecordHeader,
    /// The file.
    pub inode: InodeKey,
    /// `mapping.wb_err` after the error was set (read from memory: the
    /// tracepoint's own argument is the previous value).
    pub errseq: u32,
    /// Watched directory of the file, or SLOT_NONE.
    pub root: u16,
    /// Zero.
    pub pad: u16,
    /// Totals of the file, and its last failed request.
    pub state: crate::block::InodeState,
    /// Names of the file.
    pub names: Names,
}

/// Ring record: `file_check_and_advance_wb_err` told an error to an open file.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WbTellRecord {
    /// kind = WB_TELL
    pub header: RecordHeader,
    /// The file.
    pub inode: InodeKey,
    /// Caller: tgid << 32 | tid.
    pub pid_tgid: u64,
    /// `file.f_wb_err` before.
    pub old: u32,
    /// `file.f_wb_err` after: the errseq value that was told.
    pub new: u32,
    /// The caller's name.
    pub comm: [u8; 16],
    /// 1 if the caller is a target in a watched sync.
    pub in_sync: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<WbErrRecord>() == 16 + 16 + 8 + 64 + 512);
const _: () = assert!(size_of::<WbTellRecord>() == 16 + 16 + 16 + 16 + 8);
