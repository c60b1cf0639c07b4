//! What /metrics is made of: one reading of the kernel's maps and of the
//! agent's tables.
//!
//! Comes in: whatever implements [`Source`] (the live maps; a fake in tests).
//! Goes out: a [`Snapshot`] in numbers and slots. Not here: names of labels,
//! totals over broker restarts, and text.

use fsyncscope_abi::hist::{Hist, HistKey};

use crate::{
    detail::Detail,
    incident::{Cause, Verdict},
};

/// Where the numbers come from. It is called at each scrape, and at least once
/// a minute; never twice at a time. It must not touch a disk: a scrape has to
/// answer while every watched device hangs.
pub trait Source: Send {
    /// Reads everything now.
    fn snapshot(&mut self) -> anyhow::Result<Snapshot>;
}

/// One reading. Totals are cumulative since the agent started.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What of requests is known: below `full` neither their queue nor how many are
    /// in flight, at `low` only failures.
    pub detail: Detail,
    /// HIST, each value made of all CPUs by [`crate::histogram::fold`] (so that
    /// a host with many CPUs needs no megabytes for one reading).
    pub hists: Vec<(HistKey, Hist)>,
    /// BLOCK_HIST.
    pub block_hists: Vec<BlockHistRow>,
    /// Brokers that run now.
    pub brokers: Vec<BrokerRow>,
    /// Their log directories.
    pub roots: Vec<RootRow>,
    /// Every device number that the other rows use, as far as it is resolved.
    pub devices: Vec<DeviceRow>,
    /// Syncs in flight.
    pub in_flight: Vec<InFlightRow>,
    /// Requests in flight: disk, how many.
    pub block_in_flight: Vec<(u32, u64)>,
    /// Failed syncs by errno.
    pub sync_errors: Vec<SyncErrorRow>,
    /// Failed requests by status.
    pub block_errors: Vec<BlockErrorRow>,
    /// NVMe commands that ended with a status, also those sent again.
    pub nvme_errors: Vec<NvmeErrorRow>,
    /// Writeback errors by errno.
    pub writeback_errors: Vec<WritebackErrorRow>,
    /// Losses by class; those of [`fsyncscope_abi::loss`] that are missing are 0.
    pub losses: Vec<(String, u64)>,
    /// The table of hooks.
    pub hooks: Vec<HookRow>,
    /// Kernel memory of all maps and programs.
    pub bpf_memory_bytes: u64,
    /// Run time by program, ns; empty unless the operator enabled BPF statistics.
    pub bpf_run_ns: Vec<(String, u64)>,
    /// Storage lines of brokers' logs.
    pub log_events: Vec<LogEventRow>,
    /// Every event that [`LogEventRow::event`] can be.
    pub log_event_kinds: Vec<String>,
    /// Incidents so far by verdict and cause.
    pub incidents: Vec<(Verdict, Option<Cause>, u64)>,
    /// Incidents that are open now.
    pub open_incidents: Vec<OpenIncidentRow>,
}

/// A value of BLOCK_HIST, all CPUs folded.
#[derive(Clone, Debug)]
pub struct BlockHistRow {
    /// Disk, kernel-encoded.
    pub dev: u32,
    /// One of [`fsyncscope_abi::block::req_op`].
    pub op: u8,
    /// Allocation to issue.
    pub queue: Hist,
    /// Issue to completion.
    pub device: Hist,
}

/// A broker that runs.
#[derive(Clone, Debug, Default)]
pub struct BrokerRow {
    /// Slot in the kernel's maps.
    pub slot: u16,
    /// From meta.properties, where known.
    pub cluster_id: Option<String>,
    /// `node.id` or `broker.id`, where known.
    pub node_id: Option<String>,
    /// Process.
    pub pid: u32,
    /// Kafka's version, where known.
    pub version: Option<String>,
}

