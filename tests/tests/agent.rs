//! The agent beside the writer: what it says of a failing disk is held against
//! what the disk itself wrote down. `FSYNCSCOPE_BIN` names the agent's binary;
//! nothing of it is linked in here.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, Rule, RuleOp, TruthRequest};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;
use fsyncscope_tests::writer::{Bystander, ExtraSyncs, Writer, WriterConfig};
use serde_json::Value;

use common::{LIMIT, PRINTED, Watch, binary};

/// The user and group nobody.
const NOBODY: u32 = 65_534;

fn lab() -> Lab {
    Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap()
}

/// Watches the writer, and keeps the evidence.
fn watch(lab: &Lab, pid: u32, capture: &Path) -> Watch {
    let capture = capture.to_str().unwrap();
    Watch::start(lab, pid, &["--record", capture, "--duration", "90s"])
}

/// The first line that is wanted.
fn wait_for(watch: &mut Watch, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    watch.wait_for(what, |line| is_wanted(line).then_some(())).0
}

fn is_incident(line: &Value) -> bool {
    line["schema"] == 1
}

/// Incidents by id, each as it was said last.
fn last_incidents(lines: &[Value]) -> Vec<Value> {
    let mut last: Vec<Value> = Vec::new();
    for line in lines.iter().filter(|line| is_incident(line)) {
        last.retain(|other| other["id"] != line["id"]);
        last.push(line.clone());
    }
    last
}

fn failed_requests(disk: &FaultDisk) -> Vec<TruthRequest> {
    let truth = disk.truth().unwrap();
    let requests = truth.iter().filter_map(|entry| entry.as_request());
    requests.filter(|r| r.errno != 0).cloned().collect()
}

/// Whether a request of the truth, failed with this errno, holds the sector.
fn is_in_truth(truth: &[TruthRequest], sector: u64, errno: i32) -> bool {
    truth.iter().any(|request| {
        let end = request.sector + request.bytes / 512;
        request.errno == errno && (request.sector..end).contains(&sector)
    })
}

fn writer_config(lab: &Lab, disk: &FaultDisk) -> WriterConfig {
    let log_dirs = vec![disk.mountpoint().join("kafka")];
    WriterConfig::new(lab.dir().join("writer"), log_dirs)
}

/// Makes the writes of all file data fail. To be asked for on an idle disk: the
/// superblock is read beside the kernel, whose copy it may catch half changed.
fn fail_data(disk: &FaultDisk) -> Rule {
    let (first, last) = disk.data_sectors().unwrap();
    let rule = Rule::on(RuleOp::Write).sectors(first, last);
    rule.errno(libc::EIO)
}

fn is_broker_of(writer: &Writer) -> impl Fn(&Value) -> bool {
    let pid = writer.pid();
    move |line| line["type"] == "broker" && line["pid"] == pid
}

/// The capture gives an ordinary user what was printed live, byte for byte.
fn assert_same_report(lab: &Lab, capture: &Path) {
    let agent = lab.dir().join("fsyncscope");
    fs::copy(binary(), &agent).unwrap();
    // It is 0600; its owner hands it on.
    chown(capture, Some(NOBODY), Some(NOBODY)).unwrap();
    let replayed = lab
        .command(agent)
        .args(["watch", "--json", "--from"])
        .arg(capture)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert_eq!(replayed.status.code(), Some(1), "{replayed:?}");
    let live = fs::read(lab.dir().join(PRINTED)).unwrap();
    assert!(
        live == replayed.stdout,
        "live:\n{}\nreplayed:\n{}",
        String::from_utf8_lossy(&live),
        String::from_utf8_lossy(&replayed.stdout)
    );
}

