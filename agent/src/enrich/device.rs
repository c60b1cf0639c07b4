//! Finds the disks under a device number: through partitions, dm, md, loop
//! and NVMe multipath, down to the leaves with model and serial. In: a sysfs
//! root. Out: [`DeviceInfo`]. Reads sysfs only, which answers from memory even
//! while the disk hangs; sends no command to any device.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::mountinfo::{Mount, find_mount};

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
    /// A path disk of an NVMe multipath head (nvme0c0n1).
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
    /// Name given by dm or md: `vg0-kafka`.
    pub label: Option<String>,
}

/// A device with nothing beneath it.
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
    walk(&node, mounts, 0, &mut info);
    let disk = if node.join("partition").exists() {
        node.parent().unwrap_or(&node)
    } else {
        &node
    };
    info.name = file_name(disk);
    Ok(info)
}

fn walk(node: &Path, mounts: &[Mount], depth: usize, info: &mut DeviceInfo) {
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
    let dev = read_dev(node);
    let kind = kind_of(node, &name);
    info.chain.push(DeviceLink {
        label: read_text(&node.join("dm/name")),
        name: name.clone(),
        dev,
        kind,
    });
    if kind == ChainKind::Partition {
        if let Some(parent) = node.parent() {
            walk(parent, mounts, depth + 1, info);
        }
        return;
    }
    let mut below = list(&node.join("slaves"));
    if below.is_empty() && name.starts_with("nvme") && kind == ChainKind::Disk {
        below = nvme_paths(node, &name);
    }
    if below.is_empty() {
        add_leaf(node, name, dev, kind, mounts, info);
        return;
    }
    for lower in below {
        match fs::canonicalize(&lower) {
            Ok(lower) => walk(&lower, mounts, depth + 1, info),
            Err(error) => info
                .notes
                .push(format!("read {}: {error}", lower.display())),
        }
    }
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

/// `nvme0c1n1`: controller 1's path to namespace 1 of subsystem 0.
fn is_nvme_path(name: &str) -> bool {
    name.strip_prefix("nvme")
        .is_some_and(|rest| rest.contains('c') && rest.contains('n'))
}

/// Path disks of a multipath head. They are hidden (no `dev` file): siblings
/// under the same subsystem, or below its controllers, by their names.
fn nvme_paths(node: &Path, head: &str) -> Vec<PathBuf> {
    let Some((subsystem, namespace)) = head
        .strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
    else {
        return Vec::new();
    };
    let fits = |path: &PathBuf| {
        let name = file_name(path);
        name.strip_prefix(&format!("nvme{subsystem}c"))
            .and_then(|rest| rest.split_once('n'))
            .is_some_and(|(controller, ns)| !controller.is_empty() && ns == namespace)
    };
    // Since 6.15 the head lists its paths itself.
    let own: Vec<PathBuf> = list(&node.join("multipath"))
        .into_iter()
        .filter(fits)
        .collect();
    if !own.is_empty() {
        return own;
    }
    let Some(parent) = node.parent() else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = list(parent).into_iter().filter(fits).collect();
    for controller in list(parent).into_iter().filter(|path| {
        file_name(path)
            .strip_prefix("nvme")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    }) {
        found.extend(list(&controller).into_iter().filter(fits));
    }
    found.sort();
    found.dedup_by_key(|path| file_name(path));
    found
}

fn add_leaf(
    node: &Path,
    name: String,
    dev: u32,
    kind: ChainKind,
    mounts: &[Mount],
    info: &mut DeviceInfo,
) {
    let first = |names: &[&str]| names.iter().find_map(|name| read_text(&node.join(name)));
    let mut leaf = Leaf {
        model: first(&["device/model", "device/device/model"]),
        serial: first(&["device/serial", "serial", "device/device/serial"])
            .or_else(|| read_vpd_serial(node)),
        firmware: first(&["device/firmware_rev", "device/rev", "device/fwrev"]),
        write_cache: first(&["queue/write_cache"]),
        rotational: first(&["queue/rotational"]).map(|text| text == "1"),
        // sysfs counts 512-byte sectors whatever the disk's own are.
        size_bytes: first(&["size"])
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
            * 512,
        state: first(&["device/state"]),
        name,
        dev,
        ..Leaf::default()
    };
    if kind == ChainKind::Loop {
        leaf.backing_file = first(&["loop/backing_file"]);
        match leaf.backing_file.as_deref() {
            None => info
                .notes
                .push(format!("{} has no backing file", leaf.name)),
            Some(file) => {
                if let Some(mount) = find_mount(mounts, file) {
                    leaf.backing_fs_type = Some(mount.fs_type.clone());
                    leaf.backing_dev = if mount.major == 0 {
                        0
                    } else {
                        encode_dev(mount.major, mount.minor)
                    };
                }
            }
        }
    }
    info.leaves.push(leaf);
}

/// SCSI keeps the serial in VPD page 0x80: four bytes of header, then text.
fn read_vpd_serial(node: &Path) -> Option<String> {
    let page = fs::read(node.join("device/vpd_pg80")).ok()?;
    let text = String::from_utf8_lossy(page.get(4..)?)
        .trim_matches(['\0', ' ', '\n'])
        .to_owned();
    (!text.is_empty()).then_some(text)
}

fn read_dev(node: &Path) -> u32 {
    let parse = |text: String| {
        let (major, minor) = text.split_once(':')?;
        Some(encode_dev(major.parse().ok()?, minor.parse().ok()?))
    };
    read_text(&node.join("dev")).and_then(parse).unwrap_or(0)
}

fn read_text(path: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(path).ok()?)
        .trim_matches(['\0', ' ', '\n', '\t'])
        .to_owned();
    (!text.is_empty()).then_some(text)
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|entry| entry.path()).collect(),
    );
    found.sort();
    found
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
