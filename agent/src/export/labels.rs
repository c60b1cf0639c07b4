//! Slots and device numbers to label values.
//!
//! Comes in: the tables of each [`Snapshot`]. Goes out: label values of the
//! row's place. It remembers slots whose broker is gone, since the kernel's
//! counters of them stay. Not here: counting.

use std::collections::HashMap;

use fsyncscope_abi::{block::req_op, keys::SLOT_NONE, sync};

use super::source::Snapshot;

/// Label values in the order of the metric's label names.
pub type Values = Vec<String>;

/// `log_dir` of files under no log directory; a path never looks like it.
pub const NO_LOG_DIR: &str = "none";
/// What discovery could not find out.
pub const UNKNOWN: &str = "unknown";

/// Sync operations that brokers use or may use.
pub const SYNC_OPS: [u8; 5] = [
    sync::op::FSYNC,
    sync::op::FDATASYNC,
    sync::op::MSYNC,
    sync::op::SYNC_FILE_RANGE,
    sync::op::SYNCFS,
];

/// Request operations that exist from the start.
pub const BLOCK_OPS: [u8; 4] = [req_op::READ, req_op::WRITE, req_op::FLUSH, req_op::DISCARD];

#[derive(Debug)]
struct BrokerLabels {
    cluster_id: String,
    broker: String,
}

#[derive(Debug)]
struct RootLabels {
    broker: u16,
    log_dir: String,
    s_dev: u32,
}

/// What is known of slots and devices, from all snapshots so far.
#[derive(Debug, Default)]
pub struct Places {
    brokers: HashMap<u16, BrokerLabels>,
    roots: HashMap<u16, RootLabels>,
    devices: HashMap<u32, String>,
}

impl Places {
    /// Takes up the tables of a snapshot.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        for row in &snapshot.brokers {
            let labels = BrokerLabels {
                cluster_id: row.cluster_id.clone().unwrap_or_else(|| UNKNOWN.into()),
                broker: row.node_id.clone().unwrap_or_else(|| row.pid.to_string()),
            };
            self.brokers.insert(row.slot, labels);
        }
        for row in &snapshot.roots {
            let labels = RootLabels {
                broker: row.broker,
                log_dir: row.log_dir.clone(),
                s_dev: row.s_dev,
            };
            self.roots.insert(row.slot, labels);
        }
        for row in snapshot.devices.iter().filter(|row| !row.name.is_empty()) {
            self.devices.insert(row.dev, row.name.clone());
        }
    }

    /// Name of a device, `259:3` while it is not resolved.
    pub fn device(&self, dev: u32) -> String {
        match self.devices.get(&dev) {
            Some(name) => name.clone(),
            None if dev == 0 => UNKNOWN.into(),
            None => format!("{}:{}", dev >> 20, dev & 0xf_ffff),
        }
    }

    /// Label `broker` of a slot; None while the slot is not known.
    pub fn broker(&self, slot: u16) -> Option<String> {
        self.brokers.get(&slot).map(|labels| labels.broker.clone())
    }

    /// cluster_id, broker, log_dir, device. None while a slot is not known: the
    /// caller leaves its counters alone then, and they are counted in full once
    /// discovery has said whose they are.
    pub fn sync(&self, broker: u16, root: u16, s_dev: u32) -> Option<Values> {
        let owner = self.brokers.get(&broker)?;
        let (log_dir, root_dev) = match root {
            SLOT_NONE => (NO_LOG_DIR, 0),
            root => self
                .roots
                .get(&root)
                .map(|root| (root.log_dir.as_str(), root.s_dev))?,
        };
        let dev = if s_dev == 0 { root_dev } else { s_dev };
        Some(vec![
            owner.cluster_id.clone(),
            owner.broker.clone(),
            log_dir.into(),
            self.device(dev),
        ])
    }

    /// The same for a file known only by its root.
    pub fn root(&self, root: u16, s_dev: u32) -> Option<Values> {
        if root == SLOT_NONE {
            let [cluster_id, broker] = [UNKNOWN, UNKNOWN].map(String::from);
            return Some(vec![
                cluster_id,
                broker,
                NO_LOG_DIR.into(),
                self.device(s_dev),
            ]);
        }
        self.sync(self.roots.get(&root)?.broker, root, s_dev)
    }
}

/// `values` and one more.
pub fn with(values: &[String], last: impl Into<String>) -> Values {
    values.iter().cloned().chain([last.into()]).collect()
}
