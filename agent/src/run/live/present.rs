//! Whether the disks under the log directories are still there. In: sysfs, which
//! answers without the disk. Out: [`Event::Present`] at each change.

use super::*;

impl Live {
    pub(super) fn look_for_disks(&mut self) {
        let known: BTreeSet<u32> = {
            let tables = self.shared.tables();
            let of = |(dev, info): (&u32, &DeviceInfo)| {
                let leaves: Vec<u32> = info.leaves.iter().map(|leaf| leaf.dev).collect();
                leaves.into_iter().chain([*dev])
            };
            tables.devices.iter().flat_map(of).collect()
        };
        for (dev, is_there) in changes(Path::new("/sys"), &known, &mut self.gone) {
            self.feed(Event::Present { dev, is_there });
        }
    }
}

/// Which of the disks went or came, and keeps count in `gone`. Numbers of major 0
/// belong to no disk.
fn changes(sys_root: &Path, known: &BTreeSet<u32>, gone: &mut BTreeSet<u32>) -> Vec<(u32, bool)> {
    let mut changes = Vec::new();
    for &dev in known {
        let (major, minor) = decode_dev(dev);
        if major == 0 {
            continue;
        }
        let place = sys_root.join(format!("dev/block/{major}:{minor}"));
        let is_there = place.symlink_metadata().is_ok();
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
        let known = BTreeSet::from([disk, encode_dev(0, 30)]);
        let mut gone = BTreeSet::new();
        let mut look = || changes(dir.path(), &known, &mut gone);
        assert_eq!(look(), []);
        std::fs::remove_dir_all(dir.path().join("dev/block/259:1")).unwrap();
        assert_eq!(look(), [(disk, false)]);
        assert_eq!(look(), []);
        dir.write("dev/block/259:1/size", "8");
        assert_eq!(look(), [(disk, true)]);
    }
}
