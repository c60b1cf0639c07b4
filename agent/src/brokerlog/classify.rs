//! Decides whether a record of the broker's log is about storage, and what it
//! says. In: a [`LogRecord`]. Out: a [`StorageEvent`], or nothing. Noise is
//! refused: phrase at the start, expected level and logger; [`check_plausible`]
//! adds what only the caller knows. Whether it was the disk is `judge`'s.

use serde::{Deserialize, Serialize};

use super::exception::{Exception, is_storage, parse_errno, parse_exception};
use super::parse::{Level, LogRecord};
use super::phrases::{
    CHANNEL, PHRASES, parse_already_offline, parse_fields, parse_nested, split_prefix,
};

/// What a broker's line about storage reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageEventKind {
    /// `Error while flushing log for …`: a failed fsync of a segment.
    FlushError,
    /// `Error while appending records to …`: a failed write.
    AppendError,
    /// `Error processing append operation …`: mostly a failed msync of an
    /// index; the directory stays online.
    ProcessAppendError,
    /// A checkpoint file could not be written, synced or renamed.
    CheckpointWriteError,
    /// A producer snapshot; in 3.9 really its failed fsync.
    SnapshotDeleteError,
    /// `Error while loading log dir …` at start.
    LogDirLoadError,
    /// `Error flushing topic …` of the timer.
    TopicFlushError,
    /// A scheduled task died of a storage exception (`flush-log`, …).
    UncaughtTaskError,
    /// The raft thread died: the process ends.
    RaftFatalFault,
    /// Any other ERROR of a `LogDirFailureChannel` logger.
    OtherStorageError,
    /// No directory left: the process ends.
    AllDirsFailed,
    /// `Stopping serving replicas in dir …`.
    StoppingReplicas,
    /// `Stopped serving replicas …`, fetchers stopped.
    StoppedReplicas,
    /// `Stopping serving logs in dir …`.
    StoppingLogs,
    /// `Logs for partitions … are offline …`.
    LogsOffline,
    /// The controller marked directories offline.
    DirectoriesOffline,
    /// A heartbeat to the controller timed out.
    HeartbeatTimeout,
    /// The controller's queue was held up.
    SlowControllerEvent,
    /// Recovery met records that are not whole.
    FoundInvalidMessages,
    /// Recovery cuts a segment.
    TruncatingCorruption,
    /// An index is rebuilt.
    CorruptedIndex,
    /// A log could not be recovered.
    CouldNotRecover,
    /// A log directory is empty: volume not mounted?
    NoMetaProperties,
    /// Recovery after an unclean stop.
    RecoveringSegment,
}

impl StorageEventKind {
    /// As it stands in metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FlushError => "flush_error",
            Self::AppendError => "append_error",
            Self::ProcessAppendError => "process_append_error",
            Self::CheckpointWriteError => "checkpoint_write_error",
            Self::SnapshotDeleteError => "snapshot_delete_error",
            Self::LogDirLoadError => "log_dir_load_error",
            Self::TopicFlushError => "topic_flush_error",
            Self::UncaughtTaskError => "uncaught_task_error",
            Self::RaftFatalFault => "raft_fatal_fault",
            Self::OtherStorageError => "other_storage_error",
            Self::AllDirsFailed => "all_dirs_failed",
            Self::StoppingReplicas => "stopping_replicas",
            Self::StoppedReplicas => "stopped_replicas",
            Self::StoppingLogs => "stopping_logs",
            Self::LogsOffline => "logs_offline",
            Self::DirectoriesOffline => "directories_offline",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::SlowControllerEvent => "slow_controller_event",
            Self::FoundInvalidMessages => "found_invalid_messages",
            Self::TruncatingCorruption => "truncating_corruption",
            Self::CorruptedIndex => "corrupted_index",
            Self::CouldNotRecover => "could_not_recover",
            Self::NoMetaProperties => "no_meta_properties",
            Self::RecoveringSegment => "recovering_segment",
        }
    }

    /// Every kind, so that counters can exist at 0.
    pub const ALL: [Self; 24] = [
        Self::FlushError,
        Self::AppendError,
        Self::ProcessAppendError,
        Self::CheckpointWriteError,
        Self::SnapshotDeleteError,
        Self::LogDirLoadError,
        Self::TopicFlushError,
        Self::UncaughtTaskError,
        Self::RaftFatalFault,
        Self::OtherStorageError,
        Self::AllDirsFailed,
        Self::StoppingReplicas,
        Self::StoppedReplicas,
        Self::StoppingLogs,
        Self::LogsOffline,
        Self::DirectoriesOffline,
        Self::HeartbeatTimeout,
        Self::SlowControllerEvent,
        Self::FoundInvalidMessages,
        Self::TruncatingCorruption,
        Self::CorruptedIndex,
        Self::CouldNotRecover,
        Self::NoMetaProperties,
        Self::RecoveringSegment,
    ];
}

