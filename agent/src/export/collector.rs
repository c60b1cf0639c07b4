//! The collector that the `prometheus` crate calls at each scrape.
//!
//! Comes in: a [`Source`]. Goes out: metric families. One mutex is held from
//! reading the maps to building the families, so that two scrapers cannot
//! absorb readings in the wrong order and every answer is of one moment. Not
//! here: HTTP.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    names,
    source::{HookRow, Source},
    state::State,
};

struct Inner {
    source: Box<dyn Source>,
    state: State,
    absorbed: Option<Instant>,
    /// Of the last collection, if it failed.
    scrape_error: Option<anyhow::Error>,
}

impl Inner {
    fn refresh(&mut self) -> anyhow::Result<()> {
        let snapshot = self.source.snapshot()?;
        self.state.absorb(snapshot);
        self.absorbed = Some(Instant::now());
        Ok(())
    }
}

/// Collects from a source; clones share it.
#[derive(Clone)]
pub struct SourceCollector {
    inner: Arc<Mutex<Inner>>,
    descs: Arc<[Desc]>,
    version: &'static str,
}

impl SourceCollector {
    /// A collector of `source`; `version` goes into build_info.
    pub fn new(source: impl Source + 'static, version: &'static str) -> prometheus::Result<Self> {
        let descs: Result<Vec<Desc>, _> = names::ALL
            .iter()
            .map(|metric| {
                let labels = metric.labels.iter().map(|label| (*label).into()).collect();
                Desc::new(
                    metric.name.into(),
                    metric.help.into(),
                    labels,
                    HashMap::new(),
                )
            })
            .collect();
        let inner = Inner {
            source: Box::new(source),
            state: State::default(),
            absorbed: None,
            scrape_error: None,
        };
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
            descs: descs?.into(),
            version,
        })
    }

    // A panic of a source leaves totals as they were: absorb runs after it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and absorbs without building metrics: within
    /// [`crate::histogram::MAX_INTERVAL`], whether anybody scrapes or not.
    pub fn refresh(&self) -> anyhow::Result<()> {
        self.lock().refresh()
    }

    /// Takes what a gone broker counted since the last reading, lets `delete`
    /// remove its keys from the kernel's maps, and forgets their baselines. To
    /// be called before a slot is given to another broker.
    pub fn retire_broker(&self, slot: u16, delete: impl FnOnce()) -> anyhow::Result<()> {
        let mut inner = self.lock();
        let result = inner.refresh();
        delete();
        inner.state.forget_broker(slot);
        result
    }

    /// Required hooks that are not attached, from a reading not older than `age`.
    pub fn missing_hooks(&self, age: Duration) -> anyhow::Result<Vec<HookRow>> {
        let mut inner = self.lock();
        if inner
            .absorbed
            .is_none_or(|absorbed| absorbed.elapsed() > age)
        {
            inner.refresh()?;
        }
        let is_missing = |hook: &&HookRow| hook.is_required && !hook.is_attached;
        Ok(inner
            .state
            .last
            .hooks
            .iter()
            .filter(is_missing)
            .cloned()
            .collect())
    }

    /// Why the last collection is empty.
    pub(super) fn take_error(&self) -> Option<anyhow::Error> {
        self.lock().scrape_error.take()
    }
}

impl Collector for SourceCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    /// Nothing if the source failed: series that stand still would look healthy.
    fn collect(&self) -> Vec<MetricFamily> {
        let mut inner = self.lock();
        if let Err(error) = inner.refresh() {
            inner.scrape_error = Some(error);
            return Vec::new();
        }
        inner.scrape_error = None;
        inner.state.families(self.version)
    }
}
