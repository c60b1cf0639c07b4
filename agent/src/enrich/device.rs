//! Finds the disks under a device number: through partitions, dm, md and loop,
//! down to the leaves (what they are made of: `hardware`). In: a sysfs root. Out:
//! [`DeviceInfo`]. Reads sysfs only, which answers from memory even while the disk
//! hangs; sends no command to any device.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    hardware::{NvmePath, is_nvme_path, read_leaf},
    mountinfo::{Mount, find_mount},
};

/// What a step of the chain is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// A partition.
    Partition,
    /// A whole disk, or something that claims to be one.
    #[default]
    Disk,
    /// A loop device over a file or device.
    Loop,
    /// device-mapper.
    Dm,
    /// Software RAID.
    Md,
    /// A path disk of an NVMe multipath head (nvme0c0n1), where it was asked for.
    NvmePath,
}

/// One step from the device asked for to its leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLink {
    /// Kernel name, as in sysfs and node_exporter: `sda1`, `dm-0`.
    pub name: String,
    /// Kernel-encoded number, major << 20 | minor; 0 where sysfs hides it.
    pub dev: u32,
    /// What it is.
    pub kind: ChainKind,
    /// Name and kind that dm gives, level of md: `vg0-kafka, lvm`, `raid1`.
    pub label: Option<String>,
    /// More than one device is stacked on it (`holders`): volumes of one group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shared: bool,
}

/// A device with nothing beneath it. The head of NVMe multipath is one: its paths
/// are hidden, and what they carry counts for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Kernel name of the whole disk.
    pub name: String,
    /// Kernel-encoded number; 0 where sysfs hides it.
    pub dev: u32,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// PCI address of the disk or of the adapter that it hangs below; what an NVMe
    /// controller tells as its own, on a fabric too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Slot of its enclosure, or of the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Paths of an NVMe multipath head.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<NvmePath>,
    /// `write back` or `write through`: whether a flush does anything.
    pub write_cache: Option<String>,
    /// Spinning.
    pub rotational: Option<bool>,
    /// Size.
    pub size_bytes: u64,
    /// State that the driver tells: `running`, `live`, `offline`, …
    pub state: Option<String>,
    /// For a loop device: its file.
    pub backing_file: Option<String>,
    /// For a loop device: type of the file system that holds the file.
    pub backing_fs_type: Option<String>,
    /// For a loop device: number of that file system's device, 0 if none.
    pub backing_dev: u32,
}

/// A device number, resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Whole disk of the device asked for, as node_exporter spells it.
    pub name: String,
    /// The number asked for, major << 20 | minor.
    pub dev: u32,
    /// Every device met, top first; stacked ones branch.
    pub chain: Vec<DeviceLink>,
    /// The disks at the bottom.
    pub leaves: Vec<Leaf>,
    /// What could not be found out.
    pub notes: Vec<String>,
}

/// Deeper stacks are not followed: real ones have three or four levels.
const MAX_DEPTH: usize = 8;
/// A md or dm over more disks than this is cut, and says so.
const MAX_LINKS: usize = 128;

/// Kernel encoding of a device number.
#[must_use]
pub fn encode_dev(major: u32, minor: u32) -> u32 {
    major << 20 | (minor & 0xf_ffff)
}

/// Major and minor of a kernel-encoded number.
#[must_use]
pub fn decode_dev(dev: u32) -> (u32, u32) {
    (dev >> 20, dev & 0xf_ffff)
}

/// Resolves a device below `sys` (`/sys`). `mounts` (the host's) tell on which
/// device a loop's backing file lies; empty is fine.
///
/// # Errors
/// If sysfs has no such device: `open SYS/dev/block/M:m: …`.
pub fn resolve_device(
    sys: &Path,
    major: u32,
    minor: u32,
    mounts: &[Mount],
) -> io::Result<DeviceInfo> {
    let path = sys.join(format!("dev/block/{major}:{minor}"));
    let node = fs::canonicalize(&path).map_err(|error| {
        io::Error::new(error.kind(), format!("open {}: {error}", path.display()))
    })?;
    let mut info = DeviceInfo {
        dev: encode_dev(major, minor),
        ..DeviceInfo::default()
    };
    walk(sys, &node, mounts, 0, &mut info);
    let disk = if node.join("partition").exists() {
        node.parent().unwrap_or(&node)
    } else {
        &node
    };
    info.name = file_name(disk);
    Ok(info)
}

