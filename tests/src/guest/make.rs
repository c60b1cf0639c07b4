//! How each fault is made, and unmade. In: the fault, the file that is to be hit.
//! Out: rules in the disk, writes to /sys, a full file system. What is expected
//! of it is in `expect`.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::cells::{DATA_DIR, Machine};
use super::effect::Reset;
use super::fault::Fault;
use super::journal;
use crate::faultdisk::device::read_file_sectors;
use crate::faultdisk::{Rule, RuleOp};
use crate::writer::{Pause, SyncCall, WriterConfig};

/// `--stall` of the agent: an emulated machine under load may hold a sync for a
/// second without any fault.
pub const STALL: &str = "3s";

/// How long the disk holds a write in [`Fault::Stall`] and [`Fault::Reset`].
const HELD_MS: u64 = 7000;

/// How long it holds a flush in [`Fault::BrokerHang`].
const BROKER_HELD_MS: u64 = 20_000;

/// How long a healthy writer is watched.
pub const HEALTHY_TIME: Duration = Duration::from_secs(4);

/// The file that makes the writer of [`Fault::LateError`] pause.
const PAUSE_NOW: &str = "/tmp/pause-now";

/// From the agent's line of a broker until it knows the disk below, on a machine
/// that is emulated and shared.
pub const SETTLE_TIME: Duration = Duration::from_secs(3);

/// A record of the writer, and how many a segment has before it begins again:
/// from then on its blocks are known, and are written in place.
const RECORD_BYTES: u64 = 4096;
const RECORDS: u64 = 8;

/// How long a segment stays unsynced in [`Fault::LateError`].
const LATE_MS: u64 = 7000;

/// Incidents of one kind on one disk are one: two faults of a kind need an agent
/// each.
pub fn kind(fault: Fault) -> &'static str {
    match fault {
        Fault::Healthy | Fault::BrokenFact => "nothing",
        Fault::Stall | Fault::Reset | Fault::BrokerHang | Fault::DmDelay => "stall",
        Fault::NoSpace => "no-space",
        Fault::WriteError
        | Fault::LateError
        | Fault::FlushError
        | Fault::JournalError
        | Fault::Timeout
        | Fault::Removed
        | Fault::BrokerWriteError
        | Fault::Partition
        | Fault::DmLinear
        | Fault::Md
        | Fault::DmError
        | Fault::LateModules
        | Fault::ForcedTracepoint => "error",
    }
}

/// The writer for a cell.
pub fn writer_config(fault: Fault, log_dir: &Path) -> WriterConfig {
    let work_dir = PathBuf::from("/tmp").join(format!("writer-{}", fault.name()));
    let mut config = WriterConfig::new(work_dir, vec![log_dir.to_owned()]);
    config.partitions = 2;
    config.record_bytes = RECORD_BYTES;
    config.segment_bytes = RECORD_BYTES * RECORDS;
    config.hold_before_first_sync_ms = 200;
    config.checkpoint_ms = 0;
    match fault {
        Fault::LateError => {
            config.partitions = 1;
            config.pause = Some(Pause {
                when: PathBuf::from(PAUSE_NOW),
                ms: LATE_MS,
            });
        }
        // Without a new size or a new block, fdatasync on ext4 needs no commit:
        // the flush is all that it asks of the device.
        Fault::FlushError => {
            config.sync = SyncCall::Fdatasync;
            config.msync = false;
        }
        Fault::NoSpace => config.segment_bytes = 64 << 20,
        Fault::Healthy => config.checkpoint_ms = 1000,
        _ => {}
    }
    config
}

/// So many flushes before the fault: the segments have begun again.
pub const WARM_UP_FLUSHES: u64 = 3 * RECORDS;

/// How long to wait for the answer.
pub fn answer_limit(fault: Fault) -> Duration {
    Duration::from_secs(match fault {
        Fault::Healthy | Fault::BrokenFact => 0,
        Fault::WriteError | Fault::FlushError | Fault::NoSpace => 20,
        Fault::ForcedTracepoint => 20,
        Fault::Partition | Fault::DmLinear | Fault::Md => 20,
        Fault::DmError | Fault::LateModules => 20,
        Fault::JournalError => 30,
        Fault::LateError | Fault::Stall | Fault::Reset | Fault::DmDelay => 30,
        Fault::Timeout => 120,
        Fault::Removed | Fault::BrokerHang | Fault::BrokerWriteError => 60,
    })
}

