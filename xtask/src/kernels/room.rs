//! Room in the cache, asked for before something large is put there: apt waits for ever
//! where it cannot store its lists. In: a folder, how much. Out: nothing, or what is
//! missing.

use std::ffi::CString;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};

use crate::process::is_root;

/// Lists of the five suites for one architecture: some 80 MiB, while they are fetched
/// beside the packed ones.
pub const LISTS: u64 = 256 << 20;

/// A kernel's packages and what is in them: the generic flavour's are 60 MiB and 181 MiB.
pub const KERNEL: u64 = 384 << 20;

/// Whether there is room for `bytes` in the file system of a folder.
///
/// # Errors
/// There is not; or it cannot be found out.
pub fn require(dir: &Path, bytes: u64, what: &str) -> anyhow::Result<()> {
    let free = free(dir).with_context(|| format!("ask for the room in {}", dir.display()))?;
    if free < bytes {
        bail!(
            "no room for {what}: {} MiB wanted, {} MiB free in {}; make room, or name another \
             folder by FSYNCSCOPE_CACHE",
            bytes >> 20,
            free >> 20,
            dir.display()
        );
    }
    Ok(())
}

fn free(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_encoded_bytes())?;
    // SAFETY: all zeroes is a value of this struct of integers.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends in a zero, and a struct that the call fills in.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // What apt and dpkg may take, run by root.
    let blocks = match is_root() {
        true => stat.f_bfree,
        false => stat.f_bavail,
    };
    Ok(blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_room_is_named() {
        require(&std::env::temp_dir(), 1, "a test").unwrap();
        // It has no blocks at all.
        let full = require(Path::new("/proc"), 5 << 20, "a test").unwrap_err();
        let text = full.to_string();
        let begin = "no room for a test: 5 MiB wanted, 0 MiB free in /proc;";
        assert!(text.starts_with(begin), "{text}");
        let missing = require(Path::new("/nonexistent"), 1, "a test").unwrap_err();
        assert_eq!(missing.to_string(), "ask for the room in /nonexistent");
    }
}
