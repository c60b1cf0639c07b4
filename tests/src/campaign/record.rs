//! What the workload says of itself, one object of JSON a line: each call as
//! the caller saw it, and which inode had which name and which sectors. This is
//! the caller's half of the known truth; the disk's half is its own log.

use serde::{Deserialize, Serialize};

/// What was called. Names of syscalls where one is all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// fsync(2).
    Fsync,
    /// fdatasync(2).
    Fdatasync,
    /// msync(2) with MS_SYNC.
    Msync,
    /// sync_file_range(2) that writes and waits.
    SyncFileRange,
    /// sync_file_range(2) that starts writing and does not wait: no sync.
    StartWriteback,
    /// write(2) on a descriptor with O_DSYNC.
    DsyncWrite,
    /// IORING_OP_FSYNC.
    UringFsync,
    /// write(2) on a descriptor with O_DIRECT: no sync, its error is its own.
    DirectWrite,
    /// read(2) of what is not in memory: no sync.
    Read,
}

impl Call {
    /// Whether success promises that the data is on the disk.
    pub fn is_sync(self) -> bool {
        !matches!(self, Call::StartWriteback | Call::DirectWrite | Call::Read)
    }

    /// Whether it enters the kernel as the syscall of its name.
    pub fn is_sync_syscall(self) -> bool {
        self.is_sync() && !matches!(self, Call::DsyncWrite | Call::UringFsync)
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Call::Fsync => "fsync",
            Call::Fdatasync => "fdatasync",
            Call::Msync => "msync",
            Call::SyncFileRange | Call::StartWriteback => "sync_file_range",
            Call::DsyncWrite => "dsync_write",
            Call::UringFsync => "uring_fsync",
            Call::DirectWrite => "direct_write",
            Call::Read => "read",
        }
    }
}

/// A call that returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The thread that called.
    pub tid: u32,
    /// What.
    pub call: Call,
    /// Inode of the file.
    pub ino: u64,
    /// CLOCK_MONOTONIC just before.
    pub enter_ns: u64,
    /// And just after.
    pub exit_ns: u64,
    /// The error it returned, 0 for none.
    pub errno: i32,
    /// How long of a write with O_DSYNC its thread was seen in the write, before the
    /// sync that it ends with; 0 for other calls.
    #[serde(default)]
    pub before_sync_ns: u64,
}

impl CallRecord {
    /// How long it took.
    pub fn duration_ns(&self) -> u64 {
        self.exit_ns.saturating_sub(self.enter_ns)
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Record {
    /// Files are made and threads run.
    Ready,
    /// A call returned.
    Call(CallRecord),
    /// An inode has this name from now on.
    Name {
        /// CLOCK_MONOTONIC.
        at_ns: u64,
        /// The inode.
        ino: u64,
        /// Its path.
        path: String,
    },
    /// These sectors hold an inode now; none: from now on they may become
    /// another's.
    Placed {
        /// CLOCK_MONOTONIC.
        at_ns: u64,
        /// The inode.
        ino: u64,
        /// First and last sector of each extent.
        sectors: Vec<(u64, u64)>,
    },
    /// Some time from now on a fsync of this file will return what became of
    /// data that was handed to writeback just now.
    Background {
        /// The inode.
        ino: u64,
        /// CLOCK_MONOTONIC.
        at_ns: u64,
    },
    /// All threads rest, and every descriptor was synced once.
    Paused,
    /// The end of an answer to `map`.
    Mapped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let record = Record::Call(CallRecord {
            tid: 7,
            call: Call::DsyncWrite,
            ino: 12,
            enter_ns: 1,
            exit_ns: 2,
            errno: 5,
            before_sync_ns: 1,
        });
        let line = serde_json::to_string(&record).unwrap();
        assert!(line.contains(r#""call":"dsync_write""#), "{line}");
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}
