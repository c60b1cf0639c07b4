//! What can be typed after `cargo xtask`. Only shapes and help texts; what the
//! commands do is in the module of the same name.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::guest::fault::Fault;

use crate::arch::Arch;

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
    /// Make a real broker's disk fail and see whether the tool names the cause, as root
    Demo(DemoArgs),
    /// Hold what the agent says of hundreds of drawn faults against what happened, as root
    Truth(TruthArgs),
    /// Run the agent on every kernel, in virtual machines whose disks fail, as root
    Kernels(KernelsArgs),
    /// Measure what the agent costs, beside its peers, as root
    Bench(BenchArgs),
    /// Make what is released: static binaries, checksums, bills of materials, man pages
    Dist(DistArgs),
    /// Check the rules of the house: formats, lints, file sizes, headers
    Tidy(TidyArgs),
}

/// Of `build`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the path of the binary. It runs on any kernel with BTF and needs none
of the toolchains that built it:

  cp $(cargo xtask build --release) /usr/local/bin/
  cargo xtask build --release --arch aarch64")]
pub struct BuildArgs {
    /// What it shall run on [default: this machine's architecture]
    #[arg(long, value_enum, value_name = "ARCH")]
    pub arch: Option<Arch>,
    /// Build the lab's programs too: faultdisk, writer, lab
    #[arg(long)]
    pub lab: bool,
    /// Optimised, as it is shipped
    #[arg(long)]
    pub release: bool,
}

/// Of `dist`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes, of the sources as they are:
  fsyncscope-ARCH              static, stripped, kernel programs inside
  fsyncscope-ARCH.cdx.json     its bill of materials (CycloneDX 1.5)
  completions/ man/            of bash, zsh and fish; one page a command
  LICENSE* SHA256SUMS          for `sha256sum -c`

Everybody who builds a commit gets the same bytes; --check proves it. Times in it
are that of the last commit, or of SOURCE_DATE_EPOCH.
Exit codes: 0 made (and the same twice), 1 a promise is broken: too large, not
static, names a folder of this machine, differs; 2 could not be made.")]
pub struct DistArgs {
    /// Where to [default: dist in cargo's target folder]; replaced if it is an older one
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only this architecture (repeatable) [default: both]
    #[arg(long, value_enum, value_name = "ARCH")]
    pub arch: Vec<Arch>,
    /// Make it again from a clone in another folder and compare
    #[arg(long)]
    pub check: bool,
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
    /// Other kernels in virtual machines: the subset of `cargo xtask kernels`
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
    /// Rings to run besides, last; one that this machine cannot run (not root, no
    /// /dev/fuse, no way to the archive of kernels, too slow for the virtual machines)
    /// is told and is no error
    #[arg(long, value_delimiter = ',', value_name = "RING")]
    pub also_try: Vec<Ring>,
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
    /// Take this binary of the agent and build none
    #[arg(long, value_name = "FILE", conflicts_with = "peers_only")]
    pub agent: Option<PathBuf>,
}

/// What is made to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// Writes of segment data fail while topics flush
    Eio,
    /// Each device flush takes 1.5 s; the broker prints nothing
    Stall,
    /// One device flush is held for 20 s; reported while it hangs
    Hang,
    /// Only index files fail; the broker keeps the directory online
    Index,
    /// Errors on other disks and of other processes: not the broker's
    Bystander,
    /// Client ids and forged lines that read like storage errors: no incident
    Noise,
    /// The agent starts after the error: UNKNOWN, never CONFIRMED
    Blind,
    /// Writeback fails long before a roll's fsync is told: reported at once
    Late,
    /// Journal writes fail: error, read-only file system and lines are one incident
    Journal,
    /// Another process takes the disk: STALLED, and the process is named
    Neighbour,
    /// 1 GiB flushed to a 100 MB/s disk: slow, explained, no finding
    Big,
    /// Minutes of load on healthy disks, exported as well: no finding
    Healthy,
}

/// Of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Starts a real Kafka broker on disks that fail on demand, runs the agent beside
it, and compares what the agent says with what the disk knows. Touches only its
own files and loop devices and leaves none.
Exit codes: 0 the tool was right, 1 it was wrong, 2 could not run, 4 played with
the built-in writer, which proves nothing.

  cargo xtask demo
  cargo xtask demo hang --kafka 4 --json | tail -1 | jq .verdict
  cargo xtask demo late                  over a minute: writeback comes after 30 s
  cargo xtask demo healthy --minutes 2")]
pub struct DemoArgs {
    /// What is made to happen
    #[arg(value_enum, default_value = "eio", value_name = "SCENARIO")]
    pub scenario: ScenarioName,
    /// Version of Kafka: 3.9 or 4
    #[arg(long, default_value = "3.9", value_name = "VERSION")]
    pub kafka: String,
    /// The incident as JSON in the last line
    #[arg(long)]
    pub json: bool,
    /// The built-in writer in place of a broker, where there is no Java
    #[arg(long)]
    pub writer: bool,
    /// Run although a broker that is not the demo's runs on this host
    #[arg(long)]
    pub yes_test_box: bool,
    /// Keep the capture and the logs in the folder for temporary files
    #[arg(long)]
    pub keep: bool,
    /// Build the agent as it is shipped
    #[arg(long)]
    pub release: bool,
    /// Make the other of the two disks fail
    #[arg(long)]
    pub swap_disks: bool,
    /// Name topic, disks and directories after this word
    #[arg(long, value_name = "WORD")]
    pub rename: Option<String>,
    /// How long `healthy` lasts
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub minutes: u32,
    /// Take this binary of the agent and build none
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    pub agent: Option<PathBuf>,
}

