//! How fast each disk can write, from what it wrote lately. In: totals of
//! written bytes, about once a second. Out: bytes per second. Idle seconds say
//! nothing of a disk's ability, so the rate is the 90th percentile of the busy
//! ones of the last minute: those with at least a quarter of the best.

use std::collections::{BTreeMap, VecDeque};

const WINDOW_NS: u64 = 60_000_000_000;

/// Rates of all disks.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    last: BTreeMap<u32, (u64, u64)>,
    seconds: BTreeMap<u32, VecDeque<(u64, u64)>>,
}

impl Rates {
    pub(crate) fn sample(&mut self, now_ns: u64, written: &BTreeMap<u32, u64>) {
        for (&disk, &bytes) in written {
            if let Some((then_ns, then_bytes)) = self.last.insert(disk, (now_ns, bytes)) {
                let span_ns = now_ns.saturating_sub(then_ns);
                if span_ns == 0 {
                    continue;
                }
                let per_second = u128::from(bytes.saturating_sub(then_bytes)) * 1_000_000_000;
                let rate = u64::try_from(per_second / u128::from(span_ns)).unwrap_or(u64::MAX);
                self.seconds
                    .entry(disk)
                    .or_default()
                    .push_back((now_ns, rate));
            }
        }
        // A disk that was idle is not in the event; its window moves on anyway.
        for seconds in self.seconds.values_mut() {
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

    /// Bytes per second of the disks that carry one file system.
    pub(crate) fn of_disks(&self, disks: &[u32]) -> Option<u64> {
        disks
            .iter()
            .filter_map(|&disk| self.of_disk(disk))
            .reduce(u64::saturating_add)
    }
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
