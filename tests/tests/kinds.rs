//! Every kind of sync, seen by the agent: those that no sync system call makes
//! (O_DSYNC, RWF_DSYNC, io_uring, AIO), and files that are hard to name. The test
//! itself is the process that is watched, so that it knows what it called. Each
//! kind has a write of its own file fail, and a flush of its disk held.
//! `FSYNCSCOPE_BIN` names the agent's binary; nothing of it is linked in here.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

#[path = "kinds/agent.rs"]
mod agent;
#[path = "kinds/calls.rs"]
mod calls;
mod common;
#[path = "kinds/files.rs"]
mod files;
#[path = "kinds/mounts.rs"]
mod mounts;
#[path = "kinds/reused.rs"]
mod reused;
#[path = "kinds/shutdown.rs"]
mod shutdown;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, Rule, RuleOp};
use fsyncscope_tests::lab::Lab;
use serde_json::Value;

use agent::{syncs, watch};
use calls::{Kind, Target};

const HOLD: Duration = Duration::from_millis(1500);

fn lab() -> Lab {
    Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap()
}

/// A disk with a log.dir that holds one partition.
fn stage(lab: &Lab, fs: FsKind) -> (FaultDisk, PathBuf) {
    let disk = FaultDisk::create(lab, "a", 512 << 20, fs).unwrap();
    let dir = disk.mountpoint().join("data");
    fs::create_dir_all(dir.join("orders-0")).unwrap();
    (disk, dir)
}

/// Lets the agent see for whole seconds what the disk can do, or it would take the
/// little that is written beside a hang for all of it.
fn show_speed(dir: &Path) {
    let file = fs::File::create(dir.join("fast")).unwrap();
    let until = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < until {
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        file.sync_all().unwrap();
        thread::sleep(Duration::from_millis(100));
    }
}

/// Fails the next write to a file, once.
fn fail_next_write(disk: &FaultDisk, path: &Path) {
    let (first, last) = disk.file_sectors(path).unwrap()[0];
    let rule = Rule::on(RuleOp::Write).sectors(first, last);
    disk.set_rules(&[rule.errno(libc::EIO).count(1)]).unwrap();
}

/// Holds each flush from now on: the journal may ask for one before the sync does.
fn hold_flushes(disk: &FaultDisk) {
    let held = HOLD.as_millis() as u64;
    let rule = Rule::on(RuleOp::Flush).delay_ms(held);
    disk.set_rules(&[rule]).unwrap();
}

/// The syncs of this file among those of a line.
fn of_file(line: &Value, path: &Path) -> Option<Value> {
    let path = path.to_str()?;
    syncs(line).find(|sync| sync["path"] == path).cloned()
}

