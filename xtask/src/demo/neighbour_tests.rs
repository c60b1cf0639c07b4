//! A neighbour that is not named, or wrongly, is found; what is right passes.

use fsyncscope_tests::faultdisk::Stamp;

use super::super::compare::tests::{LINE, incident, sync, touched, truth};
use super::*;
use crate::incident::{LogEvent, Neighbour, Sync};

const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
const BYTES: u64 = 40 << 20;

fn disk() -> Truth {
    let mut request = touched(Op::Write, 5000, BYTES, 0);
    request.reply = Some(Stamp {
        realtime_ns: BEGIN_NS + 1_000_000_000,
        monotonic_ns: 0,
    });
    let mut after = request.clone();
    after.reply = Some(Stamp {
        realtime_ns: BEGIN_NS + 9_000_000_000,
        monotonic_ns: 0,
    });
    let mut truth = truth(request);
    // Of the same file, but after the sync.
    truth.requests.push(after);
    truth.outsider = Some(Outsider {
        pid: 77,
        file: Placed {
            path: "/backup.bin".into(),
            sectors: vec![(5000, 200_000)],
        },
    });
    truth
}

fn wrong(change: impl Fn(&mut Told)) -> Vec<String> {
    let mut last = incident("STALLED", "neighbour");
    last.syncs = vec![Sync {
        time: "2023-11-14T22:13:20Z".into(),
        duration_ns: 2_000_000_000,
        ..sync()
    }];
    last.neighbours = vec![Neighbour {
        pid: 77,
        comm: Some("fio".into()),
        path: Some("backup.bin".into()),
        nr_requests: 40,
        nr_bytes: BYTES,
        longest_ns: 1,
    }];
    let mut told = Told {
        last,
        ..Told::default()
    };
    change(&mut told);
    let mut wrong = Vec::new();
    compare(&told, &disk(), &mut wrong);
    wrong
}

#[test]
fn what_is_right_passes() {
    assert_eq!(wrong(|_| {}), [""; 0]);
}

#[test]
fn another_process_or_none_is_found() {
    let none = wrong(|told| told.last.neighbours.clear());
    assert_eq!(none, ["no neighbour is named"]);
    assert_eq!(wrong(|told| told.last.neighbours[0].pid = 78).len(), 1);
    assert_eq!(wrong(|told| told.last.neighbours[0].comm = None).len(), 1);
    let broker = wrong(|told| {
        let mut broker = told.last.neighbours[0].clone();
        (broker.pid, broker.nr_bytes) = (7, 0);
        told.last.neighbours.push(broker);
    });
    assert_eq!(broker, ["the broker is called its own neighbour"]);
}

#[test]
fn bytes_that_the_disk_did_not_see_then_are_found() {
    assert_eq!(wrong(|told| told.last.neighbours[0].nr_bytes *= 2).len(), 1);
    let earlier = wrong(|told| told.last.syncs[0].time = "2023-11-14T22:10:00Z".into());
    assert_eq!(earlier.len(), 1);
    // The same in two parts, one of them issued by the kernel.
    let parts = wrong(|told| {
        let mut part = told.last.neighbours[0].clone();
        told.last.neighbours[0].nr_bytes -= 10 << 20;
        (part.pid, part.comm, part.nr_bytes) = (0, None, 10 << 20);
        told.last.neighbours.push(part);
    });
    assert_eq!(parts, [""; 0]);
    let other = wrong(|told| {
        let mut other = told.last.neighbours[0].clone();
        (other.pid, other.path, other.nr_bytes) = (80, None, 10 << 20);
        told.last.neighbours.push(other);
    });
    assert_eq!(
        other,
        ["others are said to have moved 10485760 bytes beside it"]
    );
    let file = wrong(|told| told.last.neighbours[0].path = Some("kafka/other".into()));
    assert_eq!(
        file,
        ["the neighbour's file is said to be Some(\"kafka/other\"), not /backup.bin"]
    );
}

#[test]
fn a_failure_and_a_line_are_found() {
    let failed = wrong(|told| told.last.syncs[0].errno = Some("EIO".into()));
    assert_eq!(
        failed,
        ["fsync of /d/orders-0/0.log is said to fail with EIO"]
    );
    let line = wrong(|told| {
        told.last.log_events.push(LogEvent {
            text: LINE.into(),
            ..LogEvent::default()
        });
    });
    assert_eq!(line.len(), 1);
}
