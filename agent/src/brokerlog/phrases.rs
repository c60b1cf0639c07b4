//! The table of messages about storage that brokers print, as recorded from
//! Kafka 2.8, 3.9 and 4.3 and read in their sources. In: level, logger,
//! message. Out: the kind and what stands in the message. A message must start
//! with its phrase: the same words inside another message are noise.

use super::StorageEventKind as Kind;
use super::parse::Level;

/// One known message.
pub(crate) struct Phrase {
    /// Start of the message, behind a `[Something id=1] ` prefix.
    pub starts: &'static str,
    /// Must occur behind it; empty for none.
    pub contains: &'static str,
    pub kind: Kind,
    pub levels: &'static [Level],
    /// Last word of the logger's name; empty for any logger of Kafka's.
    pub logger: &'static str,
}

const ERR: &[Level] = &[Level::Error, Level::Fatal];
const INFO: &[Level] = &[Level::Info];
const WARN_ERR: &[Level] = &[Level::Warn, Level::Error];
const INFO_WARN: &[Level] = &[Level::Info, Level::Warn];
/// Logger that Kafka hands every failed file operation to.
pub(crate) const CHANNEL: &str = "LogDirFailureChannel";

const fn phrase(
    starts: &'static str,
    contains: &'static str,
    kind: Kind,
    levels: &'static [Level],
    logger: &'static str,
) -> Phrase {
    Phrase {
        starts,
        contains,
        kind,
        levels,
        logger,
    }
}

/// In order; the first that fits wins.
pub(crate) const PHRASES: &[Phrase] = &[
    phrase(
        "Error while flushing log for ",
        " in dir ",
        Kind::FlushError,
        ERR,
        CHANNEL,
    ),
    phrase(
        "Error while appending records to ",
        " in dir ",
        Kind::AppendError,
        ERR,
        CHANNEL,
    ),
    phrase(
        "Error while writing to checkpoint file ",
        "",
        Kind::CheckpointWriteError,
        ERR,
        CHANNEL,
    ),
    phrase(
        "Disk error while writing ",
        " checkpoint",
        Kind::CheckpointWriteError,
        ERR,
        CHANNEL,
    ),
    phrase(
        "Disk error while trying to write ",
        "checkpoint",
        Kind::CheckpointWriteError,
        ERR,
        CHANNEL,
    ),
    phrase(
        "Error while deleting producer state snapshot",
        "",
        Kind::SnapshotDeleteError,
        ERR,
        CHANNEL,
    ),
    phrase(
        "Error while loading log dir ",
        "",
        Kind::LogDirLoadError,
        ERR,
        "",
    ),
    phrase(
        "Error processing append operation on partition ",
        "",
        Kind::ProcessAppendError,
        ERR,
        "ReplicaManager",
    ),
    phrase(
        "Error flushing topic ",
        "",
        Kind::TopicFlushError,
        ERR,
        "LogManager",
    ),
    phrase(
        "Uncaught exception in scheduled task '",
        "",
        Kind::UncaughtTaskError,
        ERR,
        "KafkaScheduler",
    ),
    phrase(
        "Shutdown broker because all log dirs in ",
        "",
        Kind::AllDirsFailed,
        ERR,
        "LogManager",
    ),
    phrase(
        "Shutdown broker because none of the specified log dirs ",
        "",
        Kind::AllDirsFailed,
        ERR,
        "LogManager",
    ),
    phrase(
        "Halting broker because dir ",
        "",
        Kind::AllDirsFailed,
        ERR,
        "",
    ),
    phrase(
        "Halting because all log director",
        "",
        Kind::AllDirsFailed,
        ERR,
        "",
    ),
    phrase(
        "Encountered fatal fault: ",
        "raft",
        Kind::RaftFatalFault,
        ERR,
        "",
    ),
    phrase(
        "Stopping serving replicas in dir ",
        "",
        Kind::StoppingReplicas,
        WARN_ERR,
        "ReplicaManager",
    ),
    phrase(
        "Stopped serving replicas in dir ",
        "",
        Kind::StoppedReplicas,
        WARN_ERR,
        "ReplicaManager",
    ),
    phrase(
        "Broker ",
        "because they are in the failed log directory ",
        Kind::StoppedReplicas,
        WARN_ERR,
        "ReplicaManager",
    ),
    phrase(
        "Stopping serving logs in dir ",
        "",
        Kind::StoppingLogs,
        WARN_ERR,
        "LogManager",
    ),
    phrase(
        "Logs for partitions ",
        " due to failure on log directory ",
        Kind::LogsOffline,
        WARN_ERR,
        "LogManager",
    ),
    phrase(
        "Directories [",
        " marked offline",
        Kind::DirectoriesOffline,
        WARN_ERR,
        "ReplicationControlManager",
    ),
    phrase(
        "Cancelled in-flight BROKER_HEARTBEAT request",
        "",
        Kind::HeartbeatTimeout,
        INFO_WARN,
        "NetworkClient",
    ),
    phrase(
        "Unable to send a heartbeat because the RPC got timed out",
        "",
        Kind::HeartbeatTimeout,
        INFO_WARN,
        "BrokerLifecycleManager",
    ),
    phrase(
        "Exceptionally slow controller event ",
        " took ",
        Kind::SlowControllerEvent,
        WARN_ERR,
        "EventPerformanceMonitor",
    ),
    phrase(
        "Found invalid messages in log segment ",
        "",
        Kind::FoundInvalidMessages,
        WARN_ERR,
        "",
    ),
    phrase(
        "Corruption found in segment ",
        ", truncating to offset ",
        Kind::TruncatingCorruption,
        WARN_ERR,
        "",
    ),
    phrase(
        "Found a corrupted index file ",
        "",
        Kind::CorruptedIndex,
        WARN_ERR,
        "",
    ),
    phrase(
        "Found a corrupted time index file ",
        "",
        Kind::CorruptedIndex,
        WARN_ERR,
        "",
    ),
    phrase(
        "Could not find offset index file corresponding to log file ",
        "",
        Kind::CorruptedIndex,
        WARN_ERR,
        "",
    ),
    phrase(
        "Could not recover log",
        "",
        Kind::CouldNotRecover,
        WARN_ERR,
        "",
    ),
    phrase(
        "There was an error in one of the threads during logs loading",
        "",
        Kind::CouldNotRecover,
        ERR,
        "LogManager",
    ),
    phrase(
        "No `meta.properties` found in ",
        "",
        Kind::NoMetaProperties,
        &[Level::Info, Level::Warn, Level::Error],
        "",
    ),
    phrase(
        "Recovering unflushed segment ",
        "",
        Kind::RecoveringSegment,
        INFO,
        "",
    ),
];

