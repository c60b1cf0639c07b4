//! Devices between the file system and the disk, made by ioctl (the guest has no
//! tools): a partition, targets of device-mapper, software RAID. In: the disk, which.
//! Out: the device to mount; what is made stays until it is removed. Only for
//! process 1.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::fault::Fault;
use super::protocol::Stage;
use super::system;

/// Where the file system begins on a disk with a stack: a sector of the one is never
/// that of the other by chance.
pub const FIRST_SECTOR: u64 = 2048;

/// Name of the device-mapper device.
const DM_NAME: &str = "kafka";
/// How long [`Fault::DmDelay`] holds each write.
const DM_DELAY_MS: u64 = 4000;

/// What stands on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// What is mounted: `/dev/dm-0`.
    pub device: PathBuf,
    /// Kernel names of the devices above the disk, top first: `dm-0`.
    pub layers: Vec<String>,
    fault: Fault,
    /// Sectors of the device.
    length: u64,
}

/// Makes the partition that all of the disk behind [`FIRST_SECTOR`] is, once.
pub fn add_partition(disk: &Path) -> anyhow::Result<PathBuf> {
    let device = PathBuf::from(format!("{}p1", disk.display()));
    if !device.exists() {
        let length = sectors_of(disk)? - FIRST_SECTOR;
        let file = open(disk)?;
        let mut partition = partition_request(FIRST_SECTOR, length);
        let mut request = BlkpgIoctl {
            op: BLKPG_ADD_PARTITION,
            flags: 0,
            len: partition.len() as libc::c_int,
            data: partition.as_mut_ptr().cast(),
        };
        // SAFETY: the request and what it points to live through the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), BLKPG as _, &raw mut request) };
        checked(done).with_context(|| format!("add a partition to {}", disk.display()))?;
        system::wait_for_path(&device, Duration::from_secs(10))?;
    }
    Ok(device)
}

/// Builds what a fault wants on `disk`, which has a partition.
pub fn build(disk: &Path, fault: Fault) -> anyhow::Result<Stack> {
    let partition = add_partition(disk)?;
    let length = sectors_of(&partition)?;
    let part_name = name_of(&partition)?;
    let (device, layers) = match fault {
        Fault::DmLinear | Fault::DmDelay | Fault::DmError => {
            let device = make_dm(&table(disk, fault, length, None))?;
            let name = name_of(&device)?;
            (device, vec![name])
        }
        Fault::Md => (
            make_md(&partition, length)?,
            vec!["md0".to_owned(), part_name],
        ),
        _ => (partition, vec![part_name]),
    };
    Ok(Stack {
        device,
        layers,
        fault,
        length,
    })
}

impl Stack {
    /// Where on the disk a sector of the mounted device is.
    pub fn on_disk(&self, sector: u64) -> u64 {
        sector + FIRST_SECTOR
    }

    /// Makes the layer itself fail these sectors of the device, both included, or hold
    /// all writes; `None`: as it was built.
    pub fn harm(&self, disk: &Path, hit: Option<(u64, u64)>) -> anyhow::Result<()> {
        load_dm(&table(disk, self.fault, self.length, hit))
    }

    /// Takes down what is above the partition.
    pub fn remove(self) -> anyhow::Result<()> {
        match self.fault {
            Fault::DmLinear | Fault::DmDelay | Fault::DmError => {
                dm(DM_DEV_REMOVE, 0, &[]).map(|_| ())
            }
            Fault::Md => {
                let file = open(&self.device)?;
                // SAFETY: takes no argument.
                let done = unsafe { libc::ioctl(file.as_raw_fd(), STOP_ARRAY as _, 0) };
                checked(done).context("stop md0")
            }
            _ => Ok(()),
        }
    }
}

/// A device as the kernel names it.
fn name_of(device: &Path) -> anyhow::Result<String> {
    let name = device.file_name().context("a device without a name")?;
    Ok(name.to_string_lossy().into_owned())
}

fn sectors_of(device: &Path) -> anyhow::Result<u64> {
    let path = format!("/sys/class/block/{}/size", name_of(device)?);
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.trim().parse().with_context(|| format!("read {path}"))
}

fn open(device: &Path) -> anyhow::Result<File> {
    let options = OpenOptions::new().read(true).write(true).open(device);
    options.with_context(|| format!("open {}", device.display()))
}

fn checked(done: libc::c_int) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

// ---- partitions: include/uapi/linux/blkpg.h

const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgIoctl {
    op: libc::c_int,
    flags: libc::c_int,
    len: libc::c_int,
    data: *mut libc::c_void,
}

/// `struct blkpg_partition`: start and length in bytes, number, two names of 64 bytes.
fn partition_request(first_sector: u64, length: u64) -> [u8; 152] {
    let mut bytes = [0; 152];
    bytes[..8].copy_from_slice(&(first_sector * 512).to_ne_bytes());
    bytes[8..16].copy_from_slice(&(length * 512).to_ne_bytes());
    bytes[16..20].copy_from_slice(&1_u32.to_ne_bytes());
    bytes
}

