//! The lines that a broker prints, in its default layout: `[%d] %p %m (%c)%n`,
//! then the Java stack, one frame a line. Texts and frames are those of Kafka
//! 3.9.2 in recordings of real failures.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

const CHANNEL: &str = "org.apache.kafka.storage.internals.log.LogDirFailureChannel";

/// Kafka 3.9.2, under a request handler: `FileChannel.force` of the segment.
const FORCE_FILE: &str = include_str!("stacks/force_file.txt");
/// The same for an index, where `ERRNO` stands for the C library's text.
const FORCE_MAP: &str = include_str!("stacks/force_map.txt");
/// The append before.
const WRITE_FILE: &str = include_str!("stacks/write_file.txt");

const SYNC_CHECKPOINT: &str = "\
\tat java.base/java.io.FileDescriptor.sync0(Native Method)
\tat java.base/java.io.FileDescriptor.sync(FileDescriptor.java:88)
\tat org.apache.kafka.server.common.CheckpointFile.write(CheckpointFile.java:84)
\tat java.base/java.lang.Thread.run(Thread.java:840)
";

/// The writer's server.log.
#[derive(Debug)]
pub(super) struct AppLog(Mutex<File>);

impl AppLog {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(AppLog(Mutex::new(file)))
    }

    /// One record in one write, so that no reader sees half of a line.
    fn print(&self, level: &str, text: &str, logger: &str, thrown: &str) {
        let record = format!("[{}] {level} {text} ({logger})\n{thrown}", render_now());
        let mut file = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Err(err) = file.write_all(record.as_bytes()) {
            eprintln!("error: write server.log: {err}");
        }
    }

    pub(super) fn started(&self, node_id: u32) {
        let text = format!("[KafkaRaftServer nodeId={node_id}] Kafka Server started");
        self.print("INFO", &text, "kafka.server.KafkaRaftServer", "");
    }

    pub(super) fn flush_failed(&self, partition: &str, dir: &Path, offset: u64, err: &io::Error) {
        let text = format!(
            "Error while flushing log for {partition} in dir {} with offset {offset} \
             (exclusive) and recovery point {offset}",
            dir.display()
        );
        let thrown = format!("java.io.IOException: {}\n{FORCE_FILE}", errno_text(err));
        self.print("ERROR", &text, CHANNEL, &thrown);
    }

    pub(super) fn index_failed(&self, node_id: u32, partition: &str, err: &io::Error) {
        let text = format!(
            "[ReplicaManager broker={node_id}] Error processing append operation on \
             partition {partition}"
        );
        let errno = errno_text(err);
        let thrown = format!(
            "java.io.UncheckedIOException: java.io.IOException: {errno} (msync with \
             parameter MS_SYNC failed)\n{}",
            FORCE_MAP.replace("ERRNO", &errno)
        );
        self.print("ERROR", &text, "kafka.server.ReplicaManager", &thrown);
    }

    pub(super) fn append_failed(&self, partition: &str, dir: &Path, err: &io::Error) {
        let dir = dir.display();
        let text = format!("Error while appending records to {partition} in dir {dir}");
        let thrown = format!("java.io.IOException: {}\n{WRITE_FILE}", errno_text(err));
        self.print("ERROR", &text, CHANNEL, &thrown);
    }

    pub(super) fn checkpoint_failed(&self, path: &Path) {
        let path = path.display();
        let text = format!("Error while writing to checkpoint file {path}");
        let thrown = format!("java.io.SyncFailedException: sync failed\n{SYNC_CHECKPOINT}");
        self.print("ERROR", &text, CHANNEL, &thrown);
    }

    /// What follows the first failure of a log.dir.
    pub(super) fn dir_offline(&self, node_id: u32, dir: &Path, uuid: &str, partitions: &[&str]) {
        let dir = dir.display();
        let list = partitions.join(",");
        let replicas = "kafka.server.ReplicaManager";
        let text = format!(
            "[ReplicaManager broker={node_id}] Stopping serving replicas in dir {dir} with \
             uuid Some({uuid}) because the log directory has failed."
        );
        self.print("WARN", &text, replicas, "");
        let text = format!(
            "[ReplicaManager broker={node_id}] Broker {node_id} stopped fetcher for partitions \
             {list} and stopped moving logs for partitions  because they are in the failed log \
             directory {dir}."
        );
        self.print("WARN", &text, replicas, "");
        let text = format!("Stopping serving logs in dir {dir}");
        self.print("WARN", &text, "kafka.log.LogManager", "");
        let text = format!(
            "Logs for partitions {list} are offline and logs for future partitions  are \
             offline due to failure on log directory {dir}"
        );
        self.print("WARN", &text, "kafka.log.LogManager", "");
        let text =
            format!("[ReplicaManager broker={node_id}] Stopped serving replicas in dir {dir}");
        self.print("WARN", &text, replicas, "");
    }

    pub(super) fn all_dirs_failed(&self, dirs: &[String]) {
        let dirs = dirs.join(", ");
        let text = format!("Shutdown broker because all log dirs in {dirs} have failed");
        self.print("ERROR", &text, "kafka.log.LogManager", "");
    }
}