/// Cuts a `[ReplicaManager broker=1] ` prefix off; gives it beside the rest.
pub(crate) fn split_prefix(message: &str) -> (&str, &str) {
    let inner = message
        .strip_prefix('[')
        .and_then(|inner| inner.split_once("] "));
    match inner {
        // Kafka's own prefixes: a word and at least one `key=value`, or the
        // name of a thread. A quoted payload has neither blank nor equals sign
        // in the right place, and the phrase must still follow at once.
        Some((prefix, rest)) if prefix.contains('=') && prefix.len() < 400 => (prefix, rest),
        _ => ("", message),
    }
}

/// What a message says of itself.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fields {
    pub topic_partition: Option<String>,
    pub topic_id: Option<String>,
    pub dir: Option<String>,
    pub offset: Option<i64>,
    pub recovery_point: Option<i64>,
    pub file: Option<String>,
    pub partitions: Vec<String>,
    pub duration_ms: Option<u64>,
}

/// Reads the fields of a message whose kind is known.
pub(crate) fn parse_fields(kind: Kind, prefix: &str, message: &str) -> Fields {
    let mut fields = Fields {
        topic_partition: between(prefix, "partition=", &[", ", "]"]).map(str::to_owned),
        dir: between(prefix, "dir=", &["]"]).map(str::to_owned),
        ..Fields::default()
    };
    let set = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    match kind {
        Kind::FlushError
        | Kind::AppendError
        | Kind::SnapshotDeleteError
        | Kind::OtherStorageError => {
            let (before, after) = message.rsplit_once(" in dir ").unwrap_or((message, ""));
            fields.dir =
                set(Some(cut(after, &[" with offset ", " with ", " because "]))).or(fields.dir);
            let named = before
                .rsplit_once(" for ")
                .or_else(|| before.rsplit_once(" to "))
                .map(|(_, name)| name);
            fields.topic_partition =
                set(named.filter(|name| is_topic_partition(name))).or(fields.topic_partition);
            fields.offset = number(after, " with offset ");
            fields.recovery_point = number(after, " and recovery point ");
            fields.file = path_in(message.split(" for ").next().unwrap_or(""));
        }
        Kind::CheckpointWriteError | Kind::CorruptedIndex | Kind::FoundInvalidMessages => {
            fields.file = path_in(cut(
                message,
                &[" at byte offset ", " due to ", " corresponding to ", ", "],
            ));
            fields.offset = number(message, " at byte offset ");
            if let Some(dir) = between(message, " checkpoint in directory ", &[]) {
                fields.dir = set(Some(dir));
            }
        }
        Kind::ProcessAppendError => {
            let name = message
                .rsplit_once(" on partition ")
                .map_or("", |(_, name)| name.trim());
            // From 4.0 on the name is `<topicId>:<topic>-<partition>`.
            let (id, name) = name
                .rsplit_once(':')
                .map_or((None, name), |(id, name)| (Some(id), name));
            fields.topic_id = set(id);
            fields.topic_partition = set(Some(name).filter(|name| is_topic_partition(name)));
        }
        Kind::LogDirLoadError => {
            fields.dir = set(message.strip_prefix("Error while loading log dir "))
        }
        Kind::NoMetaProperties => {
            fields.dir = set(message
                .split_once(" found in ")
                .map(|(_, dir)| cut(dir, &[" (", ". "]).trim_end_matches('.')));
        }
        Kind::StoppingReplicas | Kind::StoppedReplicas | Kind::StoppingLogs | Kind::LogsOffline => {
            let dir = message
                .rsplit_once(" in dir ")
                .or_else(|| message.rsplit_once("log directory "))
                .map(|(_, dir)| cut(dir, &[" with uuid ", " because "]).trim_end_matches('.'));
            fields.dir = set(dir);
            let list = between(message, "for partitions ", &[" and ", " are offline"]);
            fields.partitions = list
                .unwrap_or("")
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| is_topic_partition(name))
                .collect();
        }
        Kind::AllDirsFailed => {
            fields.dir = between(message, "log dirs in ", &[" have failed"])
                .or_else(|| between(message, "because dir ", &[" "]))
                .map(str::to_owned);
        }
        Kind::SlowControllerEvent => {
            fields.duration_ms = number(message, " took ").and_then(|ms| u64::try_from(ms).ok())
        }
        Kind::HeartbeatTimeout => {
            fields.duration_ms = number(message, "elapsed time since creation: ")
                .and_then(|ms| u64::try_from(ms).ok());
        }
        Kind::TruncatingCorruption => fields.offset = number(message, "truncating to offset "),
        Kind::TopicFlushError
        | Kind::UncaughtTaskError
        | Kind::RaftFatalFault
        | Kind::DirectoriesOffline
        | Kind::CouldNotRecover
        | Kind::RecoveringSegment => {}
    }
    fields
}

