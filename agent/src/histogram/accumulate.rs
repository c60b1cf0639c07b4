//! Wrapping kernel counters to totals that never go down.
//!
//! Comes in: per key the histograms of all CPUs, at any interval up to
//! [`MAX_INTERVAL`]. Goes out: what was added since the last reading, and the
//! sum of that. Not here: locking; whoever shares an accumulator between
//! scrapers holds it behind a mutex, and reads the map under that mutex, since
//! an older reading absorbed after a newer one would look like a reset.

use std::{collections::HashMap, hash::Hash, time::Duration};

use fsyncscope_abi::hist::{Hist, HistKey, NR_BUCKETS};

/// How often the histograms have to be read at least. A bucket that moves by
/// 2^31 or more in between would be taken for a reset; at one million requests
/// a second, all in one bucket, that takes 35 minutes.
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// From this difference on, a counter went backwards rather than forwards.
const BACKWARDS: u32 = 1 << 31;

/// What happened to one key since the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Counts by bucket of [`fsyncscope_abi::hist`].
    pub buckets: [u64; NR_BUCKETS],
    /// Sum of all values, ns.
    pub sum_ns: u64,
    /// Operations that failed; they are in the buckets too.
    pub nr_errors: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            buckets: [0; NR_BUCKETS],
            sum_ns: 0,
            nr_errors: 0,
        }
    }
}

impl Totals {
    /// All operations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds `other` to this one.
    pub fn add(&mut self, other: &Self) {
        for (sum, n) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += n;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        self.nr_errors += other.nr_errors;
    }
}

/// Sum of the histograms of all CPUs, modulo the width of each counter.
///
/// The sum of wrapping differences is the wrapping difference of sums, so one
/// folded histogram a key is all that has to be remembered: at 128 CPUs that is
/// 0.9 KB a key instead of 116 KB.
pub fn fold(per_cpu: &[Hist]) -> Hist {
    let mut sum = Hist {
        sum_ns: 0,
        nr_errors: 0,
        pad: 0,
        buckets: [0; NR_BUCKETS],
    };
    for hist in per_cpu {
        sum.sum_ns = sum.sum_ns.wrapping_add(hist.sum_ns);
        sum.nr_errors = sum.nr_errors.wrapping_add(hist.nr_errors);
        for (total, n) in sum.buckets.iter_mut().zip(&hist.buckets) {
            *total = total.wrapping_add(*n);
        }
    }
    sum
}

/// The last reading of each key.
///
/// Wrap or reset: the kernel programs never delete a key, and the agent does so
/// only when it hands a broker slot to another broker; it calls [`Self::forget`]
/// then. As a second line, a reading is taken for a fresh start if `sum_ns`
/// went down (64 bits of ns do not wrap within a lifetime), or if a counter
/// moved by 2^31 or more (see [`MAX_INTERVAL`]). A reset that nobody announced
/// and that already has grown past the old reading in every counter cannot be
/// seen; it counts too little then, never too much.
///
/// A key that is missing from one reading keeps its baseline: the walk over a
/// hash map that others write to may miss a key, and to forget it would count
/// everything twice.
#[derive(Debug)]
pub struct HistDeltas<K> {
    last: HashMap<K, Hist>,
}

impl<K> Default for HistDeltas<K> {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> HistDeltas<K> {
    /// What was added to `key` since its last reading; everything, if it is the first.
    pub fn take(&mut self, key: K, now: &Hist) -> Totals {
        let last = self.last.insert(key, *now);
        match last {
            Some(last) if !was_reset(&last, now) => difference(&last, now),
            _ => difference(&fold(&[]), now),
        }
    }

    /// Drops the baseline of keys that were deleted from the map.
    pub fn forget(&mut self, is_gone: impl Fn(&K) -> bool) {
        self.last.retain(|key, _| !is_gone(key));
    }
}

fn was_reset(last: &Hist, now: &Hist) -> bool {
    let backwards = |last: u32, now: u32| now.wrapping_sub(last) >= BACKWARDS;
    now.sum_ns < last.sum_ns
        || backwards(last.nr_errors, now.nr_errors)
        || last
            .buckets
            .iter()
            .zip(&now.buckets)
            .any(|(last, now)| backwards(*last, *now))
}

fn difference(last: &Hist, now: &Hist) -> Totals {
    let mut delta = Totals {
        sum_ns: now.sum_ns.wrapping_sub(last.sum_ns),
        nr_errors: now.nr_errors.wrapping_sub(last.nr_errors).into(),
        ..Totals::default()
    };
    for ((n, last), now) in delta
        .buckets
        .iter_mut()
        .zip(&last.buckets)
        .zip(&now.buckets)
    {
        *n = now.wrapping_sub(*last).into();
    }
    delta
}

/// Totals per kernel key, as the summary of `watch` wants them.
#[derive(Debug, Default)]
pub struct HistAccumulator {
    deltas: HistDeltas<HistKey>,
    totals: HashMap<HistKey, Totals>,
}

impl HistAccumulator {
    /// Adds what the CPUs counted since the last reading of this key.
    pub fn absorb(&mut self, key: HistKey, per_cpu: &[Hist]) {
        self.absorb_folded(key, &fold(per_cpu));
    }

