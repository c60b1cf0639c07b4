//! The stage of a demo: a lab with three disks, and a broker with a log directory
//! on two of them. In: the plan. Out: the disks' rules in force at the
//! right moment, and afterwards the truth. Dropped in order, it leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use fsyncscope_tests::broker::{ProduceConfig, Producer, read_partition_dirs};
use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, TruthEntry, TruthRequest};
use fsyncscope_tests::lab::Lab;

use super::cast::{self, Cast, Keeper};
use super::names::Names;
use super::truth::{Placed, Truth};
use crate::cli::ScenarioName;
use crate::process::say;

const DISK_BYTES: u64 = 512 << 20;
const BIG_DISK_BYTES: u64 = 3 << 30;

/// What is to be set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenario.
    pub name: ScenarioName,
    /// Who plays the broker.
    pub cast: Cast,
    /// How things are called.
    pub names: Names,
    /// Which of the broker's two disks is made to fail.
    pub faulty: usize,
}

/// Fields are dropped in this order: who uses a disk goes before it.
pub struct Stage {
    keeper: Keeper,
    pid: u32,
    disks: Vec<FaultDisk>,
    plan: Plan,
}

impl Stage {
    /// Everything but the fault.
    pub fn set_up(lab: &Lab, plan: &Plan) -> anyhow::Result<Stage> {
        let size = if plan.name == ScenarioName::Big {
            BIG_DISK_BYTES
        } else {
            DISK_BYTES
        };
        say("making the disks");
        let disks = plan
            .names
            .disks
            .iter()
            .map(|name| FaultDisk::create(lab, name, size, FsKind::Ext4))
            .collect::<anyhow::Result<Vec<_>>>()
            .context("make the disks")?;
        let log_dirs: Vec<PathBuf> = disks[..2]
            .iter()
            .map(|disk| disk.mountpoint().join(&plan.names.log_dir))
            .collect();
        let (keeper, pid) = cast::start(lab, plan, log_dirs)?;
        let stage = Stage {
            keeper,
            pid,
            disks,
            plan: plan.clone(),
        };
        say("producing for a while, so that every file has its blocks");
        thread::sleep(Duration::from_secs(8));
        if stage.partitions_on_faulty()?.is_empty() {
            let topic = &plan.names.topic;
            bail!("no partition of {topic} lies on the disk that is to fail");
        }
        Ok(stage)
    }

