//! Claims about [`super::classify`], on lines that real brokers printed.

use jiff::tz::TimeZone;

use super::*;
use crate::brokerlog::{LineJoiner, Stamp, parse_line, parse_record};

fn events(text: &str) -> Vec<StorageEvent> {
    let mut joiner = LineJoiner::new();
    let mut raw = joiner.push(text.as_bytes(), Stamp::default());
    raw.extend(joiner.finish());
    raw.iter()
        .filter_map(|raw| classify(&parse_record(raw, &TimeZone::UTC)?))
        .collect()
}

fn kinds(text: &str) -> Vec<(StorageEventKind, EventRole)> {
    events(text)
        .iter()
        .map(|event| (event.kind, event.role))
        .collect()
}

fn one(line: &str) -> Option<StorageEvent> {
    classify(&parse_line(line, &TimeZone::UTC)?)
}

fn dirs() -> Vec<String> {
    vec!["/var/lib/kafka".into(), "/srv/kafka/".into()]
}

macro_rules! log {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/logs/", $name, ".log"))
    };
}

use EventRole::{Consequence, Info, Primary};
use StorageEventKind as Kind;

#[test]
fn index_and_flush_error_of_3_9_are_read_whole() {
    let events = events(log!("eio-3.9.2"));
    let index = &events[0];
    assert_eq!(
        (index.kind, index.role),
        (Kind::ProcessAppendError, Primary)
    );
    assert_eq!(index.topic_partition.as_deref(), Some("orders-0"));
    assert_eq!(
        index.exception.as_deref(),
        Some("java.io.UncheckedIOException")
    );
    assert_eq!(index.errno, Some(libc::EIO));
    assert!(index.root_message.as_deref().unwrap().contains("MS_SYNC"));
    let flush = &events[1];
    assert_eq!((flush.kind, flush.role), (Kind::FlushError, Primary));
    assert_eq!(flush.topic_partition.as_deref(), Some("orders-0"));
    assert_eq!(flush.dir.as_deref(), Some("/var/lib/kafka"));
    assert_eq!((flush.offset, flush.recovery_point), (Some(102), Some(102)));
    assert_eq!(flush.errno_text.as_deref(), Some("Input/output error"));
    assert!(flush.stack_top[0].contains("FileDispatcherImpl.force0"));
    let rest: Vec<_> = events[2..].iter().map(|event| event.kind).collect();
    assert_eq!(
        rest,
        [
            Kind::StoppingReplicas,
            Kind::StoppedReplicas,
            Kind::StoppingLogs,
            Kind::LogsOffline,
            Kind::StoppedReplicas,
            Kind::DirectoriesOffline
        ]
    );
    assert!(events[2..].iter().all(|event| event.role == Consequence));
    assert_eq!(events[5].partitions, ["payments-0", "orders-0", "clicks-1"]);
    assert!(events.iter().all(|event| is_plausible(event, &dirs())));
}

#[test]
fn logger_of_4_x_is_known() {
    let events = events(log!("eio-4.3.0"));
    let primary: Vec<_> = events
        .iter()
        .filter(|event| event.role == Primary)
        .collect();
    assert_eq!(primary.len(), 1);
    assert_eq!(primary[0].kind, Kind::FlushError);
    assert!(
        primary[0]
            .stack_top
            .iter()
            .any(|frame| frame.contains("[kafka-"))
    );
}

#[test]
fn timer_repeats_of_one_error_are_consequences() {
    assert_eq!(
        kinds(log!("eio-timer-3.9.2"))[..4],
        [
            (Kind::FlushError, Primary),
            (Kind::StoppingReplicas, Consequence),
            (Kind::TopicFlushError, Consequence),
            (Kind::TopicFlushError, Consequence)
        ]
    );
    let topic = events(log!("eio-timer-3.9.2"))
        .into_iter()
        .find(|event| event.kind == Kind::TopicFlushError)
        .unwrap();
    assert_eq!(topic.topic_partition.as_deref(), Some("payments-0"));
    assert_eq!(topic.dir.as_deref(), Some("/var/lib/kafka"));
    assert_eq!(topic.errno, Some(libc::EIO));
}

#[test]
fn roll_names_its_task_and_its_partition() {
    let events = events(log!("eio-roll-3.9.2"));
    let task = events
        .iter()
        .find(|event| event.kind == Kind::UncaughtTaskError)
        .unwrap();
    assert_eq!(task.role, Consequence);
    assert_eq!(task.topic_partition.as_deref(), Some("clicks-1"));
    assert_eq!(task.offset, Some(149));
}

