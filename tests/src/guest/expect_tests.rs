//! Answers that are right, and each thing that can be wrong with one.

use super::*;
use crate::faultdisk::Stamp;
use crate::incident::{Device, LogEvent, Nvme};

const VICTIM: &str = "/data/write-error/orders-0/00000000000000000000.log";

fn truth(errno: i32, delay_ms: u64) -> TruthRequest {
    let at = Stamp {
        realtime_ns: 1,
        monotonic_ns: 1,
    };
    TruthRequest {
        seq: 1,
        op: Op::Write,
        sector: 266_264,
        bytes: 4096,
        errno,
        delay_ms,
        rule: 0,
        arrival: at,
        reply: Some(at),
    }
}

fn incident() -> Incident {
    Incident {
        id: "f-1".into(),
        verdict: "CONFIRMED".into(),
        cause: Some("device-error".into()),
        device: Some(Device {
            disk: "nvme0n1".into(),
            serial: Some("S1".into()),
            ..Device::default()
        }),
        syncs: vec![Sync {
            op: "fsync".into(),
            path: Some(VICTIM.into()),
            pid: 7,
            errno: Some("ENODATA".into()),
            duration_ns: 5,
            ..Sync::default()
        }],
        requests: vec![Request {
            disk: "nvme0n1".into(),
            sector: Some(266_264),
            nr_bytes: 4096,
            op: "write".into(),
            status: Some("MEDIUM".into()),
            errno: Some("ENODATA".into()),
            path: Some(VICTIM.into()),
            nvme: Some(Nvme {
                sct: 2,
                sc: 0x80,
                ..Nvme::default()
            }),
            ..Request::default()
        }],
        log_events: vec![LogEvent {
            text: "[t] ERROR Error while flushing log for orders-0 in dir /data".into(),
            ..LogEvent::default()
        }],
        ..Incident::default()
    }
}

fn told(incident: Incident) -> Told {
    Told {
        was_in_flight: incident.syncs.iter().any(|sync| sync.in_flight),
        first: incident.clone(),
        last: incident,
        last_line: String::new(),
    }
}

fn evidence(fault: Fault, truth: TruthRequest, incidents: Vec<Incident>) -> Evidence {
    Evidence {
        fault,
        fs: FsKind::Ext4,
        kernel: "6.12.95".into(),
        arch: "x86_64".into(),
        disk: "nvme0n1".into(),
        serial: "S1".into(),
        layers: Vec::new(),
        writer_pid: 7,
        victim: VICTIM.into(),
        caller_errnos: vec!["ENODATA".into()],
        truth: vec![truth],
        told: incidents.into_iter().map(told).collect(),
        missing_hooks: Vec::new(),
        lost: BTreeMap::new(),
        preempts: false,
        is_in_reset: false,
        trouble: None,
        broker: None,
    }
}

fn failed(evidence: &Evidence) -> Vec<String> {
    let rows = compare(evidence).into_iter();
    rows.filter(|row| !row.passed).map(|row| row.name).collect()
}

fn write_error(change: impl FnOnce(&mut Incident)) -> Vec<String> {
    let mut incident = incident();
    change(&mut incident);
    failed(&evidence(Fault::WriteError, truth(5, 0), vec![incident]))
}

#[test]
fn a_right_answer_passes() {
    let evidence = evidence(Fault::WriteError, truth(5, 0), vec![incident()]);
    assert!(is_complete(
        Fault::WriteError,
        Path::new(VICTIM),
        &evidence.told
    ));
    let rows = compare(&evidence);
    assert_eq!(conclude(&rows), (Outcome::Passed, String::new()));
    assert!(rows.len() > 10, "{rows:?}");
}

#[test]
fn each_thing_that_is_wrong_is_named() {
    let path = |path: &str| Some(format!("/data/x/{path}"));
    assert_eq!(
        write_error(|incident| incident.cause = None),
        ["nothing false", "verdict and cause"]
    );
    assert_eq!(
        write_error(|incident| incident.device = None),
        ["device", "serial"]
    );
    assert_eq!(
        write_error(|incident| incident.syncs[0].errno = Some("EIO".into())),
        ["errno of the caller"]
    );
    assert_eq!(
        write_error(|incident| incident.syncs[0].pid = 8),
        ["errno of the caller", "file"]
    );
    assert_eq!(
        write_error(|incident| incident.syncs[0].path = path("b")),
        ["file"]
    );
    assert_eq!(
        write_error(|incident| incident.requests[0].sector = Some(8)),
        ["sector"]
    );
    assert_eq!(
        write_error(|incident| incident.requests[0].disk = "nvme0c0n1".into()),
        ["request's disk"]
    );
    assert_eq!(
        write_error(|incident| incident.requests[0].status = Some("IOERR".into())),
        ["block status"]
    );
    assert_eq!(
        write_error(|incident| incident.requests[0].nvme = None),
        ["NVMe status"]
    );
    assert_eq!(
        write_error(|incident| incident.requests[0].path = path("b")),
        ["request's file"]
    );
    assert_eq!(
        write_error(|incident| incident.log_events.clear()),
        ["line of the broker"]
    );
}

