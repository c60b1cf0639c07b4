//! The disk with a real broker for a guest: this machine's JVM with the libraries it
//! needs, and Kafka's jars, as the guest's init expects them (`guest::broker`). In:
//! java, the jars of the demo. Out: an ext4 image in the cache, made without a mount.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use fsyncscope_tests::broker::ensure_jars;
use fsyncscope_tests::guest::broker::{JVM_DIR, LIBS_DIR, VERSION};

use super::image;
use crate::arch::Arch;
use crate::process::{find_program, output, run, say};
use crate::setup::{self, Need};

/// Counted up when images that are in a cache are of no use any more.
const LAYOUT: u32 = 1;

/// Parts of a JDK that no broker reads.
const LEFT_OUT: [&str; 9] = [
    "jmods", "include", "legal", "man", "docs", "demo", "sample", "src.zip", "ct.sym",
];

/// What a broker loads of a JVM, and so whose libraries are needed.
const LOADED: [&str; 12] = [
    "bin/java",
    "lib/server/libjvm.so",
    "lib/libjava.so",
    "lib/libjimage.so",
    "lib/libverify.so",
    "lib/libnet.so",
    "lib/libnio.so",
    "lib/libzip.so",
    "lib/libextnet.so",
    "lib/libmanagement.so",
    "lib/libmanagement_ext.so",
    "lib/libinstrument.so",
];

/// The image, from the cache if it is there.
pub fn disk(cache: &Path, archs: &[Arch]) -> anyhow::Result<PathBuf> {
    if archs != [Arch::HOST] {
        bail!(
            "a broker in the machine runs on this machine's JVM: only --arch {}",
            Arch::HOST.name()
        );
    }
    setup::packages(Need::DEMO)?;
    let jars = ensure_jars(VERSION)?;
    let home = jvm_home()?;
    let about = home.join("release");
    let about = fs::read(&about).with_context(|| format!("read {}", about.display()))?;
    let mut hasher = DefaultHasher::new();
    (LAYOUT, &home, about, &jars).hash(&mut hasher);
    let folder = cache.join("broker");
    let image = folder.join(format!("{:016x}.ext4", hasher.finish()));
    if image.is_file() {
        return Ok(image);
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    image::remove_leftovers(&folder, Path::new("/proc"));
    say(format!(
        "making the disk with Kafka {} and its JVM",
        VERSION.number()
    ));
    let part = folder.join(format!("{}{}", image::PART, std::process::id()));
    let made = make(&part, &home, &jars).and_then(|made| {
        fs::rename(&made, &image).with_context(|| format!("place {}", image.display()))
    });
    let _ = fs::remove_dir_all(&part);
    made.map(|()| image)
}

/// The folder above `bin/java`, behind the links that lead to it.
fn jvm_home() -> anyhow::Result<PathBuf> {
    let java = find_program("java").context("find java: not on the search path")?;
    let java = fs::canonicalize(&java).with_context(|| format!("read {}", java.display()))?;
    let home = java.parent().and_then(Path::parent);
    let home = home.filter(|home| home.join("lib/modules").is_file());
    home.map(Path::to_owned)
        .with_context(|| format!("{} is not in a JVM of version 9 or later", java.display()))
}

/// Lays it out in a folder, and makes the image from that.
fn make(part: &Path, home: &Path, jars: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let root = part.join("root");
    let mut nr_bytes = copy_tree(home, &root.join(JVM_DIR))?;
    let libs = root.join(LIBS_DIR);
    fs::create_dir_all(&libs).with_context(|| format!("create {}", libs.display()))?;
    for lib in libraries(home)? {
        nr_bytes += copy_file(&lib, &libs.join(lib.file_name().unwrap_or_default()))?;
    }
    let kafka = root.join("kafka").join(VERSION.number());
    fs::create_dir_all(&kafka).with_context(|| format!("create {}", kafka.display()))?;
    for jar in jars {
        nr_bytes += copy_file(jar, &kafka.join(jar.file_name().unwrap_or_default()))?;
    }
    // Says that the version is whole.
    fs::write(kafka.join("complete"), "").context("mark the jars as complete")?;
    let image = part.join("image");
    let size_kib = (nr_bytes / 1024 * 11 / 10) + (24 << 10);
    let mkfs = find_program("mkfs.ext4").context("find mkfs.ext4: not on the search path")?;
    run(Command::new(mkfs)
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-b",
            "4096",
            "-O",
            "^has_journal",
            "-d",
        ])
        .args([&root, &image])
        .arg(format!("{size_kib}k")))
    .context("make the broker's disk")?;
    Ok(image)
}

/// All that the loader would load for the JVM, outside of it.
fn libraries(home: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for name in LOADED {
        let file = home.join(name);
        if file.exists() {
            let said = output(Command::new("ldd").arg(&file))?;
            all.extend(parse_ldd(&said).filter(|path| !path.starts_with(home)));
        }
    }
    if all.is_empty() {
        bail!("ldd names no library of {}", home.display());
    }
    Ok(all)
}

/// `libz.so.1 => /lib/libz.so.1 (0x7f…)`, and the loader without an arrow. What is
/// not found is a library of the JVM, which knows where it is.
fn parse_ldd(said: &str) -> impl Iterator<Item = PathBuf> {
    said.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        let (path, _) = path.split_once(" (0x")?;
        path.starts_with('/').then(|| PathBuf::from(path))
    })
}

/// Copies a folder with what its links lead to. Out: bytes, in whole blocks.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<u64> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let mut nr_bytes = 0;
    let what = || format!("list {}", from.display());
    for entry in fs::read_dir(from).with_context(what)? {
        let name = entry.with_context(what)?.file_name();
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let (from, to) = (from.join(&name), to.join(&name));
        match fs::metadata(&from) {
            Ok(meta) if meta.is_dir() => nr_bytes += copy_tree(&from, &to)?,
            Ok(_) => nr_bytes += copy_file(&from, &to)?,
            // A link to what another package would bring.
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err).with_context(|| format!("read {}", from.display())),
        }
    }
    Ok(nr_bytes)
}

fn copy_file(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let copied = fs::copy(from, to)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(copied.next_multiple_of(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibjvm.so => not found\n\
                    \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f01)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f02)\n";
        let found: Vec<PathBuf> = parse_ldd(said).collect();
        let wanted = [
            "/lib/x86_64-linux-gnu/libz.so.1",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, wanted.map(PathBuf::from));
    }

    #[test]
    fn a_folder_is_copied_with_what_its_links_lead_to() {
        let base = std::env::temp_dir().join(format!("fsyncscope-broker-{}", std::process::id()));
        let from = base.join("from");
        fs::create_dir_all(from.join("lib")).unwrap();
        fs::create_dir_all(from.join("jmods")).unwrap();
        fs::write(base.join("security"), "policy").unwrap();
        std::os::unix::fs::symlink(base.join("security"), from.join("lib/policy")).unwrap();
        std::os::unix::fs::symlink(base.join("nowhere"), from.join("lib/gone")).unwrap();
        let nr_bytes = copy_tree(&from, &base.join("to")).unwrap();
        let copied = fs::read_to_string(base.join("to/lib/policy")).unwrap();
        let others = ["jmods", "lib/gone"].map(|name| base.join("to").join(name).exists());
        fs::remove_dir_all(&base).unwrap();
        assert_eq!((nr_bytes, &*copied, others), (4096, "policy", [false; 2]));
    }
}
