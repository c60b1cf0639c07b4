//! What a disk is: model, serial, firmware, where it sits, and by which paths it is
//! reached. In: its directory in sysfs. Out: [`Leaf`]. Not here: stacks of devices.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::device::{Leaf, file_name, list, read_text};

/// A path to a namespace that NVMe multipath may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmePath {
    /// Hidden disk: `nvme0c1n1`.
    pub name: String,
    /// Its controller: `nvme1`.
    pub controller: String,
    /// `pcie`, `tcp`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// PCI address, or address on the fabric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// State of the controller: `live`, `resetting`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Asymmetric access: `optimized`, …; absent where the subsystem has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ana_state: Option<String>,
}

/// `nvme0c1n1`: a path to namespace 1 of subsystem 0, by what the kernel calls
/// instance 1 of its controllers.
#[must_use]
pub fn is_nvme_path(name: &str) -> bool {
    split_path(name).is_some()
}

/// Subsystem, controller and namespace of a path's name.
fn split_path(name: &str) -> Option<(&str, &str, &str)> {
    let (subsystem, rest) = name.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let all = [subsystem, controller, namespace];
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    all.iter()
        .all(|text| is_number(text))
        .then_some((subsystem, controller, namespace))
}

/// Reads what sysfs knows of a disk.
pub(super) fn read_leaf(sys: &Path, node: &Path, name: &str, dev: u32) -> Leaf {
    let paths = nvme_paths(node, name);
    let nvme: Vec<NvmePath> = paths.iter().map(|path| read_path(path)).collect();
    // Where the head of multipath does not say it itself, a path's controller does.
    let first = |names: &[&str]| {
        let of = |node: &Path| names.iter().find_map(|name| read_text(&node.join(name)));
        of(node).or_else(|| paths.iter().find_map(|path| of(path)))
    };
    let mut slots = slots_of(sys, node);
    let mut address = first(&["device/address"])
        .filter(|_| name.starts_with("nvme"))
        .or_else(|| pci_address(node));
    if !nvme.is_empty() {
        let of_paths: Vec<&str> = nvme.iter().filter_map(|p| p.address.as_deref()).collect();
        address = (!of_paths.is_empty()).then(|| of_paths.join(", "));
        slots = paths.iter().flat_map(|path| slots_of(sys, path)).collect();
    }
    slots.sort();
    slots.dedup();
    Leaf {
        model: first(&["device/model", "device/device/model"]),
        serial: first(&["device/serial", "serial", "device/device/serial"])
            .or_else(|| read_vpd_serial(node)),
        firmware: first(&["device/firmware_rev", "device/rev", "device/fwrev"]),
        address,
        slot: (!slots.is_empty()).then(|| slots.join(", ")),
        write_cache: first(&["queue/write_cache"]),
        rotational: first(&["queue/rotational"]).map(|text| text == "1"),
        // sysfs counts 512-byte sectors whatever the disk's own are.
        size_bytes: first(&["size"])
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
            * 512,
        state: first(&["device/state"]),
        paths: nvme,
        name: name.to_owned(),
        dev,
        ..Leaf::default()
    }
}

/// Whether a head of NVMe multipath has a path left: before 5.15 or so it stays in
/// sysfs while it is mounted, whatever became of its controllers.
#[must_use]
pub fn has_path(sys: &Path, major: u32, minor: u32) -> bool {
    let node = fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}")));
    node.is_ok_and(|node| !nvme_paths(&node, &file_name(&node)).is_empty())
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
        split_path(&file_name(path)).is_some_and(|(of, _, ns)| of == subsystem && ns == namespace)
    };
    // Since 6.15 the head lists its paths itself.
    let mut found: Vec<PathBuf> = list(&node.join("multipath"))
        .into_iter()
        .filter(fits)
        .collect();
    if found.is_empty()
        && let Some(parent) = node.parent()
    {
        let is_controller = |path: &PathBuf| {
            file_name(path)
                .strip_prefix("nvme")
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        found = list(parent).into_iter().filter(fits).collect();
        for controller in list(parent).into_iter().filter(is_controller) {
            found.extend(list(&controller).into_iter().filter(fits));
        }
    }
    let mut found: Vec<PathBuf> = found
        .iter()
        .map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone()))
        .collect();
    found.sort();
    found.dedup_by_key(|path| file_name(path));
    found
}

/// A path, by its directory: that of its controller is above it.
fn read_path(path: &Path) -> NvmePath {
    let controller = path.parent().unwrap_or(path);
    let of = |name: &str| read_text(&controller.join(name));
    NvmePath {
        name: file_name(path),
        controller: file_name(controller),
        transport: of("transport"),
        address: of("address").or_else(|| pci_address(path)),
        state: of("state"),
        ana_state: read_text(&path.join("ana_state")),
    }
}

/// The PCI function nearest to a disk on its way through the device tree.
fn pci_address(node: &Path) -> Option<String> {
    node.ancestors().map(file_name).find(|name| is_pci(name))
}

/// `0000:01:00.0`; the domain is longer behind some bridges.
fn is_pci(name: &str) -> bool {
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let [domain, bus, device, function] = parts.as_slice() else {
        return false;
    };
    let lengths = [bus.len(), device.len(), function.len()];
    domain.len() >= 4
        && lengths == [2, 2, 1]
        && parts.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Slots that the enclosure or the board names for a disk: `enclosure_device:Slot 05`
/// of the ses driver, else the hotplug slot of its PCI function.
fn slots_of(sys: &Path, node: &Path) -> Vec<String> {
    let in_enclosure = list(&node.join("device")).iter().find_map(|path| {
        Some(
            file_name(path)
                .strip_prefix("enclosure_device:")?
                .to_owned(),
        )
    });
    if let Some(slot) = in_enclosure {
        return vec![slot.trim().to_owned()];
    }
    let Some(address) = pci_address(node) else {
        return Vec::new();
    };
    let device = address.rsplit_once('.').map_or("", |(device, _)| device);
    list(&sys.join("bus/pci/slots"))
        .iter()
        .filter(|slot| read_text(&slot.join("address")).as_deref() == Some(device))
        .map(|slot| file_name(slot))
        .collect()
}

/// SCSI keeps the serial in VPD page 0x80: four bytes of header, then text.
fn read_vpd_serial(node: &Path) -> Option<String> {
    let page = fs::read(node.join("device/vpd_pg80")).ok()?;
    let text = String::from_utf8_lossy(page.get(4..)?)
        .trim_matches(['\0', ' ', '\n'])
        .to_owned();
    (!text.is_empty()).then_some(text)
}
