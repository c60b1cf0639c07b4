//! Builds the agent with its kernel programs inside, and the lab's programs, for
//! any architecture that the agent ships for. In: architecture and profile. Out:
//! the paths of the binaries, as cargo reports them (so CARGO_TARGET_DIR is
//! honoured).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::arch::Arch;
use crate::cli::BuildArgs;
use crate::process::{EXIT_NOT_SO, cargo, display, path_with, say};
use crate::remap;
use crate::setup;

/// `cargo xtask build`.
pub fn main(args: &BuildArgs) -> anyhow::Result<u8> {
    let arch = args.arch.unwrap_or(Arch::HOST);
    let Some(mut binaries) = agent(arch, args.release)? else {
        return Ok(EXIT_NOT_SO);
    };
    if args.lab {
        let Some(lab) = lab(arch, args.release)? else {
            return Ok(EXIT_NOT_SO);
        };
        binaries.extend(lab);
    }
    for binary in binaries {
        println!("{}", binary.display());
    }
    Ok(0)
}

/// The agent for this machine, or an error.
pub fn require_agent(release: bool) -> anyhow::Result<PathBuf> {
    require_agent_for(Arch::HOST, release)
}

/// The agent for an architecture, or an error.
pub fn require_agent_for(arch: Arch, release: bool) -> anyhow::Result<PathBuf> {
    let binaries = agent(arch, release)?.context("the agent does not build")?;
    let mut binaries = binaries.into_iter();
    binaries.next().context("cargo built no agent")
}

/// The agent; `None` if cargo said why it does not build.
fn agent(arch: Arch, release: bool) -> anyhow::Result<Option<Vec<PathBuf>>> {
    let tools = setup::kernel_side()?;
    let mut command = cargo();
    command
        .args(["build", "--package", "fsyncscope", "--bin", "fsyncscope"])
        .env("PATH", path_with(&tools)?);
    build(command, "the agent", arch, release)
}

/// The lab's programs: faultdisk, writer, lab; `None` if they do not build.
pub fn lab(arch: Arch, release: bool) -> anyhow::Result<Option<Vec<PathBuf>>> {
    let mut command = cargo();
    command.args(["build", "--package", "fsyncscope-tests", "--bins"]);
    build(command, "the lab", arch, release)
}

/// The init of a virtual machine. It is small, and shipped to nobody: its bytes
/// may depend on this machine.
pub fn guest_init(arch: Arch) -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command.args([
        "build",
        "--package",
        "fsyncscope-tests",
        "--bin",
        "guest-init",
    ]);
    command.args(["--profile", "release"]);
    let binaries = build(command, "the init of the guests", arch, false)?;
    let mut binaries = binaries
        .context("the init of the guests does not build")?
        .into_iter();
    binaries.next().context("cargo built no init")
}

/// Runs cargo; `None` if it said why it does not build.
fn build(
    mut command: Command,
    what: &str,
    arch: Arch,
    release: bool,
) -> anyhow::Result<Option<Vec<PathBuf>>> {
    setup::target_of(arch)?;
    say(format!(
        "building {what} for {} ({})",
        arch.name(),
        if release { "release" } else { "dev" }
    ));
    command
        .args(["--target", arch.target()])
        .args(["--message-format", "json-render-diagnostics"])
        .args(release.then_some("--release"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if release {
        as_released(&mut command)?;
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("run {}", display(&command)))?;
    let stdout = child.stdout.take().context("no pipe from cargo")?;
    let mut binaries = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read cargo's messages")?;
        binaries.extend(parse_executable(&line));
    }
    if !child.wait().context("wait for cargo")?.success() {
        return Ok(None);
    }
    if binaries.is_empty() {
        bail!("cargo built {what} and named no binary");
    }
    Ok(Some(binaries))
}

/// The same bytes wherever it is built: no folder of this machine, none of the
/// user's own settings.
fn as_released(command: &mut Command) -> anyhow::Result<()> {
    for (name, _) in std::env::vars_os() {
        let is_setting = name.to_string_lossy().starts_with("CARGO_PROFILE_RELEASE_");
        if is_setting || name == "RUSTC_BOOTSTRAP" {
            command.env_remove(&name);
        }
    }
    command
        .arg("--locked")
        .env("CARGO_ENCODED_RUSTFLAGS", remap::flags(&remap::folders()?))
        .env("CARGO_INCREMENTAL", "0");
    Ok(())
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
}

/// The path, if this message of cargo's says that a program is built.
fn parse_executable(line: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(line).ok()?;
    let is_built = message.reason == "compiler-artifact";
    is_built.then_some(message.executable).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let built = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"fsyncscope"},"executable":"/t/fsyncscope","fresh":true}"#;
        assert_eq!(parse_executable(built), Some("/t/fsyncscope".into()));
        let library = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"fsyncscope"},"executable":null}"#;
        assert_eq!(parse_executable(library), None);
        assert_eq!(
            parse_executable(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(parse_executable("not json"), None);
    }
}
