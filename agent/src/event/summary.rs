//! Counts and percentiles for the summary at the end of a run, as they stand in
//! captures. Not here: how they are computed (the agent's histograms).

use serde::{Deserialize, Serialize};

/// Percentiles for the summary; computed live by hdrhistogram, replayed as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// One row per broker, log.dir, device and op.
    pub rows: Vec<SummaryRow>,
}

/// A row of [`Summary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Broker slot.
    pub broker: u16,
    /// Root slot.
    pub root: u16,
    /// s_dev.
    pub dev: u32,
    /// Operation.
    pub op: String,
    /// How many.
    pub count: u64,
    /// How many failed.
    pub errors: u64,
    /// Median, ns.
    pub p50_ns: u64,
    /// 99th percentile, ns.
    pub p99_ns: u64,
    /// Largest bucket reached, ns.
    pub max_ns: u64,
}
