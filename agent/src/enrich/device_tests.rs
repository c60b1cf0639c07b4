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

/// A controller with its attributes, and a path to namespace 1 of subsystem 0.
fn controller(dir: &TestDir, pci: &str, nr: u32, state: &str) {
    let function = pci.rsplit('/').next().unwrap();
    let at = format!("devices/{pci}/nvme/nvme{nr}");
    for (name, value) in [
        ("model", "QEMU NVMe Ctrl                          "),
        ("serial", "deadbeef            "),
        ("firmware_rev", "8.0.0   "),
        ("transport", "pcie"),
        ("address", function),
        ("state", state),
    ] {
        dir.write(&format!("{at}/{name}"), &format!("{value}\n"));
    }
    dir.write(&format!("{at}/nvme0c{nr}n1/size"), "4096\n");
    dir.link(
        &format!("{at}/nvme0c{nr}n1/device"),
        &format!("../../nvme{nr}"),
    );
    dir.write(&format!("{at}/nvme0c{nr}n1/ana_state"), "optimized\n");
    dir.link(
        &format!("devices/virtual/nvme-subsystem/nvme-subsys0/nvme{nr}"),
        &format!("../../../{pci}/nvme/nvme{nr}"),
    );
}

#[test]
fn the_paths_of_an_nvme_disk_count_for_their_head() {
    let dir = TestDir::new("dev-nvme");
    let subsystem = "virtual/nvme-subsystem/nvme-subsys0";
    add(&dir, &format!("{subsystem}/nvme0n1"), "259:0");
    dir.write(&format!("devices/{subsystem}/nvme0n1/size"), "4096\n");
    controller(&dir, "pci0000:00/0000:00:04.0/0000:01:00.0", 0, "live");
    controller(&dir, "pci0000:00/0000:00:05.0/0000:02:00.0", 1, "resetting");
    dir.write("bus/pci/slots/7/address", "0000:02:00\n");
    dir.write("bus/pci/slots/8/address", "0000:03:00\n");
    let info = resolve_device(dir.path(), 259, 0, &[]).unwrap();
    assert_eq!(info.name, "nvme0n1");
    assert_eq!(kinds(&info), [("nvme0n1", ChainKind::Disk)]);
    let [leaf] = info.leaves.as_slice() else {
        panic!("{:?}", info.leaves);
    };
    assert_eq!((leaf.name.as_str(), leaf.dev), ("nvme0n1", 259 << 20));
    assert_eq!(leaf.model.as_deref(), Some("QEMU NVMe Ctrl"));
    assert_eq!(leaf.serial.as_deref(), Some("deadbeef"));
    assert_eq!(leaf.firmware.as_deref(), Some("8.0.0"));
    assert_eq!(leaf.address.as_deref(), Some("0000:01:00.0, 0000:02:00.0"));
    assert_eq!(leaf.slot.as_deref(), Some("7"));
    let paths: Vec<_> = leaf
        .paths
        .iter()
        .map(|path| {
            (
                path.name.as_str(),
                path.controller.as_str(),
                path.state.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        paths,
        [
            ("nvme0c0n1", "nvme0", Some("live")),
            ("nvme0c1n1", "nvme1", Some("resetting"))
        ]
    );
    assert_eq!(leaf.paths[1].address.as_deref(), Some("0000:02:00.0"));
    assert_eq!(leaf.paths[1].ana_state.as_deref(), Some("optimized"));
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
