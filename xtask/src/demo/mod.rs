//! The main job, shown: a real broker on a disk that fails on purpose, the agent
//! beside it, and the agent's answer held against what the disk knows.
//! `scenario` says what is done and expected, `stage` does it with a `cast`,
//! `agent` runs the tool, `compare` judges it, `report` tells the chain;
//! `late`, `journal` and `neighbour` are
//! scenarios with a course of their own, `healthy` is the one in which nothing fails. Touches only its own files
//! and loop devices.

mod agent;
mod cast;
mod compare;
mod ending;
mod exporter;
mod foreign;
mod healthy;
mod journal;
mod late;
mod names;
mod neighbour;
mod report;
mod scenario;
mod stage;
mod truth;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fsyncscope_tests::broker::KafkaVersion;
use fsyncscope_tests::faultdisk::{FsKind, Rule, RuleOp};
use fsyncscope_tests::lab::Lab;

use crate::build;
use crate::cli::{DemoArgs, ScenarioName};
use crate::process::{EXIT_NOT_SO, is_root, output, say};
use crate::setup::{self, Need};
use crate::truth::layout::read_layout;

use agent::Agent;
use cast::Cast;
use compare::Told;
use names::Names;
use scenario::Expect;
use stage::{Plan, Stage};
use truth::Outsider;

/// Played with the built-in writer.
const EXIT_PROVES_NOTHING: u8 = 4;

/// What came of it.
struct Outcome {
    /// The points on which the tool disagrees with what was done.
    wrong: Vec<String>,
    /// What it told of the broker.
    told: Vec<Told>,
    /// Measured numbers, a line each.
    facts: Vec<String>,
}

/// `cargo xtask demo`.
pub fn main(args: &DemoArgs) -> anyhow::Result<u8> {
    if !is_root() {
        bail!("demo loads BPF programs and mounts disks: it needs root");
    }
    if let Some(pid) = foreign::find_broker(Path::new("/proc"))
        && !args.yes_test_box
    {
        bail!(
            "a Kafka broker runs here (pid {pid}): if this is a test machine, say --yes-test-box"
        );
    }
    let plan = make_plan(args)?;
    setup::packages(match (args.scenario, plan.cast) {
        (ScenarioName::Healthy, _) => Need::DEMO_HEALTHY,
        (ScenarioName::Neighbour, _) => Need::DEMO_NEIGHBOUR,
        (_, Cast::Broker(_)) => Need::DEMO,
        (_, Cast::Writer) => Need::DEMO_WRITER,
    })?;
    let binary = match &args.agent {
        Some(binary) => fs::canonicalize(binary)
            .with_context(|| format!("find the agent {}", binary.display()))?,
        None => build::require_agent(args.release)?,
    };
    let lab = Lab::open()?;
    let outcome = match args.scenario {
        ScenarioName::Healthy => healthy::play(&lab, &plan, &binary, args.minutes),
        _ => play(&lab, &plan, &binary),
    };
    if args.keep {
        keep(&lab, &plan)?;
    }
    let base = lab.dir().to_path_buf();
    let mut left = lab.leftovers();
    drop(lab);
    if base.exists() {
        left.push(format!("directory {}", base.display()));
    }
    let mut outcome = outcome?;
    let left = left.iter().map(|left| format!("left behind: {left}"));
    outcome.wrong.extend(left);
    print_outcome(args, &outcome);
    Ok(match (outcome.wrong.is_empty(), args.writer) {
        (false, _) => EXIT_NOT_SO,
        (true, true) => EXIT_PROVES_NOTHING,
        (true, false) => 0,
    })
}

fn make_plan(args: &DemoArgs) -> anyhow::Result<Plan> {
    let cast = if args.writer {
        Cast::Writer
    } else {
        Cast::Broker(KafkaVersion::parse(&args.kafka)?)
    };
    Ok(Plan {
        name: args.scenario,
        cast,
        names: Names::new(args.rename.as_deref())?,
        faulty: usize::from(args.swap_disks),
    })
}

