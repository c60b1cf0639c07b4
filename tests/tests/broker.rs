//! Real brokers on disks that fail on demand, as root: an error of the disk
//! reaches server.log, the other log.dir serves on, a client's text can look
//! like such an error, and a crash is followed by a start. Fetches Kafka once.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::broker::{
    Broker, BrokerConfig, Flush, KafkaVersion, LOOKALIKE, ProduceConfig,
};
use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, Rule, RuleOp};
use fsyncscope_tests::lab::Lab;

const SIZE: u64 = 256 << 20;

/// One broker at a time: each start wants all the processors there are.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn lab() -> Lab {
    Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap()
}

fn wait_for_line(broker: &Broker, what: &str, limit: Duration) -> String {
    let until = Instant::now() + limit;
    loop {
        let log = fs::read_to_string(broker.server_log()).unwrap();
        if let Some(line) = log.lines().find(|line| line.contains(what)) {
            return line.to_owned();
        }
        assert!(Instant::now() < until, "no {what:?} in server.log:\n{log}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn step(start: Instant, what: &str) {
    eprintln!("{:6.2} s  {what}", start.elapsed().as_secs_f64());
}

fn one_of_two_disks_fails(version: KafkaVersion, flush: Flush) {
    let _alone = alone();
    let start = Instant::now();
    let lab = lab();
    let disks = ["a", "b"].map(|name| FaultDisk::create(&lab, name, SIZE, FsKind::Ext4).unwrap());
    // Asked now: its tools may misread a superblock that is being written.
    let data = disks.each_ref().map(|disk| disk.data_sectors().unwrap());
    let mut config = BrokerConfig::new(version, lab.dir().join("broker")).flush(flush);
    config.log_dirs = disks
        .iter()
        .map(|disk| disk.mountpoint().join("kafka"))
        .collect();
    let mut broker = Broker::start(&lab, config).unwrap();
    step(start, "broker up");
    let pid = broker.pid().unwrap();
    broker.create_topic("orders", 2).unwrap();
    step(start, "topic made");
    let dirs = ["orders-0", "orders-1"].map(|partition| broker.partition_dir(partition).unwrap());
    assert_ne!(dirs[0].parent(), dirs[1].parent());
    let mut producer = broker.produce(&ProduceConfig::new("orders", 50)).unwrap();
    let segment = dirs[0].join("00000000000000000000.log");
    while fs::metadata(&segment).unwrap().len() == 0 {
        assert!(start.elapsed() < Duration::from_secs(120));
        thread::sleep(Duration::from_millis(50));
    }
    step(start, "records written");
    let log = fs::read_to_string(broker.server_log()).unwrap();
    assert!(!log.contains("Error while"), "{log}");

    let log_dir = dirs[0].parent().unwrap();
    let nth = disks
        .iter()
        .position(|disk| log_dir.starts_with(disk.mountpoint()))
        .unwrap();
    let (failing, (first, last)) = (&disks[nth], data[nth]);
    let rule = Rule::on(RuleOp::Write).sectors(first, last);
    failing.set_rules(&[rule.errno(libc::EIO)]).unwrap();
    let what = format!(
        "ERROR Error while flushing log for orders-0 in dir {}",
        log_dir.display()
    );
    let line = wait_for_line(&broker, &what, Duration::from_secs(30));
    step(start, &line);
    assert!(line.ends_with("LogDirFailureChannel)"), "{line}");
    let log = fs::read_to_string(broker.server_log()).unwrap();
    assert!(log.contains("java.io.IOException: Input/output error"));
    let truth = failing.truth().unwrap();
    let mut requests = truth.iter().filter_map(|entry| entry.as_request());
    assert!(requests.any(|request| request.errno == libc::EIO));
    let stopped = format!("Stopping serving logs in dir {}", log_dir.display());
    wait_for_line(&broker, &stopped, Duration::from_secs(10));

    // Only the failed log.dir is lost; Kafka's own tool says the same.
    let described = broker.log_dirs_describe().unwrap().to_string();
    step(start, "log dirs described");
    assert!(described.contains("KafkaStorageException"), "{described}");
    assert!(described.contains("orders-1"), "{described}");
    assert!(!described.contains("orders-0"), "{described}");
    assert!(broker.is_running());
    assert!(producer.is_running());

    drop(producer);
    drop(broker);
    step(start, "broker ended");
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
    drop(disks);
    assert_eq!(lab.leftovers(), Vec::<String>::new());
    let dir = lab.dir().to_owned();
    drop(lab);
    assert!(!dir.exists());
    step(start, "nothing left");
}

#[test]
fn an_error_of_the_disk_reaches_the_log_of_3_9() {
    one_of_two_disks_fails(KafkaVersion::V3_9, Flush::EveryMessage);
}

#[test]
fn an_error_of_the_disk_reaches_the_log_of_4_3() {
    one_of_two_disks_fails(KafkaVersion::V4_3, Flush::EveryMessage);
}

#[test]
fn the_flush_of_every_second_meets_the_error_too() {
    one_of_two_disks_fails(KafkaVersion::V4_3, Flush::EverySecond);
}

/// The text of a client that looks like a disk's failure, and a crash.
fn a_client_is_logged_and_a_crash_survived(version: KafkaVersion) {
    let _alone = alone();
    let start = Instant::now();
    let lab = lab();
    let mut config = BrokerConfig::new(version, lab.dir().join("broker"));
    config.log_dirs = vec![lab.dir().join("data")];
    let mut broker = Broker::start(&lab, config).unwrap();
    step(start, "broker up");
    let pid = broker.pid().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let group = stat.rsplit_once(") ").unwrap().1.split(' ').nth(2);
    assert_eq!(group, Some(pid.to_string().as_str()));
    let mut load = ProduceConfig::new("orders", 1000);
    load.records = 100;
    load.client_id = LOOKALIKE.to_owned();
    let mut producer = broker.produce(&load).unwrap();
    assert!(producer.wait(Duration::from_secs(60)).unwrap());
    // So a producer alone makes no noise.
    let log = fs::read_to_string(broker.server_log()).unwrap();
    assert!(!log.contains(LOOKALIKE), "{log}");
    broker.log_client_id(LOOKALIKE).unwrap();
    let line = wait_for_line(&broker, LOOKALIKE, Duration::from_secs(5));
    step(start, &line);
    assert!(line.contains("] INFO "), "{line}");
    broker.kill9().unwrap();
    assert_eq!(broker.pid(), None);
    broker.restart().unwrap();
    step(start, "broker up after a crash");
    assert_ne!(broker.pid().unwrap(), pid);
    broker.stop().unwrap();
    wait_for_line(&broker, "shut down completed", Duration::from_secs(1));
    step(start, "broker stopped in order");
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

#[test]
fn a_clients_text_is_in_the_log_of_3_9_which_survives_a_crash() {
    a_client_is_logged_and_a_crash_survived(KafkaVersion::V3_9);
}

#[test]
fn a_clients_text_is_in_the_log_of_4_3_which_survives_a_crash() {
    a_client_is_logged_and_a_crash_survived(KafkaVersion::V4_3);
}
