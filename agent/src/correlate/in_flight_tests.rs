//! What is said of a sync that has not returned yet.

use super::*;
use crate::event::InFlightRequest;

#[test]
fn a_hang_that_proc_denies_is_no_stall() {
    let in_flight = |confirmed| {
        Event::InFlight(InFlightEvent {
            syncs: vec![InFlightSync {
                sync: sync(0, 5_000, 0),
                confirmed,
                stack: Vec::new(),
            }],
            requests: Vec::new(),
        })
    };
    let mut run = Run::new();
    run.at(5_000).push(in_flight(Some(false)));
    assert!(run.incidents.is_empty());
    run.push(in_flight(None));
    assert_eq!(
        judged(run.last()),
        (Verdict::Stalled, None, "S3".to_owned())
    );
    assert!(
        run.last()
            .reasons
            .iter()
            .any(|reason| reason.ends_with("(A3)"))
    );
    run.at(5_250).push(in_flight(Some(false)));
    assert!(!run.last().syncs[0].in_flight);
}

#[test]
fn a_sync_that_leaves_the_in_flight_list_unseen_does_not_hang_for_ever() {
    let mut run = Run::new();
    let hanging = InFlightSync {
        sync: sync(0, 5_000, 0),
        confirmed: Some(true),
        stack: Vec::new(),
    };
    run.at(5_000).push(Event::InFlight(InFlightEvent {
        syncs: vec![hanging],
        requests: Vec::new(),
    }));
    // The host was paused until now: what hangs is told of behind the tick.
    run.at(8_000).push(Event::Tick);
    assert!(run.last().syncs[0].in_flight);
    run.at(8_250).push(Event::Tick);
    assert!(!run.last().syncs[0].in_flight && run.last().syncs[0].unseen_end);
    assert!(
        run.last()
            .reasons
            .iter()
            .any(|reason| reason.ends_with("(A5)"))
    );
    run.at(20_000).push(Event::Tick);
    assert_eq!(run.last().state, "closed");
}

/// A disk that holds the sync's own write from its begin on.
fn held() -> InFlightRequest {
    InFlightRequest {
        rq: 1,
        dev: FS,
        op: "write".to_owned(),
        sector: Some(13_864),
        nr_bytes: 4096,
        issue_ns: BEGIN_NS + MS,
        tid: 40,
        ..InFlightRequest::default()
    }
}

#[test]
fn what_holds_a_sync_is_shown_whatever_completed_meanwhile() {
    let mut run = Run::new();
    let sync = sync(0, 60_000, 0);
    // The journal's own writes, held for a while each.
    for nth in 0..12 {
        run.at(20_000 + nth).push(Event::Request(RequestEvent {
            file: FileId::default(),
            file_source: "meta".to_owned(),
            rdev: FS,
            rq: 100 + nth,
            sector: Some(nth),
            flags: ["meta"].map(str::to_owned).to_vec(),
            issue_ns: BEGIN_NS + 10_000 * MS,
            complete_ns: BEGIN_NS + (20_000 + nth) * MS,
            ..failed("OK", 0)
        }));
    }
    let new = InFlightRequest {
        rq: 2,
        issue_ns: BEGIN_NS + 59_999 * MS,
        ..held()
    };
    run.at(60_000).push(Event::InFlight(InFlightEvent {
        syncs: vec![InFlightSync {
            sync,
            confirmed: Some(true),
            stack: Vec::new(),
        }],
        requests: vec![held(), new],
    }));
    let shown = &run.last().requests;
    assert_eq!(shown.len(), 10);
    assert!(shown[0].in_flight, "{shown:?}");
    assert_eq!(shown[0].sector, Some(13_864));
    assert_eq!(shown[0].device_ns, Some(59_999 * MS));
    assert!(shown[1..].iter().all(|request| !request.in_flight));
}
