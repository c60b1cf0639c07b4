//! A kernel, ready to boot: image and modules, out of its packages. Unpacked once
//! into the cache; a folder there is whole or not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use fsyncscope_tests::faultdisk::FsKind;

use super::archive::{Archive, Found};
use super::list::Kernel;
use super::modules::{self, Module};
use crate::arch::Arch;
use crate::process::run;

/// Begins the name of a kernel that is being unpacked; the process's id follows.
pub const PART: &str = ".part-";

/// A kernel.
#[derive(Debug)]
pub struct Image {
    /// As in tests/KERNELS.
    pub version: String,
    /// `uname -r`.
    pub release: String,
    /// Of which architecture.
    pub arch: Arch,
    /// What QEMU boots.
    pub vmlinuz: PathBuf,
    /// What the guest loads.
    pub modules: Vec<Module>,
}

impl Image {
    /// Whether the guest can mount it: xfs is a module of every such kernel, and an
    /// archive may hold an image without its modules.
    pub fn has(&self, fs: FsKind) -> bool {
        fs != FsKind::Xfs || !self.modules.is_empty()
    }
}

/// Takes a kernel from the cache, or from the archive.
pub fn get(cache: &Path, archive: &Archive, kernel: &Kernel, arch: Arch) -> anyhow::Result<Image> {
    let found = archive.find(kernel)?;
    let dir = cache.join("images").join(arch.name()).join(&found.release);
    if !dir.is_dir() {
        unpack(archive, &found, &dir)?;
    }
    let release = &found.release;
    let vmlinuz = first_that_is(&[
        dir.join("boot").join(format!("vmlinuz-{release}")),
        dir.join("usr/lib/modules").join(release).join("vmlinuz"),
    ])?;
    let folders = [
        dir.join("usr/lib/modules").join(release),
        dir.join("lib/modules").join(release),
    ];
    let folder = folders.iter().find(|folder| folder.join("kernel").is_dir());
    let modules = match folder {
        Some(folder) => modules::collect(folder)?,
        None => Vec::new(),
    };
    Ok(Image {
        version: kernel.name(),
        release: found.release,
        arch,
        vmlinuz,
        modules,
    })
}

fn unpack(archive: &Archive, found: &Found, dir: &Path) -> anyhow::Result<()> {
    let files = archive.fetch(found)?;
    let folder = dir.parent().unwrap_or(dir);
    remove_leftovers(folder, Path::new("/proc"));
    let part = folder.join(format!("{}{}", PART, std::process::id()));
    let what = || format!("unpack {} into {}", found.release, part.display());
    fs::create_dir_all(&part).with_context(what)?;
    let unpacked = files.iter().try_for_each(|file| {
        run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&part)).with_context(what)
    });
    let placed = unpacked.and_then(|()| fs::rename(&part, dir).with_context(what));
    if placed.is_err() {
        // A disk that is full must not stay so because of us.
        let _ = fs::remove_dir_all(&part);
    }
    if placed.is_ok() {
        // They have served; all kernels of the list are some gigabytes.
        files.iter().for_each(|file| drop(fs::remove_file(file)));
    }
    placed
}

/// What runs that were killed have left half unpacked.
pub fn remove_leftovers(folder: &Path, proc: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PART));
        if pid.is_some_and(|pid| !proc.join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn first_that_is(paths: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let found = paths.iter().find(|path| path.exists());
    found
        .cloned()
        .with_context(|| format!("the package has no {}", paths[0].display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_living_process_unpacks_is_removed() {
        let base = std::env::temp_dir().join(format!("fsyncscope-image-{}", std::process::id()));
        for folder in [
            "images/.part-7",
            "images/.part-8",
            "images/6.12.1",
            "proc/8",
        ] {
            fs::create_dir_all(base.join(folder)).unwrap();
        }
        remove_leftovers(&base.join("images"), &base.join("proc"));
        let mut left: Vec<_> = fs::read_dir(base.join("images"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [".part-8", "6.12.1"]);
        fs::remove_dir_all(base).unwrap();
    }
}
