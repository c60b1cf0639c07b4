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

/// A controller with its attributes, and a path to namespace 1 of subsystem 0; as
/// Linux 6.12 shows QEMU's NVMe disk, and two controllers of one subsystem (nvmet).
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

/// A dm device over others; as dmsetup, lvm and cryptsetup make them
/// (Documentation/ABI/testing/sysfs-block-dm).
fn dm(dir: &TestDir, nr: u32, name: &str, uuid: &str, over: &[&str]) {
    add(dir, &format!("virtual/block/dm-{nr}"), &format!("253:{nr}"));
    let at = format!("devices/virtual/block/dm-{nr}");
    dir.write(&format!("{at}/dm/name"), &format!("{name}\n"));
    dir.write(&format!("{at}/dm/uuid"), &format!("{uuid}\n"));
    for lower in over {
        let disk = lower.rsplit('/').next().unwrap();
        dir.link(
            &format!("{at}/slaves/{disk}"),
            &format!("../../../../{lower}"),
        );
        let holders = format!("devices/{lower}/holders");
        dir.link(&format!("{holders}/dm-{nr}"), &format!("/{at}"));
    }
}

fn partition(dir: &TestDir, path: &str, dev: &str) {
    add(dir, path, dev);
    dir.write(&format!("devices/{path}/partition"), "2\n");
}

fn leaves(info: &DeviceInfo) -> Vec<&str> {
    info.leaves.iter().map(|leaf| leaf.name.as_str()).collect()
}

fn labels(info: &DeviceInfo) -> Vec<Option<&str>> {
    info.chain
        .iter()
        .map(|link| link.label.as_deref())
        .collect()
}

#[test]
fn volume_on_crypt_on_raid_on_partitions_leads_to_both_disks() {
    let dir = TestDir::new("dev-deep");
    for (nr, minor) in [(0, 0), (1, 4)] {
        let pci = format!("pci0000:00/0000:0{nr}:00.0/nvme/nvme{nr}");
        let path = format!("{pci}/nvme{nr}n1");
        disk(&dir, &path, &format!("259:{minor}"), "PLAIN");
        dir.write(
            &format!("devices/{path}/device/serial"),
            &format!("SN{nr}\n"),
        );
        let address = format!("0000:0{nr}:00.0\n");
        dir.write(&format!("devices/{path}/device/address"), &address);
        let part = format!("{path}/nvme{nr}n1p2");
        partition(&dir, &part, &format!("259:{}", minor + 2));
        dir.link(
            &format!("devices/virtual/block/md127/slaves/nvme{nr}n1p2"),
            &format!("../../../../{part}"),
        );
    }
    add(&dir, "virtual/block/md127", "9:127");
    dir.write("devices/virtual/block/md127/md/level", "raid1\n");
    dm(
        &dir,
        0,
        "luks-data",
        "CRYPT-LUKS2-0123-luks-data",
        &["virtual/block/md127"],
    );
    dm(&dir, 1, "vg0-kafka", "LVM-abcdef", &["virtual/block/dm-0"]);
    let info = resolve_device(dir.path(), 253, 1, &[]).unwrap();
    assert_eq!(info.name, "dm-1");
    assert_eq!(
        labels(&info)[..3],
        [
            Some("vg0-kafka, lvm"),
            Some("luks-data, crypt"),
            Some("raid1")
        ]
    );
    assert_eq!(leaves(&info), ["nvme0n1", "nvme1n1"]);
    let serials: Vec<_> = info
        .leaves
        .iter()
        .map(|leaf| leaf.serial.as_deref())
        .collect();
    assert_eq!(serials, [Some("SN0"), Some("SN1")]);
    assert_eq!(info.leaves[1].address.as_deref(), Some("0000:01:00.0"));
}