/// Makes the fault.
pub fn begin(machine: &mut Machine, fault: Fault, victim: &Path) -> anyhow::Result<()> {
    // Extent by extent: between them may lie blocks of other files.
    let stack = machine.stack.clone();
    let sectors_of_victim = || -> anyhow::Result<Vec<(u64, u64)>> {
        let sectors = read_file_sectors(victim)?;
        anyhow::ensure!(!sectors.is_empty(), "the segment has no blocks yet");
        Ok(sectors)
    };
    let on_disk = |sector: u64| stack.as_ref().map_or(sector, |stack| stack.on_disk(sector));
    let on_victim = |rule: Rule| -> anyhow::Result<Vec<Rule>> {
        let sectors = sectors_of_victim()?;
        let ranges = sectors.iter();
        Ok(ranges
            .map(|(first, last)| rule.clone().sectors(on_disk(*first), on_disk(*last)))
            .collect())
    };
    let once_on_victim = |rule: Rule| -> anyhow::Result<Vec<Rule>> {
        let mut rules = on_victim(rule.count(1))?;
        rules.truncate(1);
        Ok(rules)
    };
    let write = || Rule::on(RuleOp::Write);
    match fault.on_disk() {
        Fault::Healthy | Fault::BrokenFact => {}
        Fault::DmDelay | Fault::DmError => {
            let stack = stack.as_ref().context("there is no stack")?;
            stack.harm(&machine.disk(), sectors_of_victim()?.first().copied())?;
        }
        Fault::WriteError
        | Fault::Partition
        | Fault::DmLinear
        | Fault::Md
        | Fault::LateModules
        | Fault::ForcedTracepoint => {
            machine.host.inject(&on_victim(write().errno(libc::EIO))?)?;
        }
        Fault::LateError => {
            fs::write(PAUSE_NOW, "")?;
            wait_until_gone(Path::new(PAUSE_NOW))?;
            machine.host.inject(&on_victim(write().errno(libc::EIO))?)?;
            // Not before: what was written by then would be whole.
            write_back_after(100)?;
        }
        Fault::FlushError => {
            let rule = Rule::on(RuleOp::Flush).errno(libc::EIO);
            machine.host.inject(&[rule])?;
        }
        Fault::Stall => {
            machine
                .host
                .inject(&once_on_victim(write().delay_ms(HELD_MS))?)?;
        }
        Fault::NoSpace => fill(Path::new(DATA_DIR))?,
        Fault::Reset => {
            let before = machine.host.disk_log()?.len();
            machine
                .host
                .inject(&once_on_victim(write().delay_ms(HELD_MS))?)?;
            wait_until_held(machine, before)?;
            let controller = controller(&machine.plan.disk.name)?;
            let reset = controller.join("reset_controller");
            machine.reset = Some(Reset::begin(reset));
        }
        Fault::JournalError => {
            let sectors = read_journal_sectors(machine)?;
            let rule = write().errno(libc::EIO).sectors(sectors.0, sectors.1);
            machine.host.inject(&[rule])?;
        }
        Fault::Timeout => {
            for disk in queues_of(&machine.plan.disk.name, Path::new("/sys/block"))? {
                let limit = format!("/sys/block/{disk}/queue/io_timeout");
                fs::write(&limit, "3000").with_context(|| format!("write {limit}"))?;
            }
            machine.host.inject(&on_victim(write().delay_ms(9000))?)?;
        }
        Fault::Removed => match machine.plan.disk.qemu_id.clone() {
            Some(id) => machine.host.unplug(&id)?,
            None => {
                let remove = controller(&machine.plan.disk.name)?.join("device/remove");
                std::thread::spawn(move || fs::write(remove, "1"));
            }
        },
        // As `xtask demo hang` and `eio` do it.
        Fault::BrokerHang => {
            let rule = Rule::on(RuleOp::Flush).delay_ms(BROKER_HELD_MS).count(1);
            machine.host.inject(&[rule])?;
        }
        Fault::BrokerWriteError => {
            // Metadata and journal are packed at the front: behind them are files.
            let (_, last) = read_journal_sectors(machine)?;
            let rule = write().errno(libc::EIO).sectors(last + 1, u64::MAX);
            machine.host.inject(&[rule])?;
        }
    }
    Ok(())
}

/// Takes the fault away, as soon as it was told of.
pub fn end(machine: &mut Machine, fault: Fault) -> anyhow::Result<()> {
    machine.host.clear()?;
    if let (Fault::DmDelay | Fault::DmError, Some(stack)) = (fault, &machine.stack) {
        stack.harm(&machine.disk(), None)?;
    }
    if fault == Fault::LateError {
        write_back_after(3000)?;
    }
    Ok(())
}

