//! Says which part of which log a file below a log.dir is. In: names, the file
//! first, then its parents; or a relative path. Out: [`KafkaFile`]. Pure, and
//! Kafka's naming rules are nowhere else.

use serde::{Deserialize, Serialize};

/// What a file is for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Segment: `.log`.
    Log,
    /// Offset index: `.index`.
    Index,
    /// Time index: `.timeindex`.
    TimeIndex,
    /// Aborted transactions: `.txnindex`.
    TxnIndex,
    /// Producer state: `.snapshot`.
    ProducerSnapshot,
    /// Snapshot of the metadata log: `OFFSET-EPOCH.checkpoint`.
    MetadataSnapshot,
    /// `bootstrap.checkpoint`.
    BootstrapCheckpoint,
    /// `recovery-point-offset-checkpoint`.
    RecoveryPointCheckpoint,
    /// `replication-offset-checkpoint`.
    ReplicationOffsetCheckpoint,
    /// `log-start-offset-checkpoint`.
    LogStartOffsetCheckpoint,
    /// `cleaner-offset-checkpoint`.
    CleanerOffsetCheckpoint,
    /// `leader-epoch-checkpoint`.
    LeaderEpochCheckpoint,
    /// `partition.metadata`.
    PartitionMetadata,
    /// `quorum-state`.
    QuorumState,
    /// `meta.properties`.
    MetaProperties,
    /// `.kafka_cleanshutdown`.
    CleanShutdown,
    /// `.lock`.
    Lock,
    /// Directory of a partition.
    PartitionDirectory,
    /// The log.dir itself.
    LogDirectory,
    /// Anything else.
    #[default]
    Other,
}

impl FileKind {
    /// As it stands in reports: the suffix or name that operators know.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::Index => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TxnIndex => ".txnindex",
            Self::ProducerSnapshot => ".snapshot",
            Self::MetadataSnapshot => ".checkpoint",
            Self::BootstrapCheckpoint => "bootstrap.checkpoint",
            Self::RecoveryPointCheckpoint => "recovery-point-offset-checkpoint",
            Self::ReplicationOffsetCheckpoint => "replication-offset-checkpoint",
            Self::LogStartOffsetCheckpoint => "log-start-offset-checkpoint",
            Self::CleanerOffsetCheckpoint => "cleaner-offset-checkpoint",
            Self::LeaderEpochCheckpoint => "leader-epoch-checkpoint",
            Self::PartitionMetadata => "partition.metadata",
            Self::QuorumState => "quorum-state",
            Self::MetaProperties => "meta.properties",
            Self::CleanShutdown => ".kafka_cleanshutdown",
            Self::Lock => ".lock",
            Self::PartitionDirectory => "partition directory",
            Self::LogDirectory => "log directory",
            Self::Other => "other",
        }
    }
}

/// State that the partition directory's name tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirState {
    /// In use.
    #[default]
    Live,
    /// `-future`: a replica on its way here from another log.dir.
    Future,
    /// `-delete`: waits for deletion.
    Delete,
    /// `-stray`: belongs to no partition of this broker.
    Stray,
}

/// State that the file's own suffix tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// In use.
    #[default]
    Live,
    /// `.deleted`.
    Deleted,
    /// `.cleaned`: written by the cleaner.
    Cleaned,
    /// `.swap`: about to replace others.
    Swap,
    /// `.tmp`: written, synced, then renamed.
    Tmp,
    /// `.part`: a snapshot being fetched.
    Part,
}

/// A file as Kafka knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaFile {
    /// `orders-0`.
    pub topic_partition: Option<String>,
    /// `orders`.
    pub topic: Option<String>,
    /// 0.
    pub partition: Option<u32>,
    /// First offset of the segment, or the offset of a snapshot.
    pub base_offset: Option<u64>,
    /// What it is for.
    pub kind: FileKind,
    /// State of the partition directory.
    pub dir_state: DirState,
    /// State of the file.
    pub file_state: FileState,
}