#[test]
fn thin_volume_has_the_disk_of_its_pool_once() {
    let dir = TestDir::new("dev-thin");
    disk(&dir, "pci/sda", "8:0", "A");
    partition(&dir, "pci/sda/sda3", "8:3");
    dm(&dir, 0, "vg0-pool_tmeta", "LVM-a-tmeta", &["pci/sda/sda3"]);
    dm(&dir, 1, "vg0-pool_tdata", "LVM-a-tdata", &["pci/sda/sda3"]);
    let pool = ["virtual/block/dm-0", "virtual/block/dm-1"];
    dm(&dir, 2, "vg0-pool-tpool", "LVM-a-tpool", &pool);
    dm(&dir, 3, "vg0-kafka", "LVM-b", &["virtual/block/dm-2"]);
    let info = resolve_device(dir.path(), 253, 3, &[]).unwrap();
    assert_eq!(leaves(&info), ["sda"]);
    assert_eq!(labels(&info)[1], Some("vg0-pool-tpool, lvm thin pool"));
    // The partition carries the data and the metadata of the pool, the disk one
    // partition.
    let shared = info.chain.iter().filter(|link| link.is_shared);
    assert_eq!(
        shared.map(|link| link.name.as_str()).collect::<Vec<_>>(),
        ["sda3"]
    );
}

#[test]
fn both_paths_of_a_scsi_multipath_disk_are_leaves() {
    let dir = TestDir::new("dev-mpath");
    disk(&dir, "pci/sda", "8:0", "ARRAY");
    disk(&dir, "pci/sdb", "8:16", "ARRAY");
    dm(
        &dir,
        0,
        "mpatha",
        "mpath-3600508b4",
        &["pci/sda", "pci/sdb"],
    );
    let info = resolve_device(dir.path(), 253, 0, &[]).unwrap();
    assert_eq!(leaves(&info), ["sda", "sdb"]);
    assert_eq!(labels(&info)[0], Some("mpatha, multipath"));
}

/// As the ses driver links it (Documentation/ABI/testing/sysfs-class-enclosure).
#[test]
fn disk_in_an_enclosure_is_told_with_its_slot_and_adapter() {
    let dir = TestDir::new("dev-slot");
    let path = "pci0000:80/0000:80:01.0/0000:81:00.0/host0/target0:0:5/0:0:5:0/block/sdf";
    disk(&dir, path, "8:80", "ST18000NM");
    dir.write(
        &format!("devices/{path}/device/enclosure_device:Slot 05/slot"),
        "5\n",
    );
    let leaf = resolve_device(dir.path(), 8, 80, &[])
        .unwrap()
        .leaves
        .remove(0);
    assert_eq!(leaf.slot.as_deref(), Some("Slot 05"));
    assert_eq!(leaf.address.as_deref(), Some("0000:81:00.0"));
}

#[test]
fn loop_over_a_file_names_the_disk_that_the_file_lies_on() {
    let dir = TestDir::new("dev-loop-disk");
    disk(
        &dir,
        "pci0000:00/0000:00:04.0/virtio1/block/vda",
        "254:0",
        "",
    );
    dir.write(
        "devices/pci0000:00/0000:00:04.0/virtio1/block/vda/serial",
        "BHYVE-1\n",
    );
    partition(
        &dir,
        "pci0000:00/0000:00:04.0/virtio1/block/vda/vda1",
        "254:1",
    );
    add(&dir, "virtual/block/loop0", "7:0");
    dir.write(
        "devices/virtual/block/loop0/loop/backing_file",
        "/var/img\n",
    );
    let mounts = parse_mountinfo("22 1 254:1 / / rw - ext4 /dev/vda1 rw\n");
    let info = resolve_device(dir.path(), 7, 0, &mounts).unwrap();
    // Its requests are the loop device's: that is the leaf that counts.
    assert_eq!(leaves(&info), ["loop0"]);
    assert_eq!(
        kinds(&info),
        [
            ("loop0", ChainKind::Loop),
            ("vda1", ChainKind::Partition),
            ("vda", ChainKind::Disk)
        ]
    );
    assert_eq!(info.leaves[0].serial.as_deref(), Some("BHYVE-1"));
    assert_eq!(info.leaves[0].address.as_deref(), Some("0000:00:04.0"));
}

#[test]
fn unknown_number_is_an_error_that_names_it() {
    let dir = TestDir::new("dev-none");
    let error = resolve_device(dir.path(), 1, 2, &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("dev/block/1:2: "), "{error}");
}
