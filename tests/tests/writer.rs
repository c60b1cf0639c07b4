//! The built-in writer on faultdisks: its counts are exact, its lines are a
//! broker's, and it looks like one from outside.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, Rule, RuleOp};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;
use fsyncscope_tests::writer::{Bystander, Calls, ExtraSyncs, SyncCall, Writer, WriterConfig};

const LIMIT: Duration = Duration::from_secs(30);

struct Stage {
    // Dropped in this order: disks before the lab that holds them.
    a: FaultDisk,
    b: FaultDisk,
    lab: Lab,
}

fn stage() -> Stage {
    let lab = Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap();
    let disk = |name| FaultDisk::create(&lab, name, 512 << 20, FsKind::Ext4).unwrap();
    Stage {
        a: disk("a"),
        b: disk("b"),
        lab,
    }
}

fn config(stage: &Stage) -> WriterConfig {
    let log_dirs = [&stage.a, &stage.b].map(|disk| disk.mountpoint().join("kafka"));
    let mut config = WriterConfig::new(stage.lab.dir().join("writer"), log_dirs.to_vec());
    config.hold_before_first_sync_ms = 0;
    config
}

fn wait_for(path: &Path, text: &str) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        let log = fs::read_to_string(path).unwrap();
        if log.contains(text) {
            return log;
        }
        assert!(Instant::now() < until, "no {text:?} in {log}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Makes the writes of a file fail, from where its data lies now.
fn fail_file(disk: &FaultDisk, path: &Path) {
    let extents = disk.file_sectors(path).unwrap();
    assert!(!extents.is_empty(), "{} has no data yet", path.display());
    let rules: Vec<Rule> = extents
        .iter()
        .map(|&(first, last)| Rule::on(RuleOp::Write).sectors(first, last))
        .map(|rule| rule.errno(libc::EIO))
        .collect();
    disk.set_rules(&rules).unwrap();
}

fn ok(ok: u64) -> Calls {
    Calls { ok, failed: 0 }
}

#[test]
fn the_counts_are_those_of_the_configuration() {
    let stage = stage();
    for (sync, name) in [
        (SyncCall::Fsync, "fsync"),
        (SyncCall::Fdatasync, "fdatasync"),
        (SyncCall::SyncFileRange, "sync_file_range"),
        (SyncCall::Syncfs, "syncfs"),
    ] {
        let mut config = config(&stage);
        config.sync = sync;
        config.flushes = 40;
        config.flushes_per_s = 0.0;
        config.checkpoint_ms = 0;
        // Of two, one may do all the work before the other reaches its partitions.
        config.handlers = 1;
        let mut writer = Writer::start(&stage.lab, config).unwrap();
        writer.wait_for_flushes(40, LIMIT).unwrap();
        let counts = writer.finish().unwrap();
        assert_eq!(counts.flushes, 40);
        // Four partitions sync their new directories.
        let directories = 4;
        let flushes = if name == "fsync" { 40 } else { 0 };
        assert_eq!(counts.of("fsync"), ok(flushes + directories), "{name}");
        if name != "fsync" {
            assert_eq!(counts.of(name), ok(40));
        }
        assert_eq!(counts.of("msync"), ok(80), "{name}");
    }
}

#[test]
fn extra_calls_and_checkpoints_are_counted_too() {
    let stage = stage();
    let mut config = config(&stage);
    config.extra = ExtraSyncs {
        fdatasync: 3,
        sync_file_range: 2,
        syncfs: 1,
    };
    config.flushes_per_s = 100.0;
    config.checkpoint_ms = 200;
    config.partitions = 2;
    let mut writer = Writer::start(&stage.lab, config).unwrap();
    writer.wait_for_flushes(60, LIMIT).unwrap();
    let counts = writer.finish().unwrap();
    assert_eq!(counts.of("fdatasync"), ok(3));
    assert_eq!(counts.of("sync_file_range"), ok(2));
    assert_eq!(counts.of("syncfs"), ok(1));
    assert_eq!(counts.of("msync"), ok(2 * counts.flushes));
    // A round: three checkpoints in each of two directories, two calls each.
    let checkpoints = counts.of("fsync").ok - counts.flushes - 2;
    assert!(
        checkpoints >= 12 && checkpoints.is_multiple_of(12),
        "{counts:?}"
    );
}

#[test]
fn nothing_is_synced_during_the_hold_and_a_signal_ends_it_with_its_counts() {
    let stage = stage();
    let mut config = config(&stage);
    config.hold_before_first_sync_ms = 60_000;
    let mut writer = Writer::start(&stage.lab, config).unwrap();
    proc::signal(writer.pid(), libc::SIGTERM).unwrap();
    let counts = writer.wait(LIMIT).unwrap();
    assert_eq!((counts.flushes, counts.ops.len()), (0, 0));
}

#[test]
fn a_failing_disk_takes_its_log_dir_offline_and_no_other() {
    let stage = stage();
    let mut config = config(&stage);
    // The record in one page: it is overwritten, and so fails again and again.
    config.segment_bytes = config.record_bytes;
    let mut writer = Writer::start(&stage.lab, config).unwrap();
    writer.wait_for_flushes(4, LIMIT).unwrap();
    let file = "kafka/orders-0/00000000000000000000.log";
    fail_file(&stage.a, &stage.a.mountpoint().join(file));
    let log = wait_for(&writer.server_log(), "Stopped serving replicas in dir");
    let done = writer.flushes().unwrap();
    writer.wait_for_flushes(done + 4, LIMIT).unwrap();
    let counts = writer.finish().unwrap();
    let dir = stage.a.mountpoint().join("kafka");
    let line = format!(
        "Error while flushing log for orders-0 in dir {}",
        dir.display()
    );
    assert_eq!(log.matches(&line).count(), 1, "{log}");
    let next = "LogDirFailureChannel)\njava.io.IOException: Input/output error\n\tat java.base/";
    assert!(log.contains(next), "{log}");
    let stopping = format!("Stopping serving replicas in dir {}", dir.display());
    assert!(log.contains(&stopping), "{log}");
    assert_eq!(counts.of("fsync").failed, 1, "{log}");
    let other = stage.b.mountpoint().to_str().unwrap();
    assert!(!log.contains(other), "{log}");
    let truth = stage.a.truth().unwrap();
    let failed = truth.iter().filter_map(|entry| entry.as_request());
    assert!(failed.filter(|request| request.errno == libc::EIO).count() >= 1);
}

#[test]
fn a_failing_index_keeps_the_log_dir_online() {
    let stage = stage();
    let mut writer = Writer::start(&stage.lab, config(&stage)).unwrap();
    writer.wait_for_flushes(4, LIMIT).unwrap();
    let file = "kafka/orders-0/00000000000000000000.index";
    fail_file(&stage.a, &stage.a.mountpoint().join(file));
    let log = wait_for(
        &writer.server_log(),
        "(msync with parameter MS_SYNC failed)",
    );
    stage.a.clear().unwrap();
    let done = writer.flushes().unwrap();
    writer.wait_for_flushes(done + 8, LIMIT).unwrap();
    let counts = writer.finish().unwrap();
    assert!(counts.of("msync").failed >= 1);
    assert_eq!(counts.of("fsync").failed, 0);
    let line = "Error processing append operation on partition orders-0";
    assert!(log.contains(line), "{log}");
    assert!(!log.contains("LogDirFailureChannel"), "{log}");
}

#[test]
fn from_outside_it_looks_like_a_broker() {
    let stage = stage();
    let mut writer = Writer::start(&stage.lab, config(&stage)).unwrap();
    writer.wait_for_flushes(1, LIMIT).unwrap();
    let proc = PathBuf::from(format!("/proc/{}", writer.pid()));
    let cmdline = fs::read_to_string(proc.join("cmdline")).unwrap();
    let args: Vec<&str> = cmdline.split('\0').collect();
    assert_eq!(args[0], "java");
    let main = args.iter().position(|arg| *arg == "kafka.Kafka").unwrap();
    let properties = fs::read_to_string(args[main + 1]).unwrap();
    assert!(properties.contains("log.dirs="));
    assert_eq!(fs::read_to_string(proc.join("comm")).unwrap(), "java\n");
    let comms: Vec<String> = fs::read_dir(proc.join("task"))
        .unwrap()
        .map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
        .collect();
    assert!(comms.contains(&"data-plane-kafk\n".to_owned()), "{comms:?}");
    assert!(comms.contains(&"kafka-scheduler\n".to_owned()), "{comms:?}");
}

#[test]
fn a_bystander_counts_its_own_errors() {
    let stage = stage();
    let file = stage.a.mountpoint().join("other");
    fs::write(&file, [1; 4096]).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    let (first, last) = stage.a.file_sectors(&file).unwrap()[0];
    let rule = Rule::on(RuleOp::Write)
        .sectors(first, last)
        .errno(libc::EIO);
    stage.a.set_rules(&[rule.count(1)]).unwrap();
    let mut bystander = Bystander::start(&stage.lab, &file, Duration::from_millis(50)).unwrap();
    thread::sleep(Duration::from_secs(1));
    let calls = bystander.finish().unwrap();
    assert_eq!(calls.failed, 1);
    assert!(calls.ok >= 3, "{calls:?}");
}
