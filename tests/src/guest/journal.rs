//! Where ext4 and xfs keep their journal, read from the superblock alone: the
//! guest has no tools. In: the first bytes of the device. Out: its sectors. Pure.

use crate::faultdisk::FsKind;

/// How much of the device's beginning is needed.
pub const HEAD_BYTES: usize = 4096;

/// First and last sector (both included) of the journal; `None` if the bytes
/// are not of such a file system, or its journal is elsewhere.
pub fn parse_journal_sectors(fs: FsKind, head: &[u8]) -> Option<(u64, u64)> {
    match fs {
        FsKind::Ext4 => parse_ext4(head),
        FsKind::Xfs => parse_xfs(head),
    }
}

/// fs/ext4/ext4.h, struct ext4_super_block: `s_jnl_blocks` is a copy of the
/// journal inode's extent tree, whose root holds up to four extents.
fn parse_ext4(head: &[u8]) -> Option<(u64, u64)> {
    let sb = head.get(1024..2048)?;
    let u16_at =
        |bytes: &[u8], at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let u32_at =
        |bytes: &[u8], at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if u16_at(sb, 0x38)? != 0xEF53 {
        return None;
    }
    let sectors_each = 2_u64 << u32_at(sb, 0x18)?.min(6);
    let tree = &sb[0x10C..0x10C + 60];
    let (magic, entries, depth) = (u16_at(tree, 0)?, u16_at(tree, 2)?, u16_at(tree, 6)?);
    if magic != 0xF30A || depth != 0 || entries == 0 {
        return None;
    }
    // All extents: they are next to each other on a fresh file system.
    let mut range: Option<(u64, u64)> = None;
    for nth in 0..usize::from(entries.min(4)) {
        let extent = &tree[12 + 12 * nth..24 + 12 * nth];
        let blocks = u64::from(u16_at(extent, 4)?);
        let start = u64::from(u16_at(extent, 6)?) << 32 | u64::from(u32_at(extent, 8)?);
        let (first, last) = (start * sectors_each, (start + blocks) * sectors_each - 1);
        range = Some(match range {
            None => (first, last),
            Some((low, high)) => (low.min(first), high.max(last)),
        });
    }
    range
}

/// fs/xfs/libxfs/xfs_format.h, struct xfs_dsb.
fn parse_xfs(head: &[u8]) -> Option<(u64, u64)> {
    let u32_at = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
    if head.get(..4)? != b"XFSB" {
        return None;
    }
    let sectors_each = u64::from(u32_at(4)?) / 512;
    let logstart = u64::from_be_bytes(*head.get(48..)?.first_chunk()?);
    let (agblocks, logblocks) = (u64::from(u32_at(84)?), u64::from(u32_at(96)?));
    let agblklog = *head.get(124)?;
    if logstart == 0 || agblklog > 32 {
        return None;
    }
    let group = logstart >> agblklog;
    let block = group * agblocks + (logstart & ((1 << agblklog) - 1));
    let first = block * sectors_each;
    Some((first, first + logblocks * sectors_each - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_of_ext4_is_found_in_its_copy_of_the_extents() {
        let mut head = vec![0; HEAD_BYTES];
        let mut put =
            |at: usize, bytes: &[u8]| head[1024 + at..][..bytes.len()].copy_from_slice(bytes);
        put(0x38, &0xEF53_u16.to_le_bytes());
        put(0x18, &2_u32.to_le_bytes());
        put(0x10C, &[0x0A, 0xF3, 1, 0, 4, 0, 0, 0]);
        put(0x10C + 12 + 4, &4096_u16.to_le_bytes());
        put(0x10C + 12 + 8, &1058_u32.to_le_bytes());
        let found = parse_journal_sectors(FsKind::Ext4, &head);
        assert_eq!(found, Some((1058 * 8, (1058 + 4096) * 8 - 1)));
        assert_eq!(parse_journal_sectors(FsKind::Xfs, &head), None);
    }

    #[test]
    fn the_log_of_xfs_lies_in_its_allocation_group() {
        let mut head = vec![0; HEAD_BYTES];
        let mut put = |at: usize, bytes: &[u8]| head[at..][..bytes.len()].copy_from_slice(bytes);
        put(0, b"XFSB");
        put(4, &4096_u32.to_be_bytes());
        put(48, &65_542_u64.to_be_bytes());
        put(84, &32_768_u32.to_be_bytes());
        put(96, &16_384_u32.to_be_bytes());
        put(124, &[15]);
        let first = (2 * 32_768 + 6) * 8;
        let found = parse_journal_sectors(FsKind::Xfs, &head);
        assert_eq!(found, Some((first, first + 16_384 * 8 - 1)));
        assert_eq!(parse_journal_sectors(FsKind::Ext4, &head), None);
        assert_eq!(parse_journal_sectors(FsKind::Ext4, b""), None);
    }
}
