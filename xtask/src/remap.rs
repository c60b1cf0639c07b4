//! Keeps the names of this machine's folders out of what is released, so that two
//! builds in two places give the same bytes. In: where the checkout, cargo's
//! crates, the toolchain and the target folder are. Out: flags for rustc. The
//! kernel object has its own (agent/build.rs).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::process::{cargo, cargo_tool, output, repository};

/// A folder, and what it is called instead.
pub type Renamed = (PathBuf, String);

/// What must not be named in a released file. Fetches the crates first: the
/// folder they lie in is named after the registry that they came from.
pub fn folders() -> anyhow::Result<Vec<Renamed>> {
    output(cargo().args(["fetch", "--locked"]))
        .context("fetch the crates (is the network reachable?)")?;
    let mut folders = vec![(repository(), "/fsyncscope".to_owned())];
    // After the checkout, since it is often inside, and rustc takes the last match.
    folders.push((target_folder()?, "/target".to_owned()));
    let sources = cargo_home()?.join("registry/src");
    for entry in fs::read_dir(&sources).with_context(|| format!("read {}", sources.display()))? {
        folders.push((entry?.path(), "/crates".to_owned()));
    }
    let sysroot = output(cargo_tool("rustc").args(["--print", "sysroot"]))?;
    let version = output(cargo_tool("rustc").arg("-vV"))?;
    let hash = parse_commit_hash(&version).context("rustc -vV names no commit")?;
    // As the standard library comes compiled, with rust-src installed or not.
    folders.push((
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust"),
        format!("/rustc/{hash}"),
    ));
    Ok(folders)
}

/// For CARGO_ENCODED_RUSTFLAGS.
pub fn flags(folders: &[Renamed]) -> OsString {
    let mut flags = OsString::new();
    for (folder, name) in folders {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        flags.push("--remap-path-prefix=");
        flags.push(folder);
        flags.push("=");
        flags.push(name);
    }
    flags
}

/// Where cargo builds, as it says itself.
pub fn target_folder() -> anyhow::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("read cargo metadata")?;
    Ok(metadata.target_directory)
}

/// Where cargo keeps its crates.
pub fn cargo_home() -> anyhow::Result<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

fn parse_commit_hash(version: &str) -> Option<&str> {
    version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_folder_names_a_file_so_the_inner_one_comes_last() {
        let folders = [
            (PathBuf::from("/home/me/src"), "/fsyncscope".to_owned()),
            (PathBuf::from("/home/me/src/target"), "/target".to_owned()),
        ];
        assert_eq!(
            flags(&folders),
            "--remap-path-prefix=/home/me/src=/fsyncscope\x1f\
             --remap-path-prefix=/home/me/src/target=/target"
        );
    }

    #[test]
    fn the_compilers_commit_is_read() {
        let version = "rustc 1.98.0\nbinary: rustc\ncommit-hash: 88d9\nhost: x\n";
        assert_eq!(parse_commit_hash(version), Some("88d9"));
        assert_eq!(parse_commit_hash("rustc 1.98.0\n"), None);
    }
}
