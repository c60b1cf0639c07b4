//! Each way in which lost data can be told wrongly is found; what is right passes.

use fsyncscope_tests::faultdisk::Op;

use super::super::compare::tests::{LINE, incident, touched, truth};
use super::*;
use crate::incident::{Caller, LogEvent, Operation, Request, Sync};

const FAILED_NS: u64 = 1_700_000_000_000_000_000;

fn at(monotonic_ns: u64) -> Stamp {
    Stamp {
        realtime_ns: FAILED_NS,
        monotonic_ns,
    }
}

fn disk() -> Truth {
    let mut request = touched(Op::Write, 808, 4096, libc::EIO);
    request.reply = Some(at(5_000_000_000));
    truth(request)
}

fn lost(told: Vec<Caller>) -> Operation {
    Operation {
        op: "writeback".into(),
        path: Some("/d/orders-0/0.log".into()),
        topic_partition: Some("orders-0".into()),
        errno: Some("EIO".into()),
        told,
    }
}

fn right() -> Told {
    let mut first = incident("CONFIRMED", "device-error");
    first.operations = vec![lost(Vec::new())];
    first.reasons = vec!["a write failed; not yet told: no sync (W1)".into()];
    first.requests = vec![Request {
        disk: "loop3".into(),
        sector: Some(808),
        nr_bytes: 4096,
        op: "write".into(),
        errno: Some("EIO".into()),
        path: Some("/d/orders-0/0.log".into()),
        ..Request::default()
    }];
    first.totals.requests = 1;
    let mut last = first.clone();
    last.operations = vec![lost(vec![Caller {
        pid: 7,
        comm: "kafka-scheduler".into(),
    }])];
    last.syncs = vec![Sync {
        op: "fsync".into(),
        path: Some("/d/orders-0/0.log".into()),
        topic_partition: Some("orders-0".into()),
        file_kind: Some("log".into()),
        pid: 7,
        time: "2023-11-14T22:13:57Z".into(),
        duration_ns: 500_000,
        errno: Some("EIO".into()),
        told_late_by_ns: Some(37_000_000_000),
        ..Sync::default()
    }];
    last.log_events = vec![LogEvent {
        line_number: 2,
        text: LINE.into(),
        ..LogEvent::default()
    }];
    Told {
        first_at_ns: 5_400_000_000,
        first,
        last,
        last_line: String::new(),
    }
}

fn wrong(change: impl Fn(&mut Told)) -> Vec<String> {
    let mut told = right();
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
fn how_soon_it_was_told_is_measured() {
    let expected = "told:    400 ms after the disk failed the write; 1 failed in all";
    assert_eq!(facts(&disk(), &[right()]), [expected]);
}

#[test]
fn a_report_that_is_late_or_before_the_failure_is_found() {
    let late = wrong(|told| told.first_at_ns = 6_200_000_000);
    assert_eq!(late, ["first reported 1200 ms after the failure"]);
    assert_eq!(wrong(|told| told.first_at_ns = 4_000_000_000).len(), 1);
}

#[test]
fn a_first_report_that_waited_for_the_sync_is_found() {
    let waited = wrong(|told| told.first.syncs = told.last.syncs.clone());
    assert_eq!(waited, ["the first report has a sync or a line already"]);
    let told_of = wrong(|told| told.first.operations = told.last.operations.clone());
    assert_eq!(
        told_of,
        ["the first report names no lost data of a partition"]
    );
    let silent = wrong(|told| told.first.reasons.clear());
    assert_eq!(silent, ["the first report does not say `not yet told`"]);
}

#[test]
fn a_lost_write_or_file_that_is_not_named_is_found() {
    let elsewhere = wrong(|told| told.last.requests[0].sector = Some(4000));
    assert!(elsewhere.contains(&"the write that failed at sector 808 is not reported".into()));
    let file = wrong(|told| told.last.operations[0].path = Some("/d/orders-1/0.log".into()));
    assert_eq!(file, ["/d/orders-0/0.log is not among the lost files"]);
}

#[test]
fn an_age_that_is_not_so_is_found() {
    let age = wrong(|told| told.last.syncs[0].told_late_by_ns = Some(2_000_000_000));
    assert_eq!(age, ["told late by 2000 ms, which were 37000 ms"]);
    let none = wrong(|told| told.last.syncs[0].told_late_by_ns = None);
    assert_eq!(none, ["no failed fsync that is said to be told late"]);
    let own = wrong(|told| told.last.syncs[0].duration_ns = 80_000_000);
    assert_eq!(own, ["the fsync took 80 ms: it did not return at once"]);
}

#[test]
fn a_line_of_another_place_and_silence_are_found() {
    assert_eq!(
        wrong(|told| told.last.log_events[0].line_number = 1).len(),
        1
    );
    let silent = wrong(|told| told.last.log_events.clear());
    assert_eq!(silent, ["no line of the broker's log"]);
}
