//! All maps. Each comment says who writes, who reads, the key, and what happens
//! when it is full. Sizes are for one host with a few brokers; memory is
//! allocated at load except where `NO_PREALLOC` is set.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use fsyncscope_abi::{
    block::{BlockHist, FlushState, InodeState, Place, RqState},
    hist::{Hist, HistKey},
    keys::{InodeKey, Names, Target},
    loss::Loss,
    span::{FsState, OpenWait, RequestSpan, SPANS_PER_PAGE, WaitSpan},
    sync::SyncState,
};

/// Records for the agent. Written by all hooks, read by the agent. Full: the
/// record is dropped and counted as `ring_full`.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Watched processes by tgid. Written by the agent, read at each sync's start.
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(1024, 0);

/// Syncs by tid. Written by the sync hooks, read by the agent's tick, which
/// also removes threads that are gone. Full: `ops_full`, the sync is not seen.
#[map]
pub static OPS: HashMap<u32, SyncState> = HashMap::with_max_entries(8192, 0);

/// Disks whose requests count (major << 20 | minor). Written by the agent.
#[map]
pub static DEVS: HashMap<u32, u32> = HashMap::with_max_entries(256, 0);

/// NVMe disks whose requests count, by [`fsyncscope_abi::block::head_key`] of their
/// name → the disk. What multipath sends by a path (nvme0c1n1, whose number sysfs
/// hides) counts for its head (nvme0n1). Written by the agent.
#[map]
pub static HEADS: HashMap<u64, u32> = HashMap::with_max_entries(256, 0);

/// NVMe commands that ended with a status, also those that were sent again, by
/// disk, status code type and code. Written by the NVMe hook, which makes keys for
/// watched disks only; read by the agent. Full: `hist_full`.
#[map]
pub static NVME_ERRORS: HashMap<u64, u64> = HashMap::with_max_entries(1024, 0);

/// Watched directories by inode → broker slot << 16 | root slot. Written by the agent.
#[map]
pub static ROOTS: HashMap<InodeKey, u32> = HashMap::with_max_entries(1024, 0);

/// File systems (s_dev) that carry a watched directory, with what their journals
/// do now. Made by the agent (by the journal hooks where everything is watched),
/// written by the journal hooks, read by the agent for syncs in flight. Full: that
/// journal's commits are not told.
#[map]
pub static FILESYSTEMS: HashMap<u32, FsState> = HashMap::with_max_entries(256, 0);

/// Requests by pointer; least recently used out. Written by the block hooks,
/// read by the agent for what is outstanding.
#[map]
pub static RQS: LruHashMap<u64, RqState> = LruHashMap::with_max_entries(16384, 0);

/// Files by inode; least recently used out. Written by all hooks.
#[map]
pub static INODES: LruHashMap<InodeKey, InodeState> = LruHashMap::with_max_entries(8192, 0);

/// Places in PLACES; a power of two.
pub const NR_PLACES: u32 = 2048;

/// Files by a hash of their number, see `hooks::places`. Written and read by the sync
/// hooks, marked by all that count for a file.
#[map]
pub static PLACES: Array<Place> = Array::with_max_entries(NR_PLACES, 0);

/// Names of files that were synced, for syncs still in flight; least recently
/// used out. Written when a file is first synced, read by the agent.
#[map]
pub static NAMES: LruHashMap<InodeKey, Names> = LruHashMap::with_max_entries(2048, 0);

/// Sync latency. Keys are made by the agent for every known combination, and by
/// the sync hooks for others. Read by the agent at scrape. Full: `hist_full`.
#[map]
pub static HIST: PerCpuHashMap<HistKey, Hist> =
    PerCpuHashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Request latency by (disk, op). Keys are made by the agent only.
#[map]
pub static BLOCK_HIST: PerCpuHashMap<u64, BlockHist> =
    PerCpuHashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Device cache flushes by disk. Keys are made by the agent.
#[map]
pub static FLUSHES: HashMap<u32, FlushState> = HashMap::with_max_entries(256, 0);

