//! Where a write with O_DSYNC waits: in the write, or in the sync that it ends with.
//! No call shows the seam, so a thread beside it reads the kernel's own stack of the
//! caller (/proc/self/task/TID/stack) while the call lasts. In: that a call begins
//! and ends. Out: how long it was seen before its sync.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::faultdisk::Stamp;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(2);

/// Calls in flight, by thread: when each began, and when it was last seen in its write.
static CALLS: Mutex<BTreeMap<u32, (u64, u64)>> = Mutex::new(BTreeMap::new());
static BEGUN: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, BTreeMap<u32, (u64, u64)>> {
    CALLS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Starts the thread that looks.
pub(super) fn start() -> std::io::Result<()> {
    thread::Builder::new().name("stacks".to_owned()).spawn(|| {
        loop {
            let mut calls = lock();
            while calls.is_empty() {
                calls = BEGUN.wait(calls).unwrap_or_else(|e| e.into_inner());
            }
            let tids: Vec<u32> = calls.keys().copied().collect();
            drop(calls);
            for tid in tids {
                look(tid);
            }
            thread::sleep(PERIOD);
        }
    })?;
    Ok(())
}

fn look(tid: u32) {
    let Ok(stack) = fs::read_to_string(format!("/proc/self/task/{tid}/stack")) else {
        return;
    };
    let now_ns = Stamp::now().monotonic_ns;
    if is_before_sync(&stack)
        && let Some((_, seen_ns)) = lock().get_mut(&tid)
    {
        *seen_ns = now_ns;
    }
}

/// In a write, and not in its sync: ext4's and xfs's have `_file_fsync` or
/// `_sync_file` in their names, what they share is `vfs_fsync_range`.
fn is_before_sync(stack: &str) -> bool {
    stack.contains("vfs_write") && !stack.contains("sync_file") && !stack.contains("fsync")
}

/// This thread makes the call; how long of it was seen before its sync, ns.
pub(super) fn watched<T>(call: impl FnOnce() -> T) -> (T, u64) {
    // SAFETY: no preconditions.
    let tid = unsafe { libc::gettid() } as u32;
    let begin_ns = Stamp::now().monotonic_ns;
    lock().insert(tid, (begin_ns, begin_ns));
    BEGUN.notify_one();
    let done = call();
    let (begin_ns, seen_ns) = lock().remove(&tid).unwrap_or_default();
    (done, seen_ns - begin_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_the_journal_is_before_the_sync_and_a_flush_is_in_it() {
        let before = "[<0>] do_get_write_access+0x2a4\n[<0>] ext4_reserve_inode_write+0x8e\n\
                      [<0>] ext4_buffered_write_iter+0x60\n[<0>] vfs_write+0x29c\n";
        assert!(is_before_sync(before));
        let within = "[<0>] submit_bio_wait+0x74\n[<0>] blkdev_issue_flush+0x7c\n\
                      [<0>] ext4_sync_file+0x242\n[<0>] vfs_write+0x29c\n";
        assert!(!is_before_sync(within));
        assert!(!is_before_sync(""));
    }
}
