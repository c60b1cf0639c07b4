//! Kafka's own command-line tools, run from the same jars: topics, log
//! directories, a steady producer. Each is a short-lived JVM.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Broker;
use crate::proc;

/// What a producer is to do.
#[derive(Clone, Debug)]
pub struct ProduceConfig {
    /// The topic.
    pub topic: String,
    /// How many records; it may be ended sooner.
    pub records: u64,
    /// Size of a record.
    pub record_bytes: u32,
    /// Records a second, -1 for as fast as possible.
    pub records_per_s: i64,
    /// Its `client.id`.
    pub client_id: String,
    /// Further producer properties, `key=value`.
    pub properties: Vec<String>,
}

impl ProduceConfig {
    /// A slow, endless producer of small records.
    pub fn new(topic: &str, records_per_s: i64) -> Self {
        ProduceConfig {
            topic: topic.to_owned(),
            records: 1 << 40,
            record_bytes: 200,
            records_per_s,
            client_id: "lab-producer".to_owned(),
            properties: Vec::new(),
        }
    }
}

/// A running producer, ended when dropped.
#[derive(Debug)]
pub struct Producer(Child);

impl Producer {
    /// Whether it is still producing.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits until all records are sent; `false` if the limit came first or it
    /// failed.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let status = proc::wait(&mut self.0, limit)?;
        Ok(status.is_some_and(|status| status.success()))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.0, libc::SIGKILL, Duration::from_secs(5));
    }
}

impl Broker {
    /// Runs a tool to its end, as a child that goes with this process and has
    /// a limit, which `proc::run` does not; returns its standard output.
    fn run_tool(&self, mut command: Command, name: &str) -> anyhow::Result<String> {
        let (out, err) = (
            self.work_dir().join(format!("{name}.out")),
            self.work_dir().join(format!("{name}.err")),
        );
        let create =
            |path: &Path| File::create(path).with_context(|| format!("create {}", path.display()));
        command.stdout(create(&out)?).stderr(create(&err)?);
        let mut child = proc::spawn(command).with_context(|| format!("run {name}"))?;
        let limit = self.config().tool_limit;
        let status = proc::wait(&mut child, limit)?;
        if status.is_none() {
            proc::end(&mut child, libc::SIGKILL, Duration::ZERO)?;
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(read(&out)),
            Some(status) => {
                anyhow::bail!("run {name}: {status}: {}{}", read(&out), read(&err))
            }
            None => anyhow::bail!("run {name}: no end after {limit:?}"),
        }
    }

    fn tool(&self, class: &str) -> Command {
        let mut command = self.java();
        // Small and quick to start: nothing here runs for long.
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.arg("-cp").arg(&self.class_path).arg(class);
        command.stdin(Stdio::null());
        command
    }

    /// Makes a topic, unreplicated, with the broker's settings; returns when each
    /// of its partitions is in a log.dir.
    pub fn create_topic(&self, topic: &str, partitions: u32) -> anyhow::Result<()> {
        self.create_topic_with(topic, partitions, &[])
    }

    /// The same with settings of its own (`flush.ms` and so on).
    pub fn create_topic_with(
        &self,
        topic: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut command = self.tool("org.apache.kafka.tools.TopicCommand");
        command.args(["--bootstrap-server", &self.bootstrap()]);
        command.args(["--create", "--topic", topic, "--replication-factor", "1"]);
        command.args(["--partitions", &partitions.to_string()]);
        for (key, value) in configs {
            command.args(["--config", &format!("{key}={value}")]);
        }
        self.run_tool(command, "kafka-topics")
            .with_context(|| format!("create topic {topic}"))?;
        // The controller answers before the broker has made the directories.
        let until = Instant::now() + Duration::from_secs(20);
        let is_made = |number| self.partition_dir(&format!("{topic}-{number}")).is_some();
        while !(0..partitions).all(is_made) {
            anyhow::ensure!(
                Instant::now() < until,
                "create topic {topic}: not all of its partitions have a directory"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts a producer in the background.
    pub fn produce(&self, config: &ProduceConfig) -> anyhow::Result<Producer> {
        let mut command = self.tool("org.apache.kafka.tools.ProducerPerformance");
        command.args(["--topic", &config.topic]);
        command.args(["--num-records", &config.records.to_string()]);
        command.args(["--record-size", &config.record_bytes.to_string()]);
        command.args(["--throughput", &config.records_per_s.to_string()]);
        command.arg("--producer-props");
        command.arg(format!("bootstrap.servers={}", self.bootstrap()));
        command.arg(format!("client.id={}", config.client_id));
        command.args(&config.properties);
        let log = self
            .work_dir()
            .join(format!("producer-{}.out", config.topic));
        let log = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.stdout(log.try_clone()?).stderr(log);
        proc::spawn(command)
            .map(Producer)
            .context("start the producer")
    }

    /// What `kafka-log-dirs --describe` says: the JSON of this broker.
    pub fn log_dirs_describe(&self) -> anyhow::Result<serde_json::Value> {
        let mut command = self.tool("org.apache.kafka.tools.LogDirsCommand");
        command.args(["--bootstrap-server", &self.bootstrap(), "--describe"]);
        let text = self.run_tool(command, "kafka-log-dirs")?;
        let json = text
            .lines()
            .find(|line| line.starts_with('{'))
            .context("kafka-log-dirs printed no JSON")?;
        Ok(serde_json::from_str(json)?)
    }

    /// Formats the log directories for KRaft.
    pub(super) fn format_storage(&self, properties: &Path) -> anyhow::Result<()> {
        let mut command = self.tool("kafka.tools.StorageTool");
        let cluster_id = &self.config().cluster_id;
        command.args(["format", "--ignore-formatted", "-t", cluster_id]);
        command.arg("-c").arg(properties);
        self.run_tool(command, "kafka-storage")
            .map(|_| ())
            .context("format storage")
    }
}
