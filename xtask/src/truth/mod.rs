//! `cargo xtask truth`: a randomised campaign against known truth. Faults are
//! drawn from a seed (`draw`), aimed at the disk at hand (`aim`) and played one
//! at a time beside a workload and the agent (`stage`, `agent`, `play`); what
//! was said (`said`) is held against what happened (`known`) by `compare`, and
//! the rows are added up by `table`. A whole campaign writes docs/TRUTH.md
//! (`page`). Touches only its own files and loop devices.

mod agent;
mod aim;
mod campaign;
mod compare;
mod draw;
mod failed;
mod group;
mod healthy;
mod held;
mod known;
pub mod layout;
mod page;
#[cfg(test)]
mod planted;
mod play;
mod row;
mod said;
mod stage;
mod table;

use std::fs;

use anyhow::{Context, bail};
use fsyncscope_tests::faultdisk::FsKind;

use crate::build;
use crate::cli::{TruthArgs, TruthFs};
use crate::process::{EXIT_NOT_SO, is_root, repository, say};
use crate::setup::{self, Need};

use campaign::{Campaign, Outcome};

/// A campaign of at least this many faults is written down.
const WHOLE: u64 = 300;

/// `cargo xtask truth`.
pub fn main(args: &TruthArgs) -> anyhow::Result<u8> {
    if !is_root() {
        bail!("truth loads BPF programs and mounts disks: it needs root");
    }
    setup::packages(Need::TRUTH)?;
    let (on, missing) = file_systems(args.fs)?;
    let binary = match &args.agent {
        Some(path) => fs::canonicalize(path).with_context(|| format!("find {}", path.display()))?,
        None => build::require_agent(args.release)?,
    };
    let outcome = Campaign::new(args, &on, &binary)?.run()?;
    let mut tables = outcome.table().render();
    for text in &missing {
        tables += &format!("\nExpected gap: {text}\n");
    }
    if let Some((syncs, findings)) = outcome.healthy {
        tables += &format!(
            "\n{syncs} healthy syncs of the same workload at the shipped defaults: {findings} findings.\n"
        );
    }
    println!("{}", tables.trim_end());
    for miss in &outcome.misses {
        println!("miss: {miss}");
    }
    if !outcome.misses.is_empty() {
        println!("{}", group::render(&outcome.groups()).trim_end());
    }
    for text in &outcome.left {
        println!("left behind: {text}");
    }
    if args.only.is_empty() && args.faults >= WHOLE {
        write_page(args, &on, &outcome, &tables)?;
    }
    let is_right = outcome.table().is_right() && outcome.left.is_empty();
    Ok(if is_right { 0 } else { EXIT_NOT_SO })
}

/// The file systems that are asked for and can be had, and why others cannot.
fn file_systems(wanted: TruthFs) -> anyhow::Result<(Vec<FsKind>, Vec<String>)> {
    let wanted = match wanted {
        TruthFs::Ext4 => vec![FsKind::Ext4],
        TruthFs::Xfs => vec![FsKind::Xfs],
        TruthFs::Both => vec![FsKind::Ext4, FsKind::Xfs],
    };
    let known = fs::read_to_string("/proc/filesystems").context("read /proc/filesystems")?;
    let is_known = |fs: &FsKind| {
        known
            .lines()
            .any(|line| line.split_whitespace().last() == Some(fs.name()))
    };
    let (there, not): (Vec<FsKind>, Vec<FsKind>) = wanted.into_iter().partition(is_known);
    let missing: Vec<String> = not
        .iter()
        .map(|fs| format!("{}: this kernel has it not loaded", fs.name()))
        .collect();
    for text in &missing {
        say(text);
    }
    if there.is_empty() {
        bail!("make a file system: {}", missing.join("; "));
    }
    Ok((there, missing))
}

fn write_page(
    args: &TruthArgs,
    on: &[FsKind],
    outcome: &Outcome,
    tables: &str,
) -> anyhow::Result<()> {
    let path = repository().join("docs/TRUTH.md");
    let names: Vec<&str> = on.iter().map(|fs| fs.name()).collect();
    let names = names.join(" and ");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let fs_argument = match args.fs {
        TruthFs::Ext4 => " --fs ext4",
        TruthFs::Xfs => " --fs xfs",
        TruthFs::Both => "",
    };
    let section = page::Section {
        title: format!("Seed {}, {names}", args.seed),
        command: format!(
            "cargo xtask truth --faults {} --seed {}{fs_argument}",
            args.faults, args.seed
        ),
        about: format!(
            "Linux {}, {} minutes, {} faults drawn, {} applied.",
            kernel.trim(),
            outcome.took.as_secs().div_ceil(60),
            args.faults,
            outcome.applied()
        ),
        tables: tables.to_owned(),
        misses: (!outcome.misses.is_empty()).then(|| group::render(&outcome.groups())),
    };
    let old = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, page::update(&old, &section))
        .with_context(|| format!("write {}", path.display()))?;
    say(format!("wrote {}", path.display()));
    Ok(())
}