/// Place of an event in a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventRole {
    /// The first word of an operation that failed: needs a verdict.
    Primary,
    /// Follows from a primary event, or repeats it in other words.
    Consequence,
    /// Recovery, heartbeats: context.
    Info,
}

/// A record that is about storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StorageEvent {
    /// What is reported.
    pub kind: StorageEventKind,
    /// Its place in the story.
    pub role: EventRole,
    /// Level printed.
    pub level: Level,
    /// Logger printed.
    pub logger: String,
    /// Message without logger.
    pub message: String,
    /// Time printed, nanoseconds since 1970.
    pub time: Option<i64>,
    /// `orders-0`.
    pub topic_partition: Option<String>,
    /// Topic id, where 4.x prints it.
    pub topic_id: Option<String>,
    /// The log.dir that the message names.
    pub dir: Option<String>,
    /// Offset flushed, truncated to, or found bad.
    pub offset: Option<i64>,
    /// Recovery point of a flush.
    pub recovery_point: Option<i64>,
    /// A file that the message names.
    pub file: Option<String>,
    /// Partitions that a consequence lists.
    pub partitions: Vec<String>,
    /// Elapsed time that a slow event or heartbeat names.
    pub duration_ms: Option<u64>,
    /// Outermost exception.
    pub exception: Option<String>,
    /// Its message.
    pub exception_message: Option<String>,
    /// Innermost cause.
    pub root_exception: Option<String>,
    /// Its message.
    pub root_message: Option<String>,
    /// The strerror text in the exception.
    pub errno_text: Option<String>,
    /// Its number on this host.
    pub errno: Option<i32>,
    /// First frames of the innermost cause.
    pub stack_top: Vec<String>,
}

/// Why an event is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Implausible {
    /// It names a directory that is not one of the broker's.
    #[error("its directory is not one of the broker's log.dirs")]
    ForeignDir,
    /// Kafka always prints the exception with this line; it is missing.
    #[error("no exception follows, though kafka always prints one here")]
    NoException,
}

/// Reads a storage event out of a record; `None` for everything else.
#[must_use]
pub fn classify(record: &LogRecord) -> Option<StorageEvent> {
    if !(record.logger.starts_with("kafka.") || record.logger.starts_with("org.apache.kafka.")) {
        return None;
    }
    let (prefix, message) = split_prefix(&record.message);
    let last = record.logger.rsplit('.').next().unwrap_or("");
    let found = PHRASES.iter().find(|phrase| {
        message.starts_with(phrase.starts)
            && message[phrase.starts.len()..].contains(phrase.contains)
            && phrase.levels.contains(&record.level)
            && (phrase.logger.is_empty() || phrase.logger == last)
    });
    let kind = match found {
        Some(phrase) => phrase.kind,
        None if last == CHANNEL && record.level <= Level::Error => {
            StorageEventKind::OtherStorageError
        }
        None => return None,
    };
    let exception = parse_exception(&record.stack);
    let chain = exception
        .as_ref()
        .map_or(&[][..], |exception| &exception.chain);
    use StorageEventKind as Kind;
    // These lines also report exceptions that have nothing to do with files.
    if matches!(
        kind,
        Kind::ProcessAppendError | Kind::UncaughtTaskError | Kind::TopicFlushError
    ) && !is_storage(chain)
    {
        return None;
    }
    let fields = parse_fields(kind, prefix, message);
    let mut event = StorageEvent {
        kind,
        role: role(kind, record, exception.as_ref()),
        level: record.level,
        logger: record.logger.clone(),
        message: record.message.clone(),
        time: record.time,
        topic_partition: fields.topic_partition,
        topic_id: fields.topic_id,
        dir: fields.dir,
        offset: fields.offset,
        recovery_point: fields.recovery_point,
        file: fields.file,
        partitions: fields.partitions,
        duration_ms: fields.duration_ms,
        exception: None,
        exception_message: None,
        root_exception: None,
        root_message: None,
        errno_text: None,
        errno: None,
        stack_top: Vec::new(),
    };
    if let Some(exception) = exception {
        attach(&mut event, exception);
    }
    Some(event)
}

