//! Runs the rings of tests. In: which rings. Out: their output as it comes, a
//! line of counts a ring, and `N passed, N failed` as the last line. A ring
//! that could not be set up, does not compile or holds no test is an error of
//! the harness, apart from a failed test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::build;
use crate::cli::{Ring, TestArgs};
use crate::kernels::{self, Obstacle};
use crate::process::{EXIT_COULD_NOT_RUN, EXIT_NOT_SO, cargo, display, is_root, repository, say};
use crate::setup::{self, Need};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// `cargo xtask test`.
pub fn main(args: &TestArgs) -> anyhow::Result<u8> {
    let mut rings = if args.ring.is_empty() {
        default_rings(&args.also_try)
    } else {
        args.ring.clone()
    };
    let is_tried = |ring: &Ring| args.also_try.contains(ring);
    rings.retain(|ring| !is_tried(ring));
    rings.extend(&args.also_try);
    let mut total = Counts::default();
    let mut lines = Vec::new();
    let mut is_broken = false;
    for ring in rings {
        say(format!("ring {}", name(ring)));
        match run_ring(ring, args.filter.as_deref()) {
            Ok(counts) => {
                total.passed += counts.passed;
                total.failed += counts.failed;
                lines.push(format!(
                    "{}: {} passed, {} failed",
                    name(ring),
                    counts.passed,
                    counts.failed
                ));
            }
            Err(err) if is_tried(&ring) && err.is::<Obstacle>() => {
                lines.push(format!("{}: left out: {err:#}", name(ring)));
                say(format!("ring {} is left out: {err:#}", name(ring)));
            }
            Err(err) => {
                is_broken = true;
                lines.push(format!("{}: could not run: {err:#}", name(ring)));
                say(format!("ring {}: {err:#}", name(ring)));
            }
        }
    }
    println!();
    for line in lines {
        println!("{line}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(match (is_broken, total.failed) {
        (true, _) => EXIT_COULD_NOT_RUN,
        (false, 0) => 0,
        (false, _) => EXIT_NOT_SO,
    })
}

fn name(ring: Ring) -> &'static str {
    match ring {
        Ring::Unit => "unit",
        Ring::Replay => "replay",
        Ring::Live => "live",
        Ring::Kernels => "kernels",
    }
}

/// All that this machine can run; says what is left out and why.
fn default_rings(also_try: &[Ring]) -> Vec<Ring> {
    let mut rings = vec![Ring::Unit, Ring::Replay];
    match live_obstacle() {
        None => rings.push(Ring::Live),
        Some(why) => say(format!("ring live is left out: {why}")),
    }
    if !also_try.contains(&Ring::Kernels) {
        say("ring kernels is left out: ten minutes of virtual machines; --also-try kernels");
    }
    rings
}

/// Why the live ring cannot run here.
fn live_obstacle() -> Option<&'static str> {
    if !is_root() {
        return Some("not root");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF (/sys/kernel/btf/vmlinux)");
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse, on which the disks of the lab are built");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("no /dev/loop-control");
    }
    None
}

fn run_ring(ring: Ring, filter: Option<&str>) -> anyhow::Result<Counts> {
    let mut command = cargo();
    // All binaries run, so that the counts are whole.
    command.args(["test", "--no-fail-fast"]);
    match ring {
        Ring::Unit => {
            // Without its default features the agent needs no nightly.
            command.args(["--workspace", "--exclude", "fsyncscope-ebpf"]);
            command.args(["--no-default-features", "--lib", "--bins"]);
        }
        Ring::Replay => {
            command.args(["--package", "fsyncscope", "--no-default-features"]);
            command.args(["--test", "replay*"]);
        }
        Ring::Live => {
            if let Some(why) = live_obstacle() {
                bail!("{why}");
            }
            setup::packages(Need::LIVE)?;
            command.env("FSYNCSCOPE_BIN", build::require_agent(false)?);
            command.args(["--package", "fsyncscope-tests", "--package", "xtask"]);
            command.args(["--features", "fsyncscope-tests/live,xtask/live"]);
            // Ring unit has the tests beside the code. The machine has one
            // tracefs and few loop devices: one at a time.
            command.args(["--test", "*", "--", "--test-threads=1"]);
        }
        Ring::Kernels => return run_kernels(),
    }
    if let Some(filter) = filter {
        command.args((ring != Ring::Live).then_some("--"));
        command.arg(filter);
    }
    count(&mut command, filter.is_some())
}

/// The subset of the matrix; a cell is a test.
fn run_kernels() -> anyhow::Result<Counts> {
    let outcome = kernels::subset()?;
    // What failed is told, also where others could not be played.
    if outcome.nr_broken() > 0 && outcome.nr_failed() == 0 {
        let (cells, passed) = (outcome.nr_broken(), outcome.nr_as_expected());
        if kernels::is_stopped() && passed > 0 {
            return Err(Obstacle::TooSlow { cells, passed }.into());
        }
        bail!("{cells} cells could not be played");
    }
    Ok(Counts {
        passed: outcome.nr_as_expected() as u64,
        failed: outcome.nr_failed() as u64,
    })
}

/// Runs cargo test, passes its output on and adds up its counts.
fn count(command: &mut Command, may_be_empty: bool) -> anyhow::Result<Counts> {
    let mut child = command
        .current_dir(repository())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", display(command)))?;
    let stdout = child.stdout.take().context("no pipe from cargo")?;
    let mut total = Counts::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("read the tests' output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(counts) = parse_result(&line) {
            total.passed += counts.passed;
            total.failed += counts.failed;
        }
    }
    let status = child.wait().context("wait for cargo")?;
    if !status.success() && total.failed == 0 {
        bail!(
            "{}: {status}, and no test failed: it does not compile, or a test binary died",
            display(command)
        );
    }
    if status.success() && total == Counts::default() && !may_be_empty {
        bail!("{}: no test ran", display(command));
    }
    Ok(total)
}

/// The counts in libtest's last line.
fn parse_result(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number_before = |word: &str| -> Option<u64> {
        let before = rest.split(word).next()?;
        before.rsplit(' ').next()?.parse().ok()
    };
    Some(Counts {
        passed: number_before(" passed;")?,
        failed: number_before(" failed;")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_libtests_last_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.01s";
        let expected = Counts {
            passed: 12,
            failed: 3,
        };
        assert_eq!(parse_result(line), Some(expected));
        assert_eq!(parse_result("test a::b ... ok"), None);
        assert_eq!(parse_result("test result: nonsense"), None);
    }

    #[test]
    fn a_command_that_runs_no_test_is_an_error_of_the_harness() {
        let err = count(
            Command::new("sh").args(["-c", "echo running 0 tests"]),
            false,
        )
        .unwrap_err();
        assert!(err.to_string().contains("no test ran"));
        let err = count(Command::new("sh").args(["-c", "exit 101"]), false).unwrap_err();
        assert!(err.to_string().contains("does not compile"));
    }

    #[test]
    fn counts_of_several_binaries_add_up_and_failures_are_no_error() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; \
                      echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101";
        let counts = count(Command::new("sh").args(["-c", script]), false).unwrap();
        let expected = Counts {
            passed: 3,
            failed: 1,
        };
        assert_eq!(counts, expected);
    }
}
