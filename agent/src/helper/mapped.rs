//! Which file is mapped at an address of a process. In: proc root, pid, address.
//! Out: [`MappedFile`]. Reads /proc/PID/maps, which may wait for the process's
//! mmap_lock: only in a helper.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::ffi::OsStringExt,
    path::Path,
};

use super::protocol::MappedFile;
use crate::enrich::device::encode_dev;

pub(super) fn find_mapped(
    proc_root: &Path,
    pid: u32,
    address: u64,
) -> io::Result<Option<MappedFile>> {
    let maps = File::open(proc_root.join(format!("{pid}/maps")))?;
    for line in BufReader::new(maps).split(b'\n') {
        let line = line?;
        if let Some((range, file)) = parse(&line)
            && range.contains(&address)
        {
            return Ok(file);
        }
    }
    Ok(None)
}

/// `FROM-TO PERMS OFFSET MAJOR:MINOR INODE [PATH]`, numbers but the inode's in
/// hexadecimal (Documentation/filesystems/proc.rst). A mapping of no file has
/// inode 0.
fn parse(line: &[u8]) -> Option<(std::ops::Range<u64>, Option<MappedFile>)> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let range = hex(from)?..hex(to)?;
    let (major, minor) = words.nth(2)?.split_once(':')?;
    let (major, minor) = (hex(major)?, hex(minor)?);
    let ino: u64 = words.next()?.parse().ok()?;
    let file = (ino != 0).then(|| MappedFile {
        s_dev: encode_dev(major as u32, minor as u32),
        ino,
        path: OsString::from_vec(path_of(line)).into(),
    });
    Some((range, file))
}

/// What follows the inode, blanks and bytes that are no text as they are. A
/// newline of the path is written `\\012`, and a deleted file is marked.
fn path_of(line: &[u8]) -> Vec<u8> {
    let Some(at) = line.iter().position(|byte| *byte == b'/') else {
        return Vec::new();
    };
    let path = &line[at..];
    without_mark(path).to_vec()
}

/// The path of a file that may be deleted, as /proc writes it, without the mark of that.
pub(super) fn without_mark(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    #[test]
    fn the_mapping_around_an_address_is_found() {
        let dir = TestDir::new("mapped");
        dir.write(
            "7/maps",
            "7f1000000000-7f1000a00000 rw-s 00000000 07:0f 42    /d1/a b-0/00.index (deleted)\n\
             7f1000a00000-7f1000a01000 rw-p 00000000 00:00 0\n\
             7f1000b00000-7f1000b01000 rw-p 00000000 00:00 0     [stack]\n",
        );
        let find = |address| find_mapped(dir.path(), 7, address).unwrap();
        let found = find(0x7f10_0000_1000).unwrap();
        assert_eq!((found.s_dev, found.ino), (encode_dev(7, 15), 42));
        assert_eq!(found.path, Path::new("/d1/a b-0/00.index"));
        // The end of a mapping is not in it; no file is none.
        assert_eq!(find(0x7f10_00a0_0000), None);
        assert_eq!(find(0x7f10_00b0_0000), None);
        assert_eq!(find(0x1000), None);
        assert!(find_mapped(dir.path(), 8, 0).is_err());
    }

    #[test]
    fn a_mapping_of_this_process_is_found() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let own = std::env::current_exe().unwrap();
        let line = maps
            .lines()
            .find(|line| line.ends_with(own.to_str().unwrap()))
            .unwrap();
        let from = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        let found = find_mapped(Path::new("/proc"), std::process::id(), from)
            .unwrap()
            .unwrap();
        assert_eq!(found.path, own);
        use std::os::unix::fs::MetadataExt;
        assert_eq!(found.ino, own.metadata().unwrap().ino());
    }
}
