//! Each part of the story that is missing is found; what is right passes.

use super::super::compare::tests::{LINE, incident, sync, touched, truth};
use super::*;
use crate::incident::{LogEvent, Request, Sync};

fn wrong(change: impl Fn(&mut Told)) -> Vec<String> {
    let mut last = incident("CONFIRMED", "journal");
    last.reasons = vec!["a write failed, which is journal; the file system is read-only".into()];
    last.syncs = vec![Sync {
        errno: Some("EIO".into()),
        ..sync()
    }];
    last.requests = vec![Request {
        disk: "loop3".into(),
        sector: Some(40),
        nr_bytes: 4096,
        op: "write".into(),
        errno: Some("EIO".into()),
        path: Some("journal or metadata of loop3".into()),
        ..Request::default()
    }];
    last.log_events = vec![LogEvent {
        line_number: 2,
        text: LINE.into(),
        ..LogEvent::default()
    }];
    let mut told = Told {
        last,
        ..Told::default()
    };
    change(&mut told);
    let mut wrong = Vec::new();
    compare(
        &told,
        &truth(touched(Op::Write, 40, 4096, libc::EIO)),
        &mut wrong,
    );
    wrong
}

#[test]
fn what_is_right_passes() {
    assert_eq!(wrong(|_| {}), [""; 0]);
}

#[test]
fn a_part_of_the_story_that_is_missing_is_found() {
    assert_eq!(wrong(|told| told.last.syncs.clear()), ["no failed sync"]);
    assert_eq!(
        wrong(|told| told.last.requests.clear()),
        ["no failed request"]
    );
    assert_eq!(
        wrong(|told| told.last.log_events.clear()),
        ["no line of the broker's log"]
    );
    let silent = wrong(|told| told.last.reasons[0] = "the journal failed".into());
    assert_eq!(silent, ["no reason says `read-only`"]);
}

#[test]
fn a_request_of_a_file_or_of_a_sector_that_did_not_fail_is_found() {
    let file = wrong(|told| told.last.requests[0].path = Some("/d/orders-0/0.log".into()));
    assert_eq!(file.len(), 1);
    let sector = wrong(|told| told.last.requests[0].sector = Some(8000));
    assert_eq!(sector, ["write at sector 8000 is not in the disk's log"]);
}

#[test]
fn a_sync_of_another_process_or_directory_is_found() {
    assert_eq!(wrong(|told| told.last.syncs[0].pid = 9).len(), 1);
    let elsewhere = wrong(|told| told.last.syncs[0].path = Some("/e/0.log".into()));
    assert_eq!(elsewhere, ["fsync of /e/0.log is not in /d"]);
}
