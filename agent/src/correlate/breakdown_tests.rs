//! Claims about the partition: it always sums, and each part is given where
//! the rule says, in the order of the rule.

use super::*;
use crate::event::FileId;

const MS: u64 = 1_000_000;
const DISK: u32 = 70;
const FS: u32 = 7;
const FILE: FileId = FileId { s_dev: FS, ino: 12 };

/// A sync of [`FILE`] from 1000 ms to 2000 ms.
fn sync() -> SyncEvent {
    SyncEvent {
        op: "fsync".to_owned(),
        tid: 40,
        enter_ns: 1_000 * MS,
        exit_ns: 2_000 * MS,
        file: FILE,
        ..SyncEvent::default()
    }
}

/// Start, issue, completion in ms.
fn request(op: &str, times: (u64, u64, u64), file: FileId) -> RequestSpan {
    RequestSpan {
        dev: DISK,
        op: op.to_owned(),
        start_ns: times.0 * MS,
        issue_ns: times.1 * MS,
        complete_ns: times.2 * MS,
        file_source: if op == "flush" { "flush" } else { "page" }.to_owned(),
        file,
        ..RequestSpan::default()
    }
}

fn journal(times: (u64, u64, u64), rdev: u32) -> RequestSpan {
    RequestSpan {
        file_source: "blockdev".to_owned(),
        rdev,
        ..request("write", times, FileId { s_dev: 1, ino: 2 })
    }
}

fn flush(times: (u64, u64, u64)) -> RequestSpan {
    request("flush", times, FileId::default())
}

fn wait(kind: &str, s_dev: u32, tid: u32, from_ms: u64, to_ms: u64) -> WaitSpan {
    WaitSpan {
        kind: kind.to_owned(),
        s_dev,
        tid,
        start_ns: from_ms * MS,
        end_ns: to_ms * MS,
        ..WaitSpan::default()
    }
}

fn parts(sync: &SyncEvent, requests: &[RequestSpan], waits: &[WaitSpan]) -> Partition {
    partition(&Evidence {
        sync,
        s_dev: FS,
        disks: &[DISK],
        requests,
        waits,
        is_journal_dark: false,
        is_asker_dark: false,
    })
}

fn sum(parts: &Breakdown) -> u64 {
    parts.flush_ns
        + parts.journal_ns
        + parts.own_data_ns
        + parts.others_data_ns
        + parts.lock_ns
        + parts.other_ns
}

/// The six parts in ms.
fn six(parts: &Breakdown) -> [u64; 6] {
    [
        parts.flush_ns,
        parts.journal_ns,
        parts.own_data_ns,
        parts.others_data_ns,
        parts.lock_ns,
        parts.other_ns,
    ]
    .map(|ns| ns / MS)
}

#[test]
fn random_spans_always_sum_to_the_duration() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..500 {
        let enter_ns = random(1_000);
        let sync = SyncEvent {
            enter_ns,
            exit_ns: enter_ns + random(1_000),
            flush_asked_ns: random(2) * (enter_ns + random(500)),
            ..sync()
        };
        let mut requests = Vec::new();
        for _ in 0..random(40) {
            let (a, b, c) = (random(2_500), random(600), random(600));
            let file = FileId {
                s_dev: FS + u32::try_from(random(2)).unwrap(),
                ino: 11 + random(3),
            };
            let kind = random(4);
            requests.push(RequestSpan {
                dev: DISK + u32::try_from(random(2)).unwrap(),
                op: if kind == 0 { "flush" } else { "write" }.to_owned(),
                flags: if random(3) == 0 {
                    vec!["meta".to_owned(), "fua".to_owned()]
                } else {
                    Vec::new()
                },
                start_ns: a * random(2),
                issue_ns: (a + b) * random(4).min(1),
                complete_ns: a + b + c,
                file_source: ["flush", "page", "blockdev", "unknown"][kind as usize].to_owned(),
                rdev: FS,
                file,
                ..RequestSpan::default()
            });
        }
        let waits: Vec<WaitSpan> = (0..random(10))
            .map(|_| {
                let start_ns = random(2_000);
                WaitSpan {
                    kind: ["commit", "checkpoint", "log_force", "lock"][random(4) as usize]
                        .to_owned(),
                    s_dev: FS,
                    tid: 40,
                    start_ns,
                    end_ns: start_ns + random(500),
                    ..WaitSpan::default()
                }
            })
            .collect();
        let found = partition(&Evidence {
            sync: &sync,
            s_dev: FS,
            disks: &[DISK, DISK + 1],
            requests: &requests,
            waits: &waits,
            is_journal_dark: random(2) == 0,
            is_asker_dark: random(2) == 0,
        });
        let parts = found.breakdown;
        assert_eq!(sum(&parts), sync.exit_ns - sync.enter_ns);
        assert!(parts.flush_queue_ns + parts.flush_device_ns == parts.flush_ns);
        assert!(parts.journal_queue_ns + parts.journal_device_ns <= parts.journal_ns);
        assert!(parts.own_data_queue_ns + parts.own_data_device_ns == parts.own_data_ns);
        assert!(parts.others_data_queue_ns + parts.others_data_device_ns == parts.others_data_ns);
        let of_journal = parts.journal_ns - parts.journal_queue_ns - parts.journal_device_ns;
        assert!(found.held_ns <= parts.others_data_ns + of_journal);
    }
}

