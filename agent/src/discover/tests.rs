//! Claims about [`super::discover`], on a fake /proc.

use super::*;
use crate::helper::testdir::TestDir;

const JAVA: &str = "java\0-Dkafka.logs.dir=/opt/logs\0-Djavax.net.ssl.keyStorePassword=geheim\0-cp\0/l/kafka_2.13-3.9.2.jar\0kafka.Kafka\0config/server.properties\0--override\0node.id=7\0";

fn process(dir: &TestDir, pid: u32, comm: &str, cmdline: &str) {
    dir.write(&format!("{pid}/comm"), &format!("{comm}\n"));
    dir.write(&format!("{pid}/cmdline"), cmdline);
    dir.write(
        &format!("{pid}/stat"),
        &format!(
            "{pid} (a) b)) S 1 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 9 0 {} 5 6",
            pid * 100
        ),
    );
    dir.write(&format!("{pid}/mountinfo"), "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n9000000001 22 0:45 / /data/a rw - btrfs /dev/sdb rw\n");
    dir.link(&format!("{pid}/cwd"), "/opt/kafka");
    dir.link(&format!("{pid}/ns/mnt"), "mnt:[4026531841]");
    dir.write(&format!("{pid}/root/etc/hosts"), "");
}

fn broker(dir: &TestDir) -> Broker {
    process(dir, 42, "java", JAVA);
    dir.write(
        "42/root/opt/kafka/config/server.properties",
        "node.id=1\nlog.dirs=/data/a, /data/missing\nmetadata.log.dir=/data/meta\nlog.flush.interval.messages=1\nssl.key.password=geheim\n",
    );
    dir.write(
        "42/root/data/a/meta.properties",
        "cluster.id=LabCluster\nnode.id=1\n",
    );
    dir.write("42/root/data/meta/x", "");
    dir.write("42/root/opt/logs/server.log", "");
    dir.link("42/root/etc/localtime", "/usr/share/zoneinfo/Europe/Vienna");
    find(dir, &DiscoverRequest::default()).brokers.remove(0)
}

fn find(dir: &TestDir, request: &DiscoverRequest) -> Discovered {
    let request = DiscoverRequest {
        proc_root: dir.path().to_owned(),
        ..request.clone()
    };
    discover(&request, &mut |_, _| {})
}

#[test]
fn broker_is_found_with_all_its_facts() {
    let dir = TestDir::new("disc-all");
    let broker = broker(&dir);
    assert_eq!(
        (broker.pid, broker.start_time_ticks, broker.mnt_ns),
        (42, 4200, 4_026_531_841)
    );
    assert_eq!(broker.node_id.as_deref(), Some("7"), "--override wins");
    assert_eq!(
        broker.notes,
        ["log.dir /data/missing is not watched: open /data/missing: no such file or directory"]
    );
    assert_eq!(broker.cluster_id.as_deref(), Some("LabCluster"));
    assert_eq!(broker.version.as_deref(), Some("3.9.2"));
    assert_eq!(broker.timezone.as_deref(), Some("Europe/Vienna"));
    assert_eq!(
        broker.server_log.as_deref(),
        Some(Path::new("/opt/logs/server.log"))
    );
    assert_eq!(broker.settings["log.flush.interval.messages"], "1");
    assert_eq!(
        broker.dir_names(),
        ["/data/a", "/data/missing", "/data/meta"]
    );
    let a = &broker.log_dirs[0];
    assert_eq!(
        (a.s_dev, a.fs_type.as_str(), a.fs_dev_major_minor.as_str()),
        (45, "btrfs", "0:45")
    );
    assert!(a.ino > 0 && a.error.is_none());
    assert!(a.host_path.ends_with("42/root/data/a"));
    assert!(
        broker.log_dirs[1]
            .error
            .as_deref()
            .unwrap()
            .starts_with("open /data/missing: ")
    );
}

#[test]
fn no_password_is_kept() {
    let dir = TestDir::new("disc-secret");
    assert!(
        !serde_json::to_string(&broker(&dir))
            .unwrap()
            .contains("geheim")
    );
}

#[test]
fn other_processes_are_passed_over_before_their_cmdline() {
    let dir = TestDir::new("disc-other");
    process(&dir, 1, "systemd", "/sbin/init\0");
    process(&dir, 5, "java", "java\0-jar\0x.jar\0");
    process(&dir, 6, "kthreadd", "");
    let mut read = Vec::new();
    let request = DiscoverRequest {
        proc_root: dir.path().to_owned(),
        ..DiscoverRequest::default()
    };
    let found = discover(&request, &mut |pid, step| read.push((pid, step.to_owned())));
    assert_eq!((found.scanned, found.brokers.len()), (3, 0));
    assert_eq!(read, [(5, "cmdline".to_owned())]);
}

#[test]
fn broker_without_properties_is_listed_with_notes() {
    let dir = TestDir::new("disc-bare");
    process(&dir, 9, "java", "java\0kafka.Kafka\0");
    let broker = find(&dir, &DiscoverRequest::default()).brokers.remove(0);
    assert_eq!(broker.log_dirs, []);
    assert!(
        broker
            .notes
            .iter()
            .any(|note| note.contains("no properties file"))
    );
    assert_eq!(broker.label(), "pid9");
}

#[test]
fn pid_and_log_dir_by_hand_make_any_process_a_broker() {
    let dir = TestDir::new("disc-hand");
    process(&dir, 9, "writer", "writer\0");
    dir.write("9/root/d/x", "");
    let request = DiscoverRequest {
        pids: vec![9, 10],
        log_dirs: vec!["/d".into()],
        ..DiscoverRequest::default()
    };
    let found = find(&dir, &request);
    assert_eq!(found.brokers.len(), 1);
    assert_eq!(found.brokers[0].dir_names(), ["/d"]);
}

#[test]
fn process_that_hung_is_left_out_and_named() {
    let dir = TestDir::new("disc-skip");
    process(&dir, 9, "java", "java\0kafka.Kafka\0");
    let found = find(
        &dir,
        &DiscoverRequest {
            skip_pids: vec![9],
            ..DiscoverRequest::default()
        },
    );
    assert_eq!(found.brokers, []);
    assert_eq!(found.notes, ["pid 9 left out: reading its facts hung"]);
}

#[test]
fn open_descriptor_names_the_log_without_configuration() {
    let dir = TestDir::new("disc-fd");
    process(&dir, 9, "java", "java\0kafka.Kafka\0");
    dir.link("9/fd/1", "pipe:[5]");
    dir.link("9/fd/77", "/weird/place/server.log");
    let broker = find(&dir, &DiscoverRequest::default()).brokers.remove(0);
    assert_eq!(
        broker.server_log.as_deref(),
        Some(Path::new("/weird/place/server.log"))
    );
}

#[test]
fn a_file_system_that_takes_no_writes_is_noted() {
    let dir = TestDir::new("disc-ro");
    assert_eq!(broker(&dir).log_dirs[0].read_only, "");
    dir.write(
        "42/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw,emergency_ro\n",
    );
    let found = find(&dir, &DiscoverRequest::default()).brokers.remove(0);
    assert_eq!(found.log_dirs[0].read_only, "emergency_ro");
    let note =
        "log.dir /data/a is read-only (emergency_ro): its file system takes no writes".to_owned();
    assert!(found.notes.contains(&note), "{:?}", found.notes);
}
