//! Fields of `struct request`. The disk hangs at `rq->rq_disk` before 5.17
//! (f3fa33acca9f) and at `rq->q->disk` since; `struct gendisk` begins with
//! major and first_minor everywhere.

use fsyncscope_abi::{
    block::{DISK_NAME_LEN, head_key},
    facts::UNKNOWN,
};

use crate::{
    kernel::{
        fact,
        read::{Addr, Mem, Probe, probe, probe_into},
    },
    maps::HEADS,
};

/// `struct gendisk *` of a request; 0 = none.
#[inline(always)]
pub fn disk_of<M: Mem>(rq: Addr) -> Addr {
    if fact!(request_rq_disk) != UNKNOWN {
        return M::u64(rq, fact!(request_rq_disk));
    }
    let q = M::u64(rq, fact!(request_q));
    if q == 0 {
        return 0;
    }
    M::u64(q, fact!(request_queue_disk))
}

/// Writes the name of a gendisk to ring memory.
#[inline(always)]
pub fn read_name_of_disk(disk: Addr, name: &mut [u8; DISK_NAME_LEN]) {
    let is_known = disk != 0 && fact!(gendisk_disk_name) != UNKNOWN;
    if !is_known || !probe_into(disk, fact!(gendisk_disk_name), name) {
        *name = [0; DISK_NAME_LEN];
    }
}

/// The disk as which a path of NVMe multipath counts, by its name: its number is
/// hidden from sysfs. 0 = no path of a watched disk.
#[inline(always)]
pub fn head_of(disk: Addr) -> u32 {
    if fact!(gendisk_disk_name) == UNKNOWN {
        return 0;
    }
    let name: [u64; 2] = probe(disk, fact!(gendisk_disk_name));
    // SAFETY: read only.
    unsafe { HEADS.get(&head_key(name)) }.copied().unwrap_or(0)
}

/// Number of a gendisk.
#[inline(always)]
pub fn dev_of_disk<M: Mem>(disk: Addr) -> u32 {
    let major = M::u32(disk, fact!(gendisk_major));
    let minor = M::u32(disk, fact!(gendisk_first_minor));
    (major << 20) | (minor & 0xf_ffff)
}

/// Device that a bio was sent to, a partition where it was one, as major << 20 |
/// minor: the file system's own device unless something is stacked in between.
/// 0 = unknown, as before 5.12.
#[inline(always)]
pub fn dev_of_bio(bio: Addr) -> u32 {
    if bio == 0 || fact!(bio_bi_bdev) == UNKNOWN || fact!(block_device_bd_dev) == UNKNOWN {
        return 0;
    }
    let bdev = Probe::u64(bio, fact!(bio_bi_bdev));
    if bdev == 0 {
        return 0;
    }
    Probe::u32(bdev, fact!(block_device_bd_dev))
}