#[test]
fn a_medium_error_is_confirmed_with_the_sector_that_the_disk_failed() {
    binary();
    let lab = lab();
    let disk = FaultDisk::create(&lab, "a", 512 << 20, FsKind::Ext4).unwrap();
    let rule = fail_data(&disk);
    let capture = lab.dir().join("capture.zst");
    let mut writer = Writer::start(&lab, writer_config(&lab, &disk)).unwrap();
    let mut agent = watch(&lab, writer.pid(), &capture);
    let broker = wait_for(&mut agent, "broker", is_broker_of(&writer));
    let server_log = writer.server_log();
    assert_eq!(broker["log_file"], server_log.to_str().unwrap(), "{broker}");
    writer.wait_for_flushes(20, LIMIT).unwrap();
    disk.set_rules(&[rule]).unwrap();
    let incident = wait_for(&mut agent, "incident with a log line", |line| {
        is_incident(line) && line["log_events"].as_array().is_some_and(|l| !l.is_empty())
    });
    let counts = writer.finish().unwrap();
    disk.clear().unwrap();
    assert_eq!(incident["verdict"], "CONFIRMED", "{incident}");
    assert_eq!(incident["cause"], "device-error", "{incident}");
    // The broker's line names the partition; the first victim is its file.
    let log = fs::read_to_string(&server_log).unwrap();
    let dir = disk.mountpoint().join("kafka");
    let victim = incident["first_victim"]["path"].as_str().unwrap();
    assert!(Path::new(victim).starts_with(&dir), "{incident}");
    let line = incident["log_events"][0]["text"].as_str().unwrap();
    assert!(
        log.lines().any(|printed| printed == line),
        "{line} in {log}"
    );
    let truth = failed_requests(&disk);
    let requests = incident["requests"].as_array().unwrap();
    assert!(!requests.is_empty(), "{incident}");
    for request in requests.iter().filter(|r| r["errno"] == "EIO") {
        let sector = request["sector"].as_u64().unwrap();
        assert!(
            is_in_truth(&truth, sector, libc::EIO),
            "{request}: {truth:?}"
        );
    }
    assert!(requests.iter().any(|r| r["errno"] == "EIO"), "{incident}");
    let dev = disk.dev();
    assert_eq!(requests[0]["dev"], format!("{}:{}", dev.0, dev.1));
    // One cause on one disk: one incident, whatever number of lines it made.
    let lines = agent.finish();
    assert_same_report(&lab, &capture);
    let incidents = last_incidents(&lines);
    assert_eq!(incidents.len(), 1, "{incidents:#?}");
    let failed = counts.of("fsync").failed + counts.of("msync").failed;
    assert_eq!(incidents[0]["totals"]["syncs"], failed, "{incidents:#?}");
    assert_eq!(incidents[0]["broker"]["pid"], writer.pid());
    assert!(fs::metadata(&capture).unwrap().len() > 0);
}

#[test]
fn a_failing_index_is_confirmed_and_is_no_directory_failure() {
    binary();
    let lab = lab();
    let disk = FaultDisk::create(&lab, "a", 512 << 20, FsKind::Ext4).unwrap();
    let mut config = writer_config(&lab, &disk);
    config.partitions = 1;
    config.flushes_per_s = 5.0;
    let mut writer = Writer::start(&lab, config).unwrap();
    let mut agent = watch(&lab, writer.pid(), &lab.dir().join("capture.zst"));
    wait_for(&mut agent, "broker", is_broker_of(&writer));
    writer.wait_for_flushes(5, LIMIT).unwrap();
    let file = "kafka/orders-0/00000000000000000000.index";
    let path = disk.mountpoint().join(file);
    let (first, last) = disk.file_sectors(&path).unwrap()[0];
    let rule = Rule::on(RuleOp::Write).sectors(first, last);
    disk.set_rules(&[rule.errno(libc::EIO).count(1)]).unwrap();
    let incident = wait_for(&mut agent, "incident with a log line", |line| {
        is_incident(line) && line["log_events"].as_array().is_some_and(|l| !l.is_empty())
    });
    assert_eq!(incident["verdict"], "CONFIRMED", "{incident}");
    assert_eq!(incident["cause"], "device-error", "{incident}");
    assert_eq!(incident["first_victim"]["path"], path.to_str().unwrap());
    assert_eq!(incident["first_victim"]["op"], "msync", "{incident}");
    let kind = &incident["log_events"][0]["kind"];
    assert_eq!(*kind, "process_append_error", "{incident}");
    let sector = incident["requests"][0]["sector"].as_u64().unwrap();
    let truth = failed_requests(&disk);
    assert!(
        is_in_truth(&truth, sector, libc::EIO),
        "{incident}: {truth:?}"
    );
    writer.finish().unwrap();
}

