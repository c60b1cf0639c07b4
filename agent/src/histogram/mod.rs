//! Latency totals of user space, from the per-CPU histograms of the kernel.
//!
//! Comes in: values of HIST ([`fsyncscope_abi::hist::Hist`], counters of 32 bits
//! that wrap). Goes out: totals of 64 bits per key, Prometheus buckets and
//! percentiles. Not here: reading the map, and what slots and devices are called.

mod accumulate;
mod bounds;
mod percentiles;

pub use self::{
    accumulate::{HistAccumulator, HistDeltas, MAX_INTERVAL, Totals, fold},
    bounds::{BOUNDS, NR_BOUNDS, to_prometheus_buckets},
    percentiles::{Percentiles, PercentilesError, percentiles},
};
