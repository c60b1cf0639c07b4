//! Sums of packages for a machine without the archive's keys: recorded where apt had
//! checked the archive's signature, and held against what is fetched where it cannot.
//! In: tests/KERNELS.sha256, files. Out: whether they are the same.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::process::{repository, sha256_of};

/// A package with the sum of its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum {
    /// `linux-image-6.12.95+deb13-cloud-amd64`.
    pub package: String,
    /// SHA-256 of the `.deb`, in hex.
    pub sha256: String,
}

/// Where they are recorded.
pub fn path() -> PathBuf {
    repository().join("tests/KERNELS.sha256")
}

/// A sum and a package a line; `#` begins a comment.
pub fn parse(text: &str) -> anyhow::Result<Vec<Sum>> {
    let mut sums = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            [sha256, package] if is_sum(sha256) => sums.push(Sum {
                package: package.to_owned(),
                sha256: sha256.to_owned(),
            }),
            _ => bail!("tests/KERNELS.sha256:{}: not `SHA256 PACKAGE`", index + 1),
        }
    }
    Ok(sums)
}

fn is_sum(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// As `parse` reads it.
pub fn render(sums: &[Sum]) -> String {
    let mut sums = sums.to_vec();
    sums.sort();
    sums.dedup();
    let lines: String = sums
        .iter()
        .map(|sum| format!("{}  {}\n", sum.sha256, sum.package))
        .collect();
    format!(
        "# Packages of the kernels in tests/KERNELS, for machines without the archive's\n\
         # keys. Written by `cargo xtask kernels --record-sums` on one that has them.\n{lines}"
    )
}

/// The sum in what `apt-cache show` prints of a package.
pub fn of_index(package: &str, shown: &str) -> anyhow::Result<Sum> {
    let line = shown.lines().find_map(|line| line.strip_prefix("SHA256:"));
    let sha256 = line.map(str::trim).filter(|sum| is_sum(sum));
    Ok(Sum {
        package: package.to_owned(),
        sha256: sha256
            .with_context(|| format!("the archive's index has no SHA-256 of {package}"))?
            .to_owned(),
    })
}

/// Fails unless the file of `package` is one that was recorded.
pub fn require(recorded: &[Sum], package: &str, file: &Path) -> anyhow::Result<()> {
    let found = Sum {
        package: package.to_owned(),
        sha256: sha256_of(file)?,
    };
    if recorded.contains(&found) {
        return Ok(());
    }
    let is_known = recorded.iter().any(|sum| sum.package == package);
    let why = match is_known {
        true => "it is not the file that was recorded",
        false => "it is not among those recorded",
    };
    bail!(
        "verify {}: no keys of the archive are installed, and {why} in tests/KERNELS.sha256 \
         (SHA-256 {}); install debian-archive-keyring",
        file.display(),
        found.sha256
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_sums_of_the_tree_are_well_formed() {
        let text = fs::read_to_string(path()).unwrap();
        let sums = parse(&text).unwrap();
        assert!(!sums.is_empty());
        assert_eq!(render(&sums), text);
    }

    #[test]
    fn only_what_was_recorded_is_good() {
        let file = std::env::temp_dir().join(format!("fsyncscope-sums-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        let shown = format!("Package: linux-x\nSHA256: {EMPTY}\nSize: 0\n");
        let recorded = [of_index("linux-x", &shown).unwrap()];
        require(&recorded, "linux-x", &file).unwrap();
        let other = require(&recorded, "linux-y", &file).unwrap_err();
        assert!(other.to_string().contains("not among those"), "{other}");
        fs::write(&file, "x").unwrap();
        let changed = require(&recorded, "linux-x", &file).unwrap_err();
        assert!(changed.to_string().contains("not the file"), "{changed}");
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_bad_line_is_named() {
        let err = parse("# x\nabc linux-x\n").unwrap_err();
        assert!(
            err.to_string().starts_with("tests/KERNELS.sha256:2"),
            "{err}"
        );
        assert!(of_index("linux-x", "Package: linux-x\n").is_err());
    }
}
