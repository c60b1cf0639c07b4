//! Identities shared by several maps and records: inodes, names, targets.

/// An inode: kernel-encoded device of its super block and inode number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InodeKey {
    /// `inode.i_ino`.
    pub ino: u64,
    /// `super_block.s_dev`: major << 20 | minor. 0 = unknown.
    pub s_dev: u32,
    /// Zero; keeps the key free of uninitialised bytes.
    pub pad: u32,
}

/// How many path components are kept of a file's name.
pub const NAME_DEPTH: usize = 4;
/// Bytes kept of each component, with its terminating NUL. Longer names are cut.
pub const NAME_LEN: usize = 128;

/// Names of a file and of its parents, from the dentry upwards: `part[0]` is
/// the file, `part[1]` its directory, … Empty parts are unknown or above root.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// NUL-terminated components.
    pub part: [[u8; NAME_LEN]; NAME_DEPTH],
}

/// Value of TARGETS (key: tgid as u32): a process whose syncs are watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Index of the broker in the agent's table; [`SLOT_NONE`] for a probe.
    pub broker: u16,
    /// Bits of [`target_flags`].
    pub flags: u16,
}

/// Bits of [`Target::flags`].
pub mod target_flags {
    /// Every sync of this process is sent, however fast (self-probe).
    pub const EMIT_ALL: u16 = 1;
}

/// No broker, or no watched directory.
pub const SLOT_NONE: u16 = 0xffff;

const _: () = assert!(size_of::<InodeKey>() == 16);
const _: () = assert!(size_of::<Names>() == NAME_DEPTH * NAME_LEN);
const _: () = assert!(size_of::<Target>() == 4);
