//! Whose log directories lie where: slots and file systems of [`World`]'s
//! roots. In: slots, device numbers. Out: the same. Not here: paths and names.

use super::case::NO_SLOT;
use super::world::World;
use crate::event::RequestEvent;

impl World {
    /// Broker slot of a log directory.
    pub(crate) fn broker_of_root(&self, root: u16) -> u16 {
        self.roots.get(&root).map_or(NO_SLOT, |root| root.broker)
    }

    /// Broker and root slots of the log directories on a file system.
    pub(crate) fn places_on(&self, s_dev: u32) -> Vec<(u16, u16)> {
        self.roots
            .iter()
            .filter(|(_, root)| root.s_dev == s_dev && s_dev != 0)
            .map(|(&slot, root)| (root.broker, slot))
            .collect()
    }

    /// Broker and root slots of the log directories on file systems above a disk.
    pub(crate) fn places_above(&self, disk: u32) -> Vec<(u16, u16)> {
        self.roots
            .iter()
            .filter(|(_, root)| self.leaf_disks(root.s_dev).contains(&disk))
            .map(|(&slot, root)| (root.broker, slot))
            .collect()
    }

    /// File system whose log or metadata a request is of, where its bios alone do not
    /// say so: what xfs writes to its log carries the number of the device below, of a
    /// dm or md stack or of a path of NVMe multipath. As the bios say (0 before 5.12) if
    /// that is nobody's, or may be of several.
    pub(crate) fn metadata_device(&self, request: &RequestEvent) -> u32 {
        let (rdev, dev) = (request.rdev, request.dev);
        if request.file_source != "meta" || !self.places_on(rdev).is_empty() {
            return rdev;
        }
        if !self.places_on(dev).is_empty() {
            return dev;
        }
        // Below a volume of many, the log may be that of a file system nobody watches.
        let is_above = |s_dev: &u32| {
            let chain = self.devices.get(s_dev).map(|info| info.chain.as_slice());
            let mut links = chain.unwrap_or_default().iter();
            links.any(|link| link.dev == rdev && rdev != 0 && !link.is_shared)
        };
        let mut above = self.file_systems();
        above.retain(is_above);
        above.sort_unstable();
        above.dedup();
        match above.as_slice() {
            [s_dev] => *s_dev,
            _ => rdev,
        }
    }

    /// Root slots of a broker.
    pub(crate) fn roots_of(&self, broker: u16) -> Vec<u16> {
        self.roots
            .iter()
            .filter(|(_, root)| root.broker == broker)
            .map(|(&slot, _)| slot)
            .collect()
    }

    /// File systems that hold log directories.
    pub(crate) fn file_systems(&self) -> Vec<u32> {
        self.roots.values().map(|root| root.s_dev).collect()
    }

    /// File systems that hold log directories of a broker.
    pub(crate) fn file_systems_of(&self, broker: u16) -> Vec<u32> {
        let roots = self.roots.values().filter(|root| root.broker == broker);
        let mut found: Vec<u32> = roots
            .map(|root| root.s_dev)
            .filter(|&s_dev| s_dev != 0)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}
