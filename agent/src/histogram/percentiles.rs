//! Percentiles for the summary of `watch`, by hdrhistogram.
//!
//! Comes in: [`Totals`]. Goes out: p50, p99, p99.9 and the largest, ns. A kernel
//! bucket is at most 10 % wide and its middle is recorded, so a percentile is
//! within 5 % of the true one, plus 0.1 % of hdrhistogram's own. Not so outside
//! 8 µs .. 34 s, where the kernel has one bucket each: 4 µs and 34 s stand there.

use fsyncscope_abi::hist::{MAX_SHIFT, NR_BUCKETS, upper_bound_ns};
use hdrhistogram::{CreationError, Histogram, RecordError};

use super::Totals;

/// Values of one histogram, ns; 0 where nothing was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Upper bound of the highest bucket reached; 34.4 s means that or more.
    pub max_ns: u64,
}

/// Why percentiles could not be computed; neither happens with the constants here.
#[derive(Debug, thiserror::Error)]
pub enum PercentilesError {
    /// Range or precision refused.
    #[error("create histogram: {0}")]
    Create(#[from] CreationError),
    /// Value out of range.
    #[error("record latency: {0}")]
    Record(#[from] RecordError),
}

/// Lowest value that hdrhistogram has to tell from its neighbours, ns: half of
/// the kernel's first bound.
const LOW_NS: u64 = 1 << 12;

/// Percentiles of what was counted.
pub fn percentiles(totals: &Totals) -> Result<Percentiles, PercentilesError> {
    let Some(highest) = totals.buckets.iter().rposition(|n| *n > 0) else {
        return Ok(Percentiles::default());
    };
    let mut histogram = Histogram::<u64>::new_with_bounds(LOW_NS, 1 << MAX_SHIFT, 3)?;
    for (bucket, n) in totals.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
        histogram.record_n(middle_ns(bucket), *n)?;
    }
    let max_ns = bound_ns(highest);
    // hdrhistogram answers with the end of its own bucket, which may lie a
    // thousandth above the largest value.
    let at = |quantile| histogram.value_at_quantile(quantile).min(max_ns);
    Ok(Percentiles {
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
        max_ns,
    })
}

/// Upper bound that can be said of a bucket.
fn bound_ns(bucket: usize) -> u64 {
    if bucket == NR_BUCKETS - 1 {
        1 << MAX_SHIFT
    } else {
        upper_bound_ns(bucket)
    }
}

fn middle_ns(bucket: usize) -> u64 {
    match bucket {
        0 => upper_bound_ns(0) / 2,
        _ => upper_bound_ns(bucket - 1).midpoint(bound_ns(bucket)),
    }
}

#[cfg(test)]
mod tests {
    use fsyncscope_abi::hist::bucket_of;

    use super::*;

    #[test]
    fn percentiles_are_within_the_promised_error() {
        let mut totals = Totals::default();
        let mut values: Vec<u64> = (1..=20_000).map(|i| 10_000 + i * i * 7).collect();
        for ns in &values {
            totals.buckets[bucket_of(*ns)] += 1;
        }
        values.sort_unstable();
        let got = percentiles(&totals).unwrap();
        for (quantile, got) in [(0.5, got.p50_ns), (0.99, got.p99_ns), (0.999, got.p999_ns)] {
            let want = values[(quantile * values.len() as f64).ceil() as usize - 1] as f64;
            let error = (got as f64 - want).abs() / want;
            assert!(error <= 0.052, "p{quantile}: {got} instead of {want}");
        }
        let max = *values.last().unwrap();
        assert!(got.max_ns > max && got.max_ns as f64 <= max as f64 * 1.1);
    }

    #[test]
    fn nothing_counted_gives_zeros() {
        assert_eq!(
            percentiles(&Totals::default()).unwrap(),
            Percentiles::default()
        );
    }

    #[test]
    fn both_open_ends_are_named_by_their_bound() {
        let mut totals = Totals::default();
        totals.buckets[NR_BUCKETS - 1] = u64::from(u32::MAX) * 4;
        let got = percentiles(&totals).unwrap();
        assert_eq!((got.p50_ns, got.max_ns), (1 << MAX_SHIFT, 1 << MAX_SHIFT));
        let mut totals = Totals::default();
        totals.buckets[0] = 1;
        let got = percentiles(&totals).unwrap();
        assert!(got.p50_ns < 8192 && got.p50_ns >= 4096);
        assert_eq!(got.max_ns, 8192);
    }
}
