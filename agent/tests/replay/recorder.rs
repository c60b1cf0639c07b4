//! Streams made by hand that hold what the kernel's flight recorder tells: the
//! requests and waits around a slow sync. In: nothing. Out: events in order.

use fsyncscope::event::{Event, FileId, RequestSpan, SpansEvent, Stamped, SyncEvent, WaitSpan};

use super::streams::{BEGIN_NS, MS, NO_ROOT, SDB, SDB1, Stream, fsync};

/// Every story by name.
pub fn all() -> Vec<(&'static str, Vec<Stamped>)> {
    vec![("commit", commit())]
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
