//! Faults and the right answers to them, for the tests of `compare` to plant
//! wrong ones in.

use fsyncscope_tests::campaign::{Call, CallRecord, Record};
use fsyncscope_tests::faultdisk::{Op, Stamp, TruthRequest};

use super::draw::{Fault, Kind};
use super::known::{Files, Known, Layout};
use super::said::{Said, Told};
use crate::incident::{Breakdown, Device, Incident, Request, Sync, Totals, Victim};

pub(super) const MS: u64 = 1_000_000;
const SECTOR: u64 = 9000;
const INO: u64 = 12;
pub(super) const TID: u32 = 70;
pub(super) const PATH: &str = "/mnt/data/orders-0/00000000000000000000.log";

pub(super) fn stamp(monotonic_ns: u64) -> Stamp {
    Stamp {
        realtime_ns: 0,
        monotonic_ns,
    }
}

pub(super) fn request(op: Op, sector: u64, at_ms: u64, took_ms: u64) -> TruthRequest {
    TruthRequest {
        seq: sector + at_ms,
        op,
        sector,
        bytes: if op == Op::Flush { 0 } else { 4096 },
        errno: 0,
        delay_ms: 0,
        rule: 0,
        arrival: stamp(at_ms * MS),
        reply: Some(stamp((at_ms + took_ms) * MS)),
    }
}

pub(super) fn call(at_ms: u64, took_ms: u64, errno: i32) -> CallRecord {
    CallRecord {
        tid: TID,
        call: Call::Fsync,
        ino: INO,
        enter_ns: at_ms * MS,
        exit_ns: (at_ms + took_ms) * MS,
        errno,
        before_sync_ns: 0,
    }
}

pub(super) fn time(at_ms: u64) -> String {
    format!("1970-01-01T00:00:{:02}.{:03}Z", at_ms / 1000, at_ms % 1000)
}

pub(super) fn sync(at_ms: u64, took_ms: u64, errno: Option<&str>) -> Sync {
    Sync {
        op: "fsync".into(),
        path: Some(PATH.into()),
        ino: Some(INO),
        pid: 7,
        tid: TID,
        time: time(at_ms),
        duration_ns: took_ms * MS,
        errno: errno.map(str::to_owned),
        ..Sync::default()
    }
}

pub(super) fn known(kind: Kind) -> Known {
    let mut files = Files::default();
    for (ino, path, first) in [(INO, PATH, SECTOR), (13, "/mnt/data/other", 9500)] {
        files.learn(&Record::Name {
            at_ns: 1,
            ino,
            path: path.into(),
        });
        files.learn(&Record::Placed {
            at_ns: 1,
            ino,
            sectors: vec![(first, first + 99)],
        });
    }
    Known {
        fault: Fault {
            nth: 1,
            kind,
            ..Fault::none(false)
        },
        disk: "loop0".into(),
        pid: 7,
        layout: Layout {
            journal: vec![(1000, 1999)],
            tables: vec![(100, 199)],
            data_first: 8000,
        },
        files,
        requests: Vec::new(),
        calls: Vec::new(),
        watched: (0, 20_000 * MS),
        armed: (900 * MS, 2000 * MS),
        is_aborted: false,
        slow_ns: 5 * MS,
        stall_ns: 200 * MS,
    }
}

/// A write that failed under a fsync, and the right answer.
pub(super) fn failed() -> (Known, Said) {
    let mut known = known(Kind::WriteError);
    let mut write = request(Op::Write, SECTOR, 1000, 1);
    write.errno = libc::EIO;
    known.requests = vec![write];
    known.calls = vec![call(999, 3, libc::EIO)];
    let incident = Incident {
        id: "f-1".into(),
        verdict: "CONFIRMED".into(),
        cause: Some("device-error".into()),
        confidence: 0.99,
        reasons: vec!["fsync of x failed (E1)".into()],
        first_victim: Some(Victim {
            path: PATH.into(),
            op: "fsync".into(),
        }),
        syncs: vec![sync(999, 3, Some("EIO"))],
        requests: vec![Request {
            disk: "loop0".into(),
            sector: Some(SECTOR),
            nr_bytes: 4096,
            op: "write".into(),
            device_ns: Some(MS),
            errno: Some("EIO".into()),
            path: Some(PATH.into()),
            time: time(1000),
            in_flight: false,
            ..Request::default()
        }],
        device: Some(Device {
            disk: "loop0".into(),
            ..Device::default()
        }),
        totals: Totals {
            syncs: 1,
            requests: 1,
        },
        time: time(999),
        ..Incident::default()
    };
    let mut said = Said::default();
    said.told.push(Told {
        first_at_ns: 1010 * MS,
        last: incident,
    });
    (known, said)
}

/// A flush held for a second under a fsync, and the right answer.
pub(super) fn held() -> (Known, Said) {
    let (mut known, mut said) = failed();
    known.fault.kind = Kind::FlushDelay;
    let mut flush = request(Op::Flush, 0, 1000, 1000);
    flush.delay_ms = 1000;
    known.requests = vec![flush];
    known.calls = vec![call(998, 1003, 0)];
    let incident = &mut said.told[0].last;
    incident.id = "s-1".into();
    incident.verdict = "STALLED".into();
    incident.cause = Some("device-stall".into());
    incident.reasons = vec!["fsync of x took 1 s (S1)".into()];
    incident.syncs = vec![sync(998, 1003, None)];
    incident.syncs[0].breakdown = Some(Breakdown {
        flush_ns: 1001 * MS,
        journal_ns: Some(0),
        others_data_ns: Some(0),
        lock_ns: Some(0),
        other_ns: 2 * MS,
        flush_device_ns: Some(1001 * MS),
        ..Breakdown::default()
    });
    incident.requests[0] = Request {
        sector: None,
        nr_bytes: 0,
        op: "flush".into(),
        device_ns: Some(1001 * MS),
        errno: None,
        path: None,
        ..incident.requests[0].clone()
    };
    (known, said)
}

/// Failed in the background at 1 s, told at 4 s.
pub(super) fn told_late() -> (Known, Said) {
    let (mut known, mut said) = failed();
    known.fault.kind = Kind::BackgroundError;
    known.calls = vec![call(4000, 1, libc::EIO)];
    said.told[0].last.syncs = vec![sync(4000, 1, Some("EIO"))];
    said.told[0].last.syncs[0].told_late_by_ns = Some(2999 * MS);
    (known, said)
}
