//! From a file, inode or dentry to its identity, its names, and the watched
//! directory that it lies under.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use fsyncscope_abi::{
    block::InodeState,
    facts::UNKNOWN,
    keys::{InodeKey, NAME_DEPTH, NAME_LEN, Names, SLOT_NONE},
};

use crate::{
    kernel::{
        fact,
        read::{Addr, Mem, Probe, probe},
    },
    maps::ROOTS,
};

/// How many directories above a file are looked at for a watched one: a
/// directory itself, its files, files of its children, and one more.
const ROOT_DEPTH: usize = 4;

/// Identity of an inode.
#[inline(always)]
pub fn key_of<M: Mem>(inode: Addr) -> InodeKey {
    let sb = M::u64(inode, fact!(inode_i_sb));
    InodeKey {
        ino: M::u64(inode, fact!(inode_i_ino)),
        s_dev: if sb == 0 {
            0
        } else {
            M::u32(sb, fact!(super_block_s_dev))
        },
        pad: 0,
    }
}

/// Any dentry of an inode (the first alias), 0 if it has none.
#[inline(always)]
pub fn dentry_of_inode(inode: Addr) -> Addr {
    let node: u64 = probe(inode, fact!(inode_i_dentry));
    if node == 0 {
        return 0;
    }
    node.wrapping_sub(u64::from(fact!(dentry_d_alias)))
}

/// Takes note of where a file stands. True if it did not stand there before: another
/// one has taken its number, or it was renamed. What was told of the one is not told
/// of the other.
#[inline(always)]
pub fn is_new_place(known: &mut InodeState, (parent, name_hash): (Addr, u32)) -> bool {
    if known.parent == parent && known.name_hash == name_hash {
        return false;
    }
    (known.parent, known.name_hash) = (parent, name_hash);
    known.wb_err = 0;
    true
}

/// The parent and the name of a dentry, by their address and their hash; 0 without a
/// dentry, or where BTF does not say where they stand.
#[inline(always)]
pub fn place_of<M: Mem>(dentry: Addr) -> (Addr, u32) {
    if dentry == 0 || fact!(dentry_d_name_hash) == UNKNOWN {
        return (0, 0);
    }
    (
        M::u64(dentry, fact!(dentry_d_parent)),
        M::u32(dentry, fact!(dentry_d_name_hash)),
    )
}

/// Root slot of the watched directory that is `dentry` or one of its parents.
#[inline(always)]
pub fn root_of(dentry: Addr, s_dev: u32) -> u16 {
    watched_root_of(dentry, s_dev).map_or(SLOT_NONE, |root| root as u16)
}

/// The entry of that directory in ROOTS.
#[inline(always)]
pub fn watched_root_of(mut dentry: Addr, s_dev: u32) -> Option<u32> {
    for _ in 0..=ROOT_DEPTH {
        if dentry == 0 {
            break;
        }
        let root = watched(dentry, s_dev);
        if root.is_some() {
            return root;
        }
        let parent = Probe::u64(dentry, fact!(dentry_d_parent));
        if parent == dentry {
            break;
        }
        dentry = parent;
    }
    None
}

/// Writes the names of a dentry and its parents up to the watched directory that
/// they lie under, which is told apart by its inode: it may be mounted under any
/// name. That directory itself is "/". Parts that are not reached are made empty;
/// ring memory is not zeroed by the kernel, so each part is cleared first as a
/// whole.
#[inline(always)]
pub fn read_names(mut dentry: Addr, s_dev: u32, names: &mut Names) {
    *names = Names {
        part: [[0; NAME_LEN]; NAME_DEPTH],
    };
    for (depth, part) in names.part.iter_mut().enumerate() {
        if dentry == 0 {
            break;
        }
        if watched(dentry, s_dev).is_some() {
            if depth == 0 {
                part[0] = b'/';
            }
            break;
        }
        let name = Probe::u64(dentry, fact!(dentry_d_name_name));
        if name != 0 {
            // SAFETY: writes at most NAME_LEN bytes, NUL included, into `part`.
            unsafe {
                bpf_probe_read_kernel_str(
                    part.as_mut_ptr().cast(),
                    NAME_LEN as u32,
                    name as *const _,
                );
            }
        }
        let parent = Probe::u64(dentry, fact!(dentry_d_parent));
        if parent == dentry {
            break;
        }
        dentry = parent;
    }
}

/// The entry in ROOTS of a watched directory.
#[inline(always)]
fn watched(dentry: Addr, s_dev: u32) -> Option<u32> {
    let inode = Probe::u64(dentry, fact!(dentry_d_inode));
    if inode == 0 {
        return None;
    }
    let key = InodeKey {
        ino: Probe::u64(inode, fact!(inode_i_ino)),
        s_dev,
        pad: 0,
    };
    // SAFETY: values are only replaced whole by the agent.
    unsafe { ROOTS.get(&key) }.copied()
}

/// Names of `dentry` if it still belongs to `key`: it may be freed and reused
/// once the call has let go of the file.
#[inline(always)]
pub fn read_names_checked(dentry: Addr, key: &InodeKey, names: &mut Names) {
    let mut dentry = dentry;
    if dentry != 0 {
        let inode = Probe::u64(dentry, fact!(dentry_d_inode));
        if inode == 0 || Probe::u64(inode, fact!(inode_i_ino)) != key.ino {
            dentry = 0;
        }
    }
    read_names(dentry, key.s_dev, names);
}