const FILE_STATES: [(&str, FileState); 5] = [
    (".deleted", FileState::Deleted),
    (".cleaned", FileState::Cleaned),
    (".swap", FileState::Swap),
    (".tmp", FileState::Tmp),
    (".part", FileState::Part),
];

const SEGMENT_KINDS: [(&str, FileKind); 5] = [
    (".log", FileKind::Log),
    (".index", FileKind::Index),
    (".timeindex", FileKind::TimeIndex),
    (".txnindex", FileKind::TxnIndex),
    (".snapshot", FileKind::ProducerSnapshot),
];

const NAMED_KINDS: [(&str, FileKind); 11] = [
    (
        "recovery-point-offset-checkpoint",
        FileKind::RecoveryPointCheckpoint,
    ),
    (
        "replication-offset-checkpoint",
        FileKind::ReplicationOffsetCheckpoint,
    ),
    (
        "log-start-offset-checkpoint",
        FileKind::LogStartOffsetCheckpoint,
    ),
    (
        "cleaner-offset-checkpoint",
        FileKind::CleanerOffsetCheckpoint,
    ),
    ("leader-epoch-checkpoint", FileKind::LeaderEpochCheckpoint),
    ("bootstrap.checkpoint", FileKind::BootstrapCheckpoint),
    ("partition.metadata", FileKind::PartitionMetadata),
    ("quorum-state", FileKind::QuorumState),
    ("meta.properties", FileKind::MetaProperties),
    (".kafka_cleanshutdown", FileKind::CleanShutdown),
    (".lock", FileKind::Lock),
];

/// Reads the names of a file, its own first, then its parents' up to (not
/// including) the log.dir. Further parents do no harm; no name at all is the
/// log.dir itself.
#[must_use]
pub fn parse_kafka_path(components: &[&str]) -> KafkaFile {
    let Some(name) = components.first() else {
        return KafkaFile {
            kind: FileKind::LogDirectory,
            ..KafkaFile::default()
        };
    };
    if let Some(mut file) = parse_file_name(name) {
        if let Some((partition, state)) = components.get(1).and_then(|name| parse_dir_name(name)) {
            set_partition(&mut file, partition, state);
        }
        return file;
    }
    let mut file = KafkaFile::default();
    for (depth, name) in components.iter().enumerate() {
        if let Some((partition, state)) = parse_dir_name(name) {
            set_partition(&mut file, partition, state);
            if depth == 0 {
                file.kind = FileKind::PartitionDirectory;
            }
            break;
        }
    }
    file
}