fn print_outcome(args: &DemoArgs, outcome: &Outcome) {
    for wrong in &outcome.wrong {
        say(format!("disagrees: {wrong}"));
    }
    let last = outcome.told.last();
    if args.json {
        if let Some(told) = last {
            println!("{}", told.last_line);
        }
        return;
    }
    let verdict = if outcome.wrong.is_empty() {
        "agrees with"
    } else {
        "DISAGREES with"
    };
    println!(
        "demo {}: what the tool said {verdict} what was done",
        scenario_text(args.scenario)
    );
    for fact in &outcome.facts {
        println!("{fact}");
    }
    match last {
        Some(told) => println!("{}", report::render(&told.last)),
        None => println!("verdict: none, the tool reported no incident"),
    }
}

/// Plays a scenario in which something is done.
fn play(lab: &Lab, plan: &Plan, binary: &Path) -> anyhow::Result<Outcome> {
    let name = plan.name;
    let mut stage = Stage::set_up(lab, plan)?;
    if name == ScenarioName::Neighbour {
        neighbour::prepare(lab, &stage)?;
    }
    let mut outsider = None;
    let agent = if name == ScenarioName::Blind {
        stage.disk().set_rules(&rules(&stage, name)?)?;
        wait_for("the broker to print its error", 40, || {
            has_storage_error(&stage)
        })?;
        // Past the moment at which the evidence could still be in flight.
        thread::sleep(Duration::from_secs(2));
        start_agent(lab, binary)?
    } else {
        let agent = start_agent(lab, binary)?;
        outsider = inject(lab, &mut stage, name)?;
        agent
    };
    watch(&agent, name)?;
    stage.disk().clear()?;
    stage.disk().release()?;
    stage.set_bandwidth(0)?;
    say("stopping the agent");
    let (output, code) = agent.stop()?;
    let mut truth = stage.truth()?;
    truth.outsider = outsider;
    let ours = compare::of_broker(&truth, &output.told);
    let mut wrong = compare::compare(scenario::expect(name), &truth, &ours);
    let expected = i32::from(!output.told.is_empty());
    if code != expected {
        wrong.push(format!(
            "the agent's exit code is {code} instead of {expected}"
        ));
    }
    let facts = match name {
        ScenarioName::Late => late::facts(&truth, &ours),
        _ => Vec::new(),
    };
    Ok(Outcome {
        wrong,
        told: ours,
        facts,
    })
}

fn start_agent(lab: &Lab, binary: &Path) -> anyhow::Result<Agent> {
    say("starting fsyncscope watch");
    let agent = Agent::start(lab, binary)?;
    // Discovery has found the broker and its log by then.
    thread::sleep(Duration::from_secs(3));
    Ok(agent)
}

fn rules(stage: &Stage, name: ScenarioName) -> anyhow::Result<Vec<Rule>> {
    let aimed = match name {
        ScenarioName::Index => stage.index_sectors()?,
        ScenarioName::Late => late::sectors(stage)?,
        ScenarioName::Journal => read_layout(stage.disk(), FsKind::Ext4)?.journal,
        _ => Vec::new(),
    };
    Ok(scenario::rules(name, stage.disk().data_sectors()?, &aimed))
}

/// Makes happen what the scenario is about. Out: the other process, if there was one.
fn inject(lab: &Lab, stage: &mut Stage, name: ScenarioName) -> anyhow::Result<Option<Outsider>> {
    say(format!(
        "scenario {} on {}",
        scenario_text(name),
        stage.disk().loop_dev().display()
    ));
    match name {
        ScenarioName::Bystander => fail_bystanders(lab, stage)?,
        ScenarioName::Noise => forge_line(stage)?,
        ScenarioName::Late => late::play(stage)?,
        ScenarioName::Neighbour => return neighbour::play(lab, stage).map(Some),
        ScenarioName::Big => {
            stage.set_bandwidth(100_000_000)?;
            stage.produce_bulk(1 << 30)?;
        }
        _ => stage.disk().set_rules(&rules(stage, name)?)?,
    }
    Ok(None)
}

fn scenario_text(name: ScenarioName) -> String {
    format!("{name:?}").to_lowercase()
}