#[test]
fn a_held_flush_is_a_stall_and_prints_nothing_in_the_log() {
    binary();
    let lab = lab();
    let disk = FaultDisk::create(&lab, "a", 512 << 20, FsKind::Ext4).unwrap();
    let mut writer = Writer::start(&lab, writer_config(&lab, &disk)).unwrap();
    let mut agent = watch(&lab, writer.pid(), &lab.dir().join("capture.zst"));
    wait_for(&mut agent, "broker", is_broker_of(&writer));
    writer.wait_for_flushes(20, LIMIT).unwrap();
    let rule = Rule::on(RuleOp::Flush).delay_ms(3000).count(1);
    disk.set_rules(&[rule]).unwrap();
    let incident = wait_for(&mut agent, "stall", |line| {
        is_incident(line) && line["verdict"] == "STALLED"
    });
    assert_eq!(incident["cause"], "device-stall", "{incident}");
    let done = writer.flushes().unwrap();
    writer.wait_for_flushes(done + 20, LIMIT).unwrap();
    writer.finish().unwrap();
    let log = fs::read_to_string(writer.server_log()).unwrap();
    assert!(!log.contains("ERROR"), "{log}");
    let lines = agent.finish();
    let incidents = last_incidents(&lines);
    assert_eq!(incidents.len(), 1, "{incidents:#?}");
    assert_eq!(incidents[0]["verdict"], "STALLED", "{incidents:#?}");
}

#[test]
fn a_bystander_on_a_failing_disk_is_no_incident_of_the_broker() {
    binary();
    let lab = lab();
    let broken = FaultDisk::create(&lab, "a", 512 << 20, FsKind::Ext4).unwrap();
    let rule = fail_data(&broken);
    let healthy = FaultDisk::create(&lab, "b", 512 << 20, FsKind::Ext4).unwrap();
    let mut writer = Writer::start(&lab, writer_config(&lab, &healthy)).unwrap();
    let mut agent = watch(&lab, writer.pid(), &lab.dir().join("capture.zst"));
    wait_for(&mut agent, "broker", is_broker_of(&writer));
    let file = broken.mountpoint().join("other");
    let every = Duration::from_millis(50);
    let mut bystander = Bystander::start(&lab, &file, every).unwrap();
    broken.set_rules(&[rule]).unwrap();
    writer.wait_for_flushes(100, LIMIT).unwrap();
    assert!(bystander.finish().unwrap().failed > 0);
    writer.finish().unwrap();
    let lines = agent.finish();
    let incidents = last_incidents(&lines);
    assert!(incidents.is_empty(), "{incidents:#?}");
}

#[test]
fn the_summary_counts_every_call_of_the_writer() {
    binary();
    let lab = lab();
    let disk = FaultDisk::create(&lab, "a", 512 << 20, FsKind::Ext4).unwrap();
    let mut config = writer_config(&lab, &disk);
    config.partitions = 50;
    config.handlers = 2;
    config.flushes_per_s = 0.0;
    config.flushes = 2000;
    config.checkpoint_ms = 300;
    config.extra = ExtraSyncs {
        fdatasync: 7,
        sync_file_range: 5,
        syncfs: 3,
    };
    let mut writer = Writer::start(&lab, config).unwrap();
    let mut agent = watch(&lab, writer.pid(), &lab.dir().join("capture.zst"));
    wait_for(&mut agent, "broker", is_broker_of(&writer));
    assert_eq!(writer.flushes().unwrap(), 0, "the hold was too short");
    // It lives on, so that its end is not what makes the numbers differ.
    let counts = writer.wait(LIMIT).unwrap();
    let lines = agent.finish();
    let summary = lines.iter().find(|line| line["type"] == "summary");
    let rows = summary.unwrap()["rows"].as_array().unwrap();
    let sum = |op: &str, field: &str| -> u64 {
        let rows = rows.iter().filter(|row| row["op"] == op);
        rows.map(|row| row[field].as_u64().unwrap()).sum()
    };
    for (op, calls) in &counts.ops {
        assert_eq!(sum(op, "count"), calls.total(), "{op}: {rows:#?}");
        assert_eq!(sum(op, "errors"), calls.failed, "{op}: {rows:#?}");
    }
    assert_eq!(counts.ops.len(), 5, "{counts:?}");
}

#[test]
fn a_signal_is_an_end_in_order_from_the_moment_that_it_is_attached() {
    let mut agent = Command::new(binary())
        .args(["watch", "--json", "--pid", &std::process::id().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(agent.stderr.take().unwrap());
    let mut said = stderr.lines().map_while(Result::ok);
    assert!(said.any(|line| line == "fsyncscope: attached"));
    proc::signal(agent.id(), libc::SIGINT).unwrap();
    let mut printed = String::new();
    let mut stdout = agent.stdout.take().unwrap();
    stdout.read_to_string(&mut printed).unwrap();
    let status = proc::wait(&mut agent, LIMIT).unwrap();
    assert_eq!(status.and_then(|status| status.signal()), None);
    let last: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "stopped", "{printed}");
    assert_eq!(last["why"], "interrupted", "{printed}");
}
