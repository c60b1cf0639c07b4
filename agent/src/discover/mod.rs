//! Finds Kafka brokers: their log.dirs, node.id, cluster.id and log file. In:
//! a proc root. Out: [`Broker`]s. Reads other processes' files, which can
//! block behind a hung mmap_lock or disk: runs in the helper only. Of every
//! configuration only the keys of an allow-list are kept.

mod cmdline;
mod logconf;
mod process;
mod properties;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use cmdline::{KafkaCommand, parse_cmdline};
pub use logconf::log_files;
pub use properties::{is_allowed, parse_properties};

/// A directory that a broker keeps its logs in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogDir {
    /// As the broker names it.
    pub path: PathBuf,
    /// From the host: below /proc/PID/root.
    pub host_path: PathBuf,
    /// s_dev of its super block, kernel-encoded (major << 20 | minor); 0 =
    /// unknown. On btrfs stat(2) tells another number than the kernel's events.
    pub s_dev: u32,
    /// st_dev as stat(2) tells it, kernel-encoded.
    pub st_dev: u32,
    /// Inode of the directory.
    pub ino: u64,
    /// File system type, empty if unknown.
    pub fs_type: String,
    /// `major:minor` of `s_dev`.
    pub fs_dev_major_minor: String,
    /// Source of the mount: `/dev/sdb1`.
    pub source: String,
    /// Its mount point in the broker's namespace.
    pub mount_point: String,
    /// Why its super block takes no writes, as the mount's options spell it:
    /// `ro`, or `emergency_ro` of an ext4 that aborted its journal (6.14 and later).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub read_only: String,
    /// Why nothing is known of it.
    pub error: Option<String>,
}

/// A running broker or controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// Process (tgid).
    pub pid: u32,
    /// Start in clock ticks since boot: tells a restarted broker with a reused pid.
    pub start_time_ticks: u64,
    /// node.id, or broker.id.
    pub node_id: Option<String>,
    /// cluster.id from meta.properties.
    pub cluster_id: Option<String>,
    /// log.dirs.
    pub log_dirs: Vec<LogDir>,
    /// The directory of `__cluster_metadata-0`, where it is not the first log.dir.
    pub metadata_log_dir: Option<LogDir>,
    /// Its log, as it names it.
    pub server_log: Option<PathBuf>,
    /// The properties file, as it names it.
    pub properties_file: Option<PathBuf>,
    /// comm.
    pub comm: String,
    /// Kafka's version, from the name of a jar.
    pub version: Option<String>,
    /// Mount namespace.
    pub mnt_ns: u64,
    /// IANA zone in which it prints times, where known.
    pub timezone: Option<String>,
    /// Allowed keys of its configuration.
    pub settings: BTreeMap<String, String>,
    /// What could not be found out.
    pub notes: Vec<String>,
}

impl Broker {
    /// The directories as the broker names them, metadata's included.
    #[must_use]
    pub fn dir_names(&self) -> Vec<String> {
        let all = self.log_dirs.iter().chain(&self.metadata_log_dir);
        all.map(|dir| dir.path.to_string_lossy().into_owned())
            .collect()
    }

    /// Short name for people and labels: node id, else pid.
    #[must_use]
    pub fn label(&self) -> String {
        self.node_id
            .clone()
            .unwrap_or_else(|| format!("pid{}", self.pid))
    }
}

/// What to look for, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DiscoverRequest {
    /// `/proc`.
    pub proc_root: PathBuf,
    /// Only these processes, whatever they look like; empty for all.
    pub pids: Vec<u32>,
    /// Processes that made an earlier helper hang.
    pub skip_pids: Vec<u32>,
    /// Directories given by hand: they take the place of the configuration's.
    pub log_dirs: Vec<PathBuf>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Discovered {
    /// By pid.
    pub brokers: Vec<Broker>,
    /// Processes looked at.
    pub scanned: u32,
    /// What concerns no one broker.
    pub notes: Vec<String>,
}

/// Looks for brokers. `progress` is told before each step that may block, so
/// that the parent knows which process to leave out next time.
pub fn discover(request: &DiscoverRequest, progress: &mut dyn FnMut(u32, &str)) -> Discovered {
    let mut found = Discovered::default();
    let pids = if request.pids.is_empty() {
        match list_pids(&request.proc_root) {
            Ok(pids) => pids,
            Err(error) => {
                found
                    .notes
                    .push(format!("read {}: {error}", request.proc_root.display()));
                return found;
            }
        }
    } else {
        request.pids.clone()
    };
    for pid in pids {
        found.scanned += 1;
        if request.skip_pids.contains(&pid) {
            found
                .notes
                .push(format!("pid {pid} left out: reading its facts hung"));
            continue;
        }
        let by_hand = request.pids.contains(&pid);
        if let Some(broker) = process::read_broker(request, pid, by_hand, progress) {
            found.brokers.push(broker);
        }
    }
    found
}

fn list_pids(proc_root: &Path) -> std::io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = fs::read_dir(proc_root)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

#[cfg(test)]
mod tests;