/// The file system under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TruthFs {
    /// Only ext4
    Ext4,
    /// Only xfs
    Xfs,
    /// Drawn for each fault
    Both,
}

/// Of `truth`.
#[derive(Debug, Args)]
#[command(after_help = "\
A workload of many threads and files runs on a disk that fails on demand; faults
are drawn from the seed and played one at a time, with an agent and a capture for
each. What the agent says is held against the disk's log and the callers' own.
A campaign of 300 faults or more writes docs/TRUTH.md. Evidence of misses is kept
in the folder for temporary files.
Exit codes: 0 all right outside of expected gaps, 1 not, 2 could not run.

  cargo xtask truth --faults 20          some four minutes
  cargo xtask truth --seed 1 --only 17   fault 17 of that campaign again
  fsyncscope watch --from CAPTURE        what was said, again")]
pub struct TruthArgs {
    /// How many faults are drawn
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub faults: u64,
    /// What they are drawn from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The file systems
    #[arg(long, value_enum, default_value = "both")]
    pub fs: TruthFs,
    /// Only these faults of the campaign, by number
    #[arg(long, value_delimiter = ',', value_name = "NUMBER")]
    pub only: Vec<u64>,
    /// Afterwards so many healthy syncs, at the agent's defaults: 0 findings
    #[arg(long, value_name = "SYNCS", default_value_t = 0)]
    pub healthy: u64,
    /// Keep the evidence of all faults, not only of misses
    #[arg(long)]
    pub keep: bool,
    /// Build the agent as it is shipped
    #[arg(long)]
    pub release: bool,
    /// Use this agent, and build none
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    pub agent: Option<std::path::PathBuf>,
}

/// Of `kernels`.
#[derive(Debug, Args)]
#[command(after_help = "\
Kernels come from the distribution's archive, by apt with a configuration of its
own; each boots in QEMU (software emulation, nothing of the host is needed) with
the released agent, a writer that behaves like a broker, and an NVMe disk that
fails on demand. What each cell asserts is in docs/KERNELS.md, \"What a cell asserts\";
in all, that nothing false is said and nothing lost.
A run of the whole matrix writes docs/KERNELS.md. Evidence of cells that failed is
kept in the folder for temporary files. A machine that hangs before the agent is in it
is booted once more, and the table says so; one that hangs later is not.
Exit codes: 0 all as expected, 1 a cell failed, 2 the lab could not run it.

  cargo xtask kernels --kernel 5.10 --arch amd64 --fs ext4 --fault write-error
  cargo xtask kernels --kernel any:6.16 --arch arm64 --fs xfs
  cargo xtask kernels --broker           Kafka itself, instead of the writer
  cargo xtask kernels --stacks           partition, device-mapper, software RAID
  cargo xtask kernels --resume           only what has not passed with this agent
  cargo xtask kernels --page             the page of a matrix that is not whole yet")]
pub struct KernelsArgs {
    /// Only this kernel of tests/KERNELS, or any:VERSION of the archive (repeatable)
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    pub kernel: Vec<String>,
    /// Only this architecture (repeatable) [default: both]
    #[arg(long, value_enum, value_name = "ARCH", value_delimiter = ',')]
    pub arch: Vec<Arch>,
    /// Only this file system (repeatable) [default: both]
    #[arg(long, value_enum, value_name = "FS", value_delimiter = ',')]
    pub fs: Vec<FsKind>,
    /// Only this fault (repeatable) [default: all]
    #[arg(long, value_enum, value_name = "FAULT", value_delimiter = ',')]
    pub fault: Vec<Fault>,
    /// Only `fsyncscope check`, no faults
    #[arg(long, conflicts_with = "fault")]
    pub check: bool,
    /// Only a real broker in the machine, with a write error and a hang [default: on the
    /// kernels of the subset, this machine's architecture, ext4]
    #[arg(long, conflicts_with_all = ["fault", "check"])]
    pub broker: bool,
    /// Only with something between the file system and the disk: a partition,
    /// device-mapper, software RAID [default: on the kernels of the subset, this
    /// machine's architecture, ext4]
    #[arg(long, conflicts_with_all = ["fault", "check", "broker"])]
    pub stacks: bool,
    /// Make the agent attach its hooks in other forms than this: fexit, typed_tracepoint
    #[arg(long, value_name = "FORM", value_delimiter = ',')]
    pub avoid_form: Vec<String>,
    /// How many machines run at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub vms: u32,
    /// Leave out cells that have passed with the same agent
    #[arg(long)]
    pub resume: bool,
    /// One JSON object a line: cells, and what `check` said
    #[arg(long)]
    pub json: bool,
    /// Keep the evidence of all cells, not only of those that failed
    #[arg(long)]
    pub keep: bool,
    /// Use this agent, a static binary of the one architecture picked by --arch
    #[arg(long, value_name = "FILE", requires = "arch")]
    pub agent: Option<PathBuf>,
    /// Boot nothing: write docs/KERNELS.md from what this agent has done so far
    #[arg(long, conflicts_with_all = ["kernel", "fs", "fault", "check", "broker", "stacks", "avoid_form", "resume", "keep", "json"])]
    pub page: bool,
    /// Boot nothing: write down the SHA-256 of the kernels' packages (tests/KERNELS.sha256),
    /// for machines without the archive's keys
    #[arg(long, conflicts_with_all = ["page", "fs", "fault", "check", "broker", "stacks", "avoid_form", "resume", "keep", "json"])]
    pub record_sums: bool,
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
