//! Claims about lines that say a file system has no room.

use jiff::tz::TimeZone;

use super::*;
use crate::brokerlog::{RawRecord, classify, parse_record};
use crate::event::{BrokerLogEvent, Space, SpaceEvent};

const LINE: &str = "[2026-11-25 04:20:40,445] ERROR Error while appending records to orders-0 in dir /d1 (org.apache.kafka.storage.internals.log.LogDirFailureChannel)";

fn line(exception: &str) -> Event {
    let raw = RawRecord {
        first: LINE.to_owned(),
        stack: vec![format!("java.io.IOException: {exception}")],
        ..RawRecord::default()
    };
    let record = parse_record(&raw, &TimeZone::UTC).unwrap();
    let storage = classify(&record).unwrap();
    Event::BrokerLog(BrokerLogEvent {
        broker: 0,
        file: "/l/server.log".to_owned(),
        line_number: 2,
        arrival_realtime_ns: 0,
        history: false,
        record,
        storage,
    })
}

fn space(dir: &str, free_bytes: u64, free_inodes: u64) -> Event {
    Event::Space(SpaceEvent {
        broker: 0,
        dir: dir.to_owned(),
        space: Space {
            free_bytes,
            total_bytes: 512 << 20,
            free_inodes,
            total_inodes: 1000,
        },
    })
}

fn told(events: &[Event]) -> Incident {
    let mut run = Run::new();
    run.at(10);
    for event in events {
        run.push(event.clone());
    }
    run.at(2_500).push(Event::Tick);
    run.last().clone()
}

#[test]
fn a_line_without_room_is_proven_by_the_file_systems_own_count() {
    let no_room = || line("No space left on device");
    for (free_bytes, free_inodes, words) in [
        (4096, 7, "4 KiB free of 512 MiB"),
        (9 << 20, 0, "no inode free"),
    ] {
        let incident = told(&[no_room(), space("/d1", free_bytes, free_inodes)]);
        assert_eq!(
            judged(&incident),
            (Verdict::Confirmed, Some(Cause::NoSpace), "L1".to_owned())
        );
        assert!(
            incident.reasons[0].contains(words),
            "{:?}",
            incident.reasons
        );
    }
    // Room, another directory, nothing known: no proof.
    for other in [
        vec![no_room(), space("/d1", 9 << 20, 7)],
        vec![no_room(), space("/d2", 0, 7)],
        vec![no_room()],
        vec![line("Input/output error"), space("/d1", 0, 7)],
    ] {
        let judged = judged(&told(&other));
        assert_eq!((judged.0, judged.2.as_str()), (Verdict::Unknown, "U2"));
    }
}

#[test]
fn a_count_that_comes_after_the_verdict_changes_it() {
    let mut run = Run::new();
    run.at(10).push(line("No space left on device"));
    run.at(2_500).push(Event::Tick);
    assert_eq!(run.last().verdict, Verdict::Unknown);
    run.at(2_600).push(space("/d1", 0, 7));
    assert_eq!(judged(run.last()).2, "L1");
    assert_eq!(run.core.findings(), 1);
}
