//! How fast each disk can write, from what it wrote lately. In: totals of
//! written bytes, about once a second. Out: bytes per second. Idle seconds say
//! nothing of a disk's ability, so the rate is the 90th percentile of the busy
//! ones of the last minute: those with at least a quarter of the best.

use std::collections::{BTreeMap, VecDeque};

const WINDOW_NS: u64 = 60_000_000_000;
/// Samples closer together than this are for [`Rates::moved`] only: a rate over
/// a fraction of a second is a burst.
const SECOND_NS: u64 = 900_000_000;

/// Rates of all disks.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    last: BTreeMap<u32, (u64, u64)>,
    seconds: BTreeMap<u32, VecDeque<(u64, u64)>>,
    /// Totals as they were sampled: time, bytes.
    totals: BTreeMap<u32, VecDeque<(u64, u64)>>,
}

impl Rates {
    pub(crate) fn sample(&mut self, now_ns: u64, written: &BTreeMap<u32, u64>) {
        for (&disk, &bytes) in written {
            self.totals
                .entry(disk)
                .or_default()
                .push_back((now_ns, bytes));
            let then = *self.last.entry(disk).or_insert((now_ns, bytes));
            if now_ns.saturating_sub(then.0) >= SECOND_NS {
                self.last.insert(disk, (now_ns, bytes));
                let (then_ns, then_bytes) = then;
                let span_ns = now_ns - then_ns;
                let per_second = u128::from(bytes.saturating_sub(then_bytes)) * 1_000_000_000;
                let rate = u64::try_from(per_second / u128::from(span_ns)).unwrap_or(u64::MAX);
                self.seconds
                    .entry(disk)
                    .or_default()
                    .push_back((now_ns, rate));
            }
        }
        // A disk that was idle is not in the event; its window moves on anyway.
        for seconds in self.seconds.values_mut().chain(self.totals.values_mut()) {
            while seconds
                .front()
                .is_some_and(|second| second.0 + WINDOW_NS < now_ns)
            {
                seconds.pop_front();
            }
        }
    }

    /// Bytes per second of one disk, if it wrote anything lately.
    pub(crate) fn of_disk(&self, disk: u32) -> Option<u64> {
        let seconds = self.seconds.get(&disk)?;
        let best = seconds.iter().map(|second| second.1).max()?;
        let mut busy: Vec<u64> = seconds
            .iter()
            .map(|second| second.1)
            .filter(|&rate| rate > 0 && rate >= best / 4)
            .collect();
        busy.sort_unstable();
        let rank = (busy.len() * 9).div_ceil(10);
        busy.get(rank.checked_sub(1)?).copied()
    }

    /// Bytes that the disks wrote between two times, as far as samples reach.
    pub(crate) fn moved(&self, disks: &[u32], from_ns: u64, to_ns: u64) -> u64 {
        let of_disk = |disk: &u32| {
            let totals = self.totals.get(disk)?;
            Some(total_at(totals, to_ns)?.saturating_sub(total_at(totals, from_ns)?))
        };
        disks.iter().filter_map(of_disk).sum()
    }

    /// Bytes per second of the disks that carry one file system.
    pub(crate) fn of_disks(&self, disks: &[u32]) -> Option<u64> {
        disks
            .iter()
            .filter_map(|&disk| self.of_disk(disk))
            .reduce(u64::saturating_add)
    }
}

/// The total at a time, straight between the samples around it.
fn total_at(totals: &VecDeque<(u64, u64)>, at_ns: u64) -> Option<u64> {
    let after = totals.iter().position(|sample| sample.0 >= at_ns);
    let Some(after) = after else {
        return totals.back().map(|sample| sample.1);
    };
    let later = totals[after];
    let Some(earlier) = after.checked_sub(1).map(|before| totals[before]) else {
        return Some(later.1);
    };
    let share = u128::from(at_ns - earlier.0) * u128::from(later.1.saturating_sub(earlier.1))
        / u128::from((later.0 - earlier.0).max(1));
    Some(earlier.1 + u64::try_from(share).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_seconds_do_not_make_a_disk_slow() {
        let mut rates = Rates::default();
        let mut total = 0;
        for second in 0..70u64 {
            if (62..70).contains(&second) {
                total += 100_000_000;
            }
            rates.sample(second * 1_000_000_000, &BTreeMap::from([(7, total)]));
        }
        assert_eq!(rates.of_disk(7), Some(100_000_000));
        assert_eq!(rates.of_disk(8), None);
    }

    #[test]
    fn moved_bytes_are_those_between_the_two_times() {
        let mut rates = Rates::default();
        for quarter in 0..20u64 {
            let totals = BTreeMap::from([(7, quarter * 25_000_000)]);
            rates.sample(quarter * 250_000_000, &totals);
        }
        assert_eq!(rates.moved(&[7], 1_000_000_000, 2_000_000_000), 100_000_000);
        assert_eq!(rates.moved(&[7], 1_125_000_000, 1_250_000_000), 12_500_000);
        assert_eq!(rates.moved(&[7], 10_000_000_000, 12_000_000_000), 0);
        assert_eq!(rates.of_disk(7), Some(100_000_000));
    }

    #[test]
    fn one_burst_among_busy_seconds_is_not_the_rate() {
        let mut rates = Rates::default();
        let mut total = 0;
        for second in 0..30u64 {
            total += if second == 12 {
                300_000_000
            } else {
                100_000_000
            };
            rates.sample(second * 1_000_000_000, &BTreeMap::from([(7, total)]));
        }
        assert_eq!(rates.of_disk(7), Some(100_000_000));
    }

    #[test]
    fn the_window_is_a_minute() {
        let mut rates = Rates::default();
        rates.sample(0, &BTreeMap::from([(7, 0)]));
        rates.sample(1_000_000_000, &BTreeMap::from([(7, 50_000_000)]));
        for second in 2..80u64 {
            rates.sample(second * 1_000_000_000, &BTreeMap::from([(7, 50_000_000)]));
        }
        assert_eq!(rates.of_disk(7), None);
    }
}
