//! The agent at its lower levels of detail, beside the writer: what it still says of
//! a failing and of a slow disk is held against what the disk itself wrote down, and
//! what it leaves out is no loss. `FSYNCSCOPE_BIN` names the agent's binary.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

mod common;

use std::path::{Path, PathBuf};

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, Rule, RuleOp, TruthRequest};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::writer::{Writer, WriterConfig};
use serde_json::Value;

use common::{LIMIT, Watch, binary};

/// Losses that an agent may tell of which attached in the middle of operations.
const AT_ATTACH: [&str; 1] = ["unmatched_exit"];

/// A writer of one partition on a disk, and the agent that watches it.
struct Scene {
    agent: Watch,
    writer: Writer,
    disk: FaultDisk,
    _lab: Lab,
}

impl Scene {
    fn start(detail: &str) -> Scene {
        binary();
        let lab = Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap();
        let disk = FaultDisk::create(&lab, "a", 512 << 20, FsKind::Ext4).unwrap();
        let log_dirs = vec![disk.mountpoint().join("kafka")];
        let mut config = WriterConfig::new(lab.dir().join("writer"), log_dirs);
        config.partitions = 1;
        config.flushes_per_s = 5.0;
        let mut writer = Writer::start(&lab, config).unwrap();
        let args = ["--detail", detail, "--duration", "90s"];
        let mut agent = Watch::start(&lab, writer.pid(), &args);
        let pid = writer.pid();
        agent.wait_for("broker", |line| {
            (line["type"] == "broker" && line["pid"] == pid).then_some(())
        });
        // Seconds of writes, by which the agent learns the disk's rate.
        let done = writer.flushes().unwrap();
        writer.wait_for_flushes(done + 15, LIMIT).unwrap();
        Scene {
            agent,
            writer,
            disk,
            _lab: lab,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.disk.mountpoint().join("kafka/orders-0").join(name)
    }

    /// Requests of the truth that failed.
    fn failed(&self) -> Vec<TruthRequest> {
        let truth = self.disk.truth().unwrap();
        let requests = truth.iter().filter_map(|entry| entry.as_request());
        requests.filter(|r| r.errno != 0).cloned().collect()
    }

    fn wait_for_incident(&mut self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let find = |line: &Value| (line["schema"] == 1 && is_wanted(line)).then_some(());
        self.agent.wait_for(what, find).0
    }

    /// Ends both; no loss was told, and no hook was missed.
    fn finish(mut self) -> Vec<Value> {
        self.writer.finish().unwrap();
        let lines = self.agent.finish();
        let stopped = lines.last().unwrap();
        assert_eq!(stopped["required_hook_missing"], false, "{stopped}");
        if let Some(lost) = stopped["lost"].as_object() {
            let unexpected = lost.keys().find(|class| !AT_ATTACH.contains(&&***class));
            assert_eq!(unexpected, None, "{stopped}");
        }
        lines
    }
}

fn requests(incident: &Value) -> impl Iterator<Item = &Value> {
    incident["requests"].as_array().into_iter().flatten()
}

/// Fails one write of the index, which is at the same place all the time.
fn fail_a_write(scene: &mut Scene) -> Value {
    let path = scene.file("00000000000000000000.index");
    let (first, last) = scene.disk.file_sectors(&path).unwrap()[0];
    let rule = Rule::on(RuleOp::Write).sectors(first, last);
    let rule = rule.errno(libc::EIO).count(1);
    scene.disk.set_rules(&[rule]).unwrap();
    let incident = scene.wait_for_incident("incident with a request", |line| {
        line["requests"].as_array().is_some_and(|r| !r.is_empty())
    });
    assert_eq!(incident["verdict"], "CONFIRMED", "{incident}");
    assert_eq!(incident["cause"], "device-error", "{incident}");
    let request = &incident["requests"][0];
    let sector = request["sector"].as_u64().unwrap();
    let truth = scene.failed();
    let is_in = |r: &TruthRequest| (r.sector..r.sector + r.bytes / 512).contains(&sector);
    assert!(truth.iter().any(is_in), "{incident}: {truth:?}");
    assert_eq!(request["errno"], "EIO", "{incident}");
    assert_eq!(request["path"], path.to_str().unwrap(), "{incident}");
    incident
}

#[test]
fn at_normal_a_failed_write_is_confirmed_with_its_sector_and_file() {
    let mut scene = Scene::start("normal");
    let incident = fail_a_write(&mut scene);
    // Queue and device are one.
    assert!(incident["requests"][0]["device_ns"].is_u64(), "{incident}");
    assert_eq!(incident["requests"][0].get("queue_ns"), None, "{incident}");
    scene.finish();
}

#[test]
fn at_normal_a_slow_sync_is_explained_by_its_request() {
    let mut scene = Scene::start("normal");
    let path = scene.file("00000000000000000000.index");
    let (first, last) = scene.disk.file_sectors(&path).unwrap()[0];
    let rule = Rule::on(RuleOp::Write).sectors(first, last);
    scene
        .disk
        .set_rules(&[rule.delay_ms(3000).count(1)])
        .unwrap();
    let hanging = scene.wait_for_incident("stall in flight", |line| {
        line["verdict"] == "STALLED" && line["syncs"][0]["in_flight"] == true
    });
    let says = "requests in flight are not recorded at this level";
    assert!(hanging["reasons"].to_string().contains(says), "{hanging}");
    let over = scene.wait_for_incident("stall with its request", |line| {
        line["verdict"] == "STALLED" && line["requests"][0]["path"] == path.to_str().unwrap()
    });
    assert_eq!(over["cause"], "device-stall", "{over}");
    let took_ns = over["requests"][0]["device_ns"].as_u64().unwrap();
    assert!((2_900_000_000..4_000_000_000).contains(&took_ns), "{over}");
    let sync = &over["syncs"][0];
    let own_ns = sync["breakdown"]["own_data_ns"].as_u64().unwrap();
    let duration_ns = sync["duration_ns"].as_u64().unwrap();
    assert!(own_ns * 10 >= duration_ns * 9, "{over}");
    scene.finish();
}

#[test]
fn at_normal_a_held_flush_is_the_syncs_own() {
    let mut scene = Scene::start("normal");
    let rule = Rule::on(RuleOp::Flush).delay_ms(3000).count(1);
    scene.disk.set_rules(&[rule]).unwrap();
    let over = scene.wait_for_incident("stall with its flush", |line| {
        line["verdict"] == "STALLED" && requests(line).any(|r| r["op"] == "flush")
    });
    assert_eq!(over["cause"], "device-stall", "{over}");
    let syncs = over["syncs"].as_array().unwrap();
    let is_explained = |sync: &Value| {
        let flush_ns = sync["breakdown"]["flush_ns"].as_u64().unwrap_or(0);
        flush_ns * 10 >= sync["duration_ns"].as_u64().unwrap() * 9
    };
    assert!(syncs.iter().any(is_explained), "{over}");
    scene.finish();
}

#[test]
fn at_low_a_failed_write_is_confirmed_with_its_sector() {
    let mut scene = Scene::start("low");
    fail_a_write(&mut scene);
    scene.finish();
}

#[test]
fn at_low_a_failed_flush_is_one() {
    let mut scene = Scene::start("low");
    let rule = Rule::on(RuleOp::Flush).errno(libc::EIO).count(1);
    scene.disk.set_rules(&[rule]).unwrap();
    let incident = scene.wait_for_incident("failed flush", |line| {
        line["verdict"] == "CONFIRMED" && requests(line).any(|r| r["op"] == "flush")
    });
    let is_failed = |request: &Value| request["errno"] == "EIO";
    assert!(requests(&incident).all(is_failed), "{incident}");
    scene.finish();
}

#[test]
fn at_low_a_stall_says_what_is_not_known() {
    let mut scene = Scene::start("low");
    let rule = Rule::on(RuleOp::Flush).delay_ms(3000).count(1);
    scene.disk.set_rules(&[rule]).unwrap();
    let incident = scene.wait_for_incident("stall", |line| line["verdict"] == "STALLED");
    let says = "not recorded at this level (--detail low)";
    assert!(incident["reasons"].to_string().contains(says), "{incident}");
    assert_eq!(incident.get("cause"), None, "{incident}");
    let lines = scene.finish();
    let hooks = lines.iter().filter(|line| line["type"] == "hook");
    let names: Vec<&str> = hooks.filter_map(|hook| hook["name"].as_str()).collect();
    assert!(names.contains(&"block_rq_complete"), "{names:?}");
    assert!(!names.contains(&"block_rq_issue"), "{names:?}");
}
