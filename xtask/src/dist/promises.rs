//! What a release promises of its binary. In: the file. Out: the promises that it
//! breaks, in words.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::elf;
use crate::arch::Arch;
use crate::remap;
use crate::setup;

/// The largest that a binary may be.
const MAX_BYTES: usize = 12_000_000;
/// What is wrong with a binary.
pub fn broken(name: &str, arch: Arch, path: &Path) -> anyhow::Result<Vec<String>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let elf = elf::parse(&bytes).with_context(|| format!("look at {}", path.display()))?;
    let mut folders: Vec<PathBuf> = remap::folders()?
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    folders.extend([remap::cargo_home()?, setup::cache()?]);
    let mut broken = Vec::new();
    let mut hold = |is_so: bool, what: String| {
        if !is_so {
            broken.push(format!("{name}: {what}"));
        }
    };
    hold(
        elf.arch == Some(arch),
        format!("not made for {}", arch.name()),
    );
    hold(elf.is_static, "not static".into());
    hold(elf.is_stripped, "not stripped".into());
    hold(
        elf::holds_kernel_object(&bytes),
        "no kernel programs inside".into(),
    );
    hold(
        bytes.len() <= MAX_BYTES,
        format!("{} bytes, more than {MAX_BYTES}", bytes.len()),
    );
    for folder in named_folders(&bytes, &folders) {
        hold(false, format!("names the folder {}", folder.display()));
    }
    Ok(broken)
}

/// Those of the folders that a file names. One at the root, like `/src`, would be
/// found everywhere; it is left out.
fn named_folders<'a>(bytes: &[u8], folders: &'a [PathBuf]) -> Vec<&'a Path> {
    let is_named = |folder: &Path| {
        let needle = [folder.as_os_str().as_encoded_bytes(), b"/"].concat();
        bytes
            .windows(needle.len())
            .any(|window| window == needle.as_slice())
    };
    let deep = folders
        .iter()
        .filter(|folder| folder.components().count() > 2);
    deep.map(PathBuf::as_path)
        .filter(|folder| is_named(folder))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_only_by_its_whole_path() {
        let folders = ["/home/me/src", "/home/me", "/src", "/opt/rust"].map(PathBuf::from);
        let named = named_folders(
            b"at /home/me/src/main.rs, /src/lib.rs, /opt/rusty",
            &folders,
        );
        assert_eq!(named, [Path::new("/home/me/src"), Path::new("/home/me")]);
    }
}
