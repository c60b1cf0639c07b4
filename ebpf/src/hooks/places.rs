//! A short way to what a sync must know of its file: under which directory it lies,
//! and that nothing was counted for it. INODES costs several cold lines of memory and
//! pages of its own, which on a load of many files is more than all else that a sync
//! costs; here it is one line of one small table. In: an inode's number, its dentry's
//! place. Out: a root slot. Not at the level `full`, which counts every request for
//! its file.

use fsyncscope_abi::{
    facts::detail,
    keys::InodeKey,
    sync::{InodeCounters, SyncState},
};

use crate::{
    kernel::{fact, read::Addr},
    maps::{NR_PLACES, PLACES},
};

/// Everything of a word but the root.
const NOT_ROOT: u64 = !0xffff_0000;
/// An entry holds for 2^33 ns (8.6 s) at most: then INODES is touched again, or the
/// least recently used there would be who syncs most.
const LIFE_SHIFT: u32 = 33;

/// Name, root, and when and in which epoch they belonged together. A root is as small
/// as an epoch; 251 spreads one over the other.
#[inline(always)]
fn word_of(name_hash: u32, root: u16, epoch: u16, enter_ns: u64) -> u64 {
    let age = ((enter_ns >> LIFE_SHIFT) as u16).wrapping_mul(251);
    u64::from(name_hash) << 32 | u64::from(root) << 16 | u64::from(epoch.wrapping_add(age))
}

/// Fills in what INODES would say; false: ask INODES. A torn entry, written by two
/// CPUs at once, matches nobody: a name's hash is salted with its directory.
#[inline(always)]
pub fn recall(
    state: &mut SyncState,
    key: &InodeKey,
    (parent, name_hash): (Addr, u32),
    epoch: u16,
) -> bool {
    if fact!(detail) == detail::FULL || parent == 0 {
        return false;
    }
    let Some(place) = PLACES.get_ptr(index_of(key)) else {
        return false;
    };
    // SAFETY: a live map value.
    let place = unsafe { &*place };
    let word = &raw const place.word;
    // SAFETY: likewise; read once, others may write it.
    let word = unsafe { word.read_volatile() };
    let wanted = word_of(name_hash, 0, epoch, state.enter_ns);
    if place.parent != parent || word & NOT_ROOT != wanted || place.is_counted != 0 {
        return false;
    }
    state.root = (word >> 16) as u16;
    // Nothing was counted for it so far.
    state.snap = InodeCounters::default();
    true
}

/// Remembers what INODES said.
#[inline(always)]
pub fn remember(state: &SyncState, key: &InodeKey, (parent, name_hash): (Addr, u32), epoch: u16) {
    if fact!(detail) == detail::FULL || parent == 0 {
        return;
    }
    if let Some(place) = PLACES.get_ptr_mut(index_of(key)) {
        // SAFETY: a live map value.
        unsafe {
            (*place).parent = parent;
            (*place).word = word_of(name_hash, state.root, epoch, state.enter_ns);
        }
    }
}

#[inline(always)]
fn index_of(key: &InodeKey) -> u32 {
    (key.ino as u32 ^ key.s_dev.wrapping_mul(31)) & (NR_PLACES - 1)
}

/// Something is counted for this file, or for one that has its place: from now on
/// INODES is asked.
#[inline(always)]
pub fn mark(key: &InodeKey) {
    if fact!(detail) == detail::FULL {
        return;
    }
    if let Some(place) = PLACES.get_ptr_mut(index_of(key)) {
        // SAFETY: a live map value. All who write, write 1.
        unsafe { (*place).is_counted = 1 };
    }
}

/// The same from within a long chain of calls: the map's key lies on a stack of its
/// own, of which 5.10 allows 512 bytes to the whole chain.
#[inline(never)]
pub fn mark_apart(ino: u64, s_dev: u32) {
    mark(&InodeKey { ino, s_dev, pad: 0 });
}
