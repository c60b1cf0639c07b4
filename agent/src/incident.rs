//! The incident: what `judge` says, in the shape of docs/OUTPUT.md (a
//! contract). Unknown fields are left out, never null by guess. Times are
//! RFC 3339 with nanoseconds, durations end in `_ns`. Comes in from `judge`,
//! goes out to `sink`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::event::NvmeStatus;

/// Version of the incident's shape.
pub const SCHEMA: u32 = 1;

/// What the tool concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// A failed operation, or a proven state of file system or device, explains it.
    Confirmed,
    /// No failure, but a sync took longer than `--stall` beyond what its bytes need.
    Stalled,
    /// Positive proof of another cause, and nothing against the disk.
    NotTheDisk,
    /// Anything less.
    Unknown,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "the names are the contract of DESIGN, explained in docs/OUTPUT.md"
)]
pub enum Cause {
    DeviceError,
    DeviceGone,
    DeviceReset,
    DeviceTimeout,
    DeviceStall,
    DeviceSaturated,
    Neighbour,
    Throttled,
    Journal,
    ReadOnly,
    NoSpace,
    Quota,
    FilesystemError,
    HostPaused,
    Application,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One incident: one cause on one device, however many lines it made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Stable id: same incident, same id, in every update and in replay.
    pub id: String,
    /// When it began.
    pub time: String,
    /// When this state of it was given out.
    pub updated: String,
    /// open, updated, closed
    pub state: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The cause, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<Cause>,
    /// 0..1, from the table of rules.
    pub confidence: f64,
    /// Why this verdict and this confidence, strongest first; each is a sentence.
    pub reasons: Vec<String>,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub broker: Option<IncidentBroker>,
    /// Lines of the broker's log that belong to it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub log_events: Vec<IncidentLogEvent>,
    /// What failed first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_victim: Option<FirstVictim>,
    /// Data that could not be written or read, known before a sync said so.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub operations: Vec<IncidentOperation>,
    /// The syncs.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub syncs: Vec<IncidentSync>,
    /// The requests: failed ones first, then those in flight, then the longest.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub requests: Vec<IncidentRequest>,
    /// The device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<IncidentDevice>,
    /// Who else is hit.
    #[serde(skip_serializing_if = "is_default", default)]
    pub blast_radius: BlastRadius,
    /// Who else used the disk during the longest stalled sync, most bytes first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub neighbours: Vec<IncidentNeighbour>,
    /// What the tool missed until then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub lost: BTreeMap<String, u64>,
    /// What to do; never what makes it worse.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub next_steps: Vec<NextStep>,
    /// How many syncs and requests belong to it, also those not listed.
    #[serde(skip_serializing_if = "is_default", default)]
    pub totals: Totals,
}

/// Totals of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Syncs that failed or stalled.
    pub syncs: u64,
    /// Requests that failed or were slow.
    pub requests: u64,
    /// Storage lines.
    pub log_events: u64,
    /// Files whose data was lost before a sync said so.
    #[serde(skip_serializing_if = "is_default", default)]
    pub writebacks: u64,
}

/// The broker of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentBroker {
    /// Process.
    pub pid: u32,
    /// node.id or broker.id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node_id: Option<i64>,
    /// cluster.id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster_id: Option<String>,
    /// The directory concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_dir: Option<String>,
    /// All of them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub log_dirs: Vec<String>,
}

/// A line of the broker's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentLogEvent {
    /// As the line says, else as it was read.
    pub time: String,
    /// Log file.
    pub file: String,
    /// Line.
    pub line_number: u64,
    /// What kind of storage event.
    pub kind: String,
    /// The text of the first line.
    pub text: String,
    /// topic-partition.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub topic_partition: Option<String>,
    /// log.dir named by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dir: Option<String>,
    /// Offset named by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
    /// Recovery point named by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovery_point: Option<u64>,
    /// Exception class.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exception: Option<String>,
    /// Text of the errno.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno_text: Option<String>,
}

/// What failed first, often before any log line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FirstVictim {
    /// Path.
    pub path: String,
    /// Operation.
    pub op: String,
    /// When.
    pub time: String,
}

/// Something below the calls that failed, of one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentOperation {
    /// writeback, read
    pub op: String,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// topic-partition.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub topic_partition: Option<String>,
    /// Name of the errno.
    pub errno: String,
    /// When.
    pub time: String,
    /// Failed requests.
    pub nr_failed: u64,
    /// Who was told of it since; empty: nobody yet.
    pub told: Vec<IncidentTold>,
}

/// A caller that was told of a writeback error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentTold {
    /// When.
    pub time: String,
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The call, where it is a broker's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub op: Option<String>,
}

/// A sync of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentSync {
    /// Operation.
    pub op: String,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// topic-partition.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub topic_partition: Option<String>,
    /// log, index, timeindex, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file_kind: Option<String>,
    /// `259:0` of the file system.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dev: Option<String>,
    /// Inode.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ino: Option<u64>,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// When it began.
    pub time: String,
    /// How long it took, or has taken so far.
    pub duration_ns: u64,
    /// Name of the errno, like EIO.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<String>,
    /// True while it has not returned.
    pub in_flight: bool,
    /// It ended, but its return was not seen: it took at least this long.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub unseen_end: bool,
    /// Age of the failure that it was told of, if that was earlier than the call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub told_late_by_ns: Option<u64>,
    /// Where its time went.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub breakdown: Option<Breakdown>,
    /// The commit of the file system's journal that it waited for longest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<IncidentCommit>,
    /// Kernel stack while in flight, innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stack: Vec<String>,
}

