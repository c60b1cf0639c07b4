//! What the commands need and this machine lacks: toolchains, bpf-linker,
//! packages. Each function is fast when its need is met, says what it installs
//! and why, and touches nothing else. Not here: what a command does with it.

mod apt;
mod qemu;
mod toolchain;

pub use apt::{Need, packages};
pub use qemu::qemu;
pub use toolchain::{kernel_side, target_of};

use std::env;
use std::path::PathBuf;

use anyhow::Context;

use crate::arch::Arch;
use crate::process::is_root;

/// The folder for what is fetched or built once: never inside the checkout.
pub fn cache() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(path) = absolute("FSYNCSCOPE_CACHE") {
        return Ok(path);
    }
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .context("no folder for the cache: set FSYNCSCOPE_CACHE to an absolute path")?;
    Ok(base.join("fsyncscope"))
}

/// `cargo xtask setup`.
pub fn all() -> anyhow::Result<()> {
    for arch in Arch::ALL {
        target_of(arch)?;
    }
    kernel_side()?;
    if is_root() {
        packages(Need::ALL)?;
        qemu()?;
    } else {
        crate::process::say(
            "not root: packages are left alone; demo, bench and the live ring need root anyway",
        );
    }
    Ok(())
}
