//! Events of the flight recorder: what took long enough to matter to a slow sync,
//! whoever it belongs to. In: `decode`; out: `correlate`, captures, where what is
//! the default is left out.

use serde::{Deserialize, Serialize};

use super::{FileId, is_default};

/// Requests and waits that took long enough to matter to a slow sync, whoever
/// they belong to. Each is told once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpansEvent {
    /// Requests, by completion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestSpan>,
    /// Waits, by end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<WaitSpan>,
    /// Waits that still go on, whose `end_ns` is when they were looked at; only
    /// before an [`InFlight`](super::Event::InFlight), and told again each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<WaitSpan>,
    /// Names of the requests' files, as far as known, each file once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<SpanFile>,
    /// Spans that were overwritten before they could be read, since start.
    #[serde(default, skip_serializing_if = "is_default")]
    pub overwritten: u64,
    /// Spans that ended before this may be among the overwritten; 0 = none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub whole_since_ns: u64,
}

/// Names of a file whose requests took long, whoever it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanFile {
    /// The file.
    pub file: FileId,
    /// Its name and those of its parents, file first.
    pub names: Vec<String>,
}

/// A request that completed after `span_min_ns` or longer, or failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestSpan {
    /// Disk, kernel-encoded.
    pub dev: u32,
    /// read, write, flush, …
    pub op: String,
    /// `request.cmd_flags` as words: sync, meta, fua, preflush.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Allocation, CLOCK_MONOTONIC ns; 0 = unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub start_ns: u64,
    /// First issue, 0 = never issued.
    #[serde(skip_serializing_if = "is_default")]
    pub issue_ns: u64,
    /// Completion.
    pub complete_ns: u64,
    /// Sector in 512-byte units; absent for a flush.
    #[serde(skip_serializing_if = "is_default")]
    pub sector: Option<u64>,
    /// Bytes as issued.
    #[serde(skip_serializing_if = "is_default")]
    pub nr_bytes: u32,
    /// Success ("OK"), or the status in words.
    pub status: String,
    /// Errno of the status, 0 = success.
    #[serde(skip_serializing_if = "is_default")]
    pub errno: i32,
    /// The file of its first bio; s_dev 0 = unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub file: FileId,
    /// page, direct, blockdev, flush, meta, unknown
    pub file_source: String,
    /// For blockdev: the device whose metadata or journal it is.
    #[serde(skip_serializing_if = "is_default")]
    pub rdev: u32,
    /// Process in whose context it was first issued; 0 = a kernel context or unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: u32,
    /// Its thread.
    #[serde(skip_serializing_if = "is_default")]
    pub tid: u32,
    /// Its name, "" = unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub comm: String,
    /// Root slot of the file, 0xffff = none.
    pub root: u16,
    /// Requeues.
    #[serde(skip_serializing_if = "is_default")]
    pub nr_requeue: u8,
}

/// A wait that is no request: a journal's commit, a contended lock, …
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitSpan {
    /// commit, checkpoint, log_force, lock, fast_commit
    pub kind: String,
    /// File system of the journal; 0 for a lock.
    #[serde(skip_serializing_if = "is_default")]
    pub s_dev: u32,
    /// Transaction of the journal, 0 = unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub seq: u32,
    /// Thread that waited (lock, log_force, fast_commit) or did the work.
    #[serde(skip_serializing_if = "is_default")]
    pub tid: u32,
    /// Start, CLOCK_MONOTONIC ns.
    pub start_ns: u64,
    /// commit: until its transaction was locked (no more handles run), ns since
    /// start; 0 = unknown. Then data is flushed.
    #[serde(skip_serializing_if = "is_default")]
    pub flushing_ns: u64,
    /// commit: until its blocks began to be logged, ns since start; 0 = unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub logging_ns: u64,
    /// End.
    pub end_ns: u64,
}
