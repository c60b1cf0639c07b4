//! The stage of a demo: a lab with two disks, a broker with a log directory on
//! each, a producer. In: the scenario. Out: the disks' rules in force at the
//! right moment, and afterwards the truth. Dropped in order, it leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use fsyncscope_tests::broker::{Broker, BrokerConfig, KafkaVersion, ProduceConfig, Producer};
use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, TruthEntry, TruthRequest};
use fsyncscope_tests::lab::Lab;

use super::truth::{Placed, Truth};
use crate::cli::ScenarioName;
use crate::process::say;

const TOPIC: &str = "orders";
/// Enough that both disks hold some.
const PARTITIONS: u32 = 4;
const DISK_BYTES: u64 = 512 << 20;
const BIG_DISK_BYTES: u64 = 3 << 30;

/// Fields are dropped in this order: who uses a disk goes before it.
pub struct Stage {
    producer: Option<Producer>,
    /// The broker.
    pub broker: Broker,
    pid: u32,
    disks: Vec<FaultDisk>,
    /// Which of the disks is made to fail.
    faulty: usize,
}

impl Stage {
    /// Everything but the fault.
    pub fn set_up(
        lab: &Lab,
        name: ScenarioName,
        version: KafkaVersion,
        faulty: usize,
    ) -> anyhow::Result<Stage> {
        let size = if name == ScenarioName::Big {
            BIG_DISK_BYTES
        } else {
            DISK_BYTES
        };
        say("making the disks");
        let disks = ["alpha", "beta", "other"]
            .iter()
            .map(|name| FaultDisk::create(lab, name, size, FsKind::Ext4))
            .collect::<anyhow::Result<Vec<_>>>()
            .context("make the disks")?;
        say(format!(
            "starting Kafka {} (fetches its jars once)",
            version.number()
        ));
        let mut config = BrokerConfig::new(version, lab.dir().join("broker"));
        config.log_dirs = disks[..2]
            .iter()
            .map(|disk| disk.mountpoint().join("kafka"))
            .collect();
        for (key, value) in properties(name) {
            config = config.property(key, value);
        }
        let broker = Broker::start(lab, config)?;
        let pid = broker.pid().context("the broker has no process")?;
        broker.create_topic(TOPIC, PARTITIONS)?;
        let mut stage = Stage {
            producer: None,
            broker,
            pid,
            disks,
            faulty,
        };
        let mut load = ProduceConfig::new(TOPIC, 60);
        load.record_bytes = 1000;
        if name == ScenarioName::Noise {
            load.client_id = format!(
                "Error while flushing log for {TOPIC}-0 in dir {} (kafka.server.LogDirFailureChannel)",
                stage.log_dir().display()
            );
        }
        stage.producer = Some(stage.broker.produce(&load)?);
        say("producing for a while, so that every file has its blocks");
        thread::sleep(Duration::from_secs(8));
        if stage.partitions_on_faulty()?.is_empty() {
            bail!("no partition of {TOPIC} lies on the disk that is to fail");
        }
        Ok(stage)
    }

    /// The disk that is made to fail.
    pub fn disk(&self) -> &FaultDisk {
        &self.disks[self.faulty]
    }

    /// A disk that the broker does not use.
    pub fn other_disk(&self) -> &FaultDisk {
        &self.disks[2]
    }

    /// The broker's directory on the disk that is made to fail.
    pub fn log_dir(&self) -> PathBuf {
        self.disk().mountpoint().join("kafka")
    }

    /// A producer beside the first; ended with the stage.
    pub fn produce_bulk(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.broker.create_topic("bulk", 1)?;
        let mut load = ProduceConfig::new("bulk", -1);
        load.record_bytes = 10_000;
        load.records = bytes / 10_000;
        let mut producer = self.broker.produce(&load)?;
        if !producer.wait(Duration::from_secs(120))? {
            bail!("the bulk was not produced within two minutes");
        }
        Ok(())
    }

    /// Limits the rate of all disks.
    pub fn set_bandwidth(&self, bytes_per_s: u64) -> anyhow::Result<()> {
        self.disks
            .iter()
            .try_for_each(|disk| disk.set_bandwidth(bytes_per_s))
    }

    fn partitions_on_faulty(&self) -> anyhow::Result<Vec<PathBuf>> {
        let log_dir = self.log_dir();
        let all = self.broker.partition_dirs()?;
        Ok(all
            .into_iter()
            .filter(|(partition, dir)| partition.starts_with(TOPIC) && *dir == log_dir)
            .map(|(partition, dir)| dir.join(partition))
            .collect())
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
        let bytes = fs::read(self.broker.server_log()).unwrap_or_default();
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
        })
    }
}

/// What a scenario needs beside the stock configuration.
fn properties(name: ScenarioName) -> Vec<(&'static str, &'static str)> {
    match name {
        // Flushed by the timer, long after it was written.
        ScenarioName::Big => vec![
            ("log.flush.interval.ms", "20000"),
            ("log.flush.scheduler.interval.ms", "2000"),
            ("log.segment.bytes", "2147483647"),
        ],
        // Each batch flushes .log, .index and .timeindex.
        _ => vec![("log.flush.interval.messages", "1")],
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
