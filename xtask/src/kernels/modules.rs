//! The kernel modules that a guest loads: which, in what order, unpacked. In: the
//! modules' folder of an unpacked kernel package. Out: file names and bytes in
//! load order. A module says itself what it needs, so depmod is not needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use fsyncscope_tests::guest::protocol::Stage;

/// Without these a cell cannot be played; many are built into the kernel.
const REQUIRED: [&str; 5] = ["virtio_pci", "virtio_console", "nvme", "ext4", "xfs"];
/// All that is loaded, where it is a module. libcrc32c asks for crc32c by a name that
/// only modprobe can resolve, and a broker comes on a virtio disk.
const WANTED: [(Stage, &[&str]); 3] = [
    (
        Stage::First,
        &[
            "crc32c_generic",
            "crc32c_intel",
            "virtio_blk",
            "virtio_pci",
            "virtio_console",
        ],
    ),
    (Stage::Disk, &["nvme", "ext4", "xfs"]),
    (Stage::Stack, &["dm_mod", "dm_delay", "md_mod", "raid0"]),
];

/// A module, ready to load.
#[derive(Debug)]
pub struct Module {
    /// `nvme.ko`.
    pub file_name: String,
    /// Not compressed.
    pub bytes: Vec<u8>,
    /// When it is loaded.
    pub stage: Stage,
}

/// All that a guest loads, in order.
pub fn collect(modules_dir: &Path) -> anyhow::Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(&modules_dir.join("kernel"), &mut files)?;
    // Split packages leave the list out: then the guest tells what is missing.
    if let Ok(builtin) = fs::read_to_string(modules_dir.join("modules.builtin")) {
        let builtin: Vec<String> = builtin
            .lines()
            .filter_map(|line| name_of(Path::new(line)))
            .collect();
        for name in REQUIRED {
            if !files.contains_key(name) && !builtin.iter().any(|known| known == name) {
                bail!("{}: the kernel has no {name}", modules_dir.display());
            }
        }
    }
    let mut loaded = Vec::new();
    for (stage, names) in WANTED {
        for name in names {
            add(name, stage, &files, &mut loaded)?;
        }
    }
    Ok(loaded)
}

/// Adds a module behind those that it needs; one that is built in has no file.
fn add(
    name: &str,
    stage: Stage,
    files: &BTreeMap<String, PathBuf>,
    loaded: &mut Vec<Module>,
) -> anyhow::Result<()> {
    let file_name = format!("{name}.ko");
    let Some(path) = files.get(name) else {
        return Ok(());
    };
    if loaded.iter().any(|module| module.file_name == file_name) {
        return Ok(());
    }
    let bytes = read(path)?;
    for needed in parse_depends(&bytes) {
        add(&needed, stage, files, loaded)?;
    }
    loaded.push(Module {
        file_name,
        bytes,
        stage,
    });
    Ok(())
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let what = || format!("read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        if entry.file_type().with_context(what)?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some(name) = name_of(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `…/nvme-core.ko.xz` → `nvme_core`; the kernel takes both spellings for one.
fn name_of(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unpack = match path.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let output = Command::new(unpack)
        .arg("-dc")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {unpack}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("unpack {}: {}", path.display(), said.trim());
    }
    Ok(output.stdout)
}

/// The names behind `depends=` in a module's `.modinfo`.
fn parse_depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=nvme-core,t10_pi\0name=nvme\0";
        assert_eq!(parse_depends(module), ["nvme_core", "t10_pi"]);
        assert_eq!(parse_depends(b"\0depends=\0name=x\0"), [""; 0]);
        assert_eq!(parse_depends(b"nothing"), [""; 0]);
    }

    #[test]
    fn what_is_required_is_loaded() {
        let wanted: Vec<_> = WANTED.iter().flat_map(|(_, names)| *names).collect();
        assert!(REQUIRED.iter().all(|name| wanted.contains(&name)));
    }

    #[test]
    fn a_module_is_known_by_its_name_however_it_is_packed() {
        for (path, name) in [
            ("a/nvme-core.ko.xz", Some("nvme_core")),
            ("kernel/fs/xfs/xfs.ko", Some("xfs")),
            ("modules.dep", None),
        ] {
            assert_eq!(name_of(Path::new(path)).as_deref(), name);
        }
    }
}
