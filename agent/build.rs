//! Builds the kernel object with the pinned nightly and leaves it in OUT_DIR,
//! only with the feature `embed-ebpf`. `cargo xtask build` installs the tools
//! and puts them on PATH; without them the object is empty and the agent says so
//! when it is to attach, so that a plain `cargo test` needs no nightly.
//!
//! The object names no folder of the machine that built it, and what the kernel
//! does not read (DWARF, three quarters of it) is taken out: the same sources give
//! the same bytes anywhere, whatever the architecture but for the name of one file
//! of aya's in its line table.

fn main() -> anyhow::Result<()> {
    #[cfg(feature = "embed-ebpf")]
    {
        println!("cargo::rerun-if-changed=../ebpf/src");
        println!("cargo::rerun-if-changed=../ebpf/abi/src");
        println!("cargo::rerun-if-env-changed=PATH");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let object = object_path();
        if !std::env::split_paths(&path).any(|folder| folder.join("bpf-linker").is_file()) {
            println!(
                "cargo::warning=bpf-linker is not on PATH: no kernel programs inside; build with `cargo xtask build`"
            );
            std::fs::write(object, [])?;
            return Ok(());
        }
        trim_paths();
        aya_build::build_ebpf(
            [aya_build::Package {
                name: "fsyncscope-ebpf",
                root_dir: "../ebpf",
                ..Default::default()
            }],
            aya_build::Toolchain::Custom(NIGHTLY),
        )?;
        strip(&object)?;
    }
    Ok(())
}

/// Builds the kernel side; xtask installs it.
#[cfg(feature = "embed-ebpf")]
const NIGHTLY: &str = "nightly-2026-07-01";

#[cfg(feature = "embed-ebpf")]
fn object_path() -> std::path::PathBuf {
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::path::Path::new(&out).join("fsyncscope-ebpf")
}

/// Has the nightly cargo that aya-build starts replace the names of folders in the
/// object's BTF. aya-build sets the compiler's flags itself and takes none of ours.
#[cfg(feature = "embed-ebpf")]
fn trim_paths() {
    for (name, value) in [
        ("CARGO_UNSTABLE_TRIM_PATHS", "true"),
        ("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all"),
    ] {
        // SAFETY: this process has one thread, so nobody reads the environment.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Takes out the DWARF; the BTF stays. The nightly brings its own objcopy, which
/// finds its LLVM only if rustup starts it.
#[cfg(feature = "embed-ebpf")]
fn strip(object: &std::path::Path) -> anyhow::Result<()> {
    use anyhow::{Context, ensure};
    use std::process::Command;

    let nightly = |program: &std::path::Path| {
        let mut command = Command::new("rustup");
        command.args(["run", NIGHTLY]).arg(program);
        command
    };
    let sysroot = nightly("rustc".as_ref())
        .args(["--print", "sysroot"])
        .env_remove("RUSTC")
        .output()
        .context("ask rustc for its sysroot")?;
    let objcopy = std::path::Path::new(String::from_utf8_lossy(&sysroot.stdout).trim())
        .join("lib/rustlib")
        .join(std::env::var_os("HOST").unwrap_or_default())
        .join("bin/rust-objcopy");
    let status = nightly(&objcopy)
        .arg("--strip-debug")
        .arg(object)
        .status()
        .with_context(|| format!("run {}", objcopy.display()))?;
    ensure!(status.success(), "{}: {status}", objcopy.display());
    Ok(())
}
