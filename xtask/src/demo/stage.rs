//! The stage of a demo: a lab with two disks, a broker with a log directory on
//! each, a producer. In: the scenario. Out: the disks' rules in force at the
//! right moment, and afterwards the truth. Dropped in order, it leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use fsyncscope_tests::broker::{
    Broker, BrokerConfig, KafkaVersion, ProduceConfig, Producer, read_partition_dirs,
};
use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, TruthEntry, TruthRequest};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::writer::{Writer, WriterConfig};

use super::truth::{Placed, Truth};
use crate::cli::ScenarioName;
use crate::process::say;

const TOPIC: &str = "orders";
/// Enough that both disks hold some.
const PARTITIONS: u32 = 4;
const DISK_BYTES: u64 = 512 << 20;
const BIG_DISK_BYTES: u64 = 3 << 30;

/// Who keeps the log directories.
pub enum Keeper {
    /// A real broker; its producer is ended before it.
    Broker {
        /// Ends when dropped.
        _producer: Producer,
        /// The broker.
        broker: Box<Broker>,
    },
    /// The stand-in.
    Writer(Box<Writer>),
}

/// Who is to keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// A real broker of this version.
    Broker(KafkaVersion),
    /// The stand-in, which proves nothing.
    Writer,
}

/// Fields are dropped in this order: who uses a disk goes before it.
pub struct Stage {
    keeper: Keeper,
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
        cast: Cast,
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
        let log_dirs: Vec<PathBuf> = disks[..2]
            .iter()
            .map(|disk| disk.mountpoint().join("kafka"))
            .collect();
        let (keeper, pid) = match cast {
            Cast::Broker(version) => start_broker(lab, name, version, log_dirs, faulty)?,
            Cast::Writer => start_writer(lab, log_dirs)?,
        };
        let stage = Stage {
            keeper,
            pid,
            disks,
            faulty,
        };
        say("producing for a while, so that every file has its blocks");
        thread::sleep(Duration::from_secs(8));
        if stage.partitions_on_faulty()?.is_empty() {
            bail!("no partition of {TOPIC} lies on the disk that is to fail");
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
        })
    }
}

fn start_broker(
    lab: &Lab,
    name: ScenarioName,
    version: KafkaVersion,
    log_dirs: Vec<PathBuf>,
    faulty: usize,
) -> anyhow::Result<(Keeper, u32)> {
    say(format!(
        "starting Kafka {} (fetches its jars once)",
        version.number()
    ));
    let mut config = BrokerConfig::new(version, lab.dir().join("broker"));
    let log_dir = log_dirs[faulty].clone();
    config.log_dirs = log_dirs;
    for (key, value) in properties(name) {
        config = config.property(key, value);
    }
    let broker = Broker::start(lab, config)?;
    let pid = broker.pid().context("the broker has no process")?;
    broker.create_topic(TOPIC, PARTITIONS)?;
    let mut load = ProduceConfig::new(TOPIC, 60);
    load.record_bytes = 1000;
    if name == ScenarioName::Noise {
        load.client_id = format!(
            "Error while flushing log for {TOPIC}-0 in dir {} (kafka.server.LogDirFailureChannel)",
            log_dir.display()
        );
    }
    let producer = broker.produce(&load)?;
    Ok((
        Keeper::Broker {
            _producer: producer,
            broker: Box::new(broker),
        },
        pid,
    ))
}

fn start_writer(lab: &Lab, log_dirs: Vec<PathBuf>) -> anyhow::Result<(Keeper, u32)> {
    say("starting the built-in writer: this run proves nothing");
    let mut config = WriterConfig::new(lab.dir().join("broker"), log_dirs);
    config.topics = vec![TOPIC.into()];
    config.partitions = PARTITIONS;
    let writer = Writer::start(lab, config)?;
    let pid = writer.pid();
    Ok((Keeper::Writer(Box::new(writer)), pid))
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
