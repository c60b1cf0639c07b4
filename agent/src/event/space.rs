//! How full a file system is, asked when a broker's line says that it has no room.

use serde::{Deserialize, Serialize};

/// Less than this is no room: what a broker appends at once is smaller, but a file
/// system keeps some blocks to itself.
const NO_ROOM_BYTES: u64 = 1 << 20;

/// See the module's comment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceEvent {
    /// Broker slot.
    pub broker: u16,
    /// The directory that the line names.
    pub dir: String,
    /// What is free and how much there is, as statfs(2) tells it.
    #[serde(flatten)]
    pub space: Space,
}

/// Of a file system, what statfs(2) tells of its room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// For processes without privileges.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// Inodes that can still be made.
    pub free_inodes: u64,
    /// All inodes; 0 where they are made on demand.
    pub total_inodes: u64,
}

impl Space {
    /// Whether an append or a new segment must fail.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.free_bytes < NO_ROOM_BYTES || (self.total_inodes > 0 && self.free_inodes == 0)
    }
}