// ---- device-mapper: include/uapi/linux/dm-ioctl.h

/// `_IOWR(0xfd, N, struct dm_ioctl)`.
const DM_IOCTL: libc::c_ulong = 0xC138_FD00;
const DM_DEV_CREATE: libc::c_ulong = 3;
const DM_DEV_REMOVE: libc::c_ulong = 4;
const DM_DEV_SUSPEND: libc::c_ulong = 6;
const DM_TABLE_LOAD: libc::c_ulong = 9;
const DM_SUSPEND_FLAG: u32 = 1 << 1;
/// The file system is not frozen: a writer that waits must not wait for that, too.
const DM_SKIP_LOCKFS_FLAG: u32 = 1 << 10;
/// `struct dm_ioctl`, and `struct dm_target_spec` behind it.
const HEAD_BYTES: usize = 312;
const TARGET_BYTES: usize = 40;

/// One target of a table; in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    start: u64,
    length: u64,
    kind: &'static str,
    args: String,
}

/// The table of a fault's device; `hit`: these sectors are made to fail, or all writes
/// are held.
fn table(disk: &Path, fault: Fault, length: u64, hit: Option<(u64, u64)>) -> Vec<Target> {
    let at = |start: u64| format!("{} {}", disk.display(), start + FIRST_SECTOR);
    let linear = |start: u64, end: u64| Target {
        start,
        length: end - start,
        kind: "linear",
        args: at(start),
    };
    match (fault, hit) {
        (Fault::DmDelay, hit) => {
            let held_ms = if hit.is_some() { DM_DELAY_MS } else { 0 };
            vec![Target {
                start: 0,
                length,
                kind: "delay",
                args: format!("{} 0 {} {held_ms}", at(0), at(0)),
            }]
        }
        (Fault::DmError, Some((first, last))) => {
            let error = Target {
                start: first,
                length: last + 1 - first,
                kind: "error",
                args: String::new(),
            };
            let parts = [linear(0, first), error, linear(last + 1, length)];
            parts.into_iter().filter(|part| part.length > 0).collect()
        }
        _ => vec![linear(0, length)],
    }
}

fn make_dm(targets: &[Target]) -> anyhow::Result<PathBuf> {
    system::load_stage(Stage::Stack)?;
    let made = dm(DM_DEV_CREATE, 0, &[])?;
    // `dev` of the head, in the kernel's wide encoding; small minors stand below.
    let minor = made[40];
    load_dm(targets)?;
    let device = PathBuf::from(format!("/dev/dm-{minor}"));
    system::wait_for_path(&device, Duration::from_secs(10))?;
    Ok(device)
}

/// Puts a table in force.
fn load_dm(targets: &[Target]) -> anyhow::Result<()> {
    dm(DM_TABLE_LOAD, 0, targets)?;
    dm(DM_DEV_SUSPEND, DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG, &[])?;
    dm(DM_DEV_SUSPEND, 0, &[]).map(|_| ())
}

fn dm(command: libc::c_ulong, flags: u32, targets: &[Target]) -> anyhow::Result<Vec<u8>> {
    const CONTROL: &str = "/dev/mapper/control";
    system::wait_for_path(Path::new(CONTROL), Duration::from_secs(10))?;
    let control = open(Path::new(CONTROL))?;
    let mut request = dm_request(DM_NAME, flags, targets);
    // SAFETY: the request says its own size and lives through the call.
    let done = unsafe {
        let number = DM_IOCTL | command;
        libc::ioctl(control.as_raw_fd(), number as _, request.as_mut_ptr())
    };
    checked(done).with_context(|| format!("ask device-mapper for {command} with {targets:?}"))?;
    Ok(request)
}

/// A request of device-mapper: head, targets. Pure.
fn dm_request(name: &str, flags: u32, targets: &[Target]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    for target in targets {
        let args = target.args.as_bytes();
        let size = (TARGET_BYTES + args.len() + 1).next_multiple_of(8);
        let mut spec = vec![0; size];
        spec[..8].copy_from_slice(&target.start.to_ne_bytes());
        spec[8..16].copy_from_slice(&target.length.to_ne_bytes());
        spec[20..24].copy_from_slice(&(size as u32).to_ne_bytes());
        spec[24..24 + target.kind.len()].copy_from_slice(target.kind.as_bytes());
        spec[TARGET_BYTES..TARGET_BYTES + args.len()].copy_from_slice(args);
        bytes.extend_from_slice(&spec);
    }
    let size = bytes.len() as u32;
    bytes[..4].copy_from_slice(&4_u32.to_ne_bytes());
    bytes[12..16].copy_from_slice(&size.to_ne_bytes());
    bytes[16..20].copy_from_slice(&(HEAD_BYTES as u32).to_ne_bytes());
    bytes[20..24].copy_from_slice(&(targets.len() as u32).to_ne_bytes());
    bytes[28..32].copy_from_slice(&flags.to_ne_bytes());
    bytes[48..48 + name.len()].copy_from_slice(name.as_bytes());
    bytes
}

