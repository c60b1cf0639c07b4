//! The buckets of /metrics: twenty bounds, each one of the kernel's own.
//!
//! Comes in: [`Totals`]. Goes out: cumulative counts as Prometheus wants them,
//! exact and not interpolated. Not here: names and labels.

use fsyncscope_abi::hist::{NR_BUCKETS, bucket_of, upper_bound_ns};

use super::Totals;

/// Number of finite bounds.
pub const NR_BOUNDS: usize = 20;

/// Where a person would put the bounds, ns.
const WISHES_NS: [u64; NR_BOUNDS] = [
    20_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    20_000_000_000,
    30_000_000_000,
];

/// Last kernel bucket below each bound: the one whose upper bound is nearest to
/// the wish. The kernel's bounds are parts of powers of two and never round
/// numbers; a round `le` would need a guess about the bucket that it cuts.
pub const BOUNDS: [usize; NR_BOUNDS] = {
    let mut bounds = [0; NR_BOUNDS];
    let mut i = 0;
    while i < NR_BOUNDS {
        let wish = WISHES_NS[i];
        let above = bucket_of(wish);
        let is_nearer_above = upper_bound_ns(above) - wish < wish - upper_bound_ns(above - 1);
        bounds[i] = if is_nearer_above { above } else { above - 1 };
        i += 1;
    }
    bounds
};

const _: () = {
    let mut i = 0;
    while i < NR_BOUNDS {
        assert!(BOUNDS[i] < NR_BUCKETS - 1, "the last bucket has no bound");
        assert!(i == 0 || BOUNDS[i - 1] < BOUNDS[i], "bounds ascend");
        i += 1;
    }
};

/// The `le` of a bound in seconds. Prometheus includes the bound and the kernel
/// excludes it, and both count whole ns: hence one ns less.
fn le_seconds(bucket: usize) -> f64 {
    (upper_bound_ns(bucket) - 1) as f64 / 1e9
}

/// (upper bound in seconds, cumulative count) for each of [`BOUNDS`], then the
/// sum of all values in seconds, and their count, which is the bucket `+Inf`.
pub fn to_prometheus_buckets(totals: &Totals) -> (Vec<(f64, u64)>, f64, u64) {
    let mut buckets = Vec::with_capacity(NR_BOUNDS);
    let mut cumulative = 0;
    let mut next = 0;
    for bucket in BOUNDS {
        cumulative += totals.buckets[next..=bucket].iter().sum::<u64>();
        next = bucket + 1;
        buckets.push((le_seconds(bucket), cumulative));
    }
    let count = cumulative + totals.buckets[next..].iter().sum::<u64>();
    (buckets, totals.sum_ns as f64 / 1e9, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_every_bucket_whose_bound_it_does_not_exceed() {
        for bound in BOUNDS {
            for ns in [upper_bound_ns(bound) - 1, upper_bound_ns(bound)] {
                let mut totals = Totals::default();
                totals.buckets[bucket_of(ns)] = 1;
                totals.sum_ns = ns;
                let (buckets, sum_seconds, count) = to_prometheus_buckets(&totals);
                assert_eq!(count, 1);
                assert_eq!(sum_seconds, ns as f64 / 1e9);
                for (le, cumulative) in buckets {
                    assert_eq!(
                        cumulative,
                        u64::from(ns as f64 / 1e9 <= le),
                        "{ns} ns in le {le}"
                    );
                }
            }
        }
    }

    #[test]
    fn bounds_lie_within_a_twentieth_of_what_a_person_would_choose() {
        for (bucket, wish) in BOUNDS.into_iter().zip(WISHES_NS) {
            let ratio = upper_bound_ns(bucket) as f64 / wish as f64;
            assert!((0.95..=1.05).contains(&ratio), "{wish} ns: {ratio}");
        }
    }

    #[test]
    fn a_value_above_the_last_bound_is_only_in_the_count() {
        let mut totals = Totals::default();
        totals.buckets[NR_BUCKETS - 1] = 7;
        let (buckets, _, count) = to_prometheus_buckets(&totals);
        assert!(buckets.iter().all(|(_, cumulative)| *cumulative == 0));
        assert_eq!(count, 7);
    }
}