fn walk(sys: &Path, node: &Path, mounts: &[Mount], depth: usize, info: &mut DeviceInfo) {
    let name = file_name(node);
    if depth > MAX_DEPTH || info.chain.len() >= MAX_LINKS {
        info.notes.push(format!(
            "stack below {name} is too deep or too wide, cut off"
        ));
        return;
    }
    if info.chain.iter().any(|link| link.name == name) {
        return;
    }
    let kind = kind_of(node, &name);
    let link = DeviceLink {
        label: label_of(node, kind),
        dev: read_dev(node),
        name,
        kind,
        is_shared: list(&node.join("holders")).len() > 1,
    };
    info.chain.push(link.clone());
    if kind == ChainKind::Partition {
        if let Some(parent) = node.parent() {
            walk(sys, parent, mounts, depth + 1, info);
        }
        return;
    }
    let below = list(&node.join("slaves"));
    if below.is_empty() {
        add_leaf(sys, node, &link, mounts, info);
        return;
    }
    for lower in below {
        match fs::canonicalize(&lower) {
            Ok(lower) => walk(sys, &lower, mounts, depth + 1, info),
            Err(error) => info
                .notes
                .push(format!("read {}: {error}", lower.display())),
        }
    }
}

/// Name and kind of a dm device (`vg0-kafka, lvm`), level of a md one (`raid1`).
fn label_of(node: &Path, kind: ChainKind) -> Option<String> {
    if kind == ChainKind::Md {
        return read_text(&node.join("md/level"));
    }
    let name = read_text(&node.join("dm/name"))?;
    // Who made it puts a word before the first dash: LVM-, CRYPT-LUKS2-, mpath-.
    let uuid = read_text(&node.join("dm/uuid")).unwrap_or_default();
    let what = match uuid.split('-').next() {
        Some("LVM") if uuid.ends_with("-tpool") => "lvm thin pool",
        Some("LVM") => "lvm",
        Some("CRYPT") => "crypt",
        Some("mpath") => "multipath",
        _ => return Some(name),
    };
    Some(format!("{name}, {what}"))
}

fn kind_of(node: &Path, name: &str) -> ChainKind {
    if node.join("partition").exists() {
        ChainKind::Partition
    } else if node.join("loop").exists() || name.starts_with("loop") {
        ChainKind::Loop
    } else if node.join("dm").exists() {
        ChainKind::Dm
    } else if node.join("md").exists() {
        ChainKind::Md
    } else if is_nvme_path(name) {
        ChainKind::NvmePath
    } else {
        ChainKind::Disk
    }
}

fn add_leaf(sys: &Path, node: &Path, link: &DeviceLink, mounts: &[Mount], info: &mut DeviceInfo) {
    let mut leaf = read_leaf(sys, node, &link.name, link.dev);
    if link.kind == ChainKind::Loop {
        add_backing(sys, node, mounts, info, &mut leaf);
    }
    info.leaves.push(leaf);
}

/// The file behind a loop device, and the disk below that: its requests are the
/// loop device's, but what fails is the hardware.
fn add_backing(sys: &Path, node: &Path, mounts: &[Mount], info: &mut DeviceInfo, leaf: &mut Leaf) {
    leaf.backing_file = read_text(&node.join("loop/backing_file"));
    let Some(file) = leaf.backing_file.as_deref() else {
        info.notes
            .push(format!("{} has no backing file", leaf.name));
        return;
    };
    let Some(mount) = find_mount(mounts, file) else {
        return;
    };
    leaf.backing_fs_type = Some(mount.fs_type.clone());
    if mount.major == 0 {
        return;
    }
    leaf.backing_dev = encode_dev(mount.major, mount.minor);
    // One level: the lower disk is asked without mounts.
    let Ok(lower) = resolve_device(sys, mount.major, mount.minor, &[]) else {
        return;
    };
    if let [disk] = lower.leaves.as_slice() {
        leaf.model = disk.model.clone();
        leaf.serial = disk.serial.clone();
        leaf.firmware = disk.firmware.clone();
        leaf.address = disk.address.clone();
        leaf.slot = disk.slot.clone();
        leaf.paths.clone_from(&disk.paths);
    }
    info.chain.extend(lower.chain);
}

fn read_dev(node: &Path) -> u32 {
    let parse = |text: String| {
        let (major, minor) = text.split_once(':')?;
        Some(encode_dev(major.parse().ok()?, minor.parse().ok()?))
    };
    read_text(&node.join("dev")).and_then(parse).unwrap_or(0)
}

pub(super) fn read_text(path: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(path).ok()?)
        .trim_matches(['\0', ' ', '\n', '\t'])
        .to_owned();
    (!text.is_empty()).then_some(text)
}

pub(super) fn list(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|entry| entry.path()).collect(),
    );
    found.sort();
    found
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