// ---- software RAID: include/uapi/linux/raid/md_u.h

/// `_IOW(9, 0x23, mdu_array_info_t)`, `_IOW(9, 0x21, mdu_disk_info_t)`,
/// `_IOW(9, 0x30, mdu_param_t)`, `_IO(9, 0x32)`.
const SET_ARRAY_INFO: libc::c_ulong = 0x4048_0923;
const ADD_NEW_DISK: libc::c_ulong = 0x4014_0921;
const RUN_ARRAY: libc::c_ulong = 0x400C_0930;
const STOP_ARRAY: libc::c_ulong = 0x0932;
/// Active and in sync (MD_DISK_ACTIVE, MD_DISK_SYNC, as bits).
const MD_DISK_IN_SYNC: i32 = 0b110;
const CHUNK_BYTES: i32 = 64 << 10;

/// An array of level 0 over one device, without a superblock: its sectors are those
/// of the device.
fn make_md(under: &Path, length: u64) -> anyhow::Result<PathBuf> {
    system::load_stage(Stage::Stack)?;
    let device = PathBuf::from("/dev/md0");
    if !device.exists() {
        const NEW_ARRAY: &str = "/sys/module/md_mod/parameters/new_array";
        fs::write(NEW_ARRAY, "md0").with_context(|| format!("write {NEW_ARRAY}"))?;
        system::wait_for_path(&device, Duration::from_secs(10))?;
    }
    let (major, minor) = numbers_of(under)?;
    let array = open(&device)?;
    let ask = |number: libc::c_ulong, words: &[i32], what: &str| {
        // SAFETY: the words are those of the request's struct, and live through it.
        let done = unsafe { libc::ioctl(array.as_raw_fd(), number as _, words.as_ptr()) };
        checked(done).with_context(|| format!("{what} md0"))
    };
    // mdu_array_info_t: version (3), ctime; level, size (KiB), nr_disks, raid_disks,
    // md_minor, not_persistent; utime, state, disks by state (4); layout, chunk_size.
    let mut info = [0; 18];
    (info[5], info[6], info[7], info[9]) = ((length / 2) as i32, 1, 1, 1);
    info[17] = CHUNK_BYTES;
    ask(SET_ARRAY_INFO, &info, "describe")?;
    // mdu_disk_info_t: number, major, minor, raid_disk, state.
    ask(
        ADD_NEW_DISK,
        &[0, major, minor, 0, MD_DISK_IN_SYNC],
        "add to",
    )?;
    ask(RUN_ARRAY, &[0; 3], "run")?;
    Ok(device)
}

fn numbers_of(device: &Path) -> anyhow::Result<(i32, i32)> {
    let path = format!("/sys/class/block/{}/dev", name_of(device)?);
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let (major, minor) = text.trim().split_once(':').context("no number")?;
    Ok((major.parse()?, minor.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_device_mapper_has_the_documented_form() {
        let targets = table(Path::new("/dev/x"), Fault::DmError, 100, Some((8, 15)));
        let kinds: Vec<_> = targets
            .iter()
            .map(|t| (t.kind, t.start, t.length))
            .collect();
        assert_eq!(
            kinds,
            [("linear", 0, 8), ("error", 8, 8), ("linear", 16, 84)]
        );
        assert_eq!(targets[2].args, "/dev/x 2064");
        let bytes = dm_request("kafka", DM_SUSPEND_FLAG, &targets);
        let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!((word(12) as usize, word(20), word(28)), (bytes.len(), 3, 2));
        assert_eq!(&bytes[48..54], b"kafka\0");
        assert_eq!(&bytes[HEAD_BYTES + 24..HEAD_BYTES + 31], b"linear\0");
        // The second begins where the first says.
        let next = word(HEAD_BYTES + 20) as usize;
        assert_eq!(&bytes[HEAD_BYTES + next + 24..][..6], b"error\0");
    }

    #[test]
    fn a_layer_that_is_not_harmed_changes_nothing() {
        for fault in [Fault::DmLinear, Fault::DmError] {
            let plain = table(Path::new("/dev/x"), fault, 100, None);
            assert_eq!((plain.len(), plain[0].kind), (1, "linear"));
        }
        let plain = table(Path::new("/dev/x"), Fault::DmDelay, 100, None);
        assert_eq!(plain[0].args, "/dev/x 2048 0 /dev/x 2048 0");
        let held = table(Path::new("/dev/x"), Fault::DmDelay, 100, Some((0, 7)));
        assert_eq!(held[0].args, "/dev/x 2048 0 /dev/x 2048 4000");
    }

    #[test]
    fn a_partition_is_given_in_bytes() {
        let bytes = partition_request(2048, 16);
        let word = |at: usize| u64::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!((word(0), word(8)), (1 << 20, 8192));
    }
}
