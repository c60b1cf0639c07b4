//! What is known of the host: brokers, log directories, devices, hooks,
//! clocks, losses. In: events of discovery and enrichment. Out: names for
//! numbers. The only place of `correlate` and `judge` that looks into the types
//! of `discover` and `enrich`.

use std::collections::{BTreeMap, BTreeSet};

use super::case::{Key, NO_SLOT, make_id};
use super::output::{BrokerSeen, SummaryOutput, SummaryOutputRow};
use crate::discover::Broker;
use crate::enrich::DeviceInfo;
use crate::event::{HookState, Start, Summary, SyncEvent};
use crate::incident::{IncidentBroker, IncidentDevice};
use crate::sink::units::{parse_zone, rfc3339, show_time};

/// Slots are few: the kernel side has no more than this of either kind.
const MAX_SLOTS: usize = 256;
const MAX_DEVICES: usize = 4096;

/// A log directory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RootInfo {
    pub broker: u16,
    pub path: String,
    pub s_dev: u32,
}

/// A file under a log directory, in words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileName {
    pub path: String,
    pub topic_partition: Option<String>,
    pub kind: String,
}

/// See the module's comment.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub start: Start,
    pub now_ns: u64,
    pub offset_ns: i64,
    brokers: BTreeMap<u16, Broker>,
    pub(super) roots: BTreeMap<u16, RootInfo>,
    pub(super) devices: BTreeMap<u32, DeviceInfo>,
    hooks: BTreeMap<String, HookState>,
    pub losses: BTreeMap<String, u64>,
    /// Disks that went away.
    pub gone: BTreeSet<u32>,
}

/// `259:0`
pub(crate) fn show_dev(dev: u32) -> String {
    let (major, minor) = crate::enrich::device::decode_dev(dev);
    format!("{major}:{minor}")
}

impl World {
    pub(crate) fn set_start(&mut self, start: &Start) {
        self.start = start.clone();
        self.offset_ns = start.clock_offset_ns;
    }

    /// True if this is news.
    pub(crate) fn set_broker(&mut self, slot: u16, broker: &Broker) -> bool {
        if self.brokers.len() >= MAX_SLOTS && !self.brokers.contains_key(&slot) {
            return false;
        }
        self.brokers.insert(slot, broker.clone()).as_ref() != Some(broker)
    }

    pub(crate) fn set_root(&mut self, slot: u16, broker: u16, path: &str, s_dev: u32) {
        if self.roots.len() < MAX_SLOTS || self.roots.contains_key(&slot) {
            let path = trim(path).to_owned();
            self.roots.insert(
                slot,
                RootInfo {
                    broker,
                    path,
                    s_dev,
                },
            );
        }
    }

    pub(crate) fn set_device(&mut self, dev: u32, info: &DeviceInfo) {
        if self.devices.len() < MAX_DEVICES || self.devices.contains_key(&dev) {
            self.devices.insert(dev, info.clone());
        }
    }

    pub(crate) fn set_hook(&mut self, hook: &HookState) {
        if self.hooks.len() < MAX_SLOTS || self.hooks.contains_key(&hook.name) {
            self.hooks.insert(hook.name.clone(), hook.clone());
        }
    }

    /// The first required hook that is missing.
    pub(crate) fn missing_hook(&self) -> Option<&HookState> {
        self.hooks
            .values()
            .find(|hook| hook.required && matches!(hook.state.as_str(), "failed" | "absent"))
    }

    /// Whether some hook sees journals commit.
    pub(crate) fn sees_journal(&self) -> bool {
        self.hooks.values().any(|hook| {
            (hook.name.starts_with("jbd2") || hook.name.starts_with("xfs_log"))
                && matches!(hook.state.as_str(), "attached" | "unproven")
        })
    }

