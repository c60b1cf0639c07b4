//! Debian packages, each only if a program that a command starts is missing.
//! In: needs. Out: the programs are there, or an error that says which package
//! to install by hand. Not here: libraries; nothing we build links to one.

use std::process::Command;

use anyhow::{Context, bail};

use crate::process::{find_program, is_root, run, say};

/// A program, the package that has it, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// What is started.
    pub program: &'static str,
    /// Debian's name.
    pub package: &'static str,
    /// The reason told to the user.
    pub why: &'static str,
}

const fn need(program: &'static str, package: &'static str, why: &'static str) -> Need {
    Need {
        program,
        package,
        why,
    }
}

const LOSETUP: Need = need("losetup", "mount", "loop devices of the lab");
const MKFS_EXT4: Need = need("mkfs.ext4", "e2fsprogs", "file systems of the lab");
const MKFS_XFS: Need = need("mkfs.xfs", "xfsprogs", "file systems of the lab");
const JAVA: Need = need("java", "default-jdk-headless", "real brokers");
const MVN: Need = need("mvn", "maven", "the broker's jars from Maven Central");
const PROMTOOL: Need = need("promtool", "prometheus", "checks what export serves");
const FIO: Need = need("fio", "fio", "load of the bench and of a demo");
const BIOLATENCY: Need = need("biolatency", "libbpf-tools", "peer of the bench");
const BPFTRACE: Need = need("bpftrace", "bpftrace", "peer of the bench");
const QEMU_X86: Need = need("qemu-system-x86_64", "qemu-system-x86", "other kernels");
const QEMU_ARM: Need = need("qemu-system-aarch64", "qemu-system-arm", "other kernels");
const XZ: Need = need("xz", "xz-utils", "modules of other kernels");
const ZSTD: Need = need("zstd", "zstd", "modules of other kernels");
const BPFTOOL: Need = need("bpftool", "bpftool", "run time of BPF programs");

impl Need {
    /// Of any command.
    pub const ALL: &[Need] = &[
        LOSETUP, MKFS_EXT4, MKFS_XFS, JAVA, MVN, PROMTOOL, FIO, BIOLATENCY, BPFTRACE, BPFTOOL, XZ,
        ZSTD,
    ];
    /// Of other kernels, beside QEMU, which has rules of its own.
    pub const KERNELS: &[Need] = &[MKFS_EXT4, MKFS_XFS, XZ, ZSTD];
    /// QEMU.
    pub const QEMU: &[Need] = &[QEMU_X86, QEMU_ARM];
    /// Of the live ring.
    pub const LIVE: &[Need] = &[LOSETUP, MKFS_EXT4, MKFS_XFS, JAVA, MVN, PROMTOOL];
    /// Of the bench.
    pub const BENCH: &[Need] = &[LOSETUP, MKFS_EXT4, FIO, BIOLATENCY, BPFTRACE, BPFTOOL];
    /// Of the demo with a real broker.
    pub const DEMO: &[Need] = &[LOSETUP, MKFS_EXT4, JAVA, MVN];
    /// Of the demo in which nothing fails.
    pub const DEMO_HEALTHY: &[Need] = &[LOSETUP, MKFS_EXT4, JAVA, MVN, PROMTOOL];
    /// Of the demo with another process on the disk.
    pub const DEMO_NEIGHBOUR: &[Need] = &[LOSETUP, MKFS_EXT4, JAVA, MVN, FIO];
    /// Of the campaign against known truth.
    pub const TRUTH: &[Need] = &[LOSETUP, MKFS_EXT4, MKFS_XFS];
    /// Of the demo with the built-in writer.
    pub const DEMO_WRITER: &[Need] = &[LOSETUP, MKFS_EXT4];
}

/// Installs what is missing.
pub fn packages(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<Need> = missing(needs, |program| find_program(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let list = names.join(" ");
    for need in &missing {
        say(format!(
            "{} is missing: {} ({})",
            need.program, need.package, need.why
        ));
    }
    if !is_root() {
        bail!("install {list}: not root; as root: apt-get install {list}");
    }
    if find_program("apt-get").is_none() {
        bail!(
            "install {list}: no apt-get here; install what has {}",
            programs(&missing)
        );
    }
    say(format!("apt-get install {list}"));
    run(apt().arg("update")).context("update the package lists (is the network reachable?)")?;
    run(apt()
        .args(["install", "-y", "--no-install-recommends"])
        .args(&names))
    .with_context(|| format!("install {list}"))?;
    let still: Vec<Need> = self::missing(needs, |program| find_program(program).is_some());
    if !still.is_empty() {
        bail!(
            "installed {list}, and still there is no {}",
            programs(&still)
        );
    }
    Ok(())
}

/// RUNLEVEL=1 keeps a package's daemon from being started (prometheus has one
/// and we want its promtool only).
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("-q")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    command
}

fn missing(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Vec<Need> {
    needs
        .iter()
        .filter(|need| !is_there(need.program))
        .copied()
        .collect()
}

fn programs(needs: &[Need]) -> String {
    let names: Vec<&str> = needs.iter().map(|need| need.program).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_programs_ask_for_their_package() {
        let asked = missing(Need::BENCH, |program| {
            program != "fio" && program != "bpftool"
        });
        let packages: Vec<&str> = asked.iter().map(|need| need.package).collect();
        assert_eq!(packages, ["fio", "bpftool"]);
    }

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        packages(&[need("sh", "no-such-package", "never asked for")]).unwrap();
    }
}