#[test]
fn a_healthy_disk_gets_no_answer() {
    let mut evidence = evidence(Fault::Healthy, truth(0, 0), Vec::new());
    assert_eq!(failed(&evidence), [""; 0]);
    evidence.lost = BTreeMap::from([("unmatched_exit".to_owned(), 1)]);
    assert_eq!(failed(&evidence), [""; 0]);
    evidence.lost = BTreeMap::from([("ring_full".to_owned(), 1)]);
    evidence.told = vec![told(incident())];
    evidence.missing_hooks = vec!["fsync".to_owned()];
    assert_eq!(failed(&evidence), ["nothing false", "hooks", "loss"]);
}

#[test]
fn a_held_write_is_told_in_flight_and_by_its_delay() {
    let mut held = incident();
    held.verdict = "STALLED".into();
    held.cause = Some("device-stall".into());
    held.requests[0].errno = None;
    held.requests[0].device_ns = Some(7_014_000_000);
    let mut evidence = evidence(Fault::Stall, truth(0, 7000), vec![held]);
    assert_eq!(failed(&evidence), ["told in flight"]);
    assert!(!is_complete(
        Fault::Stall,
        Path::new(VICTIM),
        &evidence.told
    ));
    evidence.told[0].was_in_flight = true;
    assert_eq!(failed(&evidence), [""; 0]);
    assert!(is_complete(Fault::Stall, Path::new(VICTIM), &evidence.told));
    evidence.told[0].last.requests[0].device_ns = Some(2_000_000_000);
    assert_eq!(failed(&evidence), ["time in the device"]);
}

#[test]
fn a_late_error_is_told_before_a_sync_fails() {
    let mut late = incident();
    late.syncs[0].told_late_by_ns = Some(6_000_000_000);
    let mut evidence = evidence(Fault::LateError, truth(5, 0), vec![late]);
    assert_eq!(failed(&evidence), ["told before a sync failed"]);
    evidence.told[0].first.syncs.clear();
    assert_eq!(failed(&evidence), [""; 0]);
    evidence.told[0].last.syncs[0].told_late_by_ns = None;
    assert_eq!(failed(&evidence), ["age of the failure"]);
}

#[test]
fn a_gap_has_its_reason_and_a_failure_comes_first() {
    let row = |passed: bool, gap: Option<&str>| Assertion {
        name: "n".into(),
        passed,
        wanted: "w".into(),
        got: "g".into(),
        gap: gap.map(str::to_owned),
    };
    let gap = row(false, Some("reason"));
    let all = [row(true, None), gap.clone()];
    assert_eq!(conclude(&all), (Outcome::ExpectedGap, "reason".to_owned()));
    let all = [gap, row(false, None)];
    assert_eq!(
        conclude(&all),
        (Outcome::Failed, "n: g instead of w".to_owned())
    );
}

#[test]
fn before_5_16_a_status_is_made_of_its_errno_and_says_so() {
    let mut incident = incident();
    incident.requests[0].status_derived = true;
    let mut evidence = evidence(Fault::WriteError, truth(5, 0), vec![incident]);
    assert_eq!(failed(&evidence), ["block status"]);
    evidence.kernel = "5.10.0-32-cloud-amd64".into();
    assert_eq!(failed(&evidence), [""; 0]);
    evidence.told[0].last.requests[0].status_derived = false;
    assert_eq!(failed(&evidence), ["block status"]);
}

#[test]
fn each_layer_must_be_named() {
    let layers = |path: &[&str]| {
        let mut incident = incident();
        if let Some(device) = &mut incident.device {
            device.path = path.iter().map(|&step| step.to_owned()).collect();
        }
        let mut evidence = evidence(Fault::Md, truth(5, 0), vec![incident]);
        evidence.layers = vec!["md0".into(), "nvme0n1p1".into()];
        failed(&evidence)
    };
    assert_eq!(layers(&["md0 (raid0)", "nvme0n1p1", "nvme0n1"]), [""; 0]);
    assert_eq!(layers(&["md0", "nvme0n1"]), ["layers"]);
    assert_eq!(layers(&["nvme0n1"]), ["layers"]);
}