fn role(kind: StorageEventKind, record: &LogRecord, exception: Option<&Exception>) -> EventRole {
    use StorageEventKind as Kind;
    match kind {
        Kind::HeartbeatTimeout
        | Kind::SlowControllerEvent
        | Kind::FoundInvalidMessages
        | Kind::TruncatingCorruption => EventRole::Info,
        Kind::CorruptedIndex
        | Kind::CouldNotRecover
        | Kind::NoMetaProperties
        | Kind::RecoveringSegment => EventRole::Info,
        Kind::AllDirsFailed => EventRole::Consequence,
        _ if record.level == Level::Warn => EventRole::Consequence,
        // A KafkaStorageException wraps an error that the failure channel has
        // printed before.
        _ if exception
            .is_some_and(|exception| exception.class.ends_with(".KafkaStorageException")) =>
        {
            EventRole::Consequence
        }
        // LogManager repeats it beside the failure channel.
        Kind::LogDirLoadError if !record.logger.ends_with(CHANNEL) => EventRole::Consequence,
        _ => EventRole::Primary,
    }
}

fn attach(event: &mut StorageEvent, exception: Exception) {
    let nested = parse_nested(&exception.message);
    if let Some(nested) = nested {
        event.topic_partition = event.topic_partition.take().or(nested.topic_partition);
        event.dir = event.dir.take().or(nested.dir);
        event.offset = event.offset.or(nested.offset);
        event.recovery_point = event.recovery_point.or(nested.recovery_point);
        event.file = event.file.take().or(nested.file);
    } else if let Some(dir) = parse_already_offline(&exception.message) {
        event.dir.get_or_insert_with(|| dir.to_owned());
    }
    if let Some((text, errno)) = parse_errno(&exception.root_message) {
        event.errno_text = Some(text.to_owned());
        event.errno = Some(errno);
    }
    event.exception = Some(exception.class);
    event.exception_message = Some(exception.message);
    event.root_exception = Some(exception.root_class);
    event.root_message = Some(exception.root_message);
    event.stack_top = exception.top;
}

/// Checks an event against what the caller knows of the broker. With no
/// `log_dirs` the directory is not checked.
///
/// # Errors
/// Says what speaks against the event.
pub fn check_plausible(event: &StorageEvent, log_dirs: &[String]) -> Result<(), Implausible> {
    let is_ours = |path: &str, inside: bool| {
        log_dirs.is_empty()
            || log_dirs.iter().any(|dir| {
                let (dir, path) = (dir.trim_end_matches('/'), path.trim_end_matches('/'));
                path == dir
                    || (inside
                        && path
                            .strip_prefix(dir)
                            .is_some_and(|rest| rest.starts_with('/')))
            })
    };
    // "all log dirs in D1, D2 have failed" is a list.
    let dirs = event.dir.as_deref().unwrap_or("");
    if !dirs.is_empty() && !is_ours(dirs, false) && !dirs.split(", ").all(|dir| is_ours(dir, false))
    {
        return Err(Implausible::ForeignDir);
    }
    if event
        .file
        .as_deref()
        .is_some_and(|file| file.starts_with('/') && !is_ours(file, true))
    {
        return Err(Implausible::ForeignDir);
    }
    if event.role == EventRole::Primary && event.exception.is_none() {
        return Err(Implausible::NoException);
    }
    Ok(())
}

/// Whether [`check_plausible`] finds nothing against the event.
#[must_use]
pub fn is_plausible(event: &StorageEvent, log_dirs: &[String]) -> bool {
    check_plausible(event, log_dirs).is_ok()
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
