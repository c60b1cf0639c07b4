//! What parent and helper say to each other: one JSON object a line. In and
//! out: [`Request`], [`Answer`] with an id that pairs them, and notes of
//! progress in between, so that a hang can be pinned on one process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::discover::{DiscoverRequest, Discovered};
use crate::enrich::DeviceInfo;
use crate::event::Space;

/// Something to find out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Look for brokers.
    Discover(DiscoverRequest),
    /// Which disks are under a device number?
    ResolveDevice {
        /// `/sys`.
        sys_root: PathBuf,
        /// `/proc`, whose `self/mountinfo` tells where a loop's file lies.
        proc_root: PathBuf,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// stat(2) of a path.
    StatPath {
        /// Root to resolve it in; None for the host's.
        root: Option<PathBuf>,
        /// The path.
        path: PathBuf,
    },
    /// How full the file system of a path is.
    Space {
        /// Root to resolve it in; None for the host's.
        root: Option<PathBuf>,
        /// The path.
        path: PathBuf,
    },
    /// What a thread does now.
    ThreadState {
        /// `/proc`.
        proc_root: PathBuf,
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
    },
    /// Which file is mapped at an address.
    MappedFile {
        /// `/proc`.
        proc_root: PathBuf,
        /// Process.
        pid: u32,
        /// An address within the mapping.
        address: u64,
    },
    /// What a descriptor refers to.
    FdPath {
        /// `/proc`.
        proc_root: PathBuf,
        /// Process.
        pid: u32,
        /// Descriptor.
        fd: u32,
    },
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Brokers.
    Discovered(Discovered),
    /// A device.
    Device(DeviceInfo),
    /// A path.
    Stat(PathStat),
    /// A file system's room.
    Space(Space),
    /// A thread.
    Thread(ThreadState),
    /// What is mapped at an address.
    Mapped {
        /// None if no file is.
        file: Option<MappedFile>,
    },
    /// A descriptor's path.
    FdPath {
        /// As readlink(2) tells it.
        path: String,
    },
    /// It could not be found out.
    Failed {
        /// Why: act, object, reason.
        why: String,
    },
}

/// stat(2), what is needed of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// st_dev, kernel-encoded; on btrfs not the super block's.
    pub st_dev: u32,
    /// Inode.
    pub ino: u64,
    /// Type and mode.
    pub mode: u32,
    /// Size.
    pub size_bytes: u64,
}

/// A thread, from /proc/PID/task/TID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadState {
    /// Letter of its state: R, S, D, …
    pub state: Option<char>,
    /// System call it is in; None if it is in none, or that is unknown.
    pub syscall: Option<i64>,
    /// First arguments of that call, as far as the kernel tells.
    pub args: Vec<u64>,
    /// `syscall` could be read: None there then means "in no call".
    pub syscall_known: bool,
    /// comm.
    pub comm: String,
    /// Kernel stack, innermost first; empty where not readable.
    pub stack: Vec<String>,
    /// Path of the descriptor that it syncs, as the process sees it, without the mark of
    /// a deleted file.
    pub file: Option<PathBuf>,
    /// The thread exists no more.
    pub gone: bool,
}

/// The file of a mapping, from /proc/PID/maps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedFile {
    /// Device number of its file system, kernel-encoded: the super block's.
    pub s_dev: u32,
    /// Inode.
    pub ino: u64,
    /// Path as the process sees it, without the mark of a deleted file.
    pub path: PathBuf,
}

/// A request on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub id: u64,
    #[serde(flatten)]
    pub request: Request,
}

/// A line back: progress, or the answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub id: u64,
    /// What the helper is about to do, and with which process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Answer>,
}

/// Where a helper is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Process whose facts it reads.
    pub pid: u32,
    /// Which of them.
    pub step: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tag cannot be put into everything: serde finds out when it writes.
    #[test]
    fn every_answer_goes_over_the_wire() {
        let found = MappedFile {
            s_dev: 7,
            ino: 42,
            path: "/d1/orders-0/00.index".into(),
        };
        let all = [
            Answer::Discovered(Discovered::default()),
            Answer::Device(DeviceInfo::default()),
            Answer::Stat(PathStat::default()),
            Answer::Space(Space::default()),
            Answer::Thread(ThreadState::default()),
            Answer::Mapped { file: Some(found) },
            Answer::Mapped { file: None },
            Answer::FdPath {
                path: "/d1".to_owned(),
            },
            Answer::Failed {
                why: "open /x: gone".to_owned(),
            },
        ];
        for answer in all {
            let line = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer);
        }
    }
}
