//! Everything that can happen, as the pure stages see it: what the kernel
//! reported, what brokers printed, what discovery and enrichment answered, and
//! the passing of time. A capture is a list of these; replaying it gives the
//! same report. Comes in from `decode`, `discover`, `brokerlog` and `enrich`;
//! goes out to `correlate`. Not here: any I/O, any clock.

mod space;
mod span;
mod summary;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    brokerlog::{LogRecord, StorageEvent},
    detail::Detail,
    discover::Broker,
    enrich::DeviceInfo,
};

pub use space::{Space, SpaceEvent};
pub use span::{RequestSpan, SpanFile, SpansEvent, WaitSpan};
pub use summary::{Summary, SummaryRow};

/// An event and when it reached the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// CLOCK_MONOTONIC, ns, when the agent took it up. Never decreases in a capture.
    pub mono_ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen.
#[expect(
    clippy::large_enum_variant,
    reason = "events are handled one at a time and never kept as such"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "snake_case")]
pub enum Event {
    /// First event: who, where, which settings.
    Start(Box<Start>),
    /// Realtime clock against the monotonic one; at start and after each step.
    Clock {
        /// Realtime minus monotonic, ns.
        offset_ns: i64,
    },
    /// A broker was found, or found again with other facts. Its `slot` is the
    /// index that the kernel programs carry.
    Broker {
        /// Broker slot.
        slot: u16,
        /// What discovery knows of it.
        broker: Box<Broker>,
    },
    /// A broker process ended.
    BrokerGone {
        /// Broker slot.
        slot: u16,
        /// Its process.
        pid: u32,
    },
    /// A log directory got a root slot.
    Root {
        /// Root slot.
        slot: u16,
        /// Broker slot.
        broker: u16,
        /// The path as the broker names it.
        path: String,
        /// s_dev of its file system.
        s_dev: u32,
    },
    /// A device number was resolved.
    Device {
        /// Kernel-encoded number, major << 20 | minor.
        dev: u32,
        /// What sysfs says of it.
        info: Box<DeviceInfo>,
    },
    /// A disk under a log directory went away, or one of its number came.
    Present {
        /// Kernel-encoded number.
        dev: u32,
        /// sysfs has it.
        is_there: bool,
    },
    /// A sync failed, was slow, or belongs to a probe.
    Sync(SyncEvent),
    /// A request failed or was slow.
    Request(RequestEvent),
    /// What the kernel's flight recorder held since it was last read; comes
    /// before the [`Event::Sync`] or [`Event::InFlight`] that made it be read.
    Spans(SpansEvent),
    /// Writeback of a file failed.
    WbErr(WbErrEvent),
    /// A caller was told of a writeback error.
    WbTell(WbTellEvent),
    /// Taken at each tick on which a sync is in flight longer than `slow_ns`.
    InFlight(InFlightEvent),
    /// A line (with its stack) of a broker's log that is about storage.
    BrokerLog(BrokerLogEvent),
    /// How full a directory's file system is, after a line that says it has no room.
    Space(SpaceEvent),
    /// The state of a log file changed.
    LogFile {
        /// Broker slot.
        broker: u16,
        /// Path as the broker names it.
        file: String,
        /// opened, rotated, truncated, missing, unreadable, stalled
        state: String,
        /// Why, where there is a reason.
        why: String,
    },
    /// Totals of bytes written per disk since start, at most once a second.
    DiskBytes {
        /// Disk (kernel-encoded) → bytes of completed writes.
        #[serde(with = "number_keys")]
        written: BTreeMap<u32, u64>,
    },
    /// Losses so far by class; only when one changed.
    Losses {
        /// Class → total.
        total: BTreeMap<String, u64>,
    },
    /// A hook's state at start or after a change.
    Hook(HookState),
    /// Time passes; four a second.
    Tick,
    /// Last event: percentiles and totals for the summary.
    Summary(Box<Summary>),
    /// The end, and why: interrupted, duration, end-of-capture, broker-gone.
    Stop {
        /// Why.
        why: String,
    },
}

