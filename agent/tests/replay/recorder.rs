//! Streams made by hand of what goes beyond one failed sync: the flight
//! recorder's requests and waits around a slow one, and failures that concern a
//! whole file system or disk. In: nothing. Out: events in order.

use std::collections::BTreeMap;

use fsyncscope::event::{
    Counters, Event, FileId, RequestEvent, RequestSpan, SpanFile, SpansEvent, Stamped, SyncEvent,
    WaitSpan,
};

use super::streams::{BEGIN_NS, MS, NO_ROOT, SDB, SDB1, Stream, failed_write, fsync, names};

/// Every story by name.
pub fn all() -> Vec<(&'static str, Vec<Stamped>)> {
    vec![
        ("commit", commit()),
        ("neighbour", neighbour()),
        ("backup", backup()),
        ("own_flood", own_flood()),
        ("aborted", aborted()),
        ("two_dirs", two_dirs()),
    ]
}

/// Start, issue and completion in ms.
pub fn span(op: &str, times: (u64, u64, u64), file: FileId) -> RequestSpan {
    let is_flush = op == "flush";
    RequestSpan {
        dev: SDB,
        op: op.to_owned(),
        start_ns: BEGIN_NS + times.0 * MS,
        issue_ns: BEGIN_NS + times.1 * MS,
        complete_ns: BEGIN_NS + times.2 * MS,
        sector: (!is_flush).then_some(2_048 + times.0 * 8),
        nr_bytes: if is_flush { 0 } else { 65_536 },
        status: "OK".to_owned(),
        file,
        file_source: if is_flush { "flush" } else { "page" }.to_owned(),
        root: if is_flush { NO_ROOT } else { 0 },
        ..RequestSpan::default()
    }
}

/// The segment that [`fsync`] syncs.
fn segment() -> FileId {
    FileId {
        s_dev: SDB1,
        ino: 131,
    }
}

/// An fsync on ext4 that wrote its data, waited for the journal's commit, whose
/// flush the device held, and then for a lock: every part of a breakdown.
fn commit() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    let journal = RequestSpan {
        file_source: "blockdev".to_owned(),
        rdev: SDB1,
        flags: ["sync", "meta"].map(str::to_owned).to_vec(),
        pid: 612,
        tid: 612,
        comm: "jbd2/sdb1-8".to_owned(),
        ..span("write", (1_110, 1_112, 1_140), FileId { s_dev: 5, ino: 17 })
    };
    let foreign = FileId {
        s_dev: SDB1,
        ino: 9_999,
    };
    let wait = |kind: &str, s_dev, tid, from_ms: u64, to_ms: u64| WaitSpan {
        kind: kind.to_owned(),
        s_dev,
        seq: if kind == "commit" { 4_711 } else { 0 },
        tid,
        start_ns: BEGIN_NS + from_ms * MS,
        end_ns: BEGIN_NS + to_ms * MS,
        ..WaitSpan::default()
    };
    stream.at(2_700).push(Event::Spans(SpansEvent {
        requests: vec![
            span("write", (1_000, 1_010, 1_100), segment()),
            journal,
            span("flush", (1_140, 1_142, 2_600), FileId::default()),
            span("write", (2_590, 2_595, 2_640), foreign),
        ],
        waits: vec![
            wait("commit", SDB1, 612, 1_100, 2_610),
            wait("lock", 0, 4301, 2_640, 2_690),
        ],
        ..SpansEvent::default()
    }));
    stream.push(Event::Sync(SyncEvent {
        flush_asked_ns: 0,
        ..fsync(1_000, 2_700, 0)
    }));
    stream.ticks_until(14_000).stop()
}

