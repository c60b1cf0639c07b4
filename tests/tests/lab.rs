//! The lab against itself, as root: a rule's error reaches fsync, a held
//! request takes its time and keeps no other waiting, and nothing is left
//! behind, not even after the owner was killed.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, Op, Rule, RuleOp, TruthRequest};
use fsyncscope_tests::lab::{LAB_VARIABLE, Lab};

const SIZE: u64 = 256 << 20;

fn helper() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lab"))
}

fn disk(fs: FsKind) -> (Lab, FaultDisk) {
    let lab = Lab::open_with_helper(helper()).unwrap();
    let disk = FaultDisk::create(&lab, "a", SIZE, fs).unwrap();
    (lab, disk)
}

fn write_new(path: &Path, bytes: usize) -> File {
    let mut file = File::create(path).unwrap();
    file.write_all(&vec![7; bytes]).unwrap();
    file
}

fn touched(disk: &FaultDisk) -> Vec<TruthRequest> {
    let truth = disk.truth().unwrap();
    truth
        .iter()
        .filter_map(|e| e.as_request().cloned())
        .collect()
}

#[test]
fn a_failed_write_reaches_fsync_and_the_truth_names_its_sector() {
    for fs in [FsKind::Ext4, FsKind::Xfs] {
        // mkfs.xfs refuses less than 300 MB.
        let lab = Lab::open_with_helper(helper()).unwrap();
        let disk = FaultDisk::create(&lab, "a", 2 * SIZE, fs).unwrap();
        let path = disk.mountpoint().join("victim");
        // Place the file first: the rule hits its own sectors and no others.
        let mut file = write_new(&path, 4096);
        file.sync_all().unwrap();
        let sectors = disk.file_sectors(&path).unwrap();
        let (first, last) = sectors[0];
        let rule = Rule::on(RuleOp::Write).sectors(first, last);
        disk.set_rules(&[rule.errno(libc::EIO)]).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&[8; 4096]).unwrap();
        let err = file.sync_all().unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EIO), "{fs:?}");
        let seen = touched(&disk);
        assert_eq!(seen.len(), 1, "{fs:?}: {seen:?}");
        let request = &seen[0];
        assert_eq!((request.op, request.errno), (Op::Write, libc::EIO));
        assert_eq!((request.sector, request.bytes), (first, 4096));
        assert!(request.reply.unwrap().monotonic_ns >= request.arrival.monotonic_ns);
    }
}

#[test]
fn ext4_file_data_lies_in_the_data_sectors() {
    let (_lab, disk) = disk(FsKind::Ext4);
    let path = disk.mountpoint().join("file");
    write_new(&path, 1 << 20).sync_all().unwrap();
    let (first, last) = disk.data_sectors().unwrap();
    let sectors = disk.file_sectors(&path).unwrap();
    let length: u64 = sectors.iter().map(|(first, last)| last - first + 1).sum();
    assert_eq!(length, 2048);
    assert!(sectors.iter().all(|s| s.0 >= first && s.1 <= last));
}

#[test]
fn a_held_flush_delays_the_fsync_by_its_time() {
    let (_lab, disk) = disk(FsKind::Ext4);
    let file = write_new(&disk.mountpoint().join("file"), 4096);
    let rule = Rule::on(RuleOp::Flush).delay_ms(600).count(1);
    disk.set_rules(&[rule]).unwrap();
    let start = Instant::now();
    file.sync_all().unwrap();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(600), "{took:?}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let seen = touched(&disk);
    assert_eq!(seen.len(), 1);
    let held_ns = seen[0].reply.unwrap().monotonic_ns - seen[0].arrival.monotonic_ns;
    assert!((600_000_000..1_000_000_000).contains(&held_ns), "{held_ns}");
}

