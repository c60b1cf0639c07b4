//! What broker to run. In: a caller's wishes. Out: plain settings, which
//! `files` renders and `Broker::start` obeys. Nothing is read or made here.

use std::path::PathBuf;
use std::time::Duration;

use super::KafkaVersion;

/// What broker to run.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Which Kafka.
    pub version: KafkaVersion,
    /// `log.dirs`; made if they are not there.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`.
    pub meta_dir: PathBuf,
    /// Where server.log goes (`kafka.logs.dir`).
    pub app_log_dir: PathBuf,
    /// Where its configuration and the outputs of the tools go.
    pub work_dir: PathBuf,
    /// `node.id`.
    pub node_id: u32,
    /// The cluster's id, 22 characters of base64.
    pub cluster_id: String,
    /// Further lines of server.properties.
    pub properties: Vec<(String, String)>,
    /// The JVM's heap.
    pub heap: String,
    /// How long it may take to start.
    pub start_limit: Duration,
    /// How long each of its tools may take; one gives up on a broker that does not
    /// answer after a minute.
    pub tool_limit: Duration,
}

/// When the broker flushes the partitions of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// At a roll and at the end only, as most clusters do.
    Default,
    /// Each batch, in the request handler, before it is acknowledged.
    EveryMessage,
    /// Every second, by the scheduler.
    EverySecond,
}

impl BrokerConfig {
    /// Node 1 with all directories below this one, and no log.dirs yet.
    pub fn new(version: KafkaVersion, work_dir: PathBuf) -> Self {
        BrokerConfig {
            version,
            log_dirs: Vec::new(),
            meta_dir: work_dir.join("meta"),
            app_log_dir: work_dir.join("logs"),
            work_dir,
            node_id: 1,
            cluster_id: "bGFiLWZzeW5jc2NvcGUtMQ".to_owned(),
            properties: Vec::new(),
            heap: "256m".to_owned(),
            start_limit: Duration::from_secs(60),
            tool_limit: Duration::from_secs(90),
        }
    }

    /// Adds a line of server.properties.
    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds the lines of a flush policy.
    pub fn flush(self, flush: Flush) -> Self {
        match flush {
            Flush::Default => self,
            Flush::EveryMessage => self.property("log.flush.interval.messages", "1"),
            Flush::EverySecond => self
                .property("log.flush.interval.ms", "1000")
                .property("log.flush.scheduler.interval.ms", "1000")
                // Otherwise the first flush comes 30 s after the start.
                .property("log.initial.task.delay.ms", "500"),
        }
    }
}
