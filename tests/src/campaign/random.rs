//! Random numbers from a seed, the same on every machine and in every version
//! of this crate: SplitMix64. In: a seed and what it is for. Out: numbers.
//! Good enough to draw faults, and for nothing else.

/// See the module's comment.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed and a number within it: streams of neighbours have
    /// nothing in common.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    /// The next number.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so it is no iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number between the two, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// One of these; `None` of none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }

    /// One of these, each as often as its weight says.
    ///
    /// # Panics
    /// If no weight is above 0: that is a mistake in a table.
    pub fn weighted<T: Copy>(&mut self, of: &[(u64, T)]) -> T {
        let sum = of.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(sum);
        for (weight, value) in of {
            if at < *weight {
                return *value;
            }
            at -= weight;
        }
        panic!("a table of weights has none above 0");
    }

    /// Between the two, each order of size as likely as the other.
    pub fn log_between(&mut self, first: u64, last: u64) -> u64 {
        let (low, high) = ((first as f64).ln(), (last as f64).ln());
        let share = self.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        let value = (low + (high - low) * share).exp().round() as u64;
        value.clamp(first, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(1, 0);
        let first = [random.next(), random.next()];
        assert_eq!(
            first,
            [13_757_245_211_066_428_519, 17_911_839_290_282_890_590]
        );
    }

    #[test]
    fn streams_differ_and_ranges_hold() {
        assert_ne!(Random::new(1, 1).next(), Random::new(1, 2).next());
        let mut random = Random::new(7, 7);
        for _ in 0..1000 {
            assert!((5..=30).contains(&random.between(5, 30)));
            assert!((5..=30_000).contains(&random.log_between(5, 30_000)));
            assert_eq!(random.weighted(&[(0, 'a'), (3, 'b')]), 'b');
        }
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