#[test]
fn nothing_seen_is_other_and_an_empty_call_has_no_time() {
    assert_eq!(
        six(&parts(&sync(), &[], &[]).breakdown),
        [0, 0, 0, 0, 0, 1000]
    );
    let empty = SyncEvent {
        exit_ns: 1_000 * MS,
        ..sync()
    };
    let found = parts(&empty, &[flush((900, 900, 1_500))], &[]);
    assert_eq!(found, Partition::default());
}

#[test]
fn own_flush_counts_from_the_asking_and_others_after_it_do_not() {
    let asked = SyncEvent {
        flush_asked_ns: 1_100 * MS,
        ..sync()
    };
    // One under way when it asked, its own after that, one of somebody else.
    let flushes = [
        flush((1_000, 1_000, 1_200)),
        flush((1_200, 1_300, 1_600)),
        flush((1_700, 1_700, 1_900)),
    ];
    let found = parts(&asked, &flushes, &[]).breakdown;
    assert_eq!(six(&found), [500, 0, 0, 300, 0, 200]);
    assert_eq!(
        (found.flush_queue_ns, found.flush_device_ns),
        (100 * MS, 400 * MS)
    );
}

#[test]
fn flush_that_nobody_asked_for_here_is_others() {
    let found = parts(&sync(), &[flush((1_100, 1_100, 1_600))], &[]);
    assert_eq!(six(&found.breakdown), [0, 0, 0, 500, 0, 500]);
    assert_eq!(found.held_ns, 500 * MS);
}

#[test]
fn flush_within_a_commit_is_flush_and_the_rest_of_it_journal() {
    let commit = [wait("commit", FS, 9, 1_100, 1_900)];
    let requests = [
        flush((1_400, 1_400, 1_800)),
        journal((1_200, 1_250, 1_300), FS),
    ];
    let found = parts(&sync(), &requests, &commit).breakdown;
    assert_eq!(six(&found), [400, 500, 0, 0, 0, 100]);
    assert_eq!(
        (found.journal_queue_ns, found.journal_device_ns),
        (50 * MS, 50 * MS)
    );
    // A commit of another file system is nobody's.
    let other = [wait("commit", FS + 1, 9, 1_100, 1_900)];
    let found = parts(&sync(), &requests[..1], &other).breakdown;
    assert_eq!(six(&found), [0, 0, 0, 400, 0, 600]);
}

#[test]
fn commit_that_writes_other_files_data_is_journal_in_the_device() {
    let commit = [wait("commit", FS, 9, 1_000, 1_500)];
    let ordered = [request(
        "write",
        (1_000, 1_100, 1_500),
        FileId { s_dev: FS, ino: 99 },
    )];
    let found = parts(&sync(), &ordered, &commit).breakdown;
    assert_eq!(six(&found), [0, 500, 0, 0, 0, 500]);
    assert_eq!(
        (found.journal_queue_ns, found.journal_device_ns),
        (100 * MS, 400 * MS)
    );
}

#[test]
fn flush_below_an_xfs_log_write_is_flush() {
    let log_write = RequestSpan {
        flags: ["meta", "preflush", "fua"].map(str::to_owned).to_vec(),
        file_source: "meta".to_owned(),
        ..request("write", (1_100, 1_500, 1_600), FileId::default())
    };
    let requests = [log_write, flush((1_100, 1_150, 1_500))];
    let found = parts(&sync(), &requests, &[]).breakdown;
    assert_eq!(six(&found), [400, 100, 0, 0, 0, 500]);
}

#[test]
fn own_data_goes_before_others_and_lock_comes_after_both() {
    let requests = [
        request("write", (1_000, 1_050, 1_200), FILE),
        request("write", (1_100, 1_100, 1_400), FileId { s_dev: 8, ino: 12 }),
    ];
    let waits = [
        wait("lock", 0, 40, 1_300, 1_700),
        wait("lock", 0, 41, 1_700, 2_000),
    ];
    let found = parts(&sync(), &requests, &waits).breakdown;
    assert_eq!(six(&found), [0, 0, 200, 200, 300, 300]);
    assert_eq!(
        (found.own_data_queue_ns, found.own_data_device_ns),
        (50 * MS, 150 * MS)
    );
}

#[test]
fn other_disks_and_unknown_begins_count_nothing() {
    let foreign = RequestSpan {
        dev: DISK + 1,
        ..request("write", (1_000, 1_000, 2_000), FILE)
    };
    let found = parts(
        &sync(),
        &[foreign, request("write", (0, 0, 1_500), FILE)],
        &[],
    );
    assert_eq!(six(&found.breakdown), [0, 0, 0, 0, 0, 1_000]);
}

