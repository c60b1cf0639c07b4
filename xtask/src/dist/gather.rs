//! Asks cargo, rustc and git for what a bill of materials says. In: a binary. Out:
//! its bill. Not here: how their answers are read (`crates`), how it is written
//! down (`sbom`).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::crates::{self, Crates, Id};
use super::sbom;
use crate::arch::Arch;
use crate::process::{cargo, cargo_tool, output, repository, sha256_of};

/// The bill of materials of a binary.
pub fn bill(arch: Arch, binary: &Path, timestamp: Option<String>) -> anyhow::Result<String> {
    let mut crates = Crates::new();
    let agent = |kinds| ["--package", "fsyncscope", "--edges", kinds];
    tree(&mut crates, agent("normal,build"), arch.target(), false)?;
    let root = tree(&mut crates, agent("normal"), arch.target(), true)?;
    let kernel_side = ["--package", "fsyncscope-ebpf", "--edges", "normal"];
    let object = tree(&mut crates, kernel_side, "bpfel-unknown-none", true)?;
    let lock = repository().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    crates::add_checksums(&mut crates, &lock);

    let sha256 = sha256_of(binary)?;
    let version = output(cargo_tool("rustc").arg("--version"))?;
    let binary = sbom::Binary {
        root: &root,
        object: &object,
        sha256: &sha256,
        target: arch.target(),
        std_version: version.split(' ').nth(1).unwrap_or_default(),
        timestamp,
    };
    Ok(sbom::render(&binary, &crates))
}

fn tree(
    crates: &mut Crates,
    selection: [&str; 4],
    target: &str,
    is_shipped: bool,
) -> anyhow::Result<Id> {
    let mut command = cargo();
    command
        .args(["tree", "--quiet", "--locked", "--color", "never"])
        .args(["--target", target])
        .args(selection)
        .args(crates::TREE_FORMAT);
    crates::add_tree(crates, &output(&mut command)?, is_shipped)
}

/// When the sources were made, RFC 3339; none if neither SOURCE_DATE_EPOCH nor git
/// knows.
pub fn timestamp() -> anyhow::Result<Option<String>> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds,
        Err(_) => {
            let mut git = Command::new("git");
            git.args(["log", "-1", "--format=%ct"])
                .current_dir(repository());
            let Ok(seconds) = output(&mut git) else {
                return Ok(None);
            };
            seconds
        }
    };
    parse_epoch(&seconds).map(Some)
}

fn parse_epoch(seconds: &str) -> anyhow::Result<String> {
    let seconds = seconds.trim();
    seconds
        .parse()
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|time| time.to_string())
        .with_context(|| format!("SOURCE_DATE_EPOCH: '{seconds}' is no number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_commit_is_told_in_utc() {
        assert_eq!(parse_epoch("1764039600\n").unwrap(), "2025-11-25T03:00:00Z");
        assert!(parse_epoch("yesterday").is_err());
    }
}
