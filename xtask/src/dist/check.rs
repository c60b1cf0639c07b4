//! Proves that a release is the same wherever it is made. In: a release that has
//! just been made. Out: what is not the same when a clone of the last commit makes
//! it again, in another folder with another target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{files, remove};
use crate::arch::Arch;
use crate::process::{cargo, output, repository, run, say};
use crate::setup;

/// An error if the checkout holds what a clone of it would not.
pub fn commit_is_all() -> anyhow::Result<()> {
    let mut git = Command::new("git");
    git.args(["status", "--porcelain"])
        .current_dir(repository());
    let changed = output(&mut git).context("ask git what is not committed")?;
    if let Some(first) = changed.lines().next() {
        let name = first.get(3..).unwrap_or(first);
        bail!(
            "compare with a clone: {} changed, not committed: {name}{}",
            changed.lines().count(),
            if changed.lines().count() > 1 {
                ", …"
            } else {
                ""
            }
        );
    }
    Ok(())
}

/// Makes the release again elsewhere. Out: what is not the same.
pub fn again(first: &Path, archs: &[Arch]) -> anyhow::Result<Vec<String>> {
    let cache = setup::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock_path = cache.join("dist-check.lock");
    let lock =
        File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    lock.lock()
        .with_context(|| format!("lock {}", lock_path.display()))?;
    let scratch = Scratch::new(cache.join("dist-check"))?;
    let clone = scratch.path().join("some/other/checkout");
    let second = scratch.path().join("release");

    say(format!(
        "making it again from a clone in {}; as long as a first build",
        clone.display()
    ));
    run(Command::new("git")
        .args(["clone", "--quiet", "--no-hardlinks"])
        .arg(repository())
        .arg(&clone))?;
    let mut command = cargo();
    command
        .current_dir(&clone)
        .args(["run", "--quiet", "--package", "xtask", "--", "dist"])
        .args(archs.iter().flat_map(|arch| ["--arch", arch.name()]))
        .arg("--out")
        .arg(&second)
        .env("CARGO_TARGET_DIR", scratch.path().join("built"));
    run(&mut command).context("make the release again")?;

    let broken = differences(first, &second)?;
    if broken.is_empty() {
        say(format!(
            "the same bytes twice: {} files",
            files(first)?.len()
        ));
    }
    Ok(broken)
}

/// What two folders do not have in common.
fn differences(first: &Path, second: &Path) -> anyhow::Result<Vec<String>> {
    let (names, others) = (files(first)?, files(second)?);
    let mut found = Vec::new();
    for name in others.iter().filter(|name| !names.contains(name)) {
        found.push(format!("{name}: made only the second time"));
    }
    for name in &names {
        if !others.contains(name) {
            found.push(format!("{name}: made only the first time"));
            continue;
        }
        let read = |folder: &Path| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let (a, b) = (read(first)?, read(second)?);
        if let Some(at) = first_difference(&a, &b) {
            found.push(format!(
                "{name}: not the same twice, from byte {at} on ({} and {} bytes)",
                a.len(),
                b.len()
            ));
        }
    }
    Ok(found)
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let common = a.iter().zip(b).position(|(a, b)| a != b);
    common.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))
}

/// An empty folder that goes when this does, or at the next run.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, without what a run that was stopped has left.
    pub fn new(path: PathBuf) -> anyhow::Result<Self> {
        remove(&path)?;
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(err) = remove(&self.0) {
            say(format!("{err:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_a_length_and_a_missing_file_are_differences() {
        let name = format!("fsyncscope-dist-compared-{}", std::process::id());
        let scratch = Scratch::new(std::env::temp_dir().join(name)).unwrap();
        let [a, b] = ["a", "b"].map(|name| scratch.path().join(name));
        for (folder, same, byte, length) in [(&a, "x", "one", "ab"), (&b, "x", "onE", "abc")] {
            fs::create_dir_all(folder.join("man")).unwrap();
            fs::write(folder.join("man/same"), same).unwrap();
            fs::write(folder.join("byte"), byte).unwrap();
            fs::write(folder.join("length"), length).unwrap();
        }
        fs::write(a.join("man/first"), "").unwrap();
        fs::write(b.join("man/second"), "").unwrap();
        assert_eq!(
            differences(&a, &b).unwrap(),
            [
                "man/second: made only the second time",
                "byte: not the same twice, from byte 2 on (3 and 3 bytes)",
                "length: not the same twice, from byte 2 on (2 and 3 bytes)",
                "man/first: made only the first time",
            ]
        );
        assert!(differences(&a, &a).unwrap().is_empty());
    }
}
