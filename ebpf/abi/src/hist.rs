//! Latency histograms: log-linear buckets, ten per octave, so that a bucket is
//! at most 10 % wide. The same function buckets in the kernel and, inverted,
//! names bounds in the agent.

/// Values below 2^13 ns (8.2 µs) share bucket 0.
pub const MIN_SHIFT: u32 = 13;
/// Values from 2^35 ns (34.4 s) up share the last bucket.
pub const MAX_SHIFT: u32 = 35;
/// Linear buckets in an octave.
pub const PER_OCTAVE: u32 = 10;
/// Number of buckets: one below, ten per octave, one above.
pub const NR_BUCKETS: usize = (1 + (MAX_SHIFT - MIN_SHIFT) * PER_OCTAVE + 1) as usize;

/// Key of HIST: syncs. Requests have a map of their own, see [`crate::block::BlockHist`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HistKey {
    /// s_dev of the file system, major << 20 | minor; 0 = unknown.
    pub s_dev: u32,
    /// Broker slot.
    pub broker: u16,
    /// Root slot, SLOT_NONE for files under no watched directory.
    pub root: u16,
    /// One of [`crate::sync::op`].
    pub op: u32,
}

/// Value of HIST, one per CPU. Counters wrap; the agent adds differences.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hist {
    /// Sum of all values in ns.
    pub sum_ns: u64,
    /// Operations that failed (also counted in the buckets).
    pub nr_errors: u32,
    /// Zero.
    pub pad: u32,
    /// Counts by bucket.
    pub buckets: [u32; NR_BUCKETS],
}

/// Bucket of a value.
#[inline(always)]
pub const fn bucket_of(ns: u64) -> usize {
    if ns < 1 << MIN_SHIFT {
        return 0;
    }
    if ns >= 1 << MAX_SHIFT {
        return NR_BUCKETS - 1;
    }
    let octave = 63 - ns.leading_zeros();
    let linear = ((ns - (1 << octave)) * PER_OCTAVE as u64) >> octave;
    (1 + (octave - MIN_SHIFT) * PER_OCTAVE) as usize + linear as usize
}

/// Exclusive upper bound of a bucket in ns; u64::MAX for the last.
pub const fn upper_bound_ns(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1 << MIN_SHIFT;
    }
    if bucket >= NR_BUCKETS - 1 {
        return u64::MAX;
    }
    let i = bucket as u64 - 1;
    let octave = MIN_SHIFT as u64 + i / PER_OCTAVE as u64;
    let linear = i % PER_OCTAVE as u64 + 1;
    // Rounded up: bucket_of floors, so the first value of the next bucket is
    // the ceiling of the real bound.
    (1 << octave) + (linear << octave).div_ceil(PER_OCTAVE as u64)
}

const _: () = assert!(size_of::<HistKey>() == 12);
const _: () = assert!(NR_BUCKETS == 222);
const _: () = assert!(size_of::<Hist>() == 16 + NR_BUCKETS * 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_buckets_agree() {
        for bucket in 0..NR_BUCKETS - 1 {
            let upper = upper_bound_ns(bucket);
            assert_eq!(bucket_of(upper - 1), bucket, "below bound of {bucket}");
            assert_eq!(bucket_of(upper), bucket + 1, "at bound of {bucket}");
        }
        assert_eq!(bucket_of(u64::MAX), NR_BUCKETS - 1);
    }

    #[test]
    fn a_bucket_is_at_most_a_tenth_wide() {
        for bucket in 1..NR_BUCKETS - 1 {
            let (low, high) = (upper_bound_ns(bucket - 1), upper_bound_ns(bucket));
            assert!(
                (high - low) as f64 <= 0.1 * low as f64 + 1.0,
                "bucket {bucket}"
            );
        }
    }
}
