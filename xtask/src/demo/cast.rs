//! Who keeps the log directories of a demo, and the load on them: a real broker
//! with its producers, or the built-in writer. In: the plan and the directories.
//! Out: a process that has begun to write and sync.

use std::path::PathBuf;

use anyhow::Context;
use fsyncscope_tests::broker::{Broker, BrokerConfig, KafkaVersion, ProduceConfig, Producer};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::writer::{Writer, WriterConfig};

use super::late;
use super::stage::Plan;
use crate::cli::ScenarioName;
use crate::process::say;

/// Enough that both disks hold some.
const PARTITIONS: u32 = 4;

/// Who keeps the log directories.
pub enum Keeper {
    /// A real broker; its producers are ended before it.
    Broker {
        /// End when dropped.
        producers: Vec<Producer>,
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

/// Starts whom the plan names. Out: the pid, too.
pub fn start(lab: &Lab, plan: &Plan, log_dirs: Vec<PathBuf>) -> anyhow::Result<(Keeper, u32)> {
    match plan.cast {
        Cast::Broker(version) => start_broker(lab, plan, version, log_dirs),
        Cast::Writer => start_writer(lab, plan, log_dirs),
    }
}

fn start_broker(
    lab: &Lab,
    plan: &Plan,
    version: KafkaVersion,
    log_dirs: Vec<PathBuf>,
) -> anyhow::Result<(Keeper, u32)> {
    say(format!(
        "starting Kafka {} (fetches its jars once)",
        version.number()
    ));
    let topic = &plan.names.topic;
    let mut config = BrokerConfig::new(version, plan.names.broker_dir(lab));
    let log_dir = log_dirs[plan.faulty].clone();
    config.log_dirs = log_dirs;
    for (key, value) in properties(plan.name) {
        config = config.property(key, value);
    }
    let broker = Broker::start(lab, config)?;
    let pid = broker.pid().context("the broker has no process")?;
    broker.create_topic_with(topic, PARTITIONS, topic_configs(plan.name))?;
    let mut load = ProduceConfig::new(topic, 60);
    load.record_bytes = 1000;
    if plan.name == ScenarioName::Noise {
        load.client_id = format!(
            "Error while flushing log for {topic}-0 in dir {} (kafka.server.LogDirFailureChannel)",
            log_dir.display()
        );
    }
    let mut producers = vec![broker.produce(&load)?];
    if plan.name == ScenarioName::Healthy {
        producers.push(produce_rolled(&broker, topic)?);
    }
    Ok((
        Keeper::Broker {
            producers,
            broker: Box::new(broker),
        },
        pid,
    ))
}

/// The rest of a broker's storage work: a topic that is flushed as most clusters
/// do, when a segment is full, and whose old segments are deleted.
fn produce_rolled(broker: &Broker, topic: &str) -> anyhow::Result<Producer> {
    let topic = format!("{topic}-rolled");
    let configs = [
        ("flush.messages", "9223372036854775807"),
        ("segment.bytes", "2097152"),
        ("retention.bytes", "8388608"),
        ("file.delete.delay.ms", "10000"),
    ];
    broker.create_topic_with(&topic, 2, &configs)?;
    let mut load = ProduceConfig::new(&topic, 200);
    load.record_bytes = 1000;
    broker.produce(&load)
}

fn start_writer(lab: &Lab, plan: &Plan, log_dirs: Vec<PathBuf>) -> anyhow::Result<(Keeper, u32)> {
    say("starting the built-in writer: this run proves nothing");
    let mut config = WriterConfig::new(plan.names.broker_dir(lab), log_dirs);
    config.topics = vec![plan.names.topic.clone()];
    config.partitions = PARTITIONS;
    let writer = Writer::start(lab, config)?;
    let pid = writer.pid();
    Ok((Keeper::Writer(Box::new(writer)), pid))
}

/// What the topic needs beside the broker's defaults.
fn topic_configs(name: ScenarioName) -> &'static [(&'static str, &'static str)] {
    match name {
        // Ends behind the writeback, not before: it comes after 30 s.
        ScenarioName::Late => &[("segment.ms", late::SEGMENT_MS)],
        _ => &[],
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
        ScenarioName::Healthy => vec![
            ("log.flush.interval.messages", "1"),
            ("log.retention.check.interval.ms", "20000"),
        ],
        // As most clusters: nothing is flushed before a segment is full.
        ScenarioName::Late => Vec::new(),
        // Each batch flushes .log, .index and .timeindex.
        _ => vec![("log.flush.interval.messages", "1")],
    }
}
