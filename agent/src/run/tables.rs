//! What the agent told the kernel: which slot is which broker, which directory,
//! and which disks count. Comes in: what discovery and sysfs answered; goes
//! out: map entries, and events for the core. Slots of brokers that ended are
//! taken again by the same broker, so that its counters go on.

use std::collections::BTreeMap;

use anyhow::Context as _;
use fsyncscope_abi::{
    block::{FlushState, block_hist_key, head_key, name_words, req_op},
    hist::HistKey,
    keys::{InodeKey, Target},
    span::FsState,
    sync::op,
};

use crate::{
    discover::{Broker, LogDir},
    enrich::DeviceInfo,
    event::Event,
    probe::maps::Maps,
    run::hists::{Hists, Key, NO_EXIST, create},
};

/// A broker's slot.
pub struct BrokerSlot {
    /// What discovery last said.
    pub broker: Broker,
    /// Its process runs.
    pub is_alive: bool,
}

/// A directory's slot.
#[derive(Clone, Debug)]
pub struct RootSlot {
    /// Broker slot.
    pub broker: u16,
    /// Path as the broker names it.
    pub path: String,
    /// s_dev of its file system.
    pub s_dev: u32,
    ino: u64,
}

impl RootSlot {
    /// A directory of a broker, by the inode of its file system.
    pub fn new(broker: u16, path: String, s_dev: u32, ino: u64) -> Self {
        Self {
            broker,
            path,
            s_dev,
            ino,
        }
    }
}

/// See the module's comment.
#[derive(Default)]
pub struct Tables {
    /// Index = broker slot.
    pub brokers: Vec<BrokerSlot>,
    /// Index = root slot.
    pub roots: Vec<RootSlot>,
    /// Device numbers that were resolved.
    pub devices: BTreeMap<u32, DeviceInfo>,
    /// File systems whose device is not resolved yet.
    pub unresolved: Vec<u32>,
    /// Histograms' keys that are to be made.
    pub hists: Hists,
}

