//! Where a file system keeps what is no file: journal, inode tables. In: the
//! device, idle. Out: [`Layout`], read by the file system's own tools.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use fsyncscope_tests::faultdisk::{FaultDisk, FsKind};

use super::known::Layout;
use crate::process::output;

/// Reads it.
pub fn read_layout(disk: &FaultDisk, fs: FsKind) -> anyhow::Result<Layout> {
    let device = disk.loop_dev();
    match fs {
        FsKind::Ext4 => {
            let groups = output(Command::new("dumpe2fs").arg(device))?;
            let journal = output(Command::new("debugfs").args(["-R", "stat <8>"]).arg(device))?;
            let mut layout = parse_ext4(&groups, &journal)
                .with_context(|| format!("find the journal of {}", device.display()))?;
            layout.data_first = disk.data_sectors()?.0;
            Ok(layout)
        }
        FsKind::Xfs => read_xfs(device),
    }
}

fn parse_ext4(groups: &str, journal: &str) -> Option<Layout> {
    let size = groups
        .lines()
        .find_map(|line| line.strip_prefix("Block size:"))?;
    let sectors_each = size.trim().parse::<u64>().ok()? / 512;
    let sectors = |range: &str| -> Option<(u64, u64)> {
        let range = range.split_whitespace().next()?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: u64 = first.parse().ok()?;
        let last: u64 = last.parse().ok()?;
        Some((first * sectors_each, (last + 1) * sectors_each - 1))
    };
    let tables = groups
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Inode table at "))
        .filter_map(sectors)
        .collect();
    // `(0-4095):1058-5153, (4096-…):…` on the lines behind "EXTENTS:".
    let (_, extents) = journal.split_once("EXTENTS:")?;
    let journal: Vec<(u64, u64)> = extents
        .split(',')
        .filter_map(|extent| sectors(extent.rsplit(':').next()?.trim()))
        .collect();
    (!journal.is_empty()).then_some(Layout {
        journal,
        tables,
        data_first: 0,
    })
}

fn read_xfs(device: &Path) -> anyhow::Result<Layout> {
    let fields = ["logstart", "logblocks", "blocksize", "agblocks", "agblklog"];
    let mut command = Command::new("xfs_db");
    command.args(["-r", "-c", "sb 0"]);
    for field in fields {
        command.args(["-c", &format!("p {field}")]);
    }
    let text = output(command.arg(device))?;
    parse_xfs(&text).with_context(|| format!("find the log of {}", device.display()))
}

fn parse_xfs(text: &str) -> Option<Layout> {
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches([' ', '=']).trim().parse().ok()
    };
    let (start, blocks) = (value("logstart")?, value("logblocks")?);
    let sectors_each = value("blocksize")? / 512;
    // A block number holds that of its allocation group above these bits.
    let log2 = value("agblklog")?;
    let group = start >> log2;
    let block = group * value("agblocks")? + (start & ((1 << log2) - 1));
    let first = block * sectors_each;
    Some(Layout {
        journal: vec![(first, first + blocks * sectors_each - 1)],
        tables: Vec::new(),
        data_first: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ext4_tells_journal_and_tables() {
        let groups = "Block size:               4096\n\
                      \x20 Inode table at 66-577 (+66)\n\
                      \x20 Inode table at 578-1089 (bg #0 + 578)\n";
        let journal = "Inode: 8\nEXTENTS:\n(0-4095):1090-5185, (4096-8191):6000-10095\n";
        let layout = parse_ext4(groups, journal).unwrap();
        assert_eq!(layout.tables, [(528, 4623), (4624, 8719)]);
        assert_eq!(layout.journal, [(8720, 41_487), (48_000, 80_767)]);
    }

    #[test]
    fn xfs_tells_its_log() {
        let text = "logstart = 65542\nlogblocks = 16384\nblocksize = 4096\n\
                    agblocks = 32768\nagblklog = 15\n";
        let layout = parse_xfs(text).unwrap();
        assert_eq!(layout.journal, [(65_542 * 8, 65_542 * 8 + 131_071)]);
    }
}
