//! `fsyncscope export`: /metrics, /healthz and /readyz.
//!
//! Comes in: a [`Source`], which reads the kernel's maps and the agent's tables.
//! Goes out: text for Prometheus over HTTP, read at scrape. Totals by label live
//! here, so that a broker's restart or a reused slot never makes a counter go
//! down. Not here: loading programs, finding brokers. Nothing here opens a file
//! outside /proc.

mod collector;
mod families;
mod http;
mod labels;
mod names;
mod process;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod tracked;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use prometheus::{Registry, TextEncoder};

pub use self::{
    collector::SourceCollector,
    http::{DEFAULT_LISTEN, bind, serve},
    names::{ALL, KNOWN_ERRNOS, KNOWN_STATUSES, Kind, Metric},
    process::ProcessCollector,
    source::{
        BlockErrorRow, BlockHistRow, BrokerRow, DeviceRow, HookRow, InFlightRow, LogEventRow,
        NvmeErrorRow, OpenIncidentRow, RootRow, Snapshot, Source, SyncErrorRow, WritebackErrorRow,
    },
};

/// A registry with everything that /metrics shows; clones share it.
#[derive(Clone)]
pub struct Exporter {
    registry: Registry,
    collector: SourceCollector,
    /// Held while one scrape is gathered: its error must not be taken by another.
    scrape: Arc<Mutex<()>>,
}

impl Exporter {
    /// An exporter of `source`, and of the own process as /proc shows it.
    pub fn new(source: impl Source + 'static, proc_root: &Path) -> anyhow::Result<Self> {
        let exporter = Self::without_process(source, env!("CARGO_PKG_VERSION"))?;
        let process = ProcessCollector::new(proc_root).context("describe process metrics")?;
        exporter
            .registry
            .register(Box::new(process))
            .context("register process metrics")?;
        Ok(exporter)
    }

    fn without_process(
        source: impl Source + 'static,
        version: &'static str,
    ) -> anyhow::Result<Self> {
        let collector = SourceCollector::new(source, version).context("describe metrics")?;
        let registry = Registry::new();
        registry
            .register(Box::new(collector.clone()))
            .context("register metrics")?;
        Ok(Self {
            registry,
            collector,
            scrape: Arc::default(),
        })
    }

    /// The collector, to refresh it and to retire brokers.
    pub fn collector(&self) -> &SourceCollector {
        &self.collector
    }

    /// Reads the source and writes all metrics as text.
    pub fn render(&self) -> anyhow::Result<String> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let families = self.registry.gather();
        if let Some(error) = self.collector.take_error() {
            return Err(error.context("read metrics"));
        }
        let mut text = String::new();
        // One at a time, so that a family is freed once it is written.
        for family in families {
            TextEncoder::new()
                .encode_utf8(&[family], &mut text)
                .context("encode metrics")?;
        }
        Ok(text)
    }
}