/// A disk that writes 100 MB/s for 8 s in requests like `one`, 1 MiB each, with
/// 20 of them queued; a checkpoint's sync of 4 KiB waits from 5 s to 7.5 s.
fn flood(one: &RequestSpan, names: Option<&[&str]>) -> Vec<Stamped> {
    const EACH_MS: u64 = 10;
    let mut stream = Stream::new();
    let mut written = 0;
    for quarter in 0..32_u64 {
        stream.at(quarter * 250).push(Event::Tick);
        stream.push(Event::DiskBytes {
            written: BTreeMap::from([(SDB, written)]),
        });
        written += 25 * 1_048_576;
        if quarter != 30 {
            continue;
        }
        let requests = (480..=750_u64).map(|number| {
            let complete_ms = number * EACH_MS;
            let times = (complete_ms - 200, complete_ms - 100, complete_ms);
            RequestSpan {
                nr_bytes: 1_048_576,
                ..RequestSpan {
                    start_ns: BEGIN_NS + times.0 * MS,
                    issue_ns: BEGIN_NS + times.1 * MS,
                    complete_ns: BEGIN_NS + times.2 * MS,
                    sector: Some(number * 2_048),
                    ..one.clone()
                }
            }
        });
        let files = names.map(|names| SpanFile {
            file: one.file.clone(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        });
        let own = RequestSpan {
            nr_bytes: 4_096,
            ..span("write", (5_010, 7_390, 7_480), segment())
        };
        stream.push(Event::Spans(SpansEvent {
            requests: requests.chain([own]).collect(),
            files: files.into_iter().collect(),
            ..SpansEvent::default()
        }));
        stream.push(Event::Sync(SyncEvent {
            delta: Counters {
                nr_requests: 1,
                nr_bytes: 4_096,
                ..Counters::default()
            },
            ..fsync(5_000, 7_500, 0)
        }));
    }
    stream.ticks_until(19_000).stop()
}

/// Another process writes past the page cache.
fn neighbour() -> Vec<Stamped> {
    let one = RequestSpan {
        file_source: "direct".to_owned(),
        pid: 77,
        tid: 79,
        comm: "fio".to_owned(),
        root: NO_ROOT,
        ..span(
            "write",
            (0, 0, 0),
            FileId {
                s_dev: SDB1,
                ino: 9_999,
            },
        )
    };
    flood(&one, Some(&["load.bin", "tmp"]))
}

/// The kernel writes back what another process left in the page cache.
fn backup() -> Vec<Stamped> {
    let one = RequestSpan {
        root: NO_ROOT,
        ..span(
            "write",
            (0, 0, 0),
            FileId {
                s_dev: SDB1,
                ino: 9_999,
            },
        )
    };
    flood(&one, Some(&["backup.tar", "home"]))
}

/// The broker's own segments take the disk: slow, and explained.
fn own_flood() -> Vec<Stamped> {
    let one = span(
        "write",
        (0, 0, 0),
        FileId {
            s_dev: SDB1,
            ino: 200,
        },
    );
    flood(&one, None)
}

const EIO_STACK: [&str; 1] = ["java.io.IOException: Input/output error"];
const EROFS_STACK: [&str; 1] = ["java.io.IOException: Read-only file system"];
const STOPPING_LINE: &str = "WARN [ReplicaManager broker=1] Stopping serving replicas in dir /var/lib/kafka/d1 (kafka.server.ReplicaManager)";
const FAILURE_CHANNEL: &str = "(org.apache.kafka.storage.internals.log.LogDirFailureChannel)";

/// The journal's own commit fails with nobody waiting; the file system turns
/// read-only; much later a sync fails before it names its file, and an append.
fn aborted() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    let request = RequestEvent {
        file_source: "blockdev".to_owned(),
        file: FileId { s_dev: 5, ino: 17 },
        rdev: SDB1,
        names: Vec::new(),
        root: NO_ROOT,
        flags: ["sync", "meta", "fua"].map(str::to_owned).to_vec(),
        ..failed_write(1_004, 1_012)
    };
    stream.at(1_012).push(Event::Request(request));
    stream.ticks_until(91_000);
    stream.at(91_001).push(Event::Sync(SyncEvent {
        file: FileId::default(),
        names: Vec::new(),
        root: NO_ROOT,
        delta: Counters::default(),
        ..fsync(91_000, 91_001, -30)
    }));
    let append = format!(
        "ERROR Error while appending records to orders-0 in dir /var/lib/kafka/d1 {FAILURE_CHANNEL}"
    );
    stream.at(92_030).line(92_016, &append, &EROFS_STACK, false);
    stream.at(92_040).line(92_020, STOPPING_LINE, &[], false);
    stream.ticks_until(97_000).stop()
}

/// Two log directories on one file system: the same bad medium hits both.
fn two_dirs() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.push(Event::Root {
        slot: 2,
        broker: 0,
        path: "/var/lib/kafka/d3".to_owned(),
        s_dev: SDB1,
    });
    stream.ticks_until(1_000);
    for (root, dir, at_ms) in [(0, "d1", 1_000), (2, "d3", 3_000)] {
        let file = FileId {
            s_dev: SDB1,
            ino: 131 + u64::from(root),
        };
        let mut names = names("00000000000000000000.log");
        names[2] = dir.to_owned();
        stream.at(at_ms + 12).push(Event::Request(RequestEvent {
            file: file.clone(),
            names: names.clone(),
            root,
            ..failed_write(at_ms + 4, at_ms + 12)
        }));
        stream.at(at_ms + 14).push(Event::Sync(SyncEvent {
            file,
            names,
            root,
            ..fsync(at_ms + 3, at_ms + 14, -5)
        }));
        let line = format!(
            "ERROR Error while flushing log for orders-0 in dir /var/lib/kafka/{dir} with offset 100 (exclusive) and recovery point 100 {FAILURE_CHANNEL}"
        );
        let printed_ms = i64::try_from(at_ms).expect("a small number") + 16;
        stream
            .at(at_ms + 30)
            .line(printed_ms, &line, &EIO_STACK, false);
    }
    stream.ticks_until(6_000).stop()
}
