//! What is released: static binaries, checksums, bills of materials, man pages and
//! completions. In: the sources. Out: a folder, made beside its place and moved
//! there when whole. Not here: how the agent is built (`build`), what keeps folders
//! out of it (`remap`).

mod check;
mod crates;
mod elf;
mod gather;
mod promises;
mod sbom;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::arch::Arch;
use crate::build;
use crate::cli::DistArgs;
use crate::process::{EXIT_NOT_SO, cargo, output, repository, run, say};
use crate::remap;

/// By this file a folder is known as one of ours.
const SUMS: &str = "SHA256SUMS";
/// Must lie beside each copy.
const LICENSES: [&str; 3] = ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT"];

/// `cargo xtask dist`.
pub fn main(args: &DistArgs) -> anyhow::Result<u8> {
    let out = match &args.out {
        Some(out) => std::path::absolute(out)
            .with_context(|| format!("find the folder {}", out.display()))?,
        None => remap::target_folder()?.join("dist"),
    };
    let archs = if args.arch.is_empty() {
        Arch::ALL.to_vec()
    } else {
        args.arch.clone()
    };
    if args.check {
        check::commit_is_all()?;
    }
    let mut broken = make(&out, &archs)?;
    print!("{}", listing(&out)?);
    if args.check {
        broken.extend(check::again(&out, &archs)?);
    }
    for what in &broken {
        eprintln!("error: {what}");
    }
    println!("{}", out.display());
    Ok(if broken.is_empty() { 0 } else { EXIT_NOT_SO })
}

/// Makes the folder. Out: the promises that it breaks.
fn make(out: &Path, archs: &[Arch]) -> anyhow::Result<Vec<String>> {
    if !is_replaceable(out)? {
        bail!(
            "write to {}: it is there and is no release; name another folder with --out",
            out.display()
        );
    }
    let mut name = out.file_name().context("--out has no name")?.to_owned();
    name.push(".partial");
    // Removed at an error; after a success it is not there any more.
    let scratch = check::Scratch::new(out.with_file_name(name))?;
    let partial = scratch.path();

    let timestamp = gather::timestamp()?;
    let mut broken = Vec::new();
    for &arch in archs {
        let name = format!("fsyncscope-{}", arch.name());
        let built = build::require_agent_for(arch, true)?;
        let binary = partial.join(&name);
        copy(&built, &binary)?;
        broken.extend(promises::broken(&name, arch, &binary)?);
        let bill = gather::bill(arch, &binary, timestamp.clone())?;
        write(&partial.join(format!("{name}.cdx.json")), &bill)?;
    }
    pages(partial)?;
    for name in LICENSES {
        copy(&repository().join(name), &partial.join(name))?;
    }
    let names = files(partial)?;
    let sums = output(
        Command::new("sha256sum")
            .arg("--")
            .args(&names)
            .current_dir(partial),
    )?;
    write(&partial.join(SUMS), &sums)?;

    remove(out)?;
    fs::rename(partial, out)
        .with_context(|| format!("rename {} to {}", partial.display(), out.display()))?;
    Ok(broken)
}

/// True if nothing that is not ours is lost by writing there.
fn is_replaceable(out: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(out) {
        Ok(mut entries) => Ok(out.join(SUMS).is_file() || entries.next().is_none()),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(err) => Err(err).with_context(|| format!("read {}", out.display())),
    }
}

/// Man pages and completions, by the agent's own definition of its command line.
fn pages(folder: &Path) -> anyhow::Result<()> {
    say("writing the man pages and completions");
    let mut command = cargo();
    command
        .args(["run", "--quiet", "--locked", "--package", "fsyncscope"])
        .args(["--no-default-features", "--example", "pages", "--"])
        .arg(folder);
    run(&mut command).context("write the man pages and completions")
}

/// Sizes and names.
fn listing(out: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for name in files(out)? {
        let path = out.join(&name);
        let meta = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        text.push_str(&format!("{:>10}  {name}\n", meta.len()));
    }
    Ok(text)
}

/// The names of all files in a folder and below, in order.
fn files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut next = vec![folder.to_path_buf()];
    while let Some(folder) = next.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                next.push(path);
            } else {
                found.push(path);
            }
        }
    }
    let mut names: Vec<String> = found
        .iter()
        .filter_map(|path| Some(path.strip_prefix(folder).ok()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_release_or_an_empty_folder_is_replaced() {
        let folder = check::Scratch::new(
            std::env::temp_dir().join(format!("fsyncscope-dist-replaced-{}", std::process::id())),
        )
        .unwrap();
        let path = folder.path();
        assert!(is_replaceable(&path.join("none")).unwrap());
        assert!(is_replaceable(path).unwrap());
        write(&path.join("thesis.tex"), "").unwrap();
        assert!(!is_replaceable(path).unwrap());
        write(&path.join(SUMS), "").unwrap();
        assert!(is_replaceable(path).unwrap());
        assert!(is_replaceable(&path.join(SUMS)).is_err());
    }
}
