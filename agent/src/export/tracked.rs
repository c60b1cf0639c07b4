//! Totals per label set, which outlive the slots that they came from.
//!
//! Comes in: cumulative totals under the source's keys (slots, numbers). Goes
//! out: sums by label values, which never go down: several slots with equal
//! labels (a restarted broker) add up, and what a gone slot had stays.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use fsyncscope_abi::hist::Hist;

use super::labels::Values;
use crate::histogram::{HistDeltas, Totals};

/// Plain counters.
#[derive(Debug)]
pub struct TrackedCounters<K> {
    last: HashMap<K, u64>,
    /// Sums, in the order of their labels.
    pub by_labels: BTreeMap<Values, u64>,
}

impl<K> Default for TrackedCounters<K> {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
            by_labels: BTreeMap::new(),
        }
    }
}

impl<K: Eq + Hash> TrackedCounters<K> {
    /// Makes the series exist.
    pub fn ensure(&mut self, labels: Values) {
        self.by_labels.entry(labels).or_default();
    }

    /// Adds what `key` grew by; a total that went down started again at 0.
    pub fn absorb(&mut self, key: K, total: u64, labels: Values) {
        let last = self.last.insert(key, total).unwrap_or(0);
        let delta = if total < last { total } else { total - last };
        *self.by_labels.entry(labels).or_default() += delta;
    }

    /// Drops the baseline of keys that will start again at 0.
    pub fn forget(&mut self, is_gone: impl Fn(&K) -> bool) {
        self.last.retain(|key, _| !is_gone(key));
    }
}

/// Histograms.
#[derive(Debug)]
pub struct TrackedHists<K> {
    deltas: HistDeltas<K>,
    /// Sums, in the order of their labels.
    pub by_labels: BTreeMap<Values, Totals>,
}

impl<K> Default for TrackedHists<K> {
    fn default() -> Self {
        Self {
            deltas: HistDeltas::default(),
            by_labels: BTreeMap::new(),
        }
    }
}

impl<K: Eq + Hash> TrackedHists<K> {
    /// Makes the series exist.
    pub fn ensure(&mut self, labels: Values) {
        self.by_labels.entry(labels).or_default();
    }

    /// Adds what `key` grew by.
    pub fn absorb(&mut self, key: K, now: &Hist, labels: Values) {
        let delta = self.deltas.take(key, now);
        self.by_labels.entry(labels).or_default().add(&delta);
    }

    /// Drops the baseline of keys that will start again at 0.
    pub fn forget(&mut self, is_gone: impl Fn(&K) -> bool) {
        self.deltas.forget(is_gone);
    }
}
