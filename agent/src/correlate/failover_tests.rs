//! What a path of a multipath disk gave back was held by it until then.

use super::*;

fn given_back(start_ms: u64, issue_ms: u64) -> RequestEvent {
    let at = |ms: u64| if ms == 0 { 0 } else { BEGIN_NS + ms * MS };
    RequestEvent {
        file: FileId::default(),
        file_source: "unknown".to_owned(),
        flags: ["sync", "meta"].map(str::to_owned).to_vec(),
        start_ns: at(start_ms),
        issue_ns: at(issue_ms),
        complete_ns: BEGIN_NS + 60_000 * MS,
        disk: "nvme0c0n1".to_owned(),
        is_failover: true,
        ..failed("OK", 0)
    }
}

/// A sync that was held for a minute, after this.
fn hung(request: RequestEvent) -> Run {
    let mut run = Run::new();
    run.at(60_000).push(Event::Request(request));
    run.push(Event::Sync(sync(1, 60_100, 0)));
    run
}

#[test]
fn the_sync_that_waited_for_it_was_held_by_the_device() {
    // Seen at its issue, and, as at --detail normal, at its end alone.
    for request in [given_back(2, 3), given_back(2, 0)] {
        let run = hung(request);
        let last = run.last();
        assert_eq!(
            judged(last),
            (Verdict::Stalled, Some(Cause::DeviceStall), "S1".to_owned())
        );
        let shown = &last.requests[0];
        assert_eq!(shown.status.as_deref(), Some("FAILED_OVER"));
        assert_eq!(shown.errno, None);
        assert!(shown.device_ns.is_some_and(|ns| ns > 59_000 * MS));
    }
}

#[test]
fn without_it_nobody_is_to_blame() {
    let mut run = Run::new();
    run.at(60_000).push(Event::Sync(sync(1, 60_100, 0)));
    assert_eq!(
        judged(run.last()),
        (Verdict::Stalled, None, "S3".to_owned())
    );
}
