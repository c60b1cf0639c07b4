//! Answers that are right under a real broker, and each thing that can be wrong with
//! one.

use std::collections::BTreeMap;

use super::super::{Evidence, compare, conclude, is_complete};
use super::*;
use crate::faultdisk::{FsKind, Stamp};
use crate::guest::fault::Fault;
use crate::guest::protocol::Outcome;
use crate::incident::{Breakdown, Device, LogEvent, Nvme};

const DIR: &str = "/data/kafka";
const SEGMENT: &str = "/data/kafka/orders-2/00000000000000000000.log";
const LINE: &str = "[t] ERROR Error while flushing log for orders-2 in dir /data/kafka \
                    with offset 9 (exclusive) and recovery point 9 (x)";

fn truth(op: Op, errno: i32, delay_ms: u64) -> TruthRequest {
    let at = Stamp {
        realtime_ns: 1,
        monotonic_ns: 1,
    };
    TruthRequest {
        seq: 1,
        op,
        sector: 300_000,
        bytes: 4096,
        errno,
        delay_ms,
        rule: 0,
        arrival: at,
        reply: Some(at),
    }
}

fn incident(verdict: &str, cause: &str) -> Incident {
    Incident {
        id: "f-1".into(),
        verdict: verdict.into(),
        cause: Some(cause.into()),
        device: Some(Device {
            disk: "nvme0n1".into(),
            serial: Some("S1".into()),
            ..Device::default()
        }),
        syncs: vec![Sync {
            op: "fsync".into(),
            path: Some(SEGMENT.into()),
            topic_partition: Some("orders-2".into()),
            file_kind: Some("log".into()),
            pid: 7,
            tid: 9,
            comm: "data-plane-kafk".into(),
            ..Sync::default()
        }],
        ..Incident::default()
    }
}

fn evidence(fault: Fault, truth: TruthRequest, told: Vec<Told>) -> Evidence {
    Evidence {
        fault,
        fs: FsKind::Ext4,
        kernel: "6.12.95".into(),
        arch: "x86_64".into(),
        disk: "nvme0n1".into(),
        serial: "S1".into(),
        layers: Vec::new(),
        writer_pid: 7,
        victim: DIR.into(),
        caller_errnos: vec!["EIO".into()],
        truth: vec![truth],
        told,
        missing_hooks: Vec::new(),
        lost: BTreeMap::new(),
        preempts: false,
        is_in_reset: false,
        trouble: None,
        broker: Some(BrokerTruth {
            log_dir: DIR.into(),
            files: vec![Placed {
                path: SEGMENT.into(),
                sectors: vec![(299_992, 300_039)],
            }],
            log: vec!["[t] INFO up (x)".into(), LINE.into()],
        }),
    }
}

fn failed(evidence: &Evidence) -> Vec<String> {
    let rows = compare(evidence).into_iter();
    rows.filter(|row| !row.passed).map(|row| row.name).collect()
}

fn write_error(change: impl FnOnce(&mut Incident)) -> Evidence {
    let mut told = incident("CONFIRMED", "device-error");
    told.syncs[0].errno = Some("EIO".into());
    told.requests = vec![Request {
        disk: "nvme0n1".into(),
        sector: Some(300_000),
        nr_bytes: 4096,
        op: "write".into(),
        status: Some("MEDIUM".into()),
        errno: Some("ENODATA".into()),
        path: Some(SEGMENT.into()),
        nvme: Some(Nvme {
            sct: 2,
            sc: 0x80,
            ..Nvme::default()
        }),
        ..Request::default()
    }];
    told.log_events = vec![LogEvent {
        line_number: 2,
        text: LINE.into(),
        ..LogEvent::default()
    }];
    change(&mut told);
    let told = Told {
        first: told.clone(),
        last: told,
        ..Told::default()
    };
    let truth = truth(Op::Write, libc::EIO, 0);
    evidence(Fault::BrokerWriteError, truth, vec![told])
}

fn hang(change: impl FnOnce(&mut Told)) -> Evidence {
    const HELD_NS: u64 = 20_100_000_000;
    let mut first = incident("STALLED", "device-stall");
    first.syncs[0].in_flight = true;
    first.syncs[0].duration_ns = 3_500_000_000;
    let mut last = incident("STALLED", "device-stall");
    last.syncs[0].duration_ns = HELD_NS;
    last.syncs[0].breakdown = Some(Breakdown {
        flush_ns: HELD_NS - 1_000_000,
        ..Breakdown::default()
    });
    last.requests = vec![Request {
        disk: "nvme0n1".into(),
        op: "flush".into(),
        device_ns: Some(HELD_NS - 2_000_000),
        ..Request::default()
    }];
    let mut told = Told {
        first,
        last,
        was_in_flight: true,
        ..Told::default()
    };
    change(&mut told);
    let truth = truth(Op::Flush, 0, 20_000);
    evidence(Fault::BrokerHang, truth, vec![told])
}