impl Tables {
    /// Takes what discovery found; returns what is new.
    ///
    /// # Errors
    /// When a map refuses an entry.
    pub fn apply(&mut self, found: &[Broker], maps: &mut Maps) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        for index in 0..self.brokers.len() {
            let slot = &mut self.brokers[index];
            let still = found.iter().any(|b| {
                b.pid == slot.broker.pid && b.start_time_ticks == slot.broker.start_time_ticks
            });
            if slot.is_alive && !still {
                slot.is_alive = false;
                let pid = slot.broker.pid;
                let _ = maps.targets.remove(&pid);
                forget(maps)?;
                events.push(Event::BrokerGone {
                    slot: index as u16,
                    pid,
                });
            }
        }
        for broker in found {
            self.apply_broker(broker, maps, &mut events)?;
        }
        Ok(events)
    }

    fn apply_broker(
        &mut self,
        broker: &Broker,
        maps: &mut Maps,
        events: &mut Vec<Event>,
    ) -> anyhow::Result<()> {
        let index = self.slot_for(broker);
        let changed = match index {
            Some(index) => {
                let slot = &mut self.brokers[index];
                let changed = !slot.is_alive || slot.broker != *broker;
                slot.broker = broker.clone();
                slot.is_alive = true;
                changed
            }
            None => {
                self.brokers.push(BrokerSlot {
                    broker: broker.clone(),
                    is_alive: true,
                });
                true
            }
        };
        if !changed {
            return Ok(());
        }
        let slot = index.unwrap_or(self.brokers.len() - 1) as u16;
        for dir in broker.log_dirs.iter().chain(&broker.metadata_log_dir) {
            self.apply_dir(slot, dir, maps, events)?;
        }
        self.hists.make(maps)?;
        let target = Target {
            broker: slot,
            flags: 0,
        };
        maps.targets
            .insert(&broker.pid, &target, 0)
            .context("watch the broker's process: insert into TARGETS")?;
        forget(maps)?;
        events.push(Event::Broker {
            slot,
            broker: Box::new(broker.clone()),
        });
        Ok(())
    }

    /// The slot of this process, or the free slot of the same broker's last one.
    fn slot_for(&self, broker: &Broker) -> Option<usize> {
        let same_process = |slot: &BrokerSlot| {
            slot.is_alive
                && slot.broker.pid == broker.pid
                && slot.broker.start_time_ticks == broker.start_time_ticks
        };
        let same_broker = |slot: &BrokerSlot| {
            !slot.is_alive
                && slot.broker.node_id == broker.node_id
                && slot.broker.cluster_id == broker.cluster_id
                && slot.broker.dir_names() == broker.dir_names()
        };
        let position = self.brokers.iter().position(same_process);
        position.or_else(|| self.brokers.iter().position(same_broker))
    }

    fn apply_dir(
        &mut self,
        broker: u16,
        dir: &LogDir,
        maps: &mut Maps,
        events: &mut Vec<Event>,
    ) -> anyhow::Result<()> {
        if dir.ino == 0 || dir.s_dev == 0 {
            return Ok(());
        }
        let path = dir.path.to_string_lossy().into_owned();
        let known = self
            .roots
            .iter()
            .position(|root| root.broker == broker && root.path == path);
        let slot = match known {
            Some(slot)
                if self.roots[slot].ino == dir.ino && self.roots[slot].s_dev == dir.s_dev =>
            {
                return Ok(());
            }
            Some(slot) => {
                let old = &self.roots[slot];
                let _ = maps.roots.remove(&InodeKey {
                    ino: old.ino,
                    s_dev: old.s_dev,
                    pad: 0,
                });
                slot
            }
            None => {
                let root = RootSlot::new(broker, path.clone(), dir.s_dev, dir.ino);
                self.roots.push(root);
                self.roots.len() - 1
            }
        };
        self.roots[slot].ino = dir.ino;
        self.roots[slot].s_dev = dir.s_dev;
        let key = InodeKey {
            ino: dir.ino,
            s_dev: dir.s_dev,
            pad: 0,
        };
        maps.roots
            .insert(&key, &(u32::from(broker) << 16 | slot as u32), 0)
            .context("watch a directory: insert into ROOTS")?;
        create(
            maps.filesystems
                .insert(&dir.s_dev, &FsState::default(), NO_EXIST),
        )
        .context("watch a file system: insert into FILESYSTEMS")?;
        // What brokers call. Where a hook that makes a key may find no memory at hand, also
        // fdatasync; where room is set aside at load, that would be for fewer directories.
        let ops: &[u8] = match maps.are_hists_late {
            true => &[op::FSYNC, op::MSYNC, op::FDATASYNC],
            false => &[op::FSYNC, op::MSYNC],
        };
        for &op in ops {
            let key = HistKey {
                s_dev: dir.s_dev,
                broker,
                root: slot as u16,
                op: u32::from(op),
            };
            self.hists.want(Key::Syncs(key));
        }
        raise_epoch(maps)?;
        events.push(Event::Root {
            slot: slot as u16,
            broker,
            path,
            s_dev: dir.s_dev,
        });
        if !self.devices.contains_key(&dir.s_dev) && !self.unresolved.contains(&dir.s_dev) {
            self.unresolved.push(dir.s_dev);
        }
        Ok(())
    }

    /// Takes what sysfs says of a file system's device: its leaf disks count.
    ///
    /// # Errors
    /// When a map refuses an entry.
    pub fn apply_device(
        &mut self,
        dev: u32,
        info: &DeviceInfo,
        maps: &mut Maps,
    ) -> anyhow::Result<Event> {
        self.unresolved.retain(|unresolved| *unresolved != dev);
        for leaf in info.leaves.iter().filter(|leaf| leaf.dev != 0) {
            let head = head_key(name_words(&leaf.name));
            if head != 0 {
                maps.heads
                    .insert(&head, &leaf.dev, 0)
                    .context("watch an NVMe disk: insert into HEADS")?;
            }
            maps.devs
                .insert(&leaf.dev, &1, 0)
                .context("watch a disk: insert into DEVS")?;
            create(
                maps.flushes
                    .insert(&leaf.dev, &FlushState::default(), NO_EXIST),
            )
            .context("count a disk's flushes: insert into FLUSHES")?;
            for op in COUNTED_OPS {
                (self.hists).want(Key::Requests(block_hist_key(leaf.dev, op)));
            }
        }
        self.hists.make(maps)?;
        raise_epoch(maps)?;
        self.devices.insert(dev, info.clone());
        Ok(Event::Device {
            dev,
            info: Box::new(info.clone()),
        })
    }
}

/// Operations of requests that BLOCK_HIST counts.
const COUNTED_OPS: [u8; 5] = [
    // First: a disk's rate is of it, and a later one may not find memory at once.
    req_op::WRITE,
    req_op::READ,
    req_op::FLUSH,
    req_op::DISCARD,
    req_op::WRITE_ZEROES,
];

/// Makes the programs conclude again what they concluded from DEVS and ROOTS.
pub fn raise_epoch(maps: &mut Maps) -> anyhow::Result<()> {
    forget(maps)?;
    maps.watched_since
        .set(0, &crate::helper::clock::monotonic_ns(), 0)
        .context("set WATCHED_SINCE")
}

/// Makes the programs conclude again what they concluded from TARGETS and ROOTS.
fn forget(maps: &mut Maps) -> anyhow::Result<()> {
    let now = maps.epoch.get(&0, 0).unwrap_or(1);
    // 16 bits in the kernel's entries; 0 there means never.
    let next = if now >= 0xfff0 { 1 } else { now + 1 };
    maps.epoch.set(0, &next, 0).context("raise EPOCH")
}