#[test]
fn for_what_a_layer_does_no_request_may_be_blamed() {
    let mut failing = incident();
    failing.cause = None;
    failing.requests.clear();
    let mut of_error = evidence(Fault::DmError, truth(0, 0), vec![failing]);
    assert_eq!(failed(&of_error), [""; 0]);
    of_error.told[0].last.requests = incident().requests;
    assert_eq!(failed(&of_error), ["requests blamed"]);
    of_error.told[0].last.requests.clear();
    let mut unknown = told(incident());
    (unknown.last.verdict, unknown.last.cause) = ("UNKNOWN".into(), None);
    of_error.told.push(unknown);
    assert_eq!(failed(&of_error), ["nothing false"]);

    let mut held = incident();
    (held.verdict, held.cause) = ("STALLED".into(), None);
    held.requests.clear();
    let mut of_delay = evidence(Fault::DmDelay, truth(0, 0), vec![held]);
    assert_eq!(failed(&of_delay), ["told in flight"]);
    of_delay.told[0].was_in_flight = true;
    assert_eq!(failed(&of_delay), [""; 0]);
    of_delay.told[0].last.cause = Some("device-stall".into());
    assert_eq!(failed(&of_delay), ["nothing false", "verdict and cause"]);
}

#[test]
fn a_flush_that_xfs_of_5_10_keeps_to_itself_is_a_gap_if_its_log_is_told_of() {
    let mut of_log = incident();
    of_log.cause = Some("journal".into());
    let mut of_append = incident();
    (of_append.verdict, of_append.cause) = ("UNKNOWN".into(), None);
    of_append.syncs.clear();
    let mut evidence = evidence(Fault::FlushError, truth(5, 0), vec![of_log, of_append]);
    evidence.fs = FsKind::Xfs;
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
    evidence.kernel = "5.10.0-32-cloud-amd64".into();
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::ExpectedGap);
    evidence.told.remove(0);
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
}

#[test]
fn a_journal_that_is_given_up_first_answers_a_timeout_and_nothing_else() {
    let of_journal = |fault, change: fn(&mut Incident)| {
        let mut incident = incident();
        incident.cause = Some("journal".into());
        change(&mut incident);
        failed(&evidence(fault, truth(0, 9000), vec![incident]))
    };
    assert!(of_journal(Fault::Timeout, |_| {}).is_empty());
    let is_unproven = of_journal(Fault::Timeout, |incident| incident.requests.clear());
    assert_eq!(is_unproven, ["failed request"]);
    let of_write = of_journal(Fault::WriteError, |_| {});
    assert_eq!(of_write, ["nothing false", "verdict and cause"]);
}

#[test]
fn a_caller_that_is_told_nothing_wants_the_write_that_is_still_held() {
    let mut held = incident();
    (held.verdict, held.cause) = ("STALLED".into(), Some("device-stall".into()));
    (held.syncs[0].errno, held.syncs[0].in_flight) = (None, true);
    held.requests[0].in_flight = true;
    let mut evidence = evidence(Fault::Timeout, truth(0, 9000), vec![held]);
    evidence.caller_errnos.clear();
    // It is a gap where the kernel itself waits in its reset, and nowhere else.
    assert_eq!(failed(&evidence), ["errno of the caller"]);
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
    evidence.is_in_reset = true;
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::ExpectedGap);
    evidence.told[0].last.requests[0].in_flight = false;
    assert_eq!(
        failed(&evidence),
        ["errno of the caller", "outstanding sector"]
    );
    evidence.told[0].last.syncs[0].in_flight = false;
    assert_eq!(
        failed(&evidence),
        [
            "errno of the caller",
            "file in flight",
            "outstanding sector"
        ]
    );
    evidence.told[0].last.cause = None;
    assert_eq!(
        failed(&evidence),
        ["nothing false", "verdict and cause", "errno of the caller"]
    );
    // Nor is a stall enough where the caller was told of an error.
    evidence.told[0].last.cause = Some("device-stall".into());
    evidence.caller_errnos.push("EIO".into());
    assert_eq!(failed(&evidence), ["verdict and cause"]);
}

#[test]
fn a_flush_of_which_xfs_of_5_10_tells_nobody_has_no_errno() {
    let mut untold = incident();
    untold.syncs.clear();
    untold.requests[0].op = "flush".into();
    let mut evidence = evidence(Fault::FlushError, truth(5, 0), vec![untold]);
    evidence.fs = FsKind::Xfs;
    evidence.caller_errnos.clear();
    assert_eq!(failed(&evidence), ["errno of the caller", "files"]);
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
    evidence.kernel = "5.10.0-32-cloud-arm64".into();
    evidence.told[0].last.requests[0].status_derived = true;
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::ExpectedGap);
    // But one that was told must be shown, unless an append was.
    evidence.caller_errnos.push("EIO".into());
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
    let mut of_append = told(incident());
    (of_append.last.verdict, of_append.last.cause) = ("UNKNOWN".into(), None);
    of_append.last.syncs.clear();
    evidence.told.push(of_append);
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::ExpectedGap);
}