#[test]
fn syncs_that_no_sync_call_makes_are_followed_on_ext4() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Ext4);
    let targets: Vec<(Kind, Target)> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let path = dir.join("orders-0").join(format!("{kind:?}.log"));
            (kind, Target::create(&path))
        })
        .collect();
    let mut agent = watch(&lab, &dir);
    show_speed(&dir);
    let mut called = BTreeMap::<&str, (u64, u64)>::new();
    for (kind, target) in &targets {
        let op = kind.op();
        let count = called.entry(op).or_default();
        // A direct write that fails returns before it syncs.
        if *kind != Kind::DirectDsync {
            fail_next_write(&disk, &target.path);
            assert_eq!(target.call(*kind), libc::EIO, "{kind:?}");
            let (_, sync) = agent.wait_for(&format!("failed {kind:?}"), |line| {
                of_file(line, &target.path).filter(|sync| sync["errno"] == "EIO")
            });
            assert_eq!(sync["op"], op, "{sync}");
            assert_eq!(sync["topic_partition"], "orders-0", "{sync}");
            is_caller(*kind, &sync);
            disk.clear().unwrap();
            *count = (count.0 + 1, count.1 + 1);
        }
        hold_flushes(&disk);
        thread::scope(|scope| {
            let calling = scope.spawn(|| {
                let begun = Instant::now();
                assert_eq!(target.call(*kind), 0, "{kind:?}");
                begun.elapsed()
            });
            let (incident, sync) = agent.wait_for(&format!("hanging {kind:?}"), |line| {
                of_file(line, &target.path).filter(|sync| sync["in_flight"] == true)
            });
            disk.clear().unwrap();
            assert_eq!(sync["op"], op, "{sync}");
            assert_eq!(incident["verdict"], "STALLED", "{incident}");
            assert_eq!(incident["cause"], "device-stall", "{incident}");
            is_caller(*kind, &sync);
            let (_, sync) = agent.wait_for(&format!("end of {kind:?}"), |line| {
                of_file(line, &target.path)
                    .filter(|sync| sync["errno"].is_null() && sync["in_flight"] != true)
            });
            let took = calling.join().unwrap().as_nanos() as u64;
            let said = sync["duration_ns"].as_u64().unwrap();
            assert!(said <= took, "{sync}: its caller says {took}");
            assert!(said >= HOLD.as_nanos() as u64 * 9 / 10, "{sync}");
            let flush = sync["breakdown"]["flush_ns"].as_u64().unwrap();
            assert!(flush >= said * 9 / 10, "{sync}");
        });
        count.0 += 1;
    }
    let lines = agent.finish();
    let summary = lines.iter().find(|line| line["type"] == "summary").unwrap();
    let rows = summary["rows"].as_array().unwrap();
    for (op, (count, errors)) in called {
        let of_op = || rows.iter().filter(|row| row["op"] == op);
        let sum = |field: &str| -> u64 { of_op().map(|row| row[field].as_u64().unwrap()).sum() };
        assert_eq!(
            (sum("count"), sum("errors")),
            (count, errors),
            "{op}: {rows:#?}"
        );
        for row in of_op() {
            assert_eq!(row["log_dir"], dir.to_str().unwrap(), "{row}");
        }
    }
}

/// Who called is known but for AIO, which a kernel thread carries out.
fn is_caller(kind: Kind, sync: &Value) {
    let pid = u64::from(std::process::id());
    if kind.op() == "aio" {
        assert_ne!(sync["pid"], pid, "{sync}");
        assert!(
            sync["comm"].as_str().unwrap().starts_with("kworker/"),
            "{sync}"
        );
    } else {
        assert_eq!(sync["pid"], pid, "{sync}");
    }
}

/// Without an exit event a sync that no sync call made would hang for ever: it is
/// not opened. What the disk refuses is told all the same.
#[test]
fn on_xfs_no_sync_is_opened_that_has_no_end() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Xfs);
    let target = Target::create(&dir.join("orders-0").join("x.log"));
    let mut agent = watch(&lab, &dir);
    hold_flushes(&disk);
    assert_eq!(target.call(Kind::Dsync), 0);
    disk.clear().unwrap();
    assert_eq!(target.call(Kind::UringFsync), 0);
    assert_eq!(target.call(Kind::AioFsync), 0);
    fail_next_write(&disk, &target.path);
    assert_eq!(target.call(Kind::Dsync), libc::EIO);
    let (incident, _) = agent.wait_for("failed write", |line| {
        let lost = line["operations"].as_array()?;
        let path = target.path.to_str().unwrap();
        lost.iter().find(|lost| lost["path"] == path).cloned()
    });
    assert_eq!(incident["cause"], "device-error", "{incident}");
    let lines = agent.finish();
    let opened = lines.iter().flat_map(syncs);
    let opened: Vec<_> = opened.filter(|sync| sync["op"] != "fsync").collect();
    assert!(opened.is_empty(), "{opened:#?}");
    let summary = lines.iter().find(|line| line["type"] == "summary").unwrap();
    let rows = summary["rows"].as_array().unwrap();
    let ops = rows.iter().map(|row| row["op"].as_str().unwrap());
    let ops: Vec<_> = ops
        .filter(|op| Kind::ALL.iter().any(|kind| kind.op() == *op))
        .collect();
    assert!(ops.is_empty(), "{rows:#?}");
}