/// Requests that took `span_min_ns` or failed: of each CPU the last ones, in
/// pages; span `n` lies at place `n % (pages * SPANS_PER_PAGE)`. Written by the
/// completion hook, read by the agent when a sync was slow. Overwrites its oldest.
/// The agent sets the number of pages before load.
#[map]
pub static RQ_SPANS: PerCpuArray<[RequestSpan; SPANS_PER_PAGE]> =
    PerCpuArray::with_max_entries(1, 0);

/// `RQ_SPAN_HEAD[0]`: request spans that this CPU has begun to write.
#[map]
pub static RQ_SPAN_HEAD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Waits likewise. A map of its own, because completions interrupt the hooks that
/// write it.
#[map]
pub static WAIT_SPANS: PerCpuArray<[WaitSpan; SPANS_PER_PAGE]> =
    PerCpuArray::with_max_entries(1, 0);

/// `WAIT_SPAN_HEAD[0]`: wait spans that this CPU has begun to write.
#[map]
pub static WAIT_SPAN_HEAD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Fast commits that go on, by thread; least recently used out. Written by the
/// journal hooks, read by the agent for syncs in flight.
#[map]
pub static FAST_COMMITS: LruHashMap<u32, OpenWait> = LruHashMap::with_max_entries(1024, 0);

/// Names of other files whose requests took long; least recently used out. Written
/// by the completion hook, read by the agent. Not NAMES: a bystander's storm must
/// not push out the names of syncs in flight.
#[map]
pub static SPAN_NAMES: LruHashMap<InodeKey, Names> = LruHashMap::with_max_entries(512, 0);

/// `EPOCH[0]`: raised by the agent whenever TARGETS, DEVS or ROOTS change: what
/// was concluded from them is concluded again. Starts at 1.
#[map]
pub static EPOCH: Array<u32> = Array::with_max_entries(1, 0);

/// `WATCHED_SINCE[0]`: CLOCK_MONOTONIC at which DEVS last changed; 0 until all hooks
/// are attached. Written by the
/// agent: a request allocated before may complete without its issue being seen.
#[map]
pub static WATCHED_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// Losses by class, see [`Loss`]. Read by the agent.
#[map]
pub static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT as u32, 0);

/// Room to build values that are too large for the 512-byte stack.
#[map]
pub static SCRATCH_HIST: PerCpuArray<Hist> = PerCpuArray::with_max_entries(1, 0);

/// Likewise, for names.
#[map]
pub static SCRATCH_NAMES: PerCpuArray<Names> = PerCpuArray::with_max_entries(1, 0);

/// Likewise, for names in the completion hook, which may interrupt the others.
#[map]
pub static SCRATCH_SPAN_NAMES: PerCpuArray<Names> = PerCpuArray::with_max_entries(1, 0);

/// What an entry of INODES begins as. Not built on the stack: up to 6.12 a chain of
/// calls has 512 bytes of it in all.
static FRESH_INODE: InodeState = InodeState::fresh();

/// Makes an entry of INODES; another CPU may have made it in the meantime.
#[inline(always)]
pub fn add_inode(key: &InodeKey) -> Option<*mut InodeState> {
    let _ = INODES.insert(key, &FRESH_INODE, u64::from(BPF_NOEXIST));
    let made = INODES.get_ptr_mut(key);
    if made.is_none() {
        lost(Loss::InodeFull);
    }
    made
}

/// Counts a loss.
#[inline(always)]
pub fn lost(class: Loss) {
    if let Some(counter) = LOSS.get_ptr_mut(class as u32) {
        // SAFETY: the pointer is this CPU's element, valid for the program's run.
        unsafe { *counter += 1 }
    }
}

/// Which generation of DEVS and ROOTS is in force.
#[inline(always)]
pub fn epoch() -> u16 {
    EPOCH.get(0).copied().unwrap_or(1) as u16
}

/// Adds to a counter that other CPUs may be adding to. Its result is not used:
/// 5.10 knows no fetching atomics.
#[inline(always)]
pub fn atomic_add(counter: *mut u64, value: u64) {
    // SAFETY: callers pass an aligned field of a live map value. Rust has no
    // atomics for this target, so this is the instruction itself (BPF_XADD).
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) value);
    }
}