    /// Its server.log.
    pub fn server_log(&self) -> PathBuf {
        match &self.keeper {
            Keeper::Broker { broker, .. } => broker.server_log(),
            Keeper::Writer(writer) => writer.server_log(),
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The disk that is made to fail.
    pub fn disk(&self) -> &FaultDisk {
        &self.disks[self.plan.faulty]
    }

    /// A disk that the broker does not use.
    pub fn other_disk(&self) -> &FaultDisk {
        &self.disks[2]
    }

    /// The broker's directory on the disk that is made to fail.
    pub fn log_dir(&self) -> PathBuf {
        self.disk().mountpoint().join(&self.plan.names.log_dir)
    }

    /// The broker's directories on its two disks, as it names them.
    pub fn log_dirs(&self) -> Vec<String> {
        let disks = self.disks[..2].iter();
        disks
            .map(|disk| disk.mountpoint().join(&self.plan.names.log_dir))
            .map(|dir| dir.display().to_string())
            .collect()
    }

    /// Flushes that the broker's two disks have served, by their own count.
    pub fn disk_flushes(&self) -> anyhow::Result<Vec<u64>> {
        let disks = self.disks[..2].iter();
        disks
            .map(|disk| Ok(*disk.stats()?.requests.get("flush").unwrap_or(&0)))
            .collect()
    }

    /// Whether all load is still being made.
    pub fn is_producing(&mut self) -> bool {
        match &mut self.keeper {
            Keeper::Broker { producers, .. } => producers.iter_mut().all(Producer::is_running),
            Keeper::Writer(_) => true,
        }
    }

    /// Produces so much at once, and returns when it is done.
    pub fn produce_bulk(&mut self, bytes: u64) -> anyhow::Result<()> {
        let Keeper::Broker { broker, .. } = &self.keeper else {
            bail!("the stand-in takes no records: this scenario needs a broker");
        };
        broker.create_topic("bulk", 1)?;
        let mut load = ProduceConfig::new("bulk", -1);
        load.record_bytes = 10_000;
        load.records = bytes / 10_000;
        let mut producer = broker.produce(&load)?;
        if !producer.wait(Duration::from_secs(120))? {
            bail!("the bulk was not produced within two minutes");
        }
        Ok(())
    }

    /// Ends all load.
    pub fn stop_producing(&mut self) -> anyhow::Result<()> {
        let Keeper::Broker { producers, .. } = &mut self.keeper else {
            bail!("the stand-in writes until it ends: this scenario needs a broker");
        };
        producers.clear();
        Ok(())
    }

    /// Produces so many records to the topic. Out: whether all were taken.
    pub fn produce(&self, records: u64) -> anyhow::Result<bool> {
        let Keeper::Broker { broker, .. } = &self.keeper else {
            bail!("the stand-in takes no records: this scenario needs a broker");
        };
        let mut load = ProduceConfig::new(&self.plan.names.topic, 100);
        load.record_bytes = 1000;
        load.records = records;
        broker.produce(&load)?.wait(Duration::from_secs(60))
    }

    /// Limits the rate of all disks.
    pub fn set_bandwidth(&self, bytes_per_s: u64) -> anyhow::Result<()> {
        self.disks
            .iter()
            .try_for_each(|disk| disk.set_bandwidth(bytes_per_s))
    }

    fn partitions_on_faulty(&self) -> anyhow::Result<Vec<PathBuf>> {
        let log_dir = self.log_dir();
        let all = read_partition_dirs(std::slice::from_ref(&log_dir))?;
        Ok(all
            .into_iter()
            .filter(|(partition, dir)| {
                let topic = partition.rsplit_once('-').map(|(topic, _)| topic);
                topic == Some(&self.plan.names.topic) && *dir == log_dir
            })
            .map(|(partition, dir)| dir.join(partition))
            .collect())
    }

    /// The partitions' segments.
    pub fn segments(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut segments = Vec::new();
        for partition in self.partitions_on_faulty()? {
            let files = files_of(&partition)?.into_iter();
            segments.extend(files.filter(|file| file.extension().is_some_and(|end| end == "log")));
        }
        Ok(segments)
    }

    /// Where the partitions' index files lie.
    pub fn index_sectors(&self) -> anyhow::Result<Vec<(u64, u64)>> {
        let mut sectors = Vec::new();
        for partition in self.partitions_on_faulty()? {
            for file in files_of(&partition)? {
                if file
                    .extension()
                    .is_some_and(|end| end == "index" || end == "timeindex")
                {
                    sectors.extend(self.disk().file_sectors(&file)?);
                }
            }
        }
        if sectors.is_empty() {
            bail!("no index file has a block yet");
        }
        Ok(sectors)
    }

    /// The broker's log, whole.
    pub fn read_log(&self) -> Vec<String> {
        let bytes = fs::read(self.server_log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(String::from)
            .collect()
    }

    /// What happened. Only after the rules are cleared: it reads the disk.
    pub fn truth(&self) -> anyhow::Result<Truth> {
        let mut files = Vec::new();
        for partition in self.partitions_on_faulty()? {
            for file in files_of(&partition)? {
                files.push(Placed {
                    sectors: self.disk().file_sectors(&file)?,
                    path: file.display().to_string(),
                });
            }
        }
        let disk = self.disk().loop_dev().file_name().unwrap_or_default();
        Ok(Truth {
            broker_pid: self.pid,
            log_dir: self.log_dir().display().to_string(),
            disk: disk.to_string_lossy().into_owned(),
            requests: touched(&self.disk().truth()?),
            files,
            broker_log: self.read_log(),
            outsider: None,
        })
    }
}

fn files_of(partition: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(partition).with_context(|| format!("list {}", partition.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    Ok(files)
}

/// The requests that were touched; of one that is still held only its arrival
/// is known.
fn touched(entries: &[TruthEntry]) -> Vec<TruthRequest> {
    let mut requests: Vec<TruthRequest> = Vec::new();
    for entry in entries {
        let (TruthEntry::Held(request) | TruthEntry::Request(request)) = entry else {
            continue;
        };
        match requests.iter_mut().find(|known| known.seq == request.seq) {
            Some(known) => *known = request.clone(),
            None => requests.push(request.clone()),
        }
    }
    requests
}
