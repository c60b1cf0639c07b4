//! Claims about [`super::resolve_device`], on small sysfs trees made here.

use super::*;
use crate::enrich::parse_mountinfo;
use crate::helper::testdir::TestDir;

/// Adds a block device at `devices/PATH` with its link in dev/block.
fn add(dir: &TestDir, path: &str, dev: &str) {
    dir.write(&format!("devices/{path}/dev"), &format!("{dev}\n"));
    dir.link(
        &format!("dev/block/{dev}"),
        &format!("../../devices/{path}"),
    );
}

fn disk(dir: &TestDir, path: &str, dev: &str, model: &str) {
    add(dir, path, dev);
    dir.write(
        &format!("devices/{path}/device/model"),
        &format!("{model}   \n"),
    );
    dir.write(&format!("devices/{path}/size"), "2048\n");
    dir.write(&format!("devices/{path}/queue/write_cache"), "write back\n");
    dir.write(&format!("devices/{path}/queue/rotational"), "1\n");
}

fn kinds(info: &DeviceInfo) -> Vec<(&str, ChainKind)> {
    info.chain
        .iter()
        .map(|link| (link.name.as_str(), link.kind))
        .collect()
}

#[test]
fn partition_leads_to_its_disk() {
    let dir = TestDir::new("dev-part");
    disk(&dir, "pci/sda", "8:0", "SAMSUNG X");
    dir.write("devices/pci/sda/device/vpd_pg80", "\0\u{1}\0\u{8}S3R1AL00");
    dir.write("devices/pci/sda/device/rev", "2B6Q\n");
    add(&dir, "pci/sda/sda1", "8:1");
    dir.write("devices/pci/sda/sda1/partition", "1\n");
    let info = resolve_device(dir.path(), 8, 1, &[]).unwrap();
    assert_eq!(info.name, "sda");
    assert_eq!(info.dev, 8 << 20 | 1);
    assert_eq!(
        kinds(&info),
        [("sda1", ChainKind::Partition), ("sda", ChainKind::Disk)]
    );
    let leaf = &info.leaves[0];
    assert_eq!(
        (leaf.model.as_deref(), leaf.serial.as_deref()),
        (Some("SAMSUNG X"), Some("S3R1AL00"))
    );
    assert_eq!(
        (leaf.firmware.as_deref(), leaf.rotational, leaf.size_bytes),
        (Some("2B6Q"), Some(true), 1 << 20)
    );
    assert_eq!(leaf.write_cache.as_deref(), Some("write back"));
}

#[test]
fn dm_over_two_disks_has_two_leaves() {
    let dir = TestDir::new("dev-dm");
    disk(&dir, "pci/sda", "8:0", "A");
    add(&dir, "pci/sda/sda1", "8:1");
    dir.write("devices/pci/sda/sda1/partition", "1\n");
    disk(&dir, "pci/sdb", "8:16", "B");
    add(&dir, "virtual/dm-0", "253:0");
    dir.write("devices/virtual/dm-0/dm/name", "vg0-kafka\n");
    dir.link("devices/virtual/dm-0/slaves/sda1", "../../../pci/sda/sda1");
    dir.link("devices/virtual/dm-0/slaves/sdb", "../../../pci/sdb");
    let info = resolve_device(dir.path(), 253, 0, &[]).unwrap();
    assert_eq!(info.name, "dm-0");
    assert_eq!(info.chain[0].label.as_deref(), Some("vg0-kafka"));
    let leaves: Vec<_> = info
        .leaves
        .iter()
        .map(|leaf| (leaf.name.as_str(), leaf.dev))
        .collect();
    assert_eq!(leaves, [("sda", 8 << 20), ("sdb", 8 << 20 | 16)]);
}

#[test]
fn md_and_a_loop_of_links_end() {
    let dir = TestDir::new("dev-md");
    disk(&dir, "pci/sdc", "8:32", "C");
    add(&dir, "virtual/md0", "9:0");
    dir.write("devices/virtual/md0/md/level", "raid1\n");
    dir.link("devices/virtual/md0/slaves/sdc", "../../../pci/sdc");
    dir.link("devices/virtual/md0/slaves/md0", "../../md0");
    let info = resolve_device(dir.path(), 9, 0, &[]).unwrap();
    assert_eq!(
        kinds(&info),
        [("md0", ChainKind::Md), ("sdc", ChainKind::Disk)]
    );
    assert_eq!(info.leaves.len(), 1);
}

#[test]
fn nvme_head_leads_to_its_hidden_path() {
    let dir = TestDir::new("dev-nvme");
    disk(
        &dir,
        "virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
        "259:0",
        "QEMU NVMe Ctrl",
    );
    dir.write("devices/pci/nvme/nvme0/nvme0c0n1/size", "4096\n");
    dir.write(
        "devices/pci/nvme/nvme0/nvme0c0n1/device/serial",
        "deadbeef\n",
    );
    dir.write(
        "devices/pci/nvme/nvme0/nvme0c0n1/device/firmware_rev",
        "8.0\n",
    );
    dir.link(
        "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0",
        "../../../pci/nvme/nvme0",
    );
    let info = resolve_device(dir.path(), 259, 0, &[]).unwrap();
    assert_eq!(info.name, "nvme0n1");
    assert_eq!(
        kinds(&info),
        [
            ("nvme0n1", ChainKind::Disk),
            ("nvme0c0n1", ChainKind::NvmePath)
        ]
    );
    assert_eq!(info.leaves[0].dev, 0);
    assert_eq!(info.leaves[0].serial.as_deref(), Some("deadbeef"));
    assert_eq!(info.leaves[0].firmware.as_deref(), Some("8.0"));
}

#[test]
fn plain_nvme_is_its_own_leaf() {
    let dir = TestDir::new("dev-nvme1");
    disk(&dir, "pci/nvme/nvme1/nvme1n1", "259:3", "INTEL");
    let info = resolve_device(dir.path(), 259, 3, &[]).unwrap();
    assert_eq!(info.leaves[0].name, "nvme1n1");
    assert_eq!(info.leaves[0].dev, 259 << 20 | 3);
}

#[test]
fn loop_names_its_file_and_the_file_system_beneath() {
    let dir = TestDir::new("dev-loop");
    add(&dir, "virtual/loop0", "7:0");
    dir.write(
        "devices/virtual/loop0/loop/backing_file",
        "/mnt/fault/disk\n",
    );
    dir.write("devices/virtual/loop0/size", "8\n");
    let fuse = parse_mountinfo(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 22 0:60 / /mnt/fault rw - fuse faultdisk rw\n",
    );
    let leaf = resolve_device(dir.path(), 7, 0, &fuse)
        .unwrap()
        .leaves
        .remove(0);
    assert_eq!(leaf.backing_file.as_deref(), Some("/mnt/fault/disk"));
    assert_eq!(
        (leaf.backing_fs_type.as_deref(), leaf.backing_dev),
        (Some("fuse"), 0)
    );
    let plain = parse_mountinfo("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    let leaf = resolve_device(dir.path(), 7, 0, &plain)
        .unwrap()
        .leaves
        .remove(0);
    assert_eq!(
        (leaf.backing_fs_type.as_deref(), leaf.backing_dev),
        (Some("ext4"), 8 << 20 | 1)
    );
}

#[test]
fn unknown_number_is_an_error_that_names_it() {
    let dir = TestDir::new("dev-none");
    let error = resolve_device(dir.path(), 1, 2, &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("dev/block/1:2: "), "{error}");
}
