//! Builds the kernel object with the pinned nightly and leaves it in OUT_DIR,
//! only with the feature `embed-ebpf`. `cargo xtask build` installs the tools
//! and puts them on PATH; without them the object is empty and the agent says so
//! when it is to attach, so that a plain `cargo test` needs no nightly.

fn main() -> anyhow::Result<()> {
    #[cfg(feature = "embed-ebpf")]
    {
        println!("cargo::rerun-if-changed=../ebpf/src");
        println!("cargo::rerun-if-changed=../ebpf/abi/src");
        println!("cargo::rerun-if-env-changed=PATH");
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join("bpf-linker").is_file()) {
            println!(
                "cargo::warning=bpf-linker is not on PATH: no kernel programs inside; build with `cargo xtask build`"
            );
            let out = std::env::var_os("OUT_DIR").unwrap_or_default();
            std::fs::write(std::path::Path::new(&out).join("fsyncscope-ebpf"), [])?;
            return Ok(());
        }
        aya_build::build_ebpf(
            [aya_build::Package {
                name: "fsyncscope-ebpf",
                root_dir: "../ebpf",
                ..Default::default()
            }],
            aya_build::Toolchain::Custom("nightly-2026-07-01"),
        )?;
    }
    Ok(())
}
