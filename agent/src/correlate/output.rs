//! What the core says. In: from `correlate`. Out: to `sink`, which renders it,
//! and to `export`, which counts it. Names and times are resolved here, so that
//! a sink needs nothing else.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{HookState, Start};
use crate::incident::{Incident, IncidentSync};

/// See the module's comment.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The run began.
    Started(Box<Started>),
    /// A broker was found, or found again with other facts.
    BrokerSeen(Box<BrokerSeen>),
    /// The state of a hook.
    Hook(HookState),
    /// An incident opened, changed or closed.
    Incident(Box<Incident>),
    /// A sync took longer than `--slow` and is no finding.
    SlowSync(Box<SlowSync>),
    /// Something worth knowing that is no incident.
    Notice {
        /// When, RFC 3339.
        time: String,
        /// debug, info, warn
        level: &'static str,
        /// What.
        text: String,
    },
    /// Percentiles.
    Summary(Box<SummaryOutput>),
    /// The end.
    Stopped(Stopped),
}

/// See [`Output::Started`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Started {
    /// Settings and place.
    #[serde(flatten)]
    pub start: Start,
}

/// See [`Output::BrokerSeen`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BrokerSeen {
    /// When, RFC 3339.
    pub time: String,
    /// Broker slot.
    pub slot: u16,
    /// Process.
    pub pid: u32,
    /// node.id or broker.id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<i64>,
    /// cluster.id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Its log.dirs.
    pub log_dirs: Vec<String>,
    /// The log that is followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file: Option<String>,
    /// Why no log is followed, or another thing to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// See [`Output::SlowSync`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SlowSync {
    /// The sync.
    #[serde(flatten)]
    pub sync: IncidentSync,
    /// Broker, by node id or pid.
    pub broker: String,
    /// Leaf disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Bytes of the file that were written meanwhile.
    pub own_bytes: u64,
    /// What explains the time, in words; empty if nothing does.
    pub why: String,
}

/// See [`Output::Summary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SummaryOutput {
    /// One row per broker, log.dir, device and op.
    pub rows: Vec<SummaryOutputRow>,
}

/// A row of [`SummaryOutput`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SummaryOutputRow {
    /// Broker, by node id or pid.
    pub broker: String,
    /// log.dir.
    pub log_dir: String,
    /// Device name.
    pub device: String,
    /// Operation.
    pub op: String,
    /// How many.
    pub count: u64,
    /// How many failed.
    pub errors: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

/// See [`Output::Stopped`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stopped {
    /// When, RFC 3339.
    pub time: String,
    /// Why it ended.
    pub why: String,
    /// Incidents in this run.
    pub findings: u64,
    /// Those still open.
    pub open: u64,
    /// What was missed, by class.
    pub lost: BTreeMap<String, u64>,
    /// A required hook was missing.
    pub required_hook_missing: bool,
}