/// What a KafkaStorageException's message adds to a line that names nothing.
pub(crate) fn parse_nested(message: &str) -> Option<Fields> {
    let found = PHRASES
        .iter()
        .find(|phrase| phrase.logger == CHANNEL && message.starts_with(phrase.starts))?;
    Some(parse_fields(found.kind, "", message))
}

/// `The log dir D is already offline due to a previous IO exception.`
pub(crate) fn parse_already_offline(message: &str) -> Option<&str> {
    between(message, "The log dir ", &[" is already offline"])
}

fn is_topic_partition(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(topic, partition)| {
        !topic.is_empty()
            && topic.len() <= 249
            && topic
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !partition.is_empty()
            && partition.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `text` up to the first of `ends` that occurs.
fn cut<'a>(text: &'a str, ends: &[&str]) -> &'a str {
    let end = ends
        .iter()
        .filter_map(|end| text.find(end))
        .min()
        .unwrap_or(text.len());
    &text[..end]
}

fn between<'a>(text: &'a str, start: &str, ends: &[&str]) -> Option<&'a str> {
    text.split_once(start).map(|(_, rest)| cut(rest, ends))
}

fn number(text: &str, start: &str) -> Option<i64> {
    let rest = text.split_once(start)?.1;
    let end = rest
        .bytes()
        .position(|byte| !byte.is_ascii_digit() && byte != b'-')
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn path_in(text: &str) -> Option<String> {
    let start = text.find(" /")? + 1;
    Some(text[start..].trim_end_matches(['.', ',']).to_owned())
}
