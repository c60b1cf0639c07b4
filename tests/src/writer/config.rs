//! What the writer is told, and the files by which it is found and read like a
//! broker: server.properties and log4j.properties. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The call by which the writer makes a segment durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SyncCall {
    /// As Kafka does.
    #[default]
    Fsync,
    /// Without the inode's times.
    Fdatasync,
    /// Starts and waits for writeback; proves nothing about durability.
    SyncFileRange,
    /// The whole file system.
    Syncfs,
}

/// Calls that Kafka never makes; made on the first segment before the first
/// flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraSyncs {
    /// How many `fdatasync`.
    pub fdatasync: u64,
    /// How many `sync_file_range`.
    pub sync_file_range: u64,
    /// How many `syncfs`.
    pub syncfs: u64,
}

/// What a writer is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriterConfig {
    /// `log.dirs`; partitions go to them in turn.
    pub log_dirs: Vec<PathBuf>,
    /// Where server.log goes (`kafka.logs.dir`).
    pub app_log_dir: PathBuf,
    /// Where its configuration goes. Neither this nor `app_log_dir` belongs on
    /// a disk that fails.
    pub work_dir: PathBuf,
    /// `node.id`.
    pub node_id: u32,
    /// The topics.
    pub topics: Vec<String>,
    /// How many partitions each topic has.
    pub partitions: u32,
    /// Request handlers, among which the partitions are dealt.
    pub handlers: u32,
    /// Flushes of a partition a second, all together; 0 for as fast as possible.
    pub flushes_per_s: f64,
    /// How many flushes in all; 0 for no end.
    pub flushes: u64,
    /// Bytes appended to the segment before each flush.
    pub record_bytes: u64,
    /// Where a segment begins again at its start, since nothing is ever deleted.
    pub segment_bytes: u64,
    /// How the segment is synced.
    pub sync: SyncCall,
    /// Whether the two indexes are synced as well, as Kafka does.
    pub msync: bool,
    /// Syncs nothing for so long. A broker's JVM takes seconds to start as well,
    /// in which whoever watches can find it.
    pub hold_before_first_sync_ms: u64,
    /// Time between two rounds of checkpoints, 0 for none.
    pub checkpoint_ms: u64,
    /// Calls that Kafka never makes.
    pub extra: ExtraSyncs,
    /// Once, a segment stays unsynced for a while, as all do without flush
    /// settings.
    #[serde(default)]
    pub pause: Option<Pause>,
}

/// A time between an append and its sync.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// It begins when this file is there, which is then removed.
    pub when: PathBuf,
    /// How long.
    pub ms: u64,
}

impl WriterConfig {
    /// Four partitions of `orders`, 20 flushes a second without end.
    pub fn new(work_dir: PathBuf, log_dirs: Vec<PathBuf>) -> Self {
        WriterConfig {
            log_dirs,
            app_log_dir: work_dir.join("logs"),
            work_dir,
            node_id: 1,
            topics: vec!["orders".to_owned()],
            partitions: 4,
            handlers: 1,
            flushes_per_s: 20.0,
            flushes: 0,
            record_bytes: 4096,
            segment_bytes: 16 << 20,
            sync: SyncCall::Fsync,
            msync: true,
            hold_before_first_sync_ms: 3000,
            checkpoint_ms: 5000,
            extra: ExtraSyncs::default(),
            pause: None,
        }
    }

    /// Its server.properties.
    pub fn properties_path(&self) -> PathBuf {
        self.work_dir.join("server.properties")
    }

    /// Its log4j.properties.
    pub fn log4j_path(&self) -> PathBuf {
        self.work_dir.join("log4j.properties")
    }

    /// Where it counts its flushes for its owner: 8 bytes, native order.
    pub(super) fn progress_path(&self) -> PathBuf {
        self.work_dir.join("progress")
    }

    /// All partitions, each with the number of its log.dir.
    pub(super) fn deal_partitions(&self) -> Vec<(usize, String)> {
        let names = self.topics.iter().flat_map(|topic| {
            let numbers = 0..self.partitions;
            numbers.map(move |n| format!("{topic}-{n}"))
        });
        let dirs = (0..self.log_dirs.len()).cycle();
        dirs.zip(names).collect()
    }

    pub(super) fn render_server_properties(&self) -> String {
        let log_dirs: Vec<_> = self
            .log_dirs
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        format!(
            "process.roles=broker,controller\nnode.id={}\nlog.dirs={}\n\
             log.flush.interval.messages=1\n",
            self.node_id,
            log_dirs.join(",")
        )
    }

    /// As the distribution ships it, cut down to server.log.
    pub(super) fn render_log4j() -> &'static str {
        "log4j.rootLogger=INFO, kafkaAppender\n\
         log4j.appender.kafkaAppender=org.apache.log4j.DailyRollingFileAppender\n\
         log4j.appender.kafkaAppender.DatePattern='.'yyyy-MM-dd-HH\n\
         log4j.appender.kafkaAppender.File=${kafka.logs.dir}/server.log\n\
         log4j.appender.kafkaAppender.layout=org.apache.log4j.PatternLayout\n\
         log4j.appender.kafkaAppender.layout.ConversionPattern=[%d] %p %m (%c)%n\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_go_to_the_log_dirs_in_turn() {
        let mut config = WriterConfig::new("/w".into(), vec!["/a".into(), "/b".into()]);
        config.topics = vec!["orders".into(), "clicks".into()];
        config.partitions = 3;
        let dealt = config.deal_partitions();
        let dealt: Vec<_> = dealt.iter().map(|(dir, name)| (*dir, &**name)).collect();
        let wanted = [
            (0, "orders-0"),
            (1, "orders-1"),
            (0, "orders-2"),
            (1, "clicks-0"),
            (0, "clicks-1"),
            (1, "clicks-2"),
        ];
        assert_eq!(dealt, wanted);
    }

    #[test]
    fn server_properties_name_the_log_dirs() {
        let config = WriterConfig::new("/w".into(), vec!["/a".into(), "/b".into()]);
        let text = config.render_server_properties();
        assert!(text.lines().any(|line| line == "log.dirs=/a,/b"), "{text}");
        assert!(text.lines().any(|line| line == "node.id=1"), "{text}");
    }
}