#[test]
fn full_volume_is_an_append_error_with_its_errno() {
    let event = events(log!("enospc-3.9.2")).remove(0);
    assert_eq!((event.kind, event.role), (Kind::AppendError, Primary));
    assert_eq!(event.topic_partition.as_deref(), Some("clicks-1"));
    assert_eq!(event.errno, Some(libc::ENOSPC));
}

#[test]
fn start_on_a_full_volume_names_checkpoint_and_directory() {
    let events = events(log!("enospc-restart-3.9.2"));
    let load: Vec<_> = events
        .iter()
        .filter(|event| event.kind == Kind::LogDirLoadError)
        .collect();
    assert_eq!(load.len(), 4);
    assert!(
        load.iter()
            .all(|event| event.dir.as_deref() == Some("/var/lib/kafka"))
    );
    assert_eq!(load.iter().filter(|event| event.role == Primary).count(), 2);
    let checkpoint = events
        .iter()
        .find(|event| event.kind == Kind::CheckpointWriteError)
        .unwrap();
    assert_eq!(
        checkpoint.file.as_deref(),
        Some("/var/lib/kafka/payments-0/leader-epoch-checkpoint")
    );
    assert!(is_plausible(checkpoint, &dirs()));
    assert!(
        !events
            .iter()
            .any(|event| event.message.contains("Unable to start fetching"))
    );
}

#[test]
fn recovery_is_context() {
    let events = events(log!("recovery-3.9.2"));
    assert!(events.iter().all(|event| event.role == Info));
    let bad = events
        .iter()
        .find(|event| event.kind == Kind::FoundInvalidMessages)
        .unwrap();
    assert_eq!(
        bad.file.as_deref(),
        Some("/var/lib/kafka/orders-0/00000000000000000000.log")
    );
    assert_eq!(bad.offset, Some(26_233));
    let cut = events
        .iter()
        .find(|event| event.kind == Kind::TruncatingCorruption)
        .unwrap();
    assert_eq!(
        (
            cut.topic_partition.as_deref(),
            cut.dir.as_deref(),
            cut.offset
        ),
        (Some("orders-0"), Some("/var/lib/kafka"), Some(101))
    );
}

#[test]
fn held_metadata_directory_shows_as_heartbeats_and_slow_events() {
    let events = events(log!("hang-meta-4.3.0"));
    assert_eq!(events[0].kind, Kind::HeartbeatTimeout);
    assert_eq!(events[0].duration_ms, Some(2004));
    assert!(events.iter().all(|event| event.role == Info));
}

#[test]
fn healthy_broker_gives_no_event() {
    assert_eq!(events(log!("healthy-3.9.2")), []);
}

const CHANNEL: &str = "org.apache.kafka.storage.internals.log.LogDirFailureChannel";

#[test]
fn spelling_of_2_8_is_known() {
    let event = one("[2026-11-23 22:37:30,827] ERROR Error while flushing log for a.b-c-1-12 in dir /data/my kafka with offset 118 (kafka.server.LogDirFailureChannel)").unwrap();
    assert_eq!(event.topic_partition.as_deref(), Some("a.b-c-1-12"));
    assert_eq!(event.dir.as_deref(), Some("/data/my kafka"));
    assert_eq!((event.offset, event.recovery_point), (Some(118), None));
}

#[test]
fn checkpoint_and_fatal_lines_are_known() {
    let text = format!(
        "[2026-11-23 22:37:30,827] ERROR Error while writing to checkpoint file /var/lib/kafka/recovery-point-offset-checkpoint ({CHANNEL})\njava.io.SyncFailedException: sync failed\n\
         [2026-11-23 22:37:30,828] ERROR Error while deleting producer state snapshot SnapshotFile(offset=149, file=/var/lib/kafka/clicks-1/00000000000000000149.snapshot) for clicks-1 in dir /var/lib/kafka ({CHANNEL})\njava.io.IOException: Input/output error\n\
         [2026-11-23 22:37:30,829] ERROR Encountered fatal fault: Unexpected error in raft IO thread (org.apache.kafka.server.fault.ProcessTerminatingFaultHandler)\norg.apache.kafka.common.errors.KafkaStorageException: Error while flushing log for __cluster_metadata-0 in dir /var/lib/kafka with offset 5 (exclusive) and recovery point 5\nCaused by: java.io.IOException: Input/output error\n\
         [2026-11-23 22:37:30,830] ERROR Shutdown broker because all log dirs in /var/lib/kafka, /srv/kafka have failed (kafka.log.LogManager)\n\
         [2026-11-23 22:37:30,831] ERROR Something new about a file ({CHANNEL})\njava.io.IOException: Input/output error\n"
    );
    let found = events(&text);
    let kinds: Vec<_> = found.iter().map(|event| (event.kind, event.role)).collect();
    assert_eq!(
        kinds,
        [
            (Kind::CheckpointWriteError, Primary),
            (Kind::SnapshotDeleteError, Primary),
            (Kind::RaftFatalFault, Consequence),
            (Kind::AllDirsFailed, Consequence),
            (Kind::OtherStorageError, Primary),
        ]
    );
    assert_eq!(found[0].errno_text, None);
    assert_eq!(found[1].topic_partition.as_deref(), Some("clicks-1"));
    assert_eq!(
        found[2].topic_partition.as_deref(),
        Some("__cluster_metadata-0")
    );
    assert!(
        found.iter().all(|event| is_plausible(event, &dirs())),
        "{found:?}"
    );
}

