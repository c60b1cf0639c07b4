//! What can be typed after `cargo xtask`. Only shapes and help texts; what the
//! commands do is in the module of the same name.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds, tests, demonstrates and measures fsyncscope.
///
/// Every command installs what it needs and says what and why: the pinned
/// nightly and bpf-linker for the kernel side (once, about a minute, kept in
/// $FSYNCSCOPE_CACHE or ~/.cache/fsyncscope) and, as root on Debian, packages
/// whose programs are missing. Progress goes to stderr, results to stdout.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install everything that any command needs, now
    Setup,
    /// Build the agent, a static binary with its kernel programs inside
    Build(BuildArgs),
    /// Run the rings of tests and print their counts
    Test(TestArgs),
    /// Measure what the agent costs, beside its peers, as root
    Bench(BenchArgs),
    /// Check the rules of the house: formats, lints, file sizes, headers
    Tidy(TidyArgs),
}

/// Of `build`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the path of the binary. It runs on any kernel with BTF and needs none
of the toolchains that built it:

  cp $(cargo xtask build --release) /usr/local/bin/")]
pub struct BuildArgs {
    /// Optimised, as it is shipped
    #[arg(long)]
    pub release: bool,
}

/// One ring of tests, by where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ring {
    /// Beside the code; no root, no nightly
    Unit,
    /// Recorded streams give the exact expected report; no root, no nightly
    Replay,
    /// Root on this machine: real eBPF, real ext4, a disk that fails on demand
    Live,
    /// The same in a VM per kernel; comes with the VM matrix, not there yet
    Kernels,
}

/// Of `test`.
#[derive(Debug, Args)]
#[command(after_help = "\
The last line is `N passed, N failed` over all rings.
Exit codes: 0 all passed, 1 a test failed, 2 the tests could not be run.

  cargo xtask test                       all that this machine can run
  cargo xtask test --ring unit,replay    as an ordinary user")]
pub struct TestArgs {
    /// The rings to run [default: all that this machine can run]
    #[arg(long, value_delimiter = ',', value_name = "RING")]
    pub ring: Vec<Ring>,
    /// Only tests whose name contains this
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
}

/// Of `tidy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Changes nothing. Exit codes: 0 tidy, 1 not, 2 could not check.")]
pub struct TidyArgs {
    /// Only the checks on text; no rustfmt, no clippy
    #[arg(long)]
    pub text_only: bool,
}

/// Of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Same load for everybody, interleaved rounds, medians; the disk is a file in
tmpfs. Writes docs/BENCHMARKS.md. Takes some ten minutes; run nothing beside it.

  cargo xtask bench --quick       two short rounds, printed only
  cargo xtask bench --peers-only  without the agent")]
pub struct BenchArgs {
    /// Two rounds of two seconds; docs/BENCHMARKS.md is left alone
    #[arg(long)]
    pub quick: bool,
    /// How many rounds [default: 5, with --quick 2]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Only biolatency, bpftrace and the empty programs; the agent is not built
    #[arg(long)]
    pub peers_only: bool,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rings_come_as_a_list_or_repeated() {
        for line in [
            &["xtask", "test", "--ring", "unit,live"][..],
            &["xtask", "test", "--ring", "unit", "--ring", "live"][..],
        ] {
            let Command::Test(args) = Cli::parse_from(line).command else {
                panic!("{line:?} is not test");
            };
            assert_eq!(args.ring, [Ring::Unit, Ring::Live]);
        }
    }
}