/// The text of glibc, as a JVM prints it. Our own C library may be another one,
/// whose texts differ.
fn errno_text(err: &io::Error) -> String {
    let text = match err.raw_os_error() {
        Some(libc::EIO) => "Input/output error",
        Some(libc::ENODATA) => "No data available",
        Some(libc::ENODEV) => "No such device",
        Some(libc::ENOSPC) => "No space left on device",
        Some(libc::EROFS) => "Read-only file system",
        Some(libc::EUCLEAN) => "Structure needs cleaning",
        Some(libc::ESHUTDOWN) => "Cannot send after transport endpoint shutdown",
        _ => {
            let text = err.to_string();
            return match text.split_once(" (os error") {
                Some((text, _)) => text.to_owned(),
                None => text,
            };
        }
    };
    text.to_owned()
}

/// `yyyy-MM-dd HH:mm:ss,SSS` in the host's zone, as log4j prints it.
fn render_now() -> String {
    // SAFETY: both are plain C structs for which zero is a value, and both
    // calls get valid pointers; localtime_r is thread-safe.
    let (now, tm) = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        let mut tm: libc::tm = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_REALTIME, &mut now);
        libc::localtime_r(&now.tv_sec, &mut tm);
        (now, tm)
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        now.tv_nsec / 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(name: &str, print: impl FnOnce(&AppLog)) -> Vec<String> {
        let file = format!("fsyncscope-applog-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(file);
        print(&AppLog::open(&path).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        text.lines().map(str::to_owned).collect()
    }

    /// Splits `[2026-11-23 22:37:30,827] rest`, and checks the time's form.
    fn split_time(line: &str) -> &str {
        let pattern = "[2026-11-23 22:37:30,827] ";
        let (time, rest) = line.split_at(pattern.len());
        for (got, wanted) in time.chars().zip(pattern.chars()) {
            let fits = wanted == got || (wanted.is_ascii_digit() && got.is_ascii_digit());
            assert!(fits, "{line}");
        }
        rest
    }

    fn eio() -> io::Error {
        io::Error::from_raw_os_error(libc::EIO)
    }

    #[test]
    fn a_failed_flush_prints_what_a_broker_prints() {
        let dir = Path::new("/var/lib/kafka");
        let lines = printed("flush", |log| {
            log.flush_failed("orders-0", dir, 102, &eio());
        });
        assert_eq!(
            split_time(&lines[0]),
            "ERROR Error while flushing log for orders-0 in dir /var/lib/kafka with offset \
             102 (exclusive) and recovery point 102 \
             (org.apache.kafka.storage.internals.log.LogDirFailureChannel)"
        );
        assert_eq!(lines[1], "java.io.IOException: Input/output error");
        assert_eq!(
            lines[2],
            "\tat java.base/sun.nio.ch.FileDispatcherImpl.force0(Native Method)"
        );
        assert!(lines[2..].iter().all(|line| line.starts_with("\tat ")));
        assert_eq!(lines.len(), 31);
    }

    #[test]
    fn a_failed_index_prints_no_word_of_the_directory() {
        let lines = printed("index", |log| log.index_failed(1, "orders-0", &eio()));
        assert_eq!(
            split_time(&lines[0]),
            "ERROR [ReplicaManager broker=1] Error processing append operation on partition \
             orders-0 (kafka.server.ReplicaManager)"
        );
        assert_eq!(
            lines[1],
            "java.io.UncheckedIOException: java.io.IOException: Input/output error (msync with \
             parameter MS_SYNC failed)"
        );
        let cause = "Caused by: java.io.IOException: Input/output error (msync with parameter \
                     MS_SYNC failed)";
        assert_eq!(lines.iter().filter(|line| *line == cause).count(), 1);
        assert_eq!(lines.last().unwrap(), "\t... 34 more");
    }

    #[test]
    fn a_directory_goes_offline_with_warnings_in_order() {
        let dir = Path::new("/d");
        let lines = printed("offline", |log| {
            log.dir_offline(1, dir, "u", &["a-0", "a-1"])
        });
        assert_eq!(
            split_time(&lines[0]),
            "WARN [ReplicaManager broker=1] Stopping serving replicas in dir /d with uuid Some(u) \
             because the log directory has failed. (kafka.server.ReplicaManager)"
        );
        assert_eq!(
            split_time(&lines[3]),
            "WARN Logs for partitions a-0,a-1 are offline and logs for future partitions  are \
             offline due to failure on log directory /d (kafka.log.LogManager)"
        );
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn the_errno_is_named_as_the_jvm_names_it() {
        let text = |errno| errno_text(&io::Error::from_raw_os_error(errno));
        assert_eq!(text(libc::ENOSPC), "No space left on device");
        assert_eq!(text(libc::EROFS), "Read-only file system");
    }
}