/// The same for a path relative to the log.dir: `orders-0/000….log`.
#[must_use]
pub fn parse_relative_path(relative: &str) -> KafkaFile {
    let components: Vec<&str> = relative
        .rsplit('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    parse_kafka_path(&components)
}

fn set_partition(file: &mut KafkaFile, (topic, partition): (&str, u32), state: DirState) {
    file.topic_partition = Some(format!("{topic}-{partition}"));
    file.topic = Some(topic.to_owned());
    file.partition = Some(partition);
    file.dir_state = state;
}

fn parse_file_name(name: &str) -> Option<KafkaFile> {
    let mut file = KafkaFile::default();
    let mut stem = name;
    for (suffix, state) in FILE_STATES {
        if let Some(rest) = stem.strip_suffix(suffix) {
            stem = rest;
            file.file_state = state;
            break;
        }
    }
    if let Some((_, kind)) = NAMED_KINDS.iter().find(|(known, _)| *known == stem) {
        file.kind = *kind;
        return Some(file);
    }
    for (suffix, kind) in SEGMENT_KINDS {
        if let Some(offset) = stem.strip_suffix(suffix).and_then(parse_offset) {
            file.kind = kind;
            file.base_offset = Some(offset);
            return Some(file);
        }
    }
    let (offset, epoch) = stem.strip_suffix(".checkpoint")?.split_once('-')?;
    // A snapshot being written carries a random tail: `OFFSET-EPOCH-RANDOM`.
    let epoch = epoch.split('-').next().unwrap_or(epoch);
    file.base_offset = Some(parse_offset(offset)?);
    epoch.parse::<u64>().ok()?;
    file.kind = FileKind::MetadataSnapshot;
    Some(file)
}

/// Whether two names, each the file's first and then its parents', can be the same
/// file's: Kafka marks files and directories that it will delete, or has not finished,
/// by renaming them. A name that is not known can be anybody's.
#[must_use]
pub fn may_be_same_file(left: &[String], right: &[String]) -> bool {
    let depth = left.len().min(right.len()).min(2);
    let plain = |names: &[String]| -> Vec<String> {
        let names = names[..depth].iter().enumerate();
        names.map(|(at, name)| unmarked(name, at > 0)).collect()
    };
    plain(left) == plain(right)
}

/// A name without the marks of its state.
fn unmarked(name: &str, is_dir: bool) -> String {
    if is_dir && let Some(((topic, partition), _)) = parse_dir_name(name) {
        return format!("{topic}-{partition}");
    }
    let mut plain = name;
    while let Some(rest) = FILE_STATES
        .iter()
        .find_map(|(mark, _)| plain.strip_suffix(mark))
    {
        plain = rest;
    }
    plain.to_owned()
}

fn parse_offset(text: &str) -> Option<u64> {
    let is_offset = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_offset { text.parse().ok() } else { None }
}

/// `topic-0`, or `topic-0.<32 hex digits>-delete|future|stray`. Kafka shortens
/// the topic where the name would exceed 255 bytes.
fn parse_dir_name(name: &str) -> Option<((&str, u32), DirState)> {
    for (suffix, state) in [
        ("-delete", DirState::Delete),
        ("-future", DirState::Future),
        ("-stray", DirState::Stray),
    ] {
        let Some((base, id)) = name
            .strip_suffix(suffix)
            .and_then(|rest| rest.rsplit_once('.'))
        else {
            continue;
        };
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(found) = is_id.then(|| split_partition(base)).flatten() {
            return Some((found, state));
        }
    }
    split_partition(name).map(|found| (found, DirState::Live))
}

fn split_partition(name: &str) -> Option<(&str, u32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let is_topic = !topic.is_empty()
        && topic.len() <= 249
        && topic
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let is_number = partition.bytes().all(|byte| byte.is_ascii_digit())
        && (partition == "0" || !partition.starts_with('0'));
    if is_topic && is_number {
        Some((topic, partition.parse().ok()?))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(path: &str) -> (Option<String>, Option<u64>, FileKind) {
        let file = parse_relative_path(path);
        (file.topic_partition, file.base_offset, file.kind)
    }

    fn tp(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn a_file_stays_the_same_through_kafkas_own_renames() {
        let same = |left: &[&str], right: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let (left, right): (Vec<String>, Vec<String>) = (own(left), own(right));
            may_be_same_file(&left, &right) && may_be_same_file(&right, &left)
        };
        let log = "00000000000000000000.log";
        let gone = "orders-0.0123456789abcdef0123456789abcdef-delete";
        assert!(same(&[log, "orders-0", "d1"], &[log, gone]));
        assert!(same(
            &[log, "orders-0"],
            &["00000000000000000000.log.deleted", "orders-0"]
        ));
        let tmp = "recovery-point-offset-checkpoint.tmp";
        assert!(same(&[tmp], &["recovery-point-offset-checkpoint", "d1"]));
        assert!(same(&[], &[log, "orders-0"]));
        assert!(!same(&[log, "orders-0"], &[log, "orders-1"]));
        let index = "00000000000000000000.index";
        assert!(!same(&[log, "orders-0"], &[index, "orders-0"]));
        assert!(!same(&["a.log"], &["b.log"]));
    }

    #[test]
    fn every_file_of_a_partition_is_known() {
        let at = "00000000000000000149";
        for (suffix, kind) in SEGMENT_KINDS {
            assert_eq!(
                brief(&format!("orders-0/{at}{suffix}")),
                (tp("orders-0"), Some(149), kind)
            );
            for (state_suffix, state) in FILE_STATES {
                let file = parse_relative_path(&format!("orders-0/{at}{suffix}{state_suffix}"));
                assert_eq!(
                    (file.kind, file.file_state, file.base_offset),
                    (kind, state, Some(149))
                );
            }
        }
        assert_eq!(
            brief("orders-0/leader-epoch-checkpoint.tmp"),
            (tp("orders-0"), None, FileKind::LeaderEpochCheckpoint)
        );
        assert_eq!(
            brief("orders-0/partition.metadata"),
            (tp("orders-0"), None, FileKind::PartitionMetadata)
        );
        assert_eq!(
            brief("orders-0"),
            (tp("orders-0"), None, FileKind::PartitionDirectory)
        );
    }

    #[test]
    fn files_of_the_log_dir_are_known() {
        for (name, kind) in NAMED_KINDS {
            assert_eq!(brief(name), (None, None, kind));
            assert_eq!(
                parse_relative_path(&format!("{name}.tmp")).file_state,
                FileState::Tmp
            );
        }
        assert_eq!(brief(""), (None, None, FileKind::LogDirectory));
        assert_eq!(brief("lost+found"), (None, None, FileKind::Other));
    }

    #[test]
    fn metadata_log_is_known() {
        let file = "__cluster_metadata-0/00000000000000000080-0000000003.checkpoint";
        assert_eq!(
            brief(file),
            (
                tp("__cluster_metadata-0"),
                Some(80),
                FileKind::MetadataSnapshot
            )
        );
        assert_eq!(
            parse_relative_path(&format!("{file}.part")).file_state,
            FileState::Part
        );
        assert_eq!(
            brief("__cluster_metadata-0/quorum-state"),
            (tp("__cluster_metadata-0"), None, FileKind::QuorumState)
        );
    }

    #[test]
    fn topics_with_dots_dashes_and_digits_are_split_at_the_last_dash() {
        for name in [
            "a.b-c-1-12",
            "my-topic-5-0",
            "x.deleted-3",
            "orders-delete-0",
            "9-9",
        ] {
            assert_eq!(
                parse_relative_path(&format!("{name}/00000000000000000000.log")).topic_partition,
                tp(name)
            );
        }
    }

    #[test]
    fn directories_on_their_way_out_or_in_are_known() {
        let id = "0123456789abcdef0123456789abcdef";
        for (suffix, state) in [
            ("delete", DirState::Delete),
            ("future", DirState::Future),
            ("stray", DirState::Stray),
        ] {
            let file =
                parse_relative_path(&format!("a.b-c-7.{id}-{suffix}/00000000000000000000.index"));
            assert_eq!(
                (file.topic.as_deref(), file.partition, file.dir_state),
                (Some("a.b-c"), Some(7), state)
            );
        }
    }

    #[test]
    fn further_parents_do_no_harm() {
        let file = parse_kafka_path(&[
            "00000000000000000000.log",
            "orders-0",
            "kafka",
            "lib",
            "var",
        ]);
        assert_eq!(file.topic_partition, tp("orders-0"));
        let file = parse_kafka_path(&["recovery-point-offset-checkpoint", "kafka-1"]);
        assert_eq!(file.kind, FileKind::RecoveryPointCheckpoint);
    }

    #[test]
    fn odd_names_never_panic() {
        for name in [
            "-",
            "-0",
            ".log",
            "é-0",
            "0.log",
            "a-00",
            "a-99999999999",
            ".checkpoint",
            "-.checkpoint",
        ] {
            let _ = parse_relative_path(name).kind.as_str();
            assert_eq!(parse_relative_path(name).base_offset, None, "{name}");
        }
    }
}