/// An error on another disk, and one on another process's file on the broker's
/// own disk, both met by that process's fsync.
fn fail_bystanders(lab: &Lab, stage: &Stage) -> anyhow::Result<()> {
    let elsewhere = stage.other_disk().mountpoint().join("elsewhere");
    let beside = stage.disk().mountpoint().join("beside");
    for file in [&elsewhere, &beside] {
        output(&mut write_synced(lab, file)).context("write the bystander's file")?;
    }
    for (disk, file) in [(stage.other_disk(), &elsewhere), (stage.disk(), &beside)] {
        let sectors = disk.file_sectors(file)?;
        let fail = |(first, last): &(u64, u64)| {
            Rule::on(RuleOp::Write)
                .sectors(*first, *last)
                .errno(libc::EIO)
        };
        disk.set_rules(&sectors.iter().map(fail).collect::<Vec<_>>())?;
        if output(&mut write_synced(lab, file)).is_ok() {
            bail!("the bystander's fsync of {} did not fail", file.display());
        }
    }
    Ok(())
}

fn write_synced(lab: &Lab, file: &Path) -> Command {
    let mut command = lab.command("dd");
    command
        .args([
            "if=/dev/zero",
            "bs=64k",
            "count=4",
            "conv=notrunc,fsync",
            "status=none",
        ])
        .arg(format!("of={}", file.display()));
    command
}

/// What a client can make a broker print: text with a line end in it, inside a
/// record of another kind.
fn forge_line(stage: &Stage) -> anyhow::Result<()> {
    let path = stage.server_log();
    let mut log = fs::OpenOptions::new().append(true).open(&path)?;
    let dir = stage.log_dir();
    let forged = format!(
        "[2026-01-01 00:00:00,000] INFO Rejected client id x\n\
         ERROR Error while flushing log for orders-0 in dir {0} with offset 5 (exclusive) and recovery point 5 (org.apache.kafka.storage.internals.log.LogDirFailureChannel)\n\
         java.io.IOException: Input/output error (kafka.server.KafkaApis)\n",
        dir.display()
    );
    log.write_all(forged.as_bytes())
        .with_context(|| format!("append to {}", path.display()))
}

fn has_storage_error(stage: &Stage) -> bool {
    stage
        .read_log()
        .iter()
        .any(|line| line.contains("ERROR") && line.contains("LogDirFailureChannel"))
}

/// Waits until the expected answer has had its time.
fn watch(agent: &Agent, name: ScenarioName) -> anyhow::Result<()> {
    match scenario::expect(name) {
        Expect::Failed { .. } | Expect::Unknown => {
            // Not an error if nothing comes: that is for `compare` to say.
            let _ = wait_for("the agent's report", 40, || !agent.output().told.is_empty());
            thread::sleep(Duration::from_secs(5));
        }
        // The course itself has waited for the first report.
        Expect::ToldLate => thread::sleep(Duration::from_secs(6)),
        Expect::Journal => {
            let _ = wait_for("the agent's report", 40, || !agent.output().told.is_empty());
            thread::sleep(Duration::from_secs(10));
        }
        Expect::Neighbour => thread::sleep(Duration::from_secs(5)),
        Expect::FlushHeld { delay_ms, .. } => {
            say("waiting while the device holds its flush");
            thread::sleep(Duration::from_millis(delay_ms) + Duration::from_secs(8));
        }
        Expect::Nothing => {
            let seconds = if name == ScenarioName::Big { 60 } else { 10 };
            say(format!("{seconds} s in which nothing is to be reported"));
            thread::sleep(Duration::from_secs(seconds));
        }
    }
    Ok(())
}

fn wait_for(what: &str, seconds: u64, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    say(format!("waiting for {what}"));
    let begin = Instant::now();
    while !is_so() {
        if begin.elapsed() > Duration::from_secs(seconds) {
            bail!("waited {seconds} s for {what}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Copies what a person wants to look at afterwards out of the lab.
fn keep(lab: &Lab, plan: &Plan) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("fsyncscope-demo-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
    let of_agents = ["agent.err", "export.err", "capture.ndjson.zst"].map(String::from);
    let truths = plan.names.disks.iter();
    let truths = truths.map(|disk| format!("disks/{disk}/truth.ndjson"));
    for name in of_agents.into_iter().chain(truths) {
        let to = folder.join(name.replace('/', "-"));
        // A demo that ended early has not made all of them.
        let _ = fs::copy(lab.dir().join(name), to);
    }
    let server_log = plan.names.broker_dir(lab).join("logs/server.log");
    let _ = fs::copy(server_log, folder.join("server.log"));
    say(format!("kept in {}", folder.display()));
    Ok(())
}
