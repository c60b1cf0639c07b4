//! A real broker in the guest, in the writer's place: Kafka as the lab runs it, with
//! a log directory on the disk and one in memory, so that it lives on. In: the disk
//! with a JVM and the jars ([`MOUNT`] says how it is laid out), the fault. Out: the
//! cell's result. What is expected is in `expect`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::cells::{DATA_DIR, Machine};
use super::expect::{BrokerTruth, Placed};
use super::fault::Fault;
use super::make;
use super::protocol::CellResult;
use super::system;
use crate::broker::{
    Broker, BrokerConfig, CACHE_VARIABLE, Flush, KafkaVersion, ProduceConfig, Producer,
    read_partition_dirs,
};
use crate::faultdisk::device::read_file_sectors;

/// Where the disk with the broker is mounted: below it are [`JVM_DIR`], [`LIBS_DIR`]
/// and `kafka/VERSION`, as in the lab's cache.
pub const MOUNT: &str = "/broker";
/// A JVM's home.
pub const JVM_DIR: &str = "jvm";
/// What the JVM's own libraries need, the loader as well, in one folder.
pub const LIBS_DIR: &str = "lib";
/// Which Kafka.
pub const VERSION: KafkaVersion = KafkaVersion::V3_9;

/// Of the machine that is emulated, so that a JVM of the lab comes up soon: compile
/// quickly, and take the jars for what they are.
const JVM_OPTIONS: &str = "-XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions \
                           -XX:-BytecodeVerificationRemote";

/// Each step of the broker's: a JVM that starts.
const STEP_LIMIT: Duration = Duration::from_secs(270);

const TOPIC: &str = "orders";
const PARTITIONS: &str = "4";
/// Then each partition has had its turn, and its files have their blocks.
const WARM_SEGMENT_BYTES: u64 = 64 << 10;

/// Sets what the JVM and the lab find by the environment. Only while there is one
/// thread.
pub fn set_environment() {
    let pairs = [
        ("PATH", format!("{MOUNT}/{JVM_DIR}/bin")),
        ("LD_LIBRARY_PATH", format!("{MOUNT}/{LIBS_DIR}")),
        ("JDK_JAVA_OPTIONS", JVM_OPTIONS.to_owned()),
        (CACHE_VARIABLE, MOUNT.to_owned()),
    ];
    for (name, value) in pairs {
        // SAFETY: process 1 has no other thread yet, as the caller says.
        unsafe { std::env::set_var(name, value) };
    }
}

/// A broker with its load; ended when dropped, the load first.
#[derive(Debug)]
pub struct Running {
    _producer: Producer,
    broker: Broker,
    pid: u32,
    log_dir: PathBuf,
}

