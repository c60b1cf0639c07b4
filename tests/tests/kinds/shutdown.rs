//! A msync that fails before it reaches the file system, which was shut down: no event
//! names its file, and it has no descriptor.

use std::fs::File;
use std::os::fd::AsRawFd;

use fsyncscope_tests::faultdisk::FsKind;

use crate::agent::watch;
use crate::{lab, of_file, stage};

/// EXT4_IOC_SHUTDOWN, `_IOR('X', 125, __u32)` (fs/ext4/ext4.h, include/uapi/linux/ext4.h).
const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// EXT4_GOING_FLAGS_NOLOGFLUSH.
static NO_LOG_FLUSH: u32 = 2;
const BYTES: usize = 64 << 10;

#[test]
fn a_msync_on_a_file_system_that_was_shut_down_has_its_file() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Ext4);
    let path = dir.join("orders-0").join("00000000000000000000.index");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.set_len(BYTES as u64).unwrap();
    file.sync_all().unwrap();
    let mut agent = watch(&lab, &dir);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let (fd, nowhere) = (file.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(nowhere, BYTES, protection, libc::MAP_SHARED, fd, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    let mountpoint = File::open(disk.mountpoint()).unwrap();
    // SAFETY: the argument is a u32 that lives through the call.
    let done = unsafe {
        libc::ioctl(
            mountpoint.as_raw_fd(),
            EXT4_IOC_SHUTDOWN,
            &raw const NO_LOG_FLUSH,
        )
    };
    assert_eq!(done, 0);
    // SAFETY: the mapping above.
    let done = unsafe { libc::msync(start, BYTES, libc::MS_SYNC) };
    assert_eq!(done, -1);
    let (incident, sync) = agent.wait_for("failed msync", |line| of_file(line, &path));
    assert_eq!(sync["op"], "msync", "{incident}");
    assert_eq!(sync["errno"], "EIO", "{incident}");
    assert_eq!(sync["topic_partition"], "orders-0", "{incident}");
    agent.finish();
    // SAFETY: the mapping above, of which nothing is borrowed.
    unsafe { libc::munmap(start, BYTES) };
}