#[test]
fn without_a_view_of_the_journal_any_flush_may_be_its_own() {
    let evidence = Evidence {
        sync: &sync(),
        s_dev: FS,
        disks: &[DISK],
        requests: &[flush((900, 900, 1_600))],
        waits: &[],
        is_journal_dark: true,
        is_asker_dark: false,
    };
    assert_eq!(six(&partition(&evidence).breakdown), [600, 0, 0, 0, 0, 400]);
}

#[test]
fn syncfs_owns_the_data_of_every_file() {
    let all = SyncEvent {
        op: "syncfs".to_owned(),
        ..sync()
    };
    let found = parts(
        &all,
        &[request(
            "write",
            (1_000, 1_000, 1_400),
            FileId { s_dev: FS, ino: 99 },
        )],
        &[],
    );
    assert_eq!(six(&found.breakdown), [0, 0, 400, 0, 0, 600]);
}

#[test]
fn the_wait_for_a_commit_to_begin_is_the_journals_and_no_other_wait_is() {
    use std::slice::from_ref;
    let own = request("write", (1_000, 1_000, 1_200), FILE);
    let commit = wait("commit", FS, 1, 1_700, 1_900);
    let of = |sync: &SyncEvent, requests: &[RequestSpan], waits: &[WaitSpan]| {
        six(&parts(sync, requests, waits).breakdown)
    };
    // 200 ms its data, 500 ms for the commit to begin, 200 ms the commit.
    assert_eq!(
        of(&sync(), from_ref(&own), from_ref(&commit)),
        [0, 700, 200, 0, 0, 100]
    );
    // It had a flush to wait for: the commit was not what it waited for.
    let flushing = SyncEvent {
        flush_asked_ns: 1_300 * MS,
        ..sync()
    };
    assert_eq!(of(&flushing, from_ref(&own), from_ref(&commit))[1], 200);
    // Of a commit that ended after it, it did not wait for the end.
    let later = wait("commit", FS, 1, 1_700, 2_100);
    assert_eq!(of(&sync(), from_ref(&own), &[later])[1], 300);
    let elsewhere = wait("commit", FS + 1, 1, 1_700, 1_900);
    assert_eq!(of(&sync(), &[own], &[elsewhere])[1], 0);
}

#[test]
fn waiting_for_a_cpu_is_told_of_the_rest_and_never_more() {
    let waited = |run_delay_ms: u64| {
        let sync = SyncEvent {
            run_delay_ns: run_delay_ms * MS,
            ..sync()
        };
        let own = request("write", (1_000, 1_000, 1_900), FILE);
        parts(&sync, &[own], &[]).breakdown.other_cpu_ns / MS
    };
    assert_eq!((waited(0), waited(60), waited(400)), (0, 60, 100));
}

#[test]
fn a_write_of_the_same_thread_is_own_where_a_file_is_not_known() {
    let by_thread = |file: &FileId, sync_file: &FileId, change: fn(&mut RequestSpan)| {
        let sync = SyncEvent {
            tid: 7,
            file: sync_file.clone(),
            ..sync()
        };
        let mut request = request("write", (0, 0, 0), file.clone());
        (request.tid, request.issue_ns) = (7, sync.enter_ns);
        change(&mut request);
        is_own(&request, &sync)
    };
    let other = &FileId { s_dev: FS, ino: 99 };
    let (unknown, known) = (&FileId::default(), &FILE);
    assert!(by_thread(unknown, known, |_| {}));
    assert!(by_thread(known, unknown, |_| {}));
    assert!(!by_thread(other, known, |_| {}));
    assert!(!by_thread(unknown, known, |request| request.tid = 8));
    assert!(!by_thread(unknown, known, |request| request.tid = 0));
    assert!(!by_thread(unknown, known, |request| request.issue_ns -= 1));
    // Of the thread's next call.
    let later = |request: &mut RequestSpan| request.issue_ns += 1_001 * MS;
    assert!(!by_thread(unknown, known, later));
    assert!(!by_thread(unknown, known, |request| request.op = "read".to_owned()));
    let meta = |request: &mut RequestSpan| request.flags.push("meta".to_owned());
    assert!(!by_thread(unknown, known, meta));
}

#[test]
fn a_commit_that_waits_while_the_disk_holds_something_is_held() {
    let held = |from_ms| {
        let unknown = request("write", (from_ms, from_ms, 2_000), FileId::default());
        let commit = wait("commit", FS, 99, 1_100, 2_000);
        let found = parts(&sync(), &[unknown], &[commit]);
        (found.breakdown.journal_ns / MS, found.held_ns / MS)
    };
    assert_eq!(held(1_300), (1_000, 700));
    // Too short to have held the call.
    assert_eq!(held(1_600), (1_000, 0));
}

#[test]
fn a_commit_beside_a_write_of_its_own_that_is_held_waits_for_the_device() {
    let own = RequestSpan {
        tid: 40,
        ..request("write", (1_000, 1_000, 2_000), FileId::default())
    };
    let commit = wait("commit", FS, 99, 1_400, 2_000);
    let found = parts(&sync(), &[own], &[commit]).breakdown;
    assert_eq!(six(&found), [0, 600, 400, 0, 0, 0]);
    assert_eq!(found.journal_device_ns, 600 * MS);
}
