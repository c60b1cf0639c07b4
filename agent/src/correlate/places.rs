//! Whose log directories lie where: slots and file systems of [`World`]'s
//! roots. In: slots, device numbers. Out: the same. Not here: paths and names.

use super::case::NO_SLOT;
use super::world::World;

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
