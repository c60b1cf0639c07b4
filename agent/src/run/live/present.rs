//! Whether the disks under the log directories are still there. In: sysfs, which
//! answers without the disk. Out: [`Event::Present`] at each change.

use super::*;
use crate::enrich::device::Leaf;
use crate::enrich::hardware::has_path;

impl Live {
    pub(super) fn look_for_disks(&mut self) {
        let known: BTreeMap<u32, bool> = {
            let tables = self.shared.tables();
            let of = |(dev, info): (&u32, &DeviceInfo)| {
                let leaf = |leaf: &Leaf| (leaf.dev, !leaf.paths.is_empty());
                let leaves: Vec<(u32, bool)> = info.leaves.iter().map(leaf).collect();
                std::iter::once((*dev, false)).chain(leaves)
            };
            tables.devices.iter().flat_map(of).collect()
        };
        for (dev, is_there) in changes(Path::new("/sys"), &known, &mut self.gone) {
            self.feed(Event::Present { dev, is_there });
        }
    }
}

/// Which of the disks went or came, and keeps count in `gone`. Numbers of major 0
/// belong to no disk; one that has paths is there as long as it has one.
fn changes(
    sys_root: &Path,
    known: &BTreeMap<u32, bool>,
    gone: &mut BTreeSet<u32>,
) -> Vec<(u32, bool)> {
    let mut changes = Vec::new();
    for (&dev, &has_paths) in known {
        let (major, minor) = decode_dev(dev);
        if major == 0 {
            continue;
        }
        let place = sys_root.join(format!("dev/block/{major}:{minor}"));
        let is_there =
            place.symlink_metadata().is_ok() && (!has_paths || has_path(sys_root, major, minor));
        if is_there == gone.contains(&dev) {
            changes.push((dev, is_there));
            match is_there {
                true => gone.remove(&dev),
                false => gone.insert(dev),
            };
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::device::encode_dev;
    use crate::helper::testdir::TestDir;

    #[test]
    fn a_disk_that_goes_and_comes_is_told_once_each_time() {
        let dir = TestDir::new("present");
        dir.write("dev/block/259:1/size", "8");
        let disk = encode_dev(259, 1);
        let known = BTreeMap::from([(disk, false), (encode_dev(0, 30), false)]);
        let mut gone = BTreeSet::new();
        let mut look = || changes(dir.path(), &known, &mut gone);
        assert_eq!(look(), []);
        std::fs::remove_dir_all(dir.path().join("dev/block/259:1")).unwrap();
        assert_eq!(look(), [(disk, false)]);
        assert_eq!(look(), []);
        dir.write("dev/block/259:1/size", "8");
        assert_eq!(look(), [(disk, true)]);
    }

    #[test]
    fn a_head_whose_last_path_went_is_gone() {
        let dir = TestDir::new("present-head");
        let subsystem = "devices/virtual/nvme-subsystem/nvme-subsys0";
        dir.write(&format!("{subsystem}/nvme0n1/size"), "8");
        dir.write(&format!("{subsystem}/nvme1/nvme0c1n1/size"), "8");
        let head = format!("../../{subsystem}/nvme0n1");
        dir.link("dev/block/259:1", &head);
        let known = BTreeMap::from([(encode_dev(259, 1), true)]);
        let mut gone = BTreeSet::new();
        assert_eq!(changes(dir.path(), &known, &mut gone), []);
        std::fs::remove_dir_all(dir.path().join(subsystem).join("nvme1")).unwrap();
        let found = changes(dir.path(), &known, &mut gone);
        assert_eq!(found, [(encode_dev(259, 1), false)]);
    }
}