/// Makes the machine ready for the next cell.
pub fn restore(machine: &mut Machine, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::NoSpace => {
            let _ = fs::remove_file(filler(Path::new(DATA_DIR)));
            Ok(())
        }
        // On ext4, the journal's own flush may have failed as well.
        Fault::JournalError | Fault::FlushError => machine.remount(),
        _ => Ok(()),
    }
}

fn wait_until_held(machine: &mut Machine, before: usize) -> anyhow::Result<()> {
    for _ in 0..100 {
        if machine.host.disk_log()?.len() > before {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no write reached the disk's rule in 5 s")
}

fn wait_until_gone(path: &Path) -> anyhow::Result<()> {
    for _ in 0..500 {
        if !path.exists() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("the writer did not pause in 5 s")
}

/// How old a page may be before the kernel writes it back; 3000 is the default.
fn write_back_after(centisecs: u32) -> anyhow::Result<()> {
    for (name, value) in [
        ("dirty_expire_centisecs", centisecs),
        ("dirty_writeback_centisecs", centisecs.min(500)),
    ] {
        let path = format!("/proc/sys/vm/{name}");
        fs::write(&path, value.to_string()).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

fn filler(dir: &Path) -> PathBuf {
    dir.join("filler")
}

/// Leaves no block free, without writing data.
fn fill(dir: &Path) -> anyhow::Result<()> {
    let path = filler(dir);
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let mut end_bytes: i64 = 0;
    for piece in [64 << 20, 8 << 20, 1 << 20, 64 << 10, 4 << 10] {
        // SAFETY: a plain call on an open descriptor.
        while unsafe { libc::fallocate(file.as_raw_fd(), 0, end_bytes, piece) } == 0 {
            end_bytes += piece;
        }
    }
    anyhow::ensure!(
        end_bytes > 0,
        "fill {}: nothing was allocated",
        dir.display()
    );
    Ok(())
}

/// The disks whose queues a request to this one waits in: its paths (`nvme0c0n1`), if
/// it is the head of a multipath disk (`nvme0n1`), else itself.
fn queues_of(disk: &str, block: &Path) -> anyhow::Result<Vec<String>> {
    let (controller, namespace) = disk.rsplit_once('n').context("not an NVMe disk")?;
    let is_path = |name: &str| {
        let rest = name.strip_prefix(controller);
        let path = rest.and_then(|rest| rest.strip_prefix('c')?.split_once('n'));
        path.is_some_and(|(_, of)| of == namespace)
    };
    let what = || format!("list {}", block.display());
    let mut queues: Vec<String> = fs::read_dir(block)
        .with_context(what)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_path(name))
        .collect();
    if queues.is_empty() {
        queues.push(disk.to_owned());
    }
    queues.sort();
    Ok(queues)
}

/// `/sys/class/nvme/nvme0` of `nvme0n1`.
fn controller(disk: &str) -> anyhow::Result<PathBuf> {
    let number: String = disk
        .strip_prefix("nvme")
        .context("not an NVMe disk")?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Ok(PathBuf::from(format!("/sys/class/nvme/nvme{number}")))
}

fn read_journal_sectors(machine: &Machine) -> anyhow::Result<(u64, u64)> {
    let device = machine.device();
    let what = || format!("read the superblock of {}", device.display());
    let mut head = vec![0; journal::HEAD_BYTES];
    let mut file = File::open(&device).with_context(what)?;
    file.read_exact(&mut head).with_context(what)?;
    journal::parse_journal_sectors(machine.plan.fs, &head).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multipath_disk_waits_in_the_queues_of_its_paths() {
        let block = std::env::temp_dir().join(format!("fsyncscope-block-{}", std::process::id()));
        for name in [
            "nvme0n1",
            "nvme1n1",
            "nvme0c0n1",
            "nvme0c1n1",
            "nvme0c0n12",
            "sda",
        ] {
            fs::create_dir_all(block.join(name)).unwrap();
        }
        assert_eq!(
            queues_of("nvme0n1", &block).unwrap(),
            ["nvme0c0n1", "nvme0c1n1"]
        );
        assert_eq!(queues_of("nvme1n1", &block).unwrap(), ["nvme1n1"]);
        assert!(queues_of("nvme0n1", &block.join("none")).is_err());
        fs::remove_dir_all(block).unwrap();
    }
}
