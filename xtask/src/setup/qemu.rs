//! QEMU, new enough: Debian 12's own version 7.2 crashes guests with newer
//! kernels, so there it is taken from the backports, by apt with lists of its own.
//! In: nothing. Out: both emulators are there, or an error that says what to do.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};

use super::apt::{Need, packages};
use crate::kernels::{mirror, qemu_is_too_old};
use crate::process::{find_program, is_root, output, run, say};

/// Installs it if it is missing or too old.
pub fn qemu() -> anyhow::Result<()> {
    if Need::QEMU.iter().all(|need| is_usable(need.program)) {
        return Ok(());
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if parse_codename(&release) != Some("bookworm") {
        return packages(Need::QEMU);
    }
    let names: Vec<&str> = Need::QEMU.iter().map(|need| need.package).collect();
    let list = names.join(" ");
    if !is_root() {
        bail!(
            "install {list}: not root; as root, from bookworm-backports: apt-get install -t bookworm-backports {list}"
        );
    }
    say(format!(
        "apt-get install -t bookworm-backports {list} (other kernels; version 7.2 crashes newer guests)"
    ));
    let dir = super::cache()?.join("kernels/apt/host");
    fs::create_dir_all(dir.join("lists/partial"))
        .with_context(|| format!("create {}", dir.display()))?;
    // Beside the machine's own sources, which are not changed.
    let mut sources = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    sources.push_str(&format!("\ndeb {} bookworm-backports main\n", mirror()?));
    let list_path = dir.join("sources.list");
    fs::write(&list_path, sources).with_context(|| format!("write {}", list_path.display()))?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command
            .arg("-qq")
            .args([
                "-o",
                &format!("Dir::State::lists={}", dir.join("lists").display()),
            ])
            .args([
                "-o",
                &format!("Dir::Etc::sourcelist={}", list_path.display()),
            ])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1");
        command
    };
    run(apt().arg("update")).context("update the package lists (is the network reachable?)")?;
    run(apt()
        .args([
            "install",
            "-y",
            "--no-install-recommends",
            "-t",
            "bookworm-backports",
        ])
        .args(&names))
    .with_context(|| format!("install {list}"))
}

fn is_usable(program: &str) -> bool {
    find_program(program).is_some_and(|path| {
        let said = output(Command::new(path).arg("--version"));
        said.is_ok_and(|said| !qemu_is_too_old(&said))
    })
}

fn parse_codename(os_release: &str) -> Option<&str> {
    let line = |line: &str| line.starts_with("VERSION_CODENAME=");
    let line = os_release.lines().find(|text| line(text))?;
    Some(line["VERSION_CODENAME=".len()..].trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_known_by_its_codename() {
        let text = "ID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(parse_codename(text), Some("bookworm"));
        assert_eq!(parse_codename("ID=x\n"), None);
    }
}