/// A commit of a journal. Its phases are those of jbd2's own statistics
/// (/proc/fs/jbd2/DISK/info), and known at `--detail full`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentCommit {
    /// `259:0` of the file system.
    pub dev: String,
    /// Number of its transaction.
    pub transaction: u32,
    /// When it began.
    pub time: String,
    /// How long it took, or has taken so far.
    pub duration_ns: u64,
    /// Of it: handles that were still open ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locked_ns: Option<u64>,
    /// Of it: data that it orders was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flushing_ns: Option<u64>,
    /// Of it: its blocks and its record were written to the journal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logging_ns: Option<u64>,
    /// Requests of journal and metadata meanwhile that took long enough to be kept.
    pub nr_requests: u64,
    /// Slow syncs of the incident that waited for it.
    #[serde(skip_serializing_if = "is_default", default)]
    pub nr_syncs: u64,
    /// True while it goes on.
    pub in_flight: bool,
}

/// Wall time of a sync, partitioned in this order of priority; the six parts sum
/// to the total. Of the first four: while only queued, while in the device; a
/// journal's commit also computes, so that these two need not sum to their part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breakdown {
    /// A device cache flush that it waited for was outstanding.
    pub flush_ns: u64,
    /// Of it: queued.
    pub flush_queue_ns: u64,
    /// Of it: in the device.
    pub flush_device_ns: u64,
    /// The file system's journal committed, or wrote journal or metadata; or
    /// nothing else was to wait for but the commit that it returned after, and
    /// that had not begun.
    pub journal_ns: u64,
    /// Of it: requests of the file system were queued.
    pub journal_queue_ns: u64,
    /// Of it: requests of the file system were in the device.
    pub journal_device_ns: u64,
    /// Requests of the file itself were outstanding.
    pub own_data_ns: u64,
    /// Of it: queued.
    pub own_data_queue_ns: u64,
    /// Of it: in the device.
    pub own_data_device_ns: u64,
    /// Any other request was outstanding on its disks.
    pub others_data_ns: u64,
    /// Of it: queued.
    pub others_data_queue_ns: u64,
    /// Of it: in the device.
    pub others_data_device_ns: u64,
    /// The thread waited for a contended lock.
    pub lock_ns: u64,
    /// Tied to nothing.
    pub other_ns: u64,
    /// Of it, at most: the thread was ready to run and waited for a CPU. Left out
    /// where it did not, and where the kernel does not tell.
    #[serde(skip_serializing_if = "is_default")]
    pub other_cpu_ns: u64,
}

/// A request of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentRequest {
    /// Disk name.
    pub disk: String,
    /// `259:0`.
    pub dev: String,
    /// First sector.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sector: Option<u64>,
    /// Bytes.
    pub nr_bytes: u64,
    /// read, write, flush.
    pub op: String,
    /// sync, meta, fua, preflush.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub flags: Vec<String>,
    /// When it was issued.
    pub time: String,
    /// Waited for the device queue.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queue_ns: Option<u64>,
    /// In the device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device_ns: Option<u64>,
    /// OK, the block status, or `FAILED_OVER`: a path of a multipath disk gave it back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<String>,
    /// The kernel gave an errno only (before 5.16), of which `status` was made.
    #[serde(skip_serializing_if = "is_default", default)]
    pub status_derived: bool,
    /// Name of its errno.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<String>,
    /// File it carried data of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Process in whose context it was issued; absent for the kernel's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub submitter: Option<Submitter>,
    /// Of an NVMe disk: the controller's own answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nvme: Option<NvmeStatus>,
    /// By which path of a multipath disk it went: `nvme0c1n1`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path_disk: Option<String>,
    /// True while it has not completed.
    pub in_flight: bool,
}

/// The device of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentDevice {
    /// Leaf disk.
    pub disk: String,
    /// From the mount down to the leaf.
    pub path: Vec<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// Serial number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<String>,
    /// Firmware revision.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub firmware: Option<String>,
    /// PCI address (of its host adapter, where it hangs below one), or address on
    /// the fabric.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// Slot of the enclosure or of the board.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<String>,
    /// Paths of a multipath disk: name, controller, address, state.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub paths: Vec<String>,
    /// write back or write through.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub write_cache: Option<String>,
    /// For a loop device: the file behind it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backing_file: Option<String>,
}

/// Who else is hit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Partitions seen in it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub topic_partitions: Vec<String>,
    /// Directories on the device.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub log_dirs: Vec<String>,
    /// Brokers, by node id or pid.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub brokers: Vec<String>,
}

/// A process, or a file where the process is not known, that used the disk
/// while a sync of the broker was stalled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentNeighbour {
    /// Process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comm: Option<String>,
    /// The file, as far as its names are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Requests that overlapped.
    pub nr_requests: u64,
    /// Bytes of those that completed meanwhile.
    pub nr_bytes: u64,
    /// Flushes among them.
    pub nr_flushes: u64,
    /// The longest, from allocation to completion.
    pub longest_ns: u64,
}

/// Who submitted a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Submitter {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NextStep {
    /// What and why.
    pub text: String,
    /// The command with this host's values.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<String>,
    /// True if it changes anything.
    pub changes: bool,
}
