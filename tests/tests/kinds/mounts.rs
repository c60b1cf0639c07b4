//! Files that are reached through a mount of another namespace or of overlayfs. The
//! path is the one that the process knows; below overlayfs it is the one on the file
//! system that holds the data, as far as it is known.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::proc;
use fsyncscope_tests::writer::BYSTANDER_SUBCOMMAND;

use crate::agent::{watch, watch_process};
use crate::{fail_next_write, lab, of_file, stage};

#[test]
fn a_file_in_another_mount_namespace_has_the_path_of_its_process() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Ext4);
    let inside = lab.dir().join("inside");
    fs::create_dir(&inside).unwrap();
    let name = "orders-0/x.log";
    // The shell becomes the process that syncs: its pid stays.
    let script = "mount --bind \"$1\" \"$2\" && exec \"$3\" \"$4\" --file \"$2/$5\" --every-ms 50";
    let mut command = lab.command("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .args([&dir, &inside])
        .arg(lab.helper_path())
        .args([BYSTANDER_SUBCOMMAND, name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = proc::spawn(command).unwrap();
    let file = dir.join(name);
    while !fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
        assert!(process.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut agent = watch_process(&lab, process.id(), &inside);
    fail_next_write(&disk, &file);
    let (incident, sync) = agent.wait_for("failed fsync", |line| of_file(line, &inside.join(name)));
    assert_eq!(sync["errno"], "EIO", "{sync}");
    assert_eq!(incident["cause"], "device-error", "{incident}");
    agent.finish();
    drop(process.stdin.take());
    assert!(
        proc::wait(&mut process, Duration::from_secs(10))
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_file_on_overlayfs_is_named_as_the_file_below_it() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Ext4);
    let part = |name: &str| {
        let path = disk.mountpoint().join(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    };
    let (upper, work) = (part("upper"), part("work"));
    let merged = lab.dir().join("mnt/merged");
    fs::create_dir_all(&merged).unwrap();
    let options = format!("lowerdir={},upperdir={upper},workdir={work}", dir.display());
    let status = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(&merged)
        .status();
    assert!(status.unwrap().success());
    let name = "orders-0/x.log";
    let file = File::create(merged.join(name)).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    let mut agent = watch(&lab, &merged);
    fail_next_write(&disk, &disk.mountpoint().join("upper").join(name));
    file.write_all_at(&[2; 4096], 0).unwrap();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    let below = Path::new("upper").join(name);
    let (incident, sync) = agent.wait_for("failed fsync", |line| of_file(line, &below));
    assert_eq!(
        (&sync["op"], &sync["errno"]),
        (&"fsync".into(), &"EIO".into()),
        "{sync}"
    );
    // No disk is known to lie under it: no cause is claimed.
    assert!(incident["cause"].is_null(), "{incident}");
    agent.finish();
    drop(file);
    let status = Command::new("umount").arg(&merged).status();
    assert!(status.unwrap().success());
}
