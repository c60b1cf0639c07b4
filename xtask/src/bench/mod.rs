//! What the agent costs, beside its peers: same load, same run, interleaved
//! rounds, medians. In: the number of rounds. Out: a table on stdout and in
//! docs/BENCHMARKS.md, with the targets and what was missed. The parts: `scene`
//! is the disk, `load` the work, `contender` who watches it, `bpf` the kernel's
//! own account of BPF run time, `round` one measurement, `report` the table.

mod bpf;
mod contender;
mod disturbance;
mod empty;
mod load;
mod report;
mod round;
mod scene;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::build;
use crate::cli::BenchArgs;
use crate::process::{is_root, repository, say};
use crate::setup::{self, Need};

use contender::Contender;
use load::Load;
use round::Measured;

/// All rounds of all contenders under one load.
struct Series {
    load: Load,
    rounds: Vec<Vec<(Contender, Measured)>>,
}

/// `cargo xtask bench`.
pub fn main(args: &BenchArgs) -> anyhow::Result<u8> {
    if !is_root() {
        bail!("bench loads BPF programs and makes a loop device: it needs root");
    }
    setup::packages(Need::BENCH)?;
    let agent = agent(args)?;
    let (nr_rounds, seconds) = if args.quick { (2, 2) } else { (5, 5) };
    let nr_rounds = args.rounds.unwrap_or(nr_rounds);
    scene::note_interrupts();
    let scene = scene::Scene::set_up()?;
    let _stats = bpf::enable_stats()?;
    let mut series = Vec::new();
    for load in Load::ALL {
        say(format!("load {}: warm-up", load.name()));
        round::measure(&scene, load, &Contender::Baseline, Duration::from_secs(1))?;
        let rounds = (0..nr_rounds)
            .map(|nr| one_round(&scene, load, agent.as_ref(), nr, nr_rounds, seconds))
            .collect::<anyhow::Result<_>>()?;
        series.push(Series { load, rounds });
    }
    drop(scene);
    let text = report::render(&report::Facts::read(nr_rounds, seconds), &series);
    println!("{text}");
    let path = repository().join("docs/BENCHMARKS.md");
    if args.quick {
        say("quick: docs/BENCHMARKS.md is left as it is");
    } else {
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        say("wrote docs/BENCHMARKS.md");
    }
    Ok(0)
}

fn agent(args: &BenchArgs) -> anyhow::Result<Option<PathBuf>> {
    if args.peers_only {
        return Ok(None);
    }
    if let Some(path) = &args.agent {
        return Ok(Some(path.clone()));
    }
    build::require_agent(true).map(Some)
}

/// Everybody once, each round beginning with another, so that a machine that
/// grows slower or faster favours nobody.
fn one_round(
    scene: &scene::Scene,
    load: Load,
    agent: Option<&PathBuf>,
    nr: usize,
    nr_rounds: usize,
    seconds: u64,
) -> anyhow::Result<Vec<(Contender, Measured)>> {
    let mut contenders = Contender::all(agent);
    let shift = nr % contenders.len();
    contenders.rotate_left(shift);
    let mut measured = Vec::new();
    for contender in contenders {
        say(format!(
            "load {}, round {} of {nr_rounds}: {}",
            load.name(),
            nr + 1,
            contender.name()
        ));
        let result = round::measure(scene, load, &contender, Duration::from_secs(seconds))
            .with_context(|| format!("measure {} under load {}", contender.name(), load.name()))?;
        measured.push((contender, result));
    }
    Ok(measured)
}