    /// The same for a histogram that [`fold`] made.
    pub fn absorb_folded(&mut self, key: HistKey, now: &Hist) {
        let delta = self.deltas.take(key, now);
        self.totals.entry(key).or_default().add(&delta);
    }

    /// Drops the baseline of keys that were deleted from the map; totals stay.
    pub fn forget(&mut self, is_gone: impl Fn(&HistKey) -> bool) {
        self.deltas.forget(is_gone);
    }

    /// All totals, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&HistKey, &Totals)> {
        self.totals.iter()
    }

    /// Totals of one key.
    pub fn get(&self, key: &HistKey) -> Option<&Totals> {
        self.totals.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HistKey = HistKey {
        s_dev: 1,
        broker: 0,
        root: 0,
        op: 1,
    };

    fn hist(bucket: usize, n: u32, sum_ns: u64) -> Hist {
        let mut hist = fold(&[]);
        hist.buckets[bucket] = n;
        hist.sum_ns = sum_ns;
        hist
    }

    fn total(accumulator: &HistAccumulator) -> u64 {
        accumulator.get(&KEY).unwrap().count()
    }

    #[test]
    fn cpus_add_up_and_a_second_reading_adds_only_the_difference() {
        let mut accumulator = HistAccumulator::default();
        accumulator.absorb(KEY, &[hist(3, 2, 20), hist(3, 5, 50)]);
        assert_eq!(total(&accumulator), 7);
        accumulator.absorb(KEY, &[hist(3, 2, 20), hist(3, 6, 60)]);
        accumulator.absorb(KEY, &[hist(3, 2, 20), hist(3, 6, 60)]);
        assert_eq!(total(&accumulator), 8);
        assert_eq!(accumulator.get(&KEY).unwrap().sum_ns, 80);
    }

    #[test]
    fn a_counter_of_32_bits_wraps_without_loss() {
        let mut accumulator = HistAccumulator::default();
        let mut expected = 0u64;
        let mut kernel = 0u32;
        let mut sum_ns = 0;
        for _ in 0..9 {
            kernel = kernel.wrapping_add(1 << 30);
            expected += 1 << 30;
            sum_ns += 1 << 50;
            accumulator.absorb(KEY, &[hist(100, kernel, sum_ns)]);
        }
        assert!(expected > u64::from(u32::MAX) * 2);
        assert_eq!(total(&accumulator), expected);
    }

    #[test]
    fn two_cpus_that_wrap_in_their_sum_lose_nothing() {
        let mut accumulator = HistAccumulator::default();
        accumulator.absorb(KEY, &[hist(9, 2_000_000_000, 1), hist(9, 2_000_000_000, 1)]);
        accumulator.absorb(KEY, &[hist(9, 2_200_000_000, 2), hist(9, 2_200_000_000, 2)]);
        assert_eq!(total(&accumulator), 4_400_000_000);
    }

    #[test]
    fn a_key_that_starts_again_smaller_is_counted_from_zero() {
        let mut accumulator = HistAccumulator::default();
        accumulator.absorb(KEY, &[hist(9, 100, 1000)]);
        accumulator.absorb(KEY, &[hist(9, 98, 2000)]);
        assert_eq!(total(&accumulator), 198);
        accumulator.absorb(KEY, &[hist(9, 99, 10)]);
        assert_eq!(total(&accumulator), 297);
    }

    #[test]
    fn a_forgotten_key_is_counted_from_zero_even_when_it_grew() {
        let mut accumulator = HistAccumulator::default();
        accumulator.absorb(KEY, &[hist(9, 100, 1000)]);
        accumulator.forget(|key| key.broker == 0);
        accumulator.absorb(KEY, &[hist(9, 150, 1500)]);
        assert_eq!(total(&accumulator), 250);
    }
}