/// One cell.
pub fn run_cell(machine: &mut Machine, fault: Fault) -> anyhow::Result<CellResult> {
    machine.host.clear()?;
    machine.start_watch(fault)?;
    let running = match machine.broker.take() {
        Some(running) => running,
        None => start(machine)?,
    };
    let pid = running.pid;
    machine.wait_for_broker(pid, STEP_LIMIT)?;
    running.wait_until_warm()?;
    thread::sleep(make::SETTLE_TIME);
    machine.host.progress("the broker takes records")?;

    let result = machine.play(fault, pid, &running.log_dir, |machine| {
        let log = fs::read(running.broker.server_log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let truth = BrokerTruth {
            log_dir: running.log_dir.to_string_lossy().into_owned(),
            files: running.placed()?,
            log: log.lines().map(str::to_owned).collect(),
        };
        machine.host.progress("the fault is over")?;
        Ok((log, Some(truth)))
    })?;
    // A broker whose directory has failed is of no further use.
    if fault != Fault::BrokerWriteError {
        machine.broker = Some(running);
    }
    Ok(result)
}

fn start(machine: &mut Machine) -> anyhow::Result<Running> {
    let disk = machine.plan.broker_disk.clone();
    let disk = disk.context("the machine has no disk with a broker")?;
    prepare(&Path::new("/dev").join(disk))?;
    let begin = Instant::now();
    machine.host.progress("starting the broker")?;
    let log_dir = Path::new(DATA_DIR).join("kafka");
    let mut config =
        BrokerConfig::new(VERSION, PathBuf::from("/tmp/broker")).flush(Flush::EveryMessage);
    config.log_dirs = vec![log_dir.clone(), PathBuf::from("/tmp/kafka")];
    config.start_limit = STEP_LIMIT;
    config.tool_limit = STEP_LIMIT;
    config = config.property("num.partitions", PARTITIONS);
    let broker = Broker::start(&machine.lab, config)?;
    let pid = broker.pid().context("the broker has no process")?;
    let took = begin.elapsed().as_secs();
    machine
        .host
        .progress(&format!("the broker is up after {took} s"))?;
    // The first record makes the topic.
    let mut load = ProduceConfig::new(TOPIC, 60);
    load.record_bytes = 1000;
    Ok(Running {
        _producer: broker.produce(&load)?,
        broker,
        pid,
        log_dir,
    })
}

/// What a JVM needs of a machine.
fn prepare(device: &Path) -> anyhow::Result<()> {
    if Path::new(MOUNT).join(JVM_DIR).is_dir() {
        return Ok(());
    }
    system::wait_for_path(device, Duration::from_secs(30))?;
    fs::create_dir_all(MOUNT)?;
    let source = device.to_string_lossy();
    system::mount_read_only(&source, Path::new(MOUNT), "ext4")
        .with_context(|| format!("mount {source} on {MOUNT}"))?;
    // The loader stands at a fixed place, another one for each architecture.
    let libs = Path::new(MOUNT).join(LIBS_DIR);
    for entry in fs::read_dir(&libs).with_context(|| format!("list {}", libs.display()))? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with("ld-linux") {
            for folder in ["/lib", "/lib64"] {
                fs::create_dir_all(folder)?;
                symlink(libs.join(&name), Path::new(folder).join(&name))
                    .with_context(|| format!("link {} into {folder}", name.display()))?;
            }
        }
    }
    fs::create_dir_all("/etc")?;
    fs::write("/etc/hosts", "127.0.0.1 localhost\n")?;
    system::bring_up_loopback()
}

impl Running {
    /// The directories of its partitions on the disk.
    fn partitions(&self) -> anyhow::Result<Vec<PathBuf>> {
        let all = read_partition_dirs(std::slice::from_ref(&self.log_dir))?;
        let of_topic = |name: &str| {
            name.rsplit_once('-')
                .is_some_and(|(topic, _)| topic == TOPIC)
        };
        let mut dirs = Vec::new();
        for (name, dir) in &all {
            if of_topic(name) {
                dirs.push(dir.join(name));
            }
        }
        Ok(dirs)
    }

    fn wait_until_warm(&self) -> anyhow::Result<()> {
        let until = Instant::now() + STEP_LIMIT;
        let is_warm = |dir: &PathBuf| {
            let segment = dir.join("00000000000000000000.log");
            fs::metadata(segment).is_ok_and(|meta| meta.len() > WARM_SEGMENT_BYTES)
        };
        loop {
            let partitions = self.partitions()?;
            if !partitions.is_empty() && partitions.iter().all(is_warm) {
                return Ok(());
            }
            if Instant::now() > until {
                let said = fs::read_to_string("/tmp/broker/producer-orders.out");
                eprintln!("guest: producer: {}", said.unwrap_or_default());
                anyhow::bail!("no records after {STEP_LIMIT:?} in {partitions:?}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Every file of its partitions and the checkpoints beside them, with the sectors that
    /// hold it.
    fn placed(&self) -> anyhow::Result<Vec<Placed>> {
        let mut files = BTreeMap::new();
        let mut dirs = self.partitions()?;
        dirs.push(self.log_dir.clone());
        for dir in dirs {
            for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
                let path = entry?.path();
                if !path.is_file() {
                    continue;
                }
                match read_file_sectors(&path) {
                    // A checkpoint that was renamed meanwhile.
                    Err(_) if !path.exists() => continue,
                    sectors => files.insert(path.to_string_lossy().into_owned(), sectors?),
                };
            }
        }
        let files = files.into_iter();
        Ok(files
            .map(|(path, sectors)| Placed { path, sectors })
            .collect())
    }
}