#[test]
fn held_writes_overlap_and_keep_no_other_waiting() {
    let (_lab, disk) = disk(FsKind::Ext4);
    let path = disk.mountpoint().join("file");
    write_new(&path, 1 << 20).sync_all().unwrap();
    let rule = Rule::on(RuleOp::Write).delay_ms(1000).count(2);
    disk.set_rules(&[rule]).unwrap();
    let start = Instant::now();
    let write_at = |offset: u64| {
        // Direct: three requests, not one merged writeback.
        let mut file = File::options()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .unwrap();
        let mut data = vec![0_u8; 8192];
        let skew = data.as_ptr().align_offset(4096);
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&data.as_mut_slice()[skew..skew + 4096])
            .unwrap();
        start.elapsed()
    };
    let (first, second, third) = thread::scope(|scope| {
        let first = scope.spawn(|| write_at(0));
        let second = scope.spawn(|| write_at(65_536));
        thread::sleep(Duration::from_millis(200));
        let third = scope.spawn(|| write_at(131_072));
        (
            first.join().unwrap(),
            second.join().unwrap(),
            third.join().unwrap(),
        )
    });
    assert!(third < Duration::from_millis(900), "{third:?}");
    for held in [first, second] {
        let range = Duration::from_millis(1000)..Duration::from_millis(1800);
        assert!(range.contains(&held), "{held:?}");
    }
    let seen = touched(&disk);
    assert!(seen[1].arrival.monotonic_ns < seen[0].reply.unwrap().monotonic_ns);
}

#[test]
fn a_limited_disk_takes_the_time_that_its_bytes_need() {
    let (_lab, disk) = disk(FsKind::Ext4);
    let file = write_new(&disk.mountpoint().join("file"), 20 << 20);
    disk.set_bandwidth(20 << 20).unwrap();
    let start = Instant::now();
    file.sync_all().unwrap();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(950), "{took:?}");
    assert!(took < Duration::from_millis(2000), "{took:?}");
}

#[test]
fn a_killed_server_is_a_device_that_vanished() {
    let (lab, mut disk) = disk(FsKind::Ext4);
    let file = write_new(&disk.mountpoint().join("file"), 4096);
    disk.kill_server().unwrap();
    // EROFS if the journal met the dead device before this call did.
    let errno = file.sync_all().unwrap_err().raw_os_error().unwrap();
    assert!([libc::EIO, libc::EROFS].contains(&errno), "{errno}");
    drop(file);
    drop(disk);
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    let (lab, disk) = disk(FsKind::Ext4);
    // A request held for long must not hold up the end.
    let file = write_new(&disk.mountpoint().join("file"), 4096);
    let rule = Rule::on(RuleOp::Flush).delay_ms(60_000);
    disk.set_rules(&[rule]).unwrap();
    let syncer = thread::spawn(move || file.sync_all());
    while disk.stats().unwrap().held == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(lab.leftovers().len(), 4, "{:?}", lab.leftovers());
    let dir = lab.dir().to_owned();
    let start = Instant::now();
    drop(disk);
    assert_eq!(lab.leftovers(), Vec::<String>::new());
    drop(lab);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!dir.exists());
    syncer.join().unwrap().unwrap();
}

#[test]
fn the_remains_of_a_killed_owner_are_cleared_at_the_next_start() {
    let base = std::env::temp_dir().join(format!("fsyncscope-lab-kill-{}", std::process::id()));
    let start = |command: &str| {
        let mut child = Command::new(helper());
        child.arg(command).env(LAB_VARIABLE, &base);
        child.stdin(Stdio::piped()).stdout(Stdio::piped());
        child.spawn().unwrap()
    };
    let mut owner = start("disk");
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let mount = lines.next().unwrap().unwrap();
    let mount = PathBuf::from(mount.strip_prefix("mount   ").unwrap());
    let open = write_new(&mount.join("still-open"), 4096);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let left = Lab::leftovers_under(&base);
    assert!(left.iter().any(|l| l.starts_with("mount ")), "{left:?}");
    assert!(left.iter().any(|l| l.starts_with("loop ")), "{left:?}");
    drop(open);
    let sweeper = start("sweep").wait_with_output().unwrap();
    assert!(sweeper.status.success());
    assert_eq!(Lab::leftovers_under(&base), Vec::<String>::new());
    let mut text = String::new();
    File::open("/proc/self/mountinfo")
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(!text.contains(base.to_str().unwrap()));
    fs::remove_dir(&base).unwrap();
}
