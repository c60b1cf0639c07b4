//! A map that forgets its least recently used key when it is full, and counts
//! what it forgot. In: keys and values. Out: the same, boundedly many. It knows
//! nothing of disks or brokers.

use std::collections::BTreeMap;

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    by_age: BTreeMap<u64, K>,
    next_age: u64,
    capacity: usize,
    forgotten: u64,
}

impl<K: Ord + Clone, V: Default> Lru<K, V> {
    /// Holds at most `capacity` keys.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
            capacity,
            forgotten: 0,
        }
    }

    /// The value of `key`, made if absent, and now the most recently used.
    pub(crate) fn touch(&mut self, key: &K) -> &mut V {
        let age = self.next_age;
        self.next_age += 1;
        if !self.entries.contains_key(key)
            && self.entries.len() >= self.capacity
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.entries.remove(&oldest);
            self.forgotten += 1;
        }
        let entry = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| (age, V::default()));
        self.by_age.remove(&entry.0);
        entry.0 = age;
        self.by_age.insert(age, key.clone());
        &mut entry.1
    }

    /// The value of `key`, if it is still known.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.1)
    }

    /// The same, to change it; its age stays.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.1)
    }

    /// Keys forgotten so far.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Appends to `list`; above `max` the oldest goes.
pub(crate) fn push_bounded<T>(
    list: &mut std::collections::VecDeque<T>,
    value: T,
    max: usize,
) -> bool {
    let full = list.len() >= max;
    if full {
        list.pop_front();
    }
    list.push_back(value);
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_key_goes_first() {
        let mut lru: Lru<u32, u32> = Lru::new(2);
        *lru.touch(&1) = 10;
        *lru.touch(&2) = 20;
        lru.touch(&1);
        *lru.touch(&3) = 30;
        assert_eq!(
            (lru.get(&1), lru.get(&2), lru.get(&3)),
            (Some(&10), None, Some(&30))
        );
        assert_eq!(lru.forgotten(), 1);
        for key in 0..10_000 {
            lru.touch(&key);
        }
        assert_eq!(lru.entries.len(), 2);
        assert_eq!(lru.by_age.len(), 2);
    }
}
