//! What excuses a slow sync, and what does not.

use super::*;
use crate::correlate::neighbours::Household;
use crate::event::{Counters, FileId, SpansEvent};

const MS: u64 = 1_000_000;
const DISK: u32 = 7 << 20;
const MIB: u32 = 1 << 20;
const OWN: FileId = FileId {
    s_dev: DISK,
    ino: 12,
};

/// Issue and completion in ms.
fn write(file: FileId, issue_ms: u64, complete_ms: u64, nr_bytes: u32) -> RequestSpan {
    RequestSpan {
        dev: DISK,
        op: "write".to_owned(),
        start_ns: issue_ms * MS,
        issue_ns: issue_ms * MS,
        complete_ns: complete_ms * MS,
        nr_bytes,
        root: 0,
        file,
        file_source: "page".to_owned(),
        ..RequestSpan::default()
    }
}

/// A sync of 2 s that wrote 4 KiB, on a disk with that rate, that moved so much.
fn stall_of(rate: u64, moved_bytes: u64, requests: Vec<RequestSpan>) -> Stall {
    stall_beside(rate, moved_bytes, requests, &[])
}

/// The same, with requests that have not completed; by thread 7.
fn stall_beside(
    rate: u64,
    moved_bytes: u64,
    requests: Vec<RequestSpan>,
    outstanding: &[InFlightRequest],
) -> Stall {
    let own = requests.iter().filter(|request| request.file == OWN);
    let device_ns = own.map(|own| own.complete_ns - own.issue_ns).sum();
    let sync = SyncEvent {
        op: "fsync".to_owned(),
        tid: 7,
        enter_ns: 0,
        exit_ns: 2_000 * MS,
        file: OWN,
        delta: Counters {
            nr_requests: 1,
            nr_bytes: 4_096,
            device_ns,
            nr_errors: 0,
        },
        ..SyncEvent::default()
    };
    let mut memory = Memory::new();
    let spans = SpansEvent {
        requests,
        ..SpansEvent::default()
    };
    memory.recorder.remember(&spans, 2_000 * MS);
    measure(
        &sync,
        &Scene {
            s_dev: DISK,
            disks: &[DISK],
            rate: Some(rate),
            moved_bytes,
            is_journal_dark: false,
            is_asker_dark: false,
            is_in_flight: !outstanding.is_empty(),
            household: Household {
                roots: &[0],
                file_systems: &[DISK],
                s_dev: DISK,
            },
            outstanding,
        },
        &memory,
    )
}

/// Issued after 2 ms and held since.
fn held(op: &str, tid: u32, flags: &[&str]) -> InFlightRequest {
    InFlightRequest {
        dev: DISK,
        op: op.to_owned(),
        issue_ns: 2 * MS,
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        tid,
        ..InFlightRequest::default()
    }
}

fn other() -> FileId {
    FileId {
        s_dev: DISK,
        ino: 99,
    }
}

#[test]
fn a_disk_that_was_idle_is_not_taken_for_a_slow_one() {
    // 4 kB/s of late: by that rate its 4 KiB would excuse a second.
    let flush = RequestSpan {
        op: "flush".to_owned(),
        file_source: "flush".to_owned(),
        ..write(FileId::default(), 2, 2_000, 0)
    };
    let stall = stall_of(4_096, 4_096, vec![write(OWN, 1, 2, 4_096), flush]);
    assert_eq!(stall.needed_ns, MS);
    assert!(stall.is_stalled(2_000 * MS, 1_000 * MS));
}

#[test]
fn bytes_that_were_ahead_in_the_device_excuse_a_request() {
    // 150 MiB at 100 MB/s lay before it.
    let mut requests = vec![write(OWN, 2, 1_990, 4_096)];
    requests.extend((0..150).map(|nr| write(other(), 1, 13 * (nr + 1), MIB)));
    let stall = stall_of(100_000_000, 190_000_000, requests);
    assert_eq!(stall.moved_bytes, 190_000_000);
    assert!(!stall.is_stalled(2_000 * MS, 1_000 * MS));
}

#[test]
fn bytes_that_passed_it_by_do_not() {
    let mut requests = vec![write(OWN, 2, 1_990, 4_096)];
    requests.extend((0..150).map(|nr| write(other(), 13 * nr + 3, 13 * nr + 14, MIB)));
    let stall = stall_of(100_000_000, 190_000_000, requests);
    assert_eq!(stall.moved_bytes, 0);
    assert!(stall.is_stalled(2_000 * MS, 1_000 * MS));
}

#[test]
fn what_the_thread_itself_issued_is_its_own_data_while_it_is_held() {
    let parts = |request: InFlightRequest| {
        let parts = stall_beside(1_000_000, 0, Vec::new(), &[request]).breakdown;
        (parts.own_data_ns, parts.others_data_ns)
    };
    let all = 1_998 * MS;
    assert_eq!(parts(held("write", 7, &["sync"])), (all, 0));
    assert_eq!(parts(held("write", 8, &["sync"])), (0, all));
    assert_eq!(parts(held("write", 0, &["sync"])), (0, all));
    assert_eq!(parts(held("read", 7, &[])), (0, all));
    let meta = stall_beside(
        1_000_000,
        0,
        Vec::new(),
        &[held("write", 7, &["sync", "meta"])],
    );
    assert_eq!(meta.breakdown.own_data_ns, 0);
}