/// A map with numbers as keys, written with the keys as text. JSON does so
/// anyway, but reading a tagged enum back goes through a buffer in which serde
/// no longer knows that a text key may be a number.
mod number_keys {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<u32, u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(key, value)| (key.to_string(), value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, u64>, D::Error> {
        BTreeMap::<String, u64>::deserialize(deserializer)?
            .into_iter()
            .map(|(key, value)| Ok((key.parse().map_err(D::Error::custom)?, value)))
            .collect()
    }
}

/// Settings and place of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Version of the agent.
    pub version: String,
    /// Host name.
    pub host: String,
    /// `uname -r`.
    pub kernel: String,
    /// Boot id.
    pub boot_id: String,
    /// Time zone of the host as an IANA name, or an offset like `+02:00`.
    pub timezone: String,
    /// `--slow`, ns.
    pub slow_ns: u64,
    /// `--stall`, ns.
    pub stall_ns: u64,
    /// Realtime minus monotonic, ns.
    pub clock_offset_ns: i64,
    /// When the hooks were attached, CLOCK_MONOTONIC ns. Before it the agent was blind.
    pub attached_ns: u64,
    /// `--detail`; left out if full.
    #[serde(default, skip_serializing_if = "Detail::is_full")]
    pub detail: Detail,
}

/// A file as the kernel side names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// s_dev, kernel-encoded; 0 = unknown.
    pub s_dev: u32,
    /// Inode number.
    pub ino: u64,
}

/// Requests of one file during one sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Completed data requests.
    pub nr_requests: u64,
    /// Their bytes.
    pub nr_bytes: u64,
    /// Sum of their device times, ns.
    pub device_ns: u64,
    /// Failed ones.
    pub nr_errors: u64,
}

/// A sync that returned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncEvent {
    /// fsync, fdatasync, msync, sync_file_range, syncfs
    pub op: String,
    /// Process (tgid).
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Thread name, as the kernel cuts it.
    pub comm: String,
    /// CLOCK_MONOTONIC at enter.
    pub enter_ns: u64,
    /// CLOCK_MONOTONIC at exit; for one still in flight: when it was looked at.
    pub exit_ns: u64,
    /// 0, or −errno.
    pub ret: i64,
    /// fd or address.
    pub arg0: u64,
    /// Length or offset.
    pub arg1: u64,
    /// Broker slot.
    pub broker: u16,
    /// Root slot, 0xffff = under no log directory.
    pub root: u16,
    /// The (last) file; s_dev 0 = unknown.
    pub file: FileId,
    /// Names, file first, then its parents.
    pub names: Vec<String>,
    /// How many files the call reached.
    pub nr_files: u16,
    /// The file was found by its descriptor: no event of the file system named it.
    /// Only the self-probe asks, so captures do not hold it.
    #[serde(skip)]
    pub is_by_fd: bool,
    /// What requests of that file did meanwhile.
    pub delta: Counters,
    /// When the caller itself asked for a device flush, 0 = it did not.
    pub flush_asked_ns: u64,
    /// errseq value told to the caller, 0 = none.
    pub told_errseq: u32,
    /// xfs: when the caller began to force the log, 0 = it did not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log_force_ns: u64,
    /// When the caller began to wait for a lock that it has not got yet, 0 = none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lock_ns: u64,
    /// How long the thread waited for a CPU in the call; 0 also where the kernel
    /// does not tell.
    #[serde(default, skip_serializing_if = "is_default")]
    pub run_delay_ns: u64,
}

/// A request that failed or was slow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestEvent {
    /// Request pointer: joins it with [`InFlightRequest`]. Not shown.
    pub rq: u64,
    /// Disk, kernel-encoded.
    pub dev: u32,
    /// Disk name from sysfs if known at decode, else `8:16`.
    pub op: String,
    /// `request.cmd_flags` as words: sync, meta, fua, preflush.
    pub flags: Vec<String>,
    /// Sector in 512-byte units; absent for a flush.
    pub sector: Option<u64>,
    /// Bytes as issued.
    pub nr_bytes: u32,
    /// Allocation, 0 = unknown.
    pub start_ns: u64,
    /// First issue, 0 = never issued.
    pub issue_ns: u64,
    /// Completion.
    pub complete_ns: u64,
    /// Success, or the status in words ("IOERR", "MEDIUM", "blk_status(17)").
    pub status: String,
    /// Errno of the status, 0 = success.
    pub errno: i32,
    /// True where the kernel gave an errno only and `status` was derived from it.
    pub status_derived: bool,
    /// page, direct, blockdev, flush, meta, unknown
    pub file_source: String,
    /// The file; s_dev 0 = unknown.
    pub file: FileId,
    /// For blockdev and meta: the device whose metadata or journal it is.
    pub rdev: u32,
    /// Names of the file.
    pub names: Vec<String>,
    /// Root slot, 0xffff = none.
    pub root: u16,
    /// First and last bio belong to different files.
    pub spans_files: bool,
    /// Requeues.
    pub nr_requeue: u8,
    /// Failed requests of this file so far.
    pub nr_errors: u64,
    /// Of an NVMe disk: what the controller answered, where that was a status or
    /// took more than one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvme: Option<NvmeStatus>,
    /// Name of the request's own disk, as the kernel has it; that of a hidden path
    /// where `dev` is the head of NVMe multipath. Empty = unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub disk: String,
    /// Multipath took its data back to send it by another path: neither done nor
    /// failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_failover: bool,
}

