//! Each way in which the tool can be wrong is found; what is right passes.

use fsyncscope_tests::faultdisk::Stamp;

use super::super::truth::Placed;
use super::*;
use crate::incident::{Breakdown, Broker, Device, LogEvent};

/// The second line of the broker's log.
pub const LINE: &str =
    "[2026-01-01 00:00:00,000] ERROR Error while flushing log for orders-0 in dir /d";

const EIO: Expect = Expect::Failed {
    op: "fsync",
    file_kinds: &["log"],
    has_log_line: true,
    said: None,
};

const HANG: Expect = Expect::FlushHeld {
    delay_ms: 20_000,
    while_in_flight: true,
};

/// A request that a rule touched.
pub fn touched(op: Op, sector: u64, bytes: u64, errno: i32) -> TruthRequest {
    let arrival = Stamp {
        realtime_ns: 0,
        monotonic_ns: 5_000_000_000,
    };
    TruthRequest {
        seq: 1,
        op,
        sector,
        bytes,
        errno,
        delay_ms: 0,
        rule: 0,
        arrival,
        reply: None,
    }
}

/// One request, one file, two lines.
pub fn truth(request: TruthRequest) -> Truth {
    Truth {
        broker_pid: 7,
        log_dir: "/d".into(),
        disk: "loop3".into(),
        requests: vec![request],
        files: vec![Placed {
            path: "/d/orders-0/0.log".into(),
            sectors: vec![(800, 900)],
        }],
        broker_log: vec!["first".into(), LINE.into()],
        outsider: None,
    }
}

/// Of the broker's file.
pub fn sync() -> Sync {
    Sync {
        op: "fsync".into(),
        path: Some("/d/orders-0/0.log".into()),
        topic_partition: Some("orders-0".into()),
        file_kind: Some("log".into()),
        pid: 7,
        tid: 8,
        comm: "kafka-scheduler".into(),
        ..Sync::default()
    }
}

/// Of the broker, on its disk.
pub fn incident(verdict: &str, cause: &str) -> Incident {
    Incident {
        id: "i".into(),
        verdict: verdict.into(),
        cause: Some(cause.into()),
        broker: Some(Broker {
            pid: 7,
            log_dir: None,
        }),
        device: Some(Device {
            disk: "loop3".into(),
            backing_file: None,
            ..Device::default()
        }),
        ..Incident::default()
    }
}

fn eio() -> Incident {
    Incident {
        log_events: vec![LogEvent {
            line_number: 2,
            text: "Error while flushing log for orders-0 in dir /d".into(),
            ..LogEvent::default()
        }],
        syncs: vec![Sync {
            errno: Some("EIO".into()),
            ..sync()
        }],
        requests: vec![Request {
            disk: "loop3".into(),
            sector: Some(808),
            nr_bytes: 4096,
            op: "write".into(),
            errno: Some("EIO".into()),
            path: Some("/d/orders-0/0.log".into()),
            ..Request::default()
        }],
        ..incident("CONFIRMED", "device-error")
    }
}

fn told(incident: Incident) -> Told {
    Told {
        first_at_ns: 6_500_000_000,
        first: incident.clone(),
        last: incident,
        last_line: String::new(),
    }
}

fn eio_wrong(change: impl Fn(&mut Incident)) -> Vec<String> {
    let mut incident = eio();
    change(&mut incident);
    let truth = truth(touched(Op::Write, 800, 8192, libc::EIO));
    compare(EIO, &truth, &[told(incident)])
}

#[test]
fn the_right_answer_to_an_error_passes() {
    assert!(eio_wrong(|_| ()).is_empty());
}

#[test]
fn each_wrong_part_of_an_error_is_found() {
    assert_eq!(eio_wrong(|i| i.verdict = "UNKNOWN".into()).len(), 1);
    assert_eq!(eio_wrong(|i| i.cause = None).len(), 1);
    assert_eq!(eio_wrong(|i| i.device = None).len(), 1);
    assert_eq!(eio_wrong(|i| i.requests[0].sector = Some(4000)).len(), 1);
    assert_eq!(
        eio_wrong(|i| i.requests[0].errno = Some("ENODATA".into())).len(),
        1
    );
    assert_eq!(eio_wrong(|i| i.requests[0].path = None).len(), 1);
    assert_eq!(eio_wrong(|i| i.requests[0].disk = "loop4".into()).len(), 1);
    assert_eq!(eio_wrong(|i| i.requests.clear()).len(), 1);
    assert_eq!(
        eio_wrong(|i| i.syncs[0].file_kind = Some("index".into())).len(),
        1
    );
    assert_eq!(
        eio_wrong(|i| i.syncs[0].path = Some("/e/x".into())).len(),
        1
    );
    assert_eq!(eio_wrong(|i| i.log_events[0].line_number = 1).len(), 1);
    assert_eq!(eio_wrong(|i| i.log_events.clear()).len(), 1);
}

#[test]
fn no_incident_or_two_are_wrong() {
    let truth = truth(touched(Op::Write, 800, 8192, libc::EIO));
    assert_eq!(compare(EIO, &truth, &[]).len(), 1);
    assert_eq!(compare(EIO, &truth, &[told(eio()), told(eio())]).len(), 1);
}

fn hang() -> Incident {
    Incident {
        syncs: vec![Sync {
            duration_ns: 19_900_000_000,
            in_flight: true,
            breakdown: Some(Breakdown {
                flush_ns: 19_800_000_000,
                ..Breakdown::default()
            }),
            ..sync()
        }],
        requests: vec![Request {
            disk: "loop3".into(),
            op: "flush".into(),
            device_ns: Some(20_000_000_000),
            ..Request::default()
        }],
        ..incident("STALLED", "device-stall")
    }
}

#[test]
fn a_hang_is_to_be_told_in_time_and_while_it_lasts() {
    let truth = truth(touched(Op::Flush, 0, 0, 0));
    assert!(compare(HANG, &truth, &[told(hang())]).is_empty());
    let late = Told {
        first_at_ns: 7_100_000_000,
        ..told(hang())
    };
    assert_eq!(compare(HANG, &truth, &[late]).len(), 1);
    let mut over = told(hang());
    over.first.syncs[0].in_flight = false;
    assert_eq!(compare(HANG, &truth, &[over]).len(), 1);
}

#[test]
fn a_stall_is_to_be_laid_to_the_flush() {
    let truth = truth(touched(Op::Flush, 0, 0, 0));
    let mut incident = hang();
    incident.syncs[0].breakdown = None;
    incident.requests[0].op = "write".into();
    assert_eq!(compare(HANG, &truth, &[told(incident)]).len(), 2);
}

#[test]
fn nothing_means_nothing_of_the_broker() {
    let truth = truth(touched(Op::Write, 800, 8192, libc::EIO));
    let mut other = eio();
    other.broker = None;
    other.syncs.clear();
    let ours = of_broker(&truth, &[told(other), told(eio())]);
    assert_eq!(ours.len(), 1);
    assert_eq!(compare(Expect::Nothing, &truth, &ours).len(), 1);
    assert!(compare(Expect::Nothing, &truth, &[]).is_empty());
}

#[test]
fn a_blind_tool_must_say_so() {
    let truth = truth(touched(Op::Write, 800, 8192, libc::EIO));
    assert!(compare(Expect::Unknown, &truth, &[told(incident("UNKNOWN", "x"))]).is_empty());
    assert_eq!(compare(Expect::Unknown, &truth, &[]).len(), 1);
    assert_eq!(compare(Expect::Unknown, &truth, &[told(eio())]).len(), 1);
}