/// A log directory.
#[derive(Clone, Debug, Default)]
pub struct RootRow {
    /// Slot in the kernel's maps.
    pub slot: u16,
    /// Broker slot.
    pub broker: u16,
    /// Path as the broker names it.
    pub log_dir: String,
    /// Its file system, kernel-encoded; 0 = unknown.
    pub s_dev: u32,
    /// State of the file system, where known.
    pub is_readonly: Option<bool>,
}

/// A device number and what is behind it.
#[derive(Clone, Debug, Default)]
pub struct DeviceRow {
    /// Kernel-encoded: major << 20 | minor.
    pub dev: u32,
    /// As node_exporter's diskstats spells it: the whole disk (`nvme0n1`, `dm-0`).
    pub name: String,
    /// True for a disk whose requests are watched (a leaf).
    pub is_watched_disk: bool,
    /// Model, where known.
    pub model: Option<String>,
    /// Serial number, where known.
    pub serial: Option<String>,
    /// Firmware revision, where known.
    pub firmware: Option<String>,
}

/// Syncs in flight of one broker, directory and operation.
#[derive(Clone, Debug, Default)]
pub struct InFlightRow {
    /// Broker slot.
    pub broker: u16,
    /// Root slot, SLOT_NONE where the file is not known yet.
    pub root: u16,
    /// File system, 0 = that of the root.
    pub s_dev: u32,
    /// One of [`fsyncscope_abi::sync::op`].
    pub op: u8,
    /// How many.
    pub count: u64,
    /// Age of the oldest, seconds.
    pub oldest_seconds: f64,
}

/// Failed syncs.
#[derive(Clone, Debug, Default)]
pub struct SyncErrorRow {
    /// Broker slot.
    pub broker: u16,
    /// Root slot or SLOT_NONE.
    pub root: u16,
    /// File system, 0 = that of the root.
    pub s_dev: u32,
    /// One of [`fsyncscope_abi::sync::op`].
    pub op: u8,
    /// `EIO`, or `errno(61)` where it has no name.
    pub errno: String,
    /// Total.
    pub total: u64,
}

/// Failed requests.
#[derive(Clone, Debug, Default)]
pub struct BlockErrorRow {
    /// Disk.
    pub dev: u32,
    /// One of [`fsyncscope_abi::block::req_op`].
    pub op: u8,
    /// `IOERR`, `MEDIUM`, `blk_status(17)`, … as in [`crate::event::RequestEvent`].
    pub status: String,
    /// Total.
    pub total: u64,
}

/// NVMe commands that ended with a status.
#[derive(Clone, Debug, Default)]
pub struct NvmeErrorRow {
    /// Disk.
    pub dev: u32,
    /// Status code type.
    pub sct: u8,
    /// Status code.
    pub sc: u8,
    /// Total.
    pub total: u64,
}

/// Files whose writeback failed.
#[derive(Clone, Debug, Default)]
pub struct WritebackErrorRow {
    /// Root slot; SLOT_NONE is counted without broker and directory.
    pub root: u16,
    /// File system.
    pub s_dev: u32,
    /// `EIO`, …
    pub errno: String,
    /// Total.
    pub total: u64,
}

/// State of a hook.
#[derive(Clone, Debug, Default)]
pub struct HookRow {
    /// As in the table of hooks.
    pub name: String,
    /// fexit, tracepoint, …; empty if not attached.
    pub form: String,
    /// Attached (proven or not).
    pub is_attached: bool,
    /// /readyz fails without it.
    pub is_required: bool,
}

/// Storage lines of a broker's log.
#[derive(Clone, Debug, Default)]
pub struct LogEventRow {
    /// Broker slot.
    pub broker: u16,
    /// Kind of event.
    pub event: String,
    /// Total.
    pub total: u64,
}

/// An open incident, named as the incident names things.
#[derive(Clone, Debug)]
pub struct OpenIncidentRow {
    /// node.id, else pid; empty = no broker.
    pub broker: String,
    /// Log directory; empty = none.
    pub log_dir: String,
    /// Disk; empty = none.
    pub device: String,
    /// Verdict.
    pub verdict: Verdict,
    /// Cause.
    pub cause: Option<Cause>,
}
