//! What is said of a sync that has not returned yet.

use super::*;

#[test]
fn a_hang_that_proc_denies_is_no_stall() {
    let in_flight = |confirmed| hanging(&[sync(0, 5_000, 0)], confirmed, Vec::new());
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
    let hung = sync(0, 5_000, 0);
    run.at(5_000).push(hanging(&[hung], Some(true), Vec::new()));
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

/// The sync's own write, which the disk holds for the last five seconds.
fn held() -> InFlightRequest {
    InFlightRequest {
        rq: 1,
        dev: FS,
        op: "write".to_owned(),
        sector: Some(13_864),
        nr_bytes: 4096,
        issue_ns: BEGIN_NS + 55_000 * MS,
        tid: 40,
        ..InFlightRequest::default()
    }
}

#[test]
fn what_holds_a_sync_is_shown_whatever_completed_meanwhile() {
    let mut run = Run::new();
    // The journal's own writes, held for ten seconds each.
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
    let hung = sync(0, 60_000, 0);
    run.at(60_000)
        .push(hanging(&[hung], Some(true), vec![new, held()]));
    let shown = &run.last().requests;
    assert_eq!(shown.len(), 10);
    let in_flight: Vec<_> = shown.iter().map(|request| request.in_flight).collect();
    assert_eq!(in_flight[..3], [true, true, false]);
    assert_eq!(shown[0].sector, Some(13_864));
    assert_eq!(shown[0].device_ns, Some(5_000 * MS));
    assert_eq!(shown[1].device_ns, Some(MS));
    assert_eq!(shown[2].device_ns, Some(10_011 * MS));
}

#[test]
fn what_was_in_flight_before_is_not_shown_as_if_it_were() {
    let mut run = Run::new();
    let in_flight = |exit_ms, requests| {
        let of = |tid| SyncEvent {
            tid,
            ..sync(0, exit_ms, 0)
        };
        hanging(&[of(40), of(41)], Some(true), requests)
    };
    run.at(58_000).push(in_flight(58_000, vec![held()]));
    let next = InFlightRequest {
        rq: 3,
        sector: Some(8),
        issue_ns: BEGIN_NS + 119_000 * MS,
        ..held()
    };
    run.at(120_000).push(in_flight(120_000, vec![next]));
    assert!(run.incidents.len() > 1);
    for incident in &run.incidents {
        let sectors: Vec<_> = incident.requests.iter().map(|it| it.sector).collect();
        assert_eq!(sectors.len(), 1, "{sectors:?}");
    }
    assert_eq!(run.last().requests[0].sector, Some(8));
}