    /// Losses so far, those that are any.
    pub(crate) fn lost(&self) -> BTreeMap<String, u64> {
        self.losses
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(class, count)| (class.clone(), *count))
            .collect()
    }

    // ---- time

    pub(crate) fn realtime_of(&self, mono_ns: u64) -> i64 {
        i64::try_from(i128::from(mono_ns) + i128::from(self.offset_ns)).unwrap_or(i64::MAX)
    }

    pub(crate) fn rfc3339(&self, mono_ns: u64) -> String {
        rfc3339(self.realtime_of(mono_ns))
    }

    /// 0 for times before boot.
    pub(crate) fn mono_of_realtime(&self, realtime_ns: i64) -> u64 {
        u64::try_from(i128::from(realtime_ns) - i128::from(self.offset_ns)).unwrap_or(0)
    }

    /// For commands that read the host's own zone.
    pub(crate) fn local_time(&self, mono_ns: u64) -> String {
        let text = show_time(&self.rfc3339(mono_ns), &parse_zone(&self.start.timezone));
        text.get(..19).unwrap_or(&text).to_owned()
    }

    // ---- brokers and directories

    /// log.dirs as discovery and the kernel side know them.
    pub(crate) fn log_dirs_of(&self, broker: u16) -> Vec<String> {
        let mut dirs: Vec<String> = self
            .roots
            .values()
            .filter(|root| root.broker == broker)
            .map(|root| root.path.clone())
            .collect();
        if let Some(broker) = self.brokers.get(&broker) {
            dirs.extend(broker_dirs(broker));
        }
        dirs.sort();
        dirs.dedup();
        dirs
    }

    pub(crate) fn root_path(&self, root: u16) -> Option<&str> {
        self.roots.get(&root).map(|root| root.path.as_str())
    }

    /// Those of these log directories whose file system takes no writes, with the
    /// mount option that says so.
    pub(crate) fn read_only_among(&self, dirs: &BTreeSet<String>) -> Vec<(String, &str)> {
        let all = self
            .brokers
            .values()
            .flat_map(|broker| broker.log_dirs.iter().chain(&broker.metadata_log_dir));
        let mut found: Vec<(String, &str)> = all
            .filter(|dir| !dir.read_only.is_empty())
            .map(|dir| (dir.path.to_string_lossy().into_owned(), &*dir.read_only))
            .filter(|(path, _)| dirs.contains(trim(path)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    pub(crate) fn root_of_path(&self, broker: u16, path: &str) -> Option<u16> {
        let path = trim(path);
        let holds = |root: &RootInfo| {
            path.strip_prefix(&root.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut found = self
            .roots
            .iter()
            .filter(|(_, root)| root.broker == broker && holds(root));
        found.next().map(|(&slot, _)| slot)
    }

    pub(crate) fn dev_of_root(&self, root: u16) -> u32 {
        self.roots.get(&root).map_or(0, |root| root.s_dev)
    }

    /// The file system of a sync; from its directory if its file is unknown.
    pub(crate) fn dev_of(&self, sync: &SyncEvent) -> u32 {
        if sync.file.s_dev != 0 {
            sync.file.s_dev
        } else {
            self.dev_of_root(sync.root)
        }
    }

    pub(crate) fn node_id(&self, broker: u16) -> Option<i64> {
        self.brokers.get(&broker).and_then(broker_node)
    }

    /// `broker 1`, else `pid 4711`, else `no broker`.
    pub(crate) fn broker_name(&self, slot: u16) -> String {
        match self.brokers.get(&slot) {
            None => "no broker".to_owned(),
            Some(broker) => broker_node(broker).map_or_else(
                || format!("pid {}", broker.pid),
                |node| format!("broker {node}"),
            ),
        }
    }

    pub(crate) fn incident_broker(&self, slot: u16) -> Option<IncidentBroker> {
        let broker = self.brokers.get(&slot)?;
        Some(IncidentBroker {
            pid: broker.pid,
            node_id: broker_node(broker),
            cluster_id: broker.cluster_id.clone(),
            log_dir: None,
            log_dirs: broker_dirs(broker),
        })
    }

    pub(crate) fn broker_seen(&self, slot: u16) -> BrokerSeen {
        let time = self.rfc3339(self.now_ns);
        let Some(broker) = self.brokers.get(&slot) else {
            return BrokerSeen {
                time,
                slot,
                ..BrokerSeen::default()
            };
        };
        BrokerSeen {
            time,
            slot,
            pid: broker.pid,
            node_id: broker_node(broker),
            cluster_id: broker.cluster_id.clone(),
            log_dirs: broker_dirs(broker),
            log_file: broker_log(broker),
            notes: broker.notes.clone(),
        }
    }

    // ---- files

    /// A file under a log directory by its names (its own first).
    pub(crate) fn kafka_file(&self, names: &[String], root: u16) -> Option<FileName> {
        let root_path = self.root_path(root);
        if names.is_empty() {
            return None;
        }
        let inside: &[String] = match root_path {
            // The names of the root's own path end the file's; the first parent
            // of that name counts, since log.dirs do not nest.
            Some(path) => {
                let last = path.rsplit('/').next().unwrap_or(path);
                let end = names.iter().position(|name| name == last || name == "/");
                &names[..end.unwrap_or(names.len())]
            }
            None => names,
        };
        let components: Vec<&str> = inside
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "/")
            .collect();
        let joined = components
            .iter()
            .rev()
            .copied()
            .collect::<Vec<_>>()
            .join("/");
        let Some(root_path) = root_path else {
            return Some(FileName {
                path: joined,
                topic_partition: None,
                kind: String::new(),
            });
        };
        let file = crate::enrich::parse_kafka_path(&components);
        let path = if joined.is_empty() {
            root_path.to_owned()
        } else {
            format!("{root_path}/{joined}")
        };
        Some(FileName {
            path,
            topic_partition: file.topic_partition,
            kind: file.kind.as_str().to_owned(),
        })
    }

    /// The path below its log directory.
    pub(crate) fn short_name(&self, names: &[String], root: u16) -> Option<String> {
        let file = self.kafka_file(names, root)?;
        let below = self
            .root_path(root)
            .and_then(|root| file.path.strip_prefix(root))
            .map(|rest| rest.trim_start_matches('/'));
        Some(
            below
                .filter(|rest| !rest.is_empty())
                .unwrap_or(&file.path)
                .to_owned(),
        )
    }

    // ---- devices

    /// Disks at the bottom of a file system's device; itself if unknown.
    pub(crate) fn leaf_disks(&self, dev: u32) -> Vec<u32> {
        let leaves: Vec<u32> = self
            .devices
            .get(&dev)
            .map(|info| {
                info.leaves
                    .iter()
                    .map(|leaf| leaf.dev)
                    .filter(|&leaf| leaf != 0)
                    .collect()
            })
            .unwrap_or_default();
        if leaves.is_empty() && dev != 0 {
            vec![dev]
        } else {
            leaves
        }
    }

    /// `sdb`, else `8:16`.
    pub(crate) fn disk_name(&self, dev: u32) -> String {
        let own = self.devices.get(&dev).map(|info| match info.chain.first() {
            Some(link) if link.dev == dev => link.name.clone(),
            _ => info.name.clone(),
        });
        let listed = || {
            self.devices.values().find_map(|info| {
                let leaf = info
                    .leaves
                    .iter()
                    .find(|leaf| leaf.dev == dev)
                    .map(|leaf| leaf.name.clone());
                leaf.or_else(|| {
                    info.chain
                        .iter()
                        .find(|link| link.dev == dev)
                        .map(|link| link.name.clone())
                })
            })
        };
        own.filter(|name| !name.is_empty())
            .or_else(listed)
            .unwrap_or_else(|| show_dev(dev))
    }

    /// `disk` as the device of an incident on the file system of `fs_dev`.
    pub(crate) fn device(&self, disk: u32, fs_dev: u32) -> Option<IncidentDevice> {
        if disk == 0 {
            return None;
        }
        let of_fs = self.devices.get(&fs_dev);
        let mut infos = of_fs.into_iter().chain(self.devices.values());
        let leaf = infos
            .find_map(|info| info.leaves.iter().find(|leaf| leaf.dev == disk))
            .cloned();
        let leaf = leaf.unwrap_or_default();
        let mut path: Vec<String> = of_fs
            .map(|info| {
                let is_other_leaf =
                    |dev: u32| dev != disk && info.leaves.iter().any(|leaf| leaf.dev == dev);
                info.chain
                    .iter()
                    .filter(|link| !is_other_leaf(link.dev))
                    .map(show_link)
                    .collect()
            })
            .unwrap_or_default();
        if path.is_empty() {
            path.push(self.disk_name(disk));
        }
        Some(IncidentDevice {
            disk: self.disk_name(disk),
            path,
            model: leaf.model,
            serial: leaf.serial,
            firmware: leaf.firmware,
            address: leaf.address,
            slot: leaf.slot,
            paths: leaf.paths.iter().map(show_path).collect(),
            write_cache: leaf.write_cache,
            backing_file: leaf.backing_file,
        })
    }

    /// Log directories of any broker on the disks of a file system.
    pub(crate) fn log_dirs_on(&self, fs_dev: u32) -> Vec<String> {
        let disks = self.leaf_disks(fs_dev);
        let mut dirs: Vec<String> = self
            .roots
            .values()
            .filter(|root| {
                self.leaf_disks(root.s_dev)
                    .iter()
                    .any(|disk| disks.contains(disk))
            })
            .map(|root| root.path.clone())
            .collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    // ---- ids, summary

    pub(crate) fn make_id(&self, key: &Key, first_ns: u64) -> String {
        let disk = self.disk_name(self.leaf_disks(key.dev).first().copied().unwrap_or(key.dev));
        let dir = self.root_path(key.root).unwrap_or("");
        let broker = if key.broker == NO_SLOT {
            String::new()
        } else {
            self.broker_name(key.broker)
        };
        make_id(key, &disk, dir, &broker, self.realtime_of(first_ns))
    }

    pub(crate) fn show_summary(&self, summary: &Summary) -> SummaryOutput {
        let rows = summary.rows.iter().map(|row| SummaryOutputRow {
            broker: self.broker_name(row.broker),
            log_dir: self.root_path(row.root).unwrap_or("(other)").to_owned(),
            device: self.disk_name(row.dev),
            op: row.op.clone(),
            count: row.count,
            errors: row.errors,
            p50_ns: row.p50_ns,
            p99_ns: row.p99_ns,
            max_ns: row.max_ns,
        });
        SummaryOutput {
            rows: rows.collect(),
        }
    }
}

fn show_link(link: &crate::enrich::DeviceLink) -> String {
    link.label.as_ref().map_or_else(
        || link.name.clone(),
        |label| format!("{} ({label})", link.name),
    )
}

/// `nvme0c1n1 by nvme1 at 0000:02:00.0, live`
fn show_path(path: &crate::enrich::NvmePath) -> String {
    let mut text = format!("{} by {}", path.name, path.controller);
    if let Some(address) = &path.address {
        text += &format!(" at {address}");
    }
    for state in path.state.iter().chain(&path.ana_state) {
        text += &format!(", {state}");
    }
    text
}

fn trim(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { path } else { trimmed }
}

fn broker_node(broker: &Broker) -> Option<i64> {
    broker.node_id.as_deref().and_then(|node| node.parse().ok())
}

fn broker_dirs(broker: &Broker) -> Vec<String> {
    broker
        .dir_names()
        .iter()
        .map(|dir| trim(dir).to_owned())
        .collect()
}

fn broker_log(broker: &Broker) -> Option<String> {
    broker
        .server_log
        .as_ref()
        .map(|path| path.to_string_lossy().into_owned())
}
