//! Tests of `judge`: what was done and what was seen, made by hand.

use super::super::helper::Call;
use super::*;
use crate::event::FileId;

const DISK: u32 = 8 << 20;
const S_DEV: u32 = DISK | 1;
const PID: u32 = 77;

fn states() -> Vec<HookState> {
    [
        "fsync",
        "msync",
        "ext4_sync_file_enter",
        "block_rq_issue",
        "block_rq_complete",
    ]
    .map(|name| HookState {
        name: name.to_owned(),
        state: "unproven".to_owned(),
        form: "tracepoint".to_owned(),
        ..HookState::default()
    })
    .to_vec()
}

fn call(op: &str, arg0: u64, ret: i64) -> Call {
    Call {
        op: op.to_owned(),
        arg0,
        ret,
    }
}

fn sync(op: &str, arg0: u64, ret: i64) -> SyncEvent {
    SyncEvent {
        op: op.to_owned(),
        arg0,
        ret,
        file: FileId {
            s_dev: S_DEV,
            ino: 7,
        },
        names: vec!["fsyncscope".to_owned()],
        nr_files: 1,
        ..SyncEvent::default()
    }
}

fn request(dev: u32, nr_bytes: u32) -> RqState {
    RqState {
        dev,
        nr_bytes,
        pid_tgid: u64::from(PID) << 32,
        ..RqState::default()
    }
}

fn reads(disk_bytes: u64, seen_bytes: u64) -> Reads {
    Reads {
        said: ReadBack {
            disk_bytes: Some(disk_bytes),
        },
        seen_bytes,
    }
}

/// All is well.
fn seen() -> Seen {
    Seen {
        synced: Synced {
            ino: 7,
            major: 8,
            minor: 1,
            mount_id: 1,
            name: "fsyncscope".to_owned(),
            calls: vec![
                call("fsync", 3, 0),
                call("msync", 4096, 0),
                call("fsync", 5, -22),
            ],
        },
        syncs: vec![
            sync("fsync", 3, 0),
            sync("msync", 4096, 0),
            sync("fsync", 5, -22),
        ],
        fs: Some(("ext4".to_owned(), S_DEV)),
        disk: Some(DISK),
        cached: reads(65536, 65536),
        direct: reads(40960, 40960),
        requests: vec![request(0, 0), request(DISK, 8192)],
        is_direct_known: true,
        pid: PID,
    }
}

/// States of all hooks, and what is refuted as text.
fn verdict(seen: &Seen) -> (Vec<String>, Vec<String>) {
    let mut states = states();
    let refuted = judge(&mut states, seen).into_iter().map(|what| match what {
        Refuted::Form { hook, why, .. } => format!("{hook}: {why}"),
        Refuted::Facts { names, why } => format!("{}: {why}", names.join(" ")),
    });
    let refuted = refuted.collect();
    (
        states.into_iter().map(|state| state.state).collect(),
        refuted,
    )
}

#[test]
fn what_was_seen_as_it_was_done_is_proven() {
    let (states, refuted) = verdict(&seen());
    assert_eq!(states, ["attached"; 5]);
    assert_eq!(refuted, [""; 0]);
}

#[test]
fn a_silent_hook_a_wrong_errno_and_a_wrong_argument_refute_the_form() {
    let mut silent = seen();
    silent.syncs.remove(1);
    let why = "msync: attached but did not fire for a sync of its own";
    assert_eq!(verdict(&silent).1, [why]);
    let mut errno = seen();
    errno.syncs[2].ret = 0;
    let why = "fsync: saw result 0 of a sync that returned -22";
    assert_eq!(verdict(&errno).1, [why]);
    let mut argument = seen();
    argument.syncs[1].arg0 = 4;
    let why = "msync: saw no call on 0x1000, which was made";
    assert_eq!(verdict(&argument).1, [why]);
}

#[test]
fn a_wrong_file_refutes_the_facts_that_no_read_has_proven() {
    let mut wrong = seen();
    wrong.syncs[0].file.ino = 8;
    let text =
        "a sync of inode 7 on 8:1 (fsyncscope) was seen as one of inode 8 on 8:1 (fsyncscope)";
    assert_eq!(verdict(&wrong).1, [format!("file_f_inode: {text}")]);
    wrong.cached = reads(0, 0);
    assert_eq!(
        verdict(&wrong).1,
        [format!("file_f_inode inode_i_ino: {text}")]
    );
    wrong.fs = Some(("xfs".to_owned(), S_DEV));
    assert_eq!(verdict(&wrong).1, [""; 0], "no hook of xfs is attached");
    wrong.syncs[0].is_by_fd = true;
    assert_eq!(
        verdict(&wrong).1,
        [format!("file_f_inode inode_i_ino: {text}")],
        "by its descriptor"
    );
    // A file found by its descriptor is not the file system's word.
    let mut by_fd = seen();
    by_fd.syncs[0].is_by_fd = true;
    let why = "ext4_sync_file_enter: attached but did not fire for a sync of its own";
    assert_eq!(verdict(&by_fd).1, [why]);
}

#[test]
fn a_wrong_size_or_disk_refutes_the_facts_of_requests() {
    let mut size = seen();
    size.requests[1].nr_bytes = 30_000;
    let why = "request_data_len request_cmd_flags: a read of 4096 to 16384 bytes was seen as operation 0 of 30000 bytes";
    assert_eq!(verdict(&size).1, [why]);
    let mut disk = seen();
    disk.requests[1].dev = 0;
    let text = verdict(&disk).1.concat();
    assert!(
        text.ends_with("a read on disk 8:0 was not seen as one"),
        "{text}"
    );
}

#[test]
fn a_file_not_found_by_its_pages_refutes_them() {
    let mut pages = seen();
    pages.cached.seen_bytes = 0;
    let text = verdict(&pages).1.concat();
    assert!(text.contains("folio_mapping"), "{text}");
    pages.fs = Some(("btrfs".to_owned(), S_DEV));
    assert_eq!(
        verdict(&pages).1,
        [""; 0],
        "compressed data has no such pages"
    );
    let mut direct = seen();
    direct.direct.seen_bytes = 0;
    let why = "iomap_dio_iocb: of direct reads the file was not found";
    assert_eq!(verdict(&direct).1, [why]);
}

#[test]
fn what_no_disk_was_asked_for_leaves_requests_unproven() {
    let mut memory = seen();
    memory.disk = None;
    memory.requests.clear();
    let (states, refuted) = verdict(&memory);
    assert_eq!(states[3..], ["unproven"; 2]);
    assert_eq!(refuted, [""; 0]);
    let mut cached = seen();
    (cached.cached, cached.direct) = (reads(0, 0), reads(0, 0));
    cached.requests.clear();
    assert_eq!(verdict(&cached).0[3..], ["unproven"; 2]);
}