/// What an NVMe controller answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmeStatus {
    /// Status code type.
    pub sct: u8,
    /// Status code.
    pub sc: u8,
    /// Command retry delay: 0, or 1 to 3 for CRDT1 to CRDT3 of the controller.
    #[serde(default, skip_serializing_if = "is_default")]
    pub crd: u8,
    /// Do not retry.
    pub dnr: bool,
    /// How often the driver had sent the command again.
    pub retries: u8,
    /// Words of the specification, with the codes.
    pub text: String,
}

impl RequestEvent {
    /// Journal or metadata of the file system on device `s_dev`.
    pub fn is_metadata_of(&self, s_dev: u32) -> bool {
        s_dev != 0 && self.rdev == s_dev && matches!(self.file_source.as_str(), "meta" | "blockdev")
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writeback of a file failed (`filemap_set_wb_err`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WbErrEvent {
    /// When, CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The file.
    pub file: FileId,
    /// errseq value now.
    pub errseq: u32,
    /// errno of it.
    pub errno: i32,
    /// Root slot.
    pub root: u16,
    /// Names.
    pub names: Vec<String>,
}

/// A caller was told (`file_check_and_advance_wb_err`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WbTellEvent {
    /// When, CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The file.
    pub file: FileId,
    /// Caller's process.
    pub pid: u32,
    /// Caller's thread.
    pub tid: u32,
    /// Caller's name.
    pub comm: String,
    /// errseq value told.
    pub errseq: u32,
    /// errno of it.
    pub errno: i32,
    /// True if in a sync that is watched.
    pub in_sync: bool,
}

/// Syncs in flight longer than `slow_ns`, and the oldest requests outstanding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InFlightEvent {
    /// The syncs, oldest first; `exit_ns` is now, `ret` 0.
    pub syncs: Vec<InFlightSync>,
    /// Oldest outstanding requests, at most 4 a disk.
    pub requests: Vec<InFlightRequest>,
}

/// A sync in flight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InFlightSync {
    /// As far as known.
    pub sync: SyncEvent,
    /// /proc/PID/task/TID/syscall shows the thread still in this call:
    /// Some(true) yes, Some(false) no (the operation ended unseen), None unknown.
    pub confirmed: Option<bool>,
    /// Kernel stack, innermost first, where readable.
    pub stack: Vec<String>,
}

/// A request issued and not completed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InFlightRequest {
    /// Request pointer.
    pub rq: u64,
    /// Disk.
    pub dev: u32,
    /// read, write, flush, …
    pub op: String,
    /// Sector; absent for a flush.
    pub sector: Option<u64>,
    /// Bytes.
    pub nr_bytes: u32,
    /// Issue time.
    pub issue_ns: u64,
    /// `request.cmd_flags` as words: sync, meta, fua, preflush.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Process in whose context it was issued, 0 = unknown.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: u32,
    /// Its thread.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tid: u32,
}

/// A storage line of a broker's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrokerLogEvent {
    /// Broker slot.
    pub broker: u16,
    /// Log file as the broker names it.
    pub file: String,
    /// Line number since the file was opened by the follower, or in the file.
    pub line_number: u64,
    /// Realtime at which the line was read, ns.
    pub arrival_realtime_ns: i64,
    /// True if it was in the file before the agent started.
    pub history: bool,
    /// The line taken apart.
    pub record: LogRecord,
    /// What it says about storage.
    pub storage: StorageEvent,
}

/// One row of the table of hooks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookState {
    /// Name, as in `hooks::TABLE`.
    pub name: String,
    /// attached, unproven, waiting (for its driver), failed, absent
    pub state: String,
    /// fexit, tracepoint, raw_tracepoint, …; empty if not attached.
    pub form: String,
    /// The tool cannot do its main job without it.
    pub required: bool,
    /// Why not attached, or why not a better form.
    pub reason: String,
    /// What is lost without it.
    pub lost: String,
}
