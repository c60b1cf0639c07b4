//! The architectures that the agent ships for, and what each is called by whom:
//! the kernel, rustc. Not here: whether its toolchain is installed (`setup`).

use clap::ValueEnum;

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Arch {
    /// Intel and AMD, 64 bits
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// ARM, 64 bits
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Arch {
    /// All that the agent ships for.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// That of this machine.
    #[cfg(target_arch = "x86_64")]
    pub const HOST: Self = Self::X86_64;
    /// That of this machine.
    #[cfg(target_arch = "aarch64")]
    pub const HOST: Self = Self::Aarch64;

    /// As `uname -m` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian names it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// What rustc builds for: static, so that it runs on any distribution.
    pub const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_goes_by_the_kernels_name_and_by_debians() {
        for (typed, arch) in [
            ("x86_64", Arch::X86_64),
            ("amd64", Arch::X86_64),
            ("aarch64", Arch::Aarch64),
            ("arm64", Arch::Aarch64),
        ] {
            assert_eq!(Arch::from_str(typed, false), Ok(arch));
        }
        assert!(Arch::from_str("riscv64", false).is_err());
    }

    #[test]
    fn every_target_is_one_that_the_toolchain_file_installs() {
        let file = crate::process::repository().join("rust-toolchain.toml");
        let text = std::fs::read_to_string(file).unwrap();
        for arch in Arch::ALL {
            assert!(text.contains(&format!("\"{}\"", arch.target())), "{text}");
        }
    }
}