#[test]
fn topic_id_of_4_x_is_split_off() {
    let event = events(
        "[2026-11-23 22:37:30,746] ERROR [ReplicaManager broker=1] Error processing append operation on partition IHDx9SB3QganrlJjdQsS1g:orders-0 (kafka.server.ReplicaManager)\njava.io.UncheckedIOException: java.io.IOException: Input/output error (msync with parameter MS_SYNC failed)\n",
    )
    .remove(0);
    assert_eq!(event.topic_id.as_deref(), Some("IHDx9SB3QganrlJjdQsS1g"));
    assert_eq!(event.topic_partition.as_deref(), Some("orders-0"));
}

#[test]
fn append_refused_for_other_reasons_is_no_storage_event() {
    assert_eq!(
        events(
            "[2026-11-23 22:37:30,746] ERROR [ReplicaManager broker=1] Error processing append operation on partition orders-0 (kafka.server.ReplicaManager)\norg.apache.kafka.common.errors.RecordTooLargeException: too large\n"
        ),
        []
    );
}

#[test]
fn known_words_inside_other_messages_are_noise() {
    for line in [
        "[2026-11-23 22:37:30,827] WARN Client Error while flushing log for orders-0 in dir /var/lib/kafka with offset 1 did x (kafka.server.KafkaApis)",
        "[2026-11-23 22:37:30,827] INFO Error while flushing log for orders-0 in dir /var/lib/kafka with offset 1 (org.apache.kafka.storage.internals.log.LogDirFailureChannel)",
        "[2026-11-23 22:37:30,827] ERROR [KafkaApi-1] clientId=Error while flushing log for orders-0 in dir /var/lib/kafka (kafka.server.KafkaApis)",
        "[2026-11-23 22:37:30,827] ERROR Error while flushing log for orders-0 in dir /var/lib/kafka with offset 1 (kafka.server.KafkaApis)",
        "[2026-11-23 22:37:30,827] ERROR Error while flushing log for orders-0 in dir /var/lib/kafka (com.example.LogDirFailureChannel)",
        "[2026-11-23 22:37:30,827] ERROR Error while flushing log for orders-0 in dir /var/lib/kafka",
        "[2026-11-23 22:37:30,827] INFO [Producer clientId=x (org.apache.kafka.storage.internals.log.LogDirFailureChannel)] Error while flushing log for orders-0 in dir /a (org.apache.kafka.clients.Foo)",
    ] {
        assert_eq!(one(line), None, "{line}");
    }
}

#[test]
fn forged_line_is_implausible() {
    let forged = one(&format!("[2026-11-23 22:37:30,827] ERROR Error while flushing log for orders-0 in dir /var/lib/kafka with offset 1 (exclusive) and recovery point 1 ({CHANNEL})")).unwrap();
    assert_eq!(
        check_plausible(&forged, &dirs()),
        Err(Implausible::NoException)
    );
    let foreign = StorageEvent {
        dir: Some("/tmp/evil".into()),
        exception: Some("java.io.IOException".into()),
        ..forged
    };
    assert_eq!(
        check_plausible(&foreign, &dirs()),
        Err(Implausible::ForeignDir)
    );
    assert!(is_plausible(&foreign, &[]));
}

#[test]
fn event_survives_serialisation() {
    let event = events(log!("eio-3.9.2")).remove(1);
    let json = serde_json::to_string(&event).unwrap();
    assert!(json.contains(r#""kind":"flush_error""#));
    assert_eq!(serde_json::from_str::<StorageEvent>(&json).unwrap(), event);
}
