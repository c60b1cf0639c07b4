//! Builds the kernel object with the pinned nightly and leaves it in OUT_DIR,
//! only with the feature `embed-ebpf`. `cargo xtask build` installs the tools.

fn main() -> anyhow::Result<()> {
    #[cfg(feature = "embed-ebpf")]
    {
        println!("cargo::rerun-if-changed=../ebpf/src");
        println!("cargo::rerun-if-changed=../ebpf/abi/src");
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
