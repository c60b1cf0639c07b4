//! A new file has the number of an old one, of another log directory of the same
//! file system: what is counted, what hangs and what is lost, is the new one's.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread;

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind};
use serde_json::Value;

use crate::agent::{syncs, watch_dirs};
use crate::{fail_next_write, hold_flushes, lab, show_speed, stage};

/// Appends and syncs so often.
fn sync(file: &mut File, times: u32) {
    for _ in 0..times {
        file.write_all(b"record").unwrap();
        file.sync_all().unwrap();
    }
}

/// fsyncs of a log directory, by the last summary.
fn counted(lines: &[Value], dir: &Path) -> u64 {
    let summary = lines
        .iter()
        .rfind(|line| line["type"] == "summary")
        .unwrap();
    let rows = summary["rows"].as_array().unwrap().iter();
    let of_dir = rows.filter(|row| row["op"] == "fsync" && row["log_dir"] == dir.to_str().unwrap());
    of_dir.map(|row| row["count"].as_u64().unwrap()).sum()
}

fn play(detail: &str) {
    let lab = lab();
    let (disk, first) = stage(&lab, FsKind::Ext4);
    let second = disk.mountpoint().join("second");
    fs::create_dir_all(second.join("orders-1")).unwrap();
    let (old, new) = (first.join("orders-0/a.log"), second.join("orders-1/b.log"));
    let mut agent = watch_dirs(&lab, &[&first, &second], &["--detail", detail]);
    let mut file = File::create(&old).unwrap();
    let number = file.metadata().unwrap().ino();
    sync(&mut file, 3);
    drop(file);
    fs::remove_file(&old).unwrap();
    // Where the old one was, ext4 takes its number first.
    let made = first.join("orders-0/b.tmp");
    let mut file = File::create(&made).unwrap();
    assert_eq!(file.metadata().unwrap().ino(), number);
    fs::rename(&made, &new).unwrap();
    sync(&mut file, 5);
    // In the first directory, and no file of a partition.
    show_speed(&first);
    hold_flushes(&disk);
    thread::scope(|scope| {
        scope.spawn(|| sync(&mut file, 1));
        let (_, hanging) = agent.wait_for("hanging sync", |line| {
            let mut all = syncs(line).filter(|sync| sync["ino"] == number);
            all.find(|sync| sync["in_flight"] == true).cloned()
        });
        disk.clear().unwrap();
        assert_eq!(hanging["path"], new.to_str().unwrap(), "{hanging}");
        assert_eq!(hanging["topic_partition"], "orders-1", "{hanging}");
    });
    let lines = agent.finish();
    assert_eq!(counted(&lines, &second), 6, "--detail {detail}");
}

/// One after the other: the agents watch the same process, and both disks' files have
/// the same number.
#[test]
fn a_number_taken_over_keeps_no_name_and_no_directory() {
    for detail in ["full", "normal"] {
        play(detail);
    }
}

/// Has a write of the file fail that no caller waits for, and that nobody is told of.
fn lose(disk: &FaultDisk, file: &File, path: &Path) {
    file.write_all_at(&[2; 4096], 0).unwrap();
    fail_next_write(disk, path);
    // SAFETY: the descriptor is open; the call takes no pointer.
    let started =
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    assert_eq!(started, 0);
}

/// The lost data of this file among an incident's operations.
fn lost_of(line: &Value, path: &Path) -> Option<Value> {
    let mut all = line["operations"].as_array()?.iter();
    all.find(|lost| lost["path"] == path.to_str().unwrap())
        .cloned()
}

/// The first error of each file has the same errseq value: that it was told of the one
/// does not make it known of the other.
#[test]
fn data_lost_of_a_file_with_a_number_taken_over_is_told() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Ext4);
    let mut agent = watch_dirs(&lab, &[&dir], &[]);
    let mut number = None;
    for name in ["a.log", "b.log"] {
        let path = dir.join("orders-0").join(name);
        let file = File::create(&path).unwrap();
        let found = file.metadata().unwrap().ino();
        assert_eq!(*number.get_or_insert(found), found);
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.sync_all().unwrap();
        lose(&disk, &file, &path);
        let (_, lost) = agent.wait_for(name, |line| lost_of(line, &path));
        assert_eq!(lost["op"], "writeback", "{lost}");
        disk.clear().unwrap();
        fs::remove_file(&path).unwrap();
    }
    // Each file was synced before its data was lost: no sync is a finding.
    let lines = agent.finish();
    let found: Vec<_> = lines.iter().flat_map(syncs).collect();
    assert!(found.is_empty(), "{found:#?}");
}