#[test]
fn right_answers_pass() {
    for evidence in [write_error(|_| {}), hang(|_| {})] {
        assert!(is_complete(
            evidence.fault,
            std::path::Path::new(DIR),
            &evidence.told
        ));
        let rows = compare(&evidence);
        assert_eq!(conclude(&rows), (Outcome::Passed, String::new()));
        assert!(rows.len() > 9, "{rows:?}");
    }
}

#[test]
fn what_is_wrong_with_a_write_error_is_named() {
    let wrong = |change: fn(&mut Incident)| failed(&write_error(change));
    assert_eq!(
        wrong(|told| told.syncs[0].topic_partition = Some("orders-1".into())),
        ["sync that the line names"]
    );
    assert_eq!(
        wrong(|told| told.syncs[0].file_kind = Some("index".into())),
        ["sync that the line names"]
    );
    let elsewhere = |told: &mut Incident| {
        told.syncs[0].path = Some("/tmp/kafka/orders-2/00000000000000000000.log".into());
    };
    assert_eq!(wrong(elsewhere), ["syncs of others, or elsewhere"]);
    assert_eq!(
        wrong(|told| told.requests[0].path = Some("/data/kafka/orders-1/0.log".into())),
        ["requests of another file"]
    );
    assert_eq!(
        wrong(|told| told.requests[0].sector = Some(300_016)),
        ["sector", "sectors that did not fail"]
    );
    assert_eq!(wrong(|told| told.requests[0].nvme = None), ["NVMe status"]);
    assert_eq!(
        wrong(|told| told.log_events[0].line_number = 1),
        ["line numbers", "line of the broker"]
    );
    assert_eq!(
        wrong(|told| told.syncs[0].errno = Some("ENODATA".into())),
        ["errno of the caller"]
    );
}

#[test]
fn a_checkpoint_may_be_what_fails_first() {
    const LINE: &str = "[t] ERROR Error while writing to checkpoint file \
                        /data/kafka/replication-offset-checkpoint (x)";
    let with = |path: &str| {
        let mut evidence = write_error(|told| {
            told.syncs[0].path = Some(path.into());
            told.syncs[0].file_kind = None;
            told.syncs[0].topic_partition = None;
            told.log_events[0].text = LINE.into();
        });
        let broker = evidence.broker.as_mut().expect("a broker");
        broker.log[1] = LINE.into();
        evidence
    };
    let mut right = with("/data/kafka/replication-offset-checkpoint.tmp");
    assert!(failed(&right).is_empty());
    // Its exception has no errno; the request has the sync's.
    right.caller_errnos.clear();
    assert_eq!(failed(&right), ["errno of the caller"]);
    let broker = right.broker.as_mut().expect("a broker");
    broker
        .log
        .push("java.io.SyncFailedException: sync failed".into());
    assert_eq!(failed(&right), ["errno of the caller"]);
    let request = &mut right.told[0].last.requests[0];
    request.errno = Some("EIO".into());
    assert!(failed(&right).is_empty());
    let is_complete = |evidence: &Evidence| {
        is_complete(evidence.fault, std::path::Path::new(DIR), &evidence.told)
    };
    assert!(is_complete(&right));
    let other = with("/data/kafka/recovery-point-offset-checkpoint.tmp");
    assert_eq!(failed(&other), ["sync that the line names"]);
    assert!(!is_complete(&other));
    // The first line is the one that counts.
    let mut late = right;
    let broker = late.broker.as_mut().expect("a broker");
    broker.log[0] = LINE.replace("replication-offset", "log-start-offset");
    assert_eq!(failed(&late), ["line of the broker"]);
}

#[test]
fn what_is_wrong_with_a_hang_is_named() {
    let wrong = |change: fn(&mut Told)| failed(&hang(change));
    assert_eq!(
        wrong(|told| told.first.syncs[0].duration_ns = 15_000_000_000),
        ["told in flight, with thread and file"]
    );
    assert_eq!(
        wrong(|told| told.first.syncs[0].in_flight = false),
        ["told in flight, with thread and file"]
    );
    assert_eq!(
        wrong(|told| told.last.syncs[0].breakdown = None),
        ["sync held by the device's flush"]
    );
    assert_eq!(
        wrong(|told| told.last.requests[0].disk = "nvme0c0n1".into()),
        ["flush in the device"]
    );
    assert_eq!(
        wrong(|told| told.last.syncs[0].pid = 8),
        ["syncs of others, or elsewhere"]
    );
    let with_line = |told: &mut Told| {
        told.last.log_events = vec![LogEvent::default()];
        told.last.log_events[0].text = LINE.into();
    };
    assert_eq!(wrong(with_line), ["line of the broker"]);
}

#[test]
fn without_a_broker_nothing_is_proven() {
    let mut evidence = hang(|_| {});
    evidence.broker = None;
    assert_eq!(failed(&evidence), ["broker"]);
}