#[test]
fn a_sync_without_a_file_on_xfs_of_5_10_does_not_know_that_its_disk_is_gone() {
    let mut gone = incident();
    gone.cause = Some("device-gone".into());
    let mut nameless = incident();
    nameless.cause = None;
    nameless.syncs[0].path = None;
    let mut evidence = evidence(Fault::Removed, truth(0, 0), vec![gone, nameless]);
    evidence.fs = FsKind::Xfs;
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
    evidence.kernel = "5.10.0-32-cloud-arm64".into();
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::ExpectedGap);
    evidence.told[1].last.cause = Some("no-space".into());
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
    evidence.told[1].last.cause = None;
    evidence.told[1].last.syncs[0].path = Some(VICTIM.into());
    assert_eq!(conclude(&compare(&evidence)).0, Outcome::Failed);
}

#[test]
fn a_cell_needs_an_agent_that_lives_and_loses_nothing_to_its_end() {
    let mut evidence = evidence(Fault::WriteError, truth(5, 0), vec![incident()]);
    evidence.trouble = Some("the agent ended early, signal: 11".to_owned());
    assert_eq!(failed(&evidence), ["agent"]);
    let at_end = |class: &str, preempts| {
        let row = compare_loss_at_end(&BTreeMap::from([(class.to_owned(), 2)]), preempts);
        (row.passed, row.gap.is_some())
    };
    assert_eq!(at_end("unmatched_exit", false), (true, false));
    assert_eq!(at_end("recursion", false), (false, false));
    assert_eq!(at_end("recursion", true), (false, true));
    assert_eq!(at_end("ring_full", true), (false, false));
}

#[test]
fn a_timeout_is_told_when_the_file_that_was_hit_is_among_its_syncs() {
    let mut incident = incident();
    let is_complete = |incident: &Incident| {
        is_complete(Fault::Timeout, Path::new(VICTIM), &[told(incident.clone())])
    };
    assert!(is_complete(&incident));
    incident.syncs[0].path = Some("/data/x/b".into());
    assert!(!is_complete(&incident));
}

#[test]
fn a_reset_names_the_write_that_it_took_back() {
    let mut held = incident();
    (held.verdict, held.cause) = ("STALLED".into(), Some("device-stall".into()));
    let mut evidence = evidence(Fault::Reset, truth(0, 7000), vec![held]);
    // One that was sent again is not the one that was held.
    evidence.told[0].last.requests[0].device_ns = Some(300_000);
    assert_eq!(failed(&evidence), ["sector"]);
    evidence.told[0].last.requests[0].device_ns = Some(7_040_000_000);
    assert_eq!(failed(&evidence), [""; 0]);
    evidence.told[0].last.requests[0].sector = Some(8);
    assert_eq!(failed(&evidence), ["sector"]);
    evidence.truth.clear();
    assert_eq!(failed(&evidence), ["sector"]);
}

#[test]
fn a_full_file_system_blames_no_request_and_has_its_line() {
    let mut full = incident();
    full.cause = Some("no-space".into());
    full.requests.clear();
    full.log_events[0].text = "[t] ERROR Error while appending records to orders-0".into();
    let mut evidence = evidence(Fault::NoSpace, truth(0, 0), vec![full]);
    evidence.caller_errnos = vec!["ENOSPC".into()];
    assert_eq!(failed(&evidence), [""; 0]);
    evidence.told[0].last.requests = incident().requests;
    evidence.told[0].last.log_events.clear();
    evidence.caller_errnos.clear();
    assert_eq!(
        failed(&evidence),
        [
            "line of the broker",
            "errno of the caller",
            "requests blamed"
        ]
    );
}

#[test]
fn files_that_failed_are_the_writers() {
    let mut gone = incident();
    gone.cause = Some("device-gone".into());
    let mut evidence = evidence(Fault::Removed, truth(0, 0), vec![gone]);
    assert_eq!(failed(&evidence), [""; 0]);
    evidence.told[0].last.syncs[0].path = Some("/other/orders-0/0.log".into());
    assert_eq!(failed(&evidence), ["files"]);
    evidence.told[0].last.syncs[0].path = None;
    assert_eq!(failed(&evidence), ["files"]);
}
