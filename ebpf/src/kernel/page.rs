//! From a bio to the file that its data belongs to.
//!
//! bio → bio_vec → page → head of its folio → mapping → host, accepted only if
//! the host agrees that this is its mapping: the word is something else in
//! slab pages and anonymous memory. Direct I/O is decided by `bi_end_io`, never
//! by the page, which is the caller's buffer.
//!
//! Kernels: 6.x tail pages carry `compound_head` (pointer + 1); 7.x carry
//! `compound_info`, which is a pointer + 1 or a mask, not visible in BTF.

use fsyncscope_abi::{block::file_source, facts::UNKNOWN, keys::InodeKey};

use crate::kernel::{
    fact,
    file::key_of,
    read::{Addr, Mem, Probe},
};

/// S_IFMT and S_IFBLK (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170_000;
const S_IFBLK: u16 = 0o060_000;

/// What a bio's data belongs to.
#[derive(Clone, Copy)]
pub struct Owner {
    /// `struct inode *`, 0 = unknown.
    pub inode: Addr,
    /// Identity of it.
    pub key: InodeKey,
    /// One of [`file_source`].
    pub source: u8,
    /// Block device whose metadata this is.
    pub rdev: u32,
}

impl Owner {
    /// Nobody known.
    pub const UNKNOWN: Owner = Owner {
        inode: 0,
        key: InodeKey {
            ino: 0,
            s_dev: 0,
            pad: 0,
        },
        source: file_source::UNKNOWN,
        rdev: 0,
    };
}

/// Head page of the folio that the tail page `page` belongs to, from its word
/// `compound_head` or `compound_info`.
#[inline(always)]
fn head_of(page: Addr, word: u64) -> Addr {
    if fact!(page_compound_is_info) == 0 {
        return word - 1;
    }
    // A mask has all high bits set and clears low bits of the tail's address;
    // a pointer lies in the same struct page array, at or below the tail.
    let masked = page & word;
    let pointed = word - 1;
    if pointed <= page && page - pointed < (1 << 30) {
        pointed
    } else {
        masked
    }
}

/// Owner of the data of `bio`.
#[inline(always)]
pub fn owner_of<M: Mem>(bio: Addr) -> Owner {
    if bio == 0 {
        return Owner::UNKNOWN;
    }
    let dio_end_io = fact!(iomap_dio_bio_end_io);
    if dio_end_io != 0 && M::u64(bio, fact!(bio_bi_end_io)) == dio_end_io {
        return direct_owner(bio);
    }
    let vecs = M::u64(bio, fact!(bio_bi_io_vec));
    if vecs == 0 {
        return Owner::UNKNOWN;
    }
    let idx = M::u32(bio, fact!(bio_bi_idx));
    // The vector is an array behind a pointer: idx is nearly always 0, and a
    // variable offset into it is no typed load.
    if idx == 0 {
        page_owner::<M>(vecs)
    } else {
        // Read anew, as a number.
        let vecs = Probe::u64(bio, fact!(bio_bi_io_vec));
        let vec = vecs + u64::from(idx & 0xffff) * u64::from(fact!(bio_vec_size));
        page_owner::<Probe>(vec)
    }
}

/// Owner of the page-cache page of a bio_vec.
#[inline(always)]
fn page_owner<M: Mem>(vec: Addr) -> Owner {
    let page = M::u64(vec, fact!(bio_vec_bv_page));
    if page == 0 {
        return Owner::UNKNOWN;
    }
    // Arithmetic on the word: it must not be a typed pointer to the verifier.
    let word = Probe::u64(page, fact!(page_compound_head));
    if word & 1 == 0 {
        mapping_owner::<M>(M::u64(page, fact!(folio_mapping)))
    } else {
        // As a number, too: not every verifier reckons with a typed pointer.
        let head = head_of(Probe::u64(vec, fact!(bio_vec_bv_page)), word);
        mapping_owner::<Probe>(Probe::u64(head, fact!(folio_mapping)))
    }
}

/// Owner from the word at `page.mapping`. Anonymous memory and movable pages set
/// low bits in it, slab pages hold something else: no host then says that this
/// is its mapping, which is the one test that decides.
#[inline(always)]
fn mapping_owner<M: Mem>(mapping: Addr) -> Owner {
    if mapping == 0 {
        return Owner::UNKNOWN;
    }
    // Spares a read; no bit may be taken from a typed pointer.
    if !M::IS_TYPED && mapping & 3 != 0 {
        return Owner::UNKNOWN;
    }
    let host = M::guess(mapping, fact!(address_space_host));
    if host == 0 {
        return Owner::UNKNOWN;
    }
    if M::guess(host, fact!(inode_i_mapping)) != mapping
        && host + u64::from(fact!(inode_i_data)) != mapping
    {
        return Owner::UNKNOWN;
    }
    inode_owner::<M>(host, file_source::PAGE)
}

/// Owner of a direct I/O bio: bi_private is the iomap_dio of its iocb.
#[inline(always)]
fn direct_owner(bio: Addr) -> Owner {
    let is_unknown = fact!(iomap_dio_iocb) == UNKNOWN
        || fact!(kiocb_ki_filp) == UNKNOWN
        || fact!(file_f_inode) == UNKNOWN;
    if is_unknown {
        return Owner::UNKNOWN;
    }
    let dio = Probe::u64(bio, fact!(bio_bi_private));
    let iocb = Probe::u64(dio, fact!(iomap_dio_iocb));
    let file = Probe::u64(iocb, fact!(kiocb_ki_filp));
    let inode = Probe::u64(file, fact!(file_f_inode));
    if inode == 0 {
        return Owner::UNKNOWN;
    }
    inode_owner::<Probe>(inode, file_source::DIRECT)
}

/// Owner from an inode; a block device's inode means metadata or journal.
#[inline(always)]
fn inode_owner<M: Mem>(inode: Addr, source: u8) -> Owner {
    let mode = M::u16(inode, fact!(inode_i_mode));
    if mode & S_IFMT == S_IFBLK {
        return Owner {
            inode,
            key: InodeKey {
                ino: 0,
                s_dev: 0,
                pad: 0,
            },
            source: file_source::BLOCKDEV,
            rdev: M::u32(inode, fact!(inode_i_rdev)),
        };
    }
    Owner {
        inode,
        key: key_of::<M>(inode),
        source,
        rdev: 0,
    }
}
