//! Toolchains by rustup, and bpf-linker by cargo into the cache.
//!
//! The agent is built by the stable toolchain of rust-toolchain.toml for the
//! musl target of an architecture. Its kernel programs need a nightly (`-Z build-std`) and
//! a bpf-linker that uses that very nightly's LLVM: the three versions below
//! belong together.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::arch::Arch;
use crate::process::{cargo_tool, clean_cargo_env, find_program, output, run, say};

/// Builds the kernel side.
const NIGHTLY: &str = "nightly-2026-07-01";
/// Links it; 0.11 and later want an LLVM that no nightly has yet.
const BPF_LINKER: &str = "0.10.3";
/// The LLVM of `NIGHTLY`.
const BPF_LINKER_FEATURE: &str = "rust-llvm-22";

/// The pinned stable toolchain with its musl targets. It runs us, so it is
/// there; a target may be missing if it was installed by hand.
pub fn target_of(arch: Arch) -> anyhow::Result<()> {
    if stable_has(arch)? {
        return Ok(());
    }
    let target = arch.target();
    say(format!(
        "rustup target add {target} (the agent is a static binary)"
    ));
    run(rustup()?.args(["target", "add", target]))
        .with_context(|| format!("install the target {target} (is the network reachable?)"))
}

fn stable_has(arch: Arch) -> anyhow::Result<bool> {
    let root = output(cargo_tool("rustc").args(["--print", "sysroot"]))?;
    let target = Path::new(root.trim())
        .join("lib/rustlib")
        .join(arch.target());
    Ok(target.join("lib").is_dir())
}

/// The nightly and bpf-linker. Out: the folder to put on PATH.
pub fn kernel_side() -> anyhow::Result<PathBuf> {
    let tools = super::cache()?.join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
    // Two commands at once must not install the same thing twice.
    let lock_path = tools.join(".lock");
    let lock =
        File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    lock.lock()
        .with_context(|| format!("lock {}", lock_path.display()))?;
    nightly()?;
    bpf_linker(&tools)?;
    Ok(tools.join("bin"))
}

fn nightly() -> anyhow::Result<()> {
    if nightly_is_whole() {
        return Ok(());
    }
    say(format!(
        "rustup toolchain install {NIGHTLY} with rust-src (the kernel programs are built with it)"
    ));
    run(rustup()?.args([
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "-c",
        "rust-src",
        "--no-self-update",
    ]))
    .with_context(|| format!("install {NIGHTLY} (is the network reachable?)"))?;
    if !nightly_is_whole() {
        bail!("installed {NIGHTLY}, and still it has no rust-src");
    }
    Ok(())
}

fn nightly_is_whole() -> bool {
    let Ok(mut rustup) = rustup() else {
        return false;
    };
    let root = output(rustup.args(["run", NIGHTLY, "rustc", "--print", "sysroot"]));
    root.is_ok_and(|root| {
        Path::new(root.trim())
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .is_file()
    })
}

fn bpf_linker(tools: &Path) -> anyhow::Result<()> {
    let marker = tools.join("bpf-linker.version");
    let wanted = format!("{BPF_LINKER} {BPF_LINKER_FEATURE} {NIGHTLY}\n");
    let binary = tools.join("bin/bpf-linker");
    let is_wanted = fs::read_to_string(&marker).is_ok_and(|found| found == wanted);
    if is_wanted && output(Command::new(&binary).arg("--version")).is_ok() {
        return Ok(());
    }
    say(format!(
        "cargo install bpf-linker {BPF_LINKER} into {} (links the kernel programs; about a minute)",
        tools.display()
    ));
    let mut install = rustup()?;
    install
        .args([
            "run",
            NIGHTLY,
            "cargo",
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            BPF_LINKER_FEATURE,
            "--root",
        ])
        .arg(tools)
        // Not in the checkout: its rust-toolchain.toml and .cargo are not for this.
        .current_dir(tools)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR");
    run(&mut install).context("install bpf-linker (is the network reachable?)")?;
    output(Command::new(&binary).arg("--version")).context("try the new bpf-linker")?;
    fs::write(&marker, wanted).with_context(|| format!("write {}", marker.display()))
}

/// rustup, without what a running cargo and its rustup have put in the
/// environment for their own toolchain.
fn rustup() -> anyhow::Result<Command> {
    let Some(program) = find_program("rustup") else {
        bail!(
            "no rustup on PATH: the kernel programs need the toolchain {NIGHTLY}; install rustup first"
        );
    };
    let mut command = Command::new(program);
    clean_cargo_env(&mut command);
    for name in ["CARGO", "RUSTC", "RUSTDOC", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command.current_dir(crate::process::repository());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nightly_installed_is_the_one_that_the_agents_build_script_starts() {
        let script = crate::process::repository().join("agent/build.rs");
        let text = fs::read_to_string(script).unwrap();
        assert!(text.contains(&format!("\"{NIGHTLY}\"")), "{text}");
    }
}
