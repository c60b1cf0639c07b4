//! Runs the cells of a plan: a writer that behaves like a broker on the disk, the
//! agent over it, a fault in the disk, and what was said against what was done.
//! In: the plan. Out: a [`CellResult`] for each, to the host. What is expected is
//! in `expect`; how a fault is made in `make`.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::blocked;
use super::broker::{self, Running};
use super::effect::{self, Reset};
use super::expect::{self, BrokerTruth, Evidence};
use super::fault::Fault;
use super::hooks;
use super::host::Host;
use super::make;
use super::protocol::{CellResult, FromGuest, Outcome, Plan, Stage};
use super::said;
use super::stack::{self, Stack};
use super::system;
use super::watch::{AgentError, Watch};
use crate::lab::Lab;
use crate::writer::Writer;

/// Where the disk is mounted.
pub const DATA_DIR: &str = "/data";

/// A process that writes as a broker does is found within a second or two.
const FIND_LIMIT: Duration = Duration::from_secs(120);

/// Everything that the cells share.
pub struct Machine {
    /// The host.
    pub host: Host,
    /// What to do.
    pub plan: Plan,
    kernel: String,
    arch: String,
    /// Where a broker lives.
    pub lab: Lab,
    /// The broker, between two cells that have one.
    pub broker: Option<Running>,
    watch: Option<Watch>,
    /// Its arguments.
    watch_args: Vec<String>,
    /// Causes that the running agent has been shown: a second of one kind would
    /// be taken for the same incident.
    shown: Vec<&'static str>,
    nth_watch: usize,
    is_mounted: bool,
    /// What is between the disk and the file system.
    pub stack: Option<Stack>,
    /// The controller's reset, once it has been asked for.
    pub reset: Option<Reset>,
    /// What `check` has said.
    pub said_of_hooks: Value,
}

impl Machine {
    /// A machine whose disk is there.
    pub fn new(host: Host, plan: Plan, (kernel, arch): (String, String)) -> anyhow::Result<Self> {
        Ok(Machine {
            host,
            plan,
            kernel,
            arch,
            lab: Lab::open()?,
            broker: None,
            watch: None,
            watch_args: Vec::new(),
            shown: Vec::new(),
            nth_watch: 0,
            is_mounted: false,
            stack: None,
            reset: None,
            said_of_hooks: Value::Null,
        })
    }

    /// The device node of the disk.
    pub fn disk(&self) -> PathBuf {
        Path::new("/dev").join(&self.plan.disk.name)
    }

    /// That of what is mounted.
    pub fn device(&self) -> PathBuf {
        match &self.stack {
            Some(stack) => stack.device.clone(),
            None => self.disk(),
        }
    }

    /// Puts what a fault wants below the file system, in place of what is there.
    fn restack(&mut self, fault: Fault) -> anyhow::Result<()> {
        if self.is_mounted {
            self.unmount()?;
        }
        if let Some(stack) = self.stack.take() {
            stack.remove()?;
        }
        self.stack = Some(stack::build(&self.disk(), fault)?);
        self.mount()
    }

    /// Runs `check`, then all cells.
    pub fn run(&mut self) -> anyhow::Result<()> {
        match self
            .plan
            .cells
            .first()
            .copied()
            .filter(|it| it.is_stacked())
        {
            Some(fault) => self.restack(fault)?,
            None if self.plan.cells.contains(&Fault::LateModules) => self.load_late()?,
            None => self.mount()?,
        }
        self.check()?;
        let cells = self.plan.cells.clone();
        for (nth, fault) in cells.iter().copied().enumerate() {
            self.host.progress(&format!("{} …", fault.name()))?;
            let begin = Instant::now();
            let done = match fault {
                Fault::BrokenFact => self.run_broken_fact(),
                fault if fault.is_brokers() => broker::run_cell(self, fault),
                _ => self.run_cell(fault),
            };
            let mut result = done.unwrap_or_else(|err| {
                eprintln!(
                    "guest: {}: {err:#}: the machine:\n{}",
                    fault.name(),
                    blocked::report()
                );
                failed_cell(fault, &err)
            });
            self.end_cell(&mut result, cells.get(nth + 1).copied())?;
            result.took_ms = begin.elapsed().as_millis() as u64;
            self.host.say(&FromGuest::Cell(result))?;
        }
        Ok(())
    }

    /// Ends the agent if the next cell needs none or another, or its capture is wanted:
    /// one that was stopped for its capture has nothing more to say.
    fn end_cell(&mut self, result: &mut CellResult, next: Option<Fault>) -> anyhow::Result<()> {
        let is_kept = self.plan.keep_all || result.outcome != Outcome::Passed;
        let is_over = next.is_none_or(|next| !self.can_go_on(next));
        let watch = match is_over || is_kept {
            true => self.watch.take(),
            false => None,
        };
        let Some(mut watch) = watch else {
            return Ok(());
        };
        let trouble = watch.trouble();
        let stopped = watch.stop();
        if let (Outcome::Harness, Some(trouble)) = (result.outcome, trouble) {
            (result.outcome, result.why) = (Outcome::Failed, trouble);
        }
        let lost = said::lost_in(&watch.lines_from(0));
        let loss = expect::compare_loss_at_end(&lost, system::preempts());
        if is_as_expected(result.outcome) {
            result.asserts.push(loss);
            (result.outcome, result.why) = expect::conclude(&result.asserts);
        }
        if let (true, Err(err)) = (is_as_expected(result.outcome), &stopped) {
            let failed = failed_cell(result.id, err);
            (result.outcome, result.why) = (failed.outcome, failed.why);
        }
        match self.plan.keep_all || result.outcome != Outcome::Passed {
            true => self.keep(result.id, &watch),
            false => Ok(()),
        }
    }

    /// First the agent, then the modules of the disk.
    fn load_late(&mut self) -> anyhow::Result<()> {
        self.start_watch(Fault::LateModules)?;
        // Its cell goes on with it.
        self.shown.clear();
        system::load_stage(Stage::Disk)?;
        system::wait_for_path(&self.disk(), Duration::from_secs(30))?;
        self.mount()
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        if self.is_mounted {
            return Ok(());
        }
        let device = self.device();
        let source = device.to_string_lossy().into_owned();
        std::fs::create_dir_all(DATA_DIR)?;
        system::mount(&source, Path::new(DATA_DIR), self.plan.fs.name())
            .with_context(|| format!("mount {source} on {DATA_DIR}"))?;
        self.is_mounted = true;
        Ok(())
    }

    /// A file system that shut down or became read-only is whole again when it
    /// is mounted anew: its journal is replayed.
    pub fn remount(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        system::unmount(Path::new(DATA_DIR)).with_context(|| format!("unmount {DATA_DIR}"))?;
        self.is_mounted = false;
        Ok(())
    }

    fn run_cell(&mut self, fault: Fault) -> anyhow::Result<CellResult> {
        self.host.clear()?;
        if fault.is_stacked() {
            // It would keep the file system busy, and its kind of fault is shown.
            self.stop_watch()?;
            self.restack(fault)?;
        }
        let log_dir = Path::new(DATA_DIR).join(fault.name());
        let config = make::writer_config(fault, &log_dir);
        self.start_watch(fault)?;
        let mut writer = Writer::start(&self.lab, config)?;
        self.wait_for_broker(writer.pid(), FIND_LIMIT)?;
        // Its disk is looked up behind the broker's own lines.
        thread::sleep(make::SETTLE_TIME);
        let flushes = writer.flushes()? + make::WARM_UP_FLUSHES;
        writer.wait_for_flushes(flushes, Duration::from_secs(60))?;
        let victim = log_dir.join("orders-0/00000000000000000000.log");
        let pid = writer.pid();
        self.play(fault, pid, &victim, move |_| {
            let log = std::fs::read_to_string(writer.server_log()).unwrap_or_default();
            let _ = writer.finish();
            drop(writer);
            Ok((log, None))
        })
    }

    /// The fault, and what was said of it. In: who writes, the file that is hit, and
    /// what ends the cell once the fault is over: it gives the writer's log.
    pub fn play(
        &mut self,
        fault: Fault,
        writer_pid: u32,
        victim: &Path,
        end: impl FnOnce(&mut Machine) -> anyhow::Result<(String, Option<BrokerTruth>)>,
    ) -> anyhow::Result<CellResult> {
        let first_line = self.watch.as_ref().map_or(0, Watch::len);
        let known_requests = self.host.disk_log()?.len();

        make::begin(self, fault, victim)?;
        let is_complete = self.wait_for(make::answer_limit(fault), |watch| {
            expect::is_complete(fault, victim, &watch.told_from(first_line))
        })?;
        let trouble = self.watch.as_mut().and_then(Watch::trouble);
        let is_in_reset = !is_complete && blocked::is_in_reset(Path::new("/proc"));
        if !is_complete {
            eprintln!(
                "guest: {}: the machine:\n{}",
                fault.name(),
                blocked::report()
            );
        }
        make::end(self, fault)?;
        if fault == Fault::Healthy {
            thread::sleep(make::HEALTHY_TIME);
        }
        // Where the agent died, nobody waited until the fault was made.
        if trouble.is_none() {
            effect::prove(fault, &self.plan.disk.name, self.reset.as_ref())?;
        }
        let (server_log, broker) = end(self)?;

        let truth = self.host.disk_log()?.split_off(known_requests);
        let lines = match &self.watch {
            Some(watch) => watch.lines_from(0),
            None => Vec::new(),
        };
        let told = super::watch::told_since(&lines, first_line);
        let said = told
            .iter()
            .filter_map(|told| serde_json::from_str(&told.last_line).ok())
            .collect();
        let evidence = Evidence {
            fault,
            fs: self.plan.fs,
            kernel: self.kernel.clone(),
            arch: self.arch.clone(),
            disk: self.plan.disk.name.clone(),
            serial: self.plan.disk.serial.clone(),
            layers: match &self.stack {
                Some(stack) => stack.layers.clone(),
                None => Vec::new(),
            },
            writer_pid,
            victim: victim.to_string_lossy().into_owned(),
            caller_errnos: said::parse_errnos(&server_log),
            truth,
            told,
            missing_hooks: said::missing_hooks(&lines),
            lost: said::lost_in(&lines),
            broker,
            preempts: system::preempts(),
            is_in_reset,
            trouble: trouble.or_else(|| self.watch.as_mut().and_then(Watch::trouble)),
        };
        make::restore(self, fault)?;
        let mut asserts = expect::compare(&evidence);
        if fault == Fault::Healthy {
            asserts.extend(self.compare_checks(&evidence)?);
        }
        if fault.is_forced() {
            asserts.extend(hooks::compare_forced(fault, &lines, &evidence));
        }
        if fault == Fault::LateModules {
            asserts.extend(hooks::compare_late(&lines));
        }
        let (outcome, why) = expect::conclude(&asserts);
        if outcome != Outcome::Passed {
            eprintln!("guest: {}: {why}", fault.name());
            eprintln!("guest: truth: {:?}", evidence.truth);
            eprintln!("guest: callers: {:?}", evidence.caller_errnos);
        }
        Ok(CellResult {
            id: fault,
            outcome,
            asserts,
            why,
            took_ms: 0,
            said,
        })
    }

    /// Whether the agent that runs is the one for this cell: it has the same arguments,
    /// and has not been shown such a fault yet.
    fn can_go_on(&self, fault: Fault) -> bool {
        // `check` alone is run in it, or the file system is made anew.
        match fault {
            Fault::BrokenFact => return true,
            fault if fault.is_stacked() => return false,
            _ => {}
        }
        let is_shown = self.shown.contains(&make::kind(fault));
        self.watch.is_some() && !is_shown && self.args_for(fault) == self.watch_args
    }

    fn args_for(&self, fault: Fault) -> Vec<String> {
        let own = fault.agent_args().iter().map(|arg| (*arg).to_owned());
        self.plan.agent_args.iter().cloned().chain(own).collect()
    }

    /// The agent for a cell.
    pub fn start_watch(&mut self, fault: Fault) -> anyhow::Result<()> {
        let kind = make::kind(fault);
        if self.can_go_on(fault) {
            self.shown.push(kind);
            return Ok(());
        }
        self.stop_watch()?;
        self.nth_watch += 1;
        let args = self.args_for(fault);
        self.watch = Some(Watch::start(self.nth_watch, make::STALL, &args)?);
        self.watch_args = args;
        self.shown = vec![kind];
        Ok(())
    }

    fn stop_watch(&mut self) -> anyhow::Result<()> {
        if let Some(mut watch) = self.watch.take() {
            watch.stop()?;
        }
        Ok(())
    }

    /// Sends the agent's capture and what it printed.
    fn keep(&mut self, fault: Fault, watch: &Watch) -> anyhow::Result<()> {
        let name = fault.name();
        self.host
            .send_file(&format!("{name}.ndjson.zst"), watch.capture())?;
        let printed = Path::new("/tmp/printed");
        std::fs::write(printed, watch.lines_from(0).join("\n"))?;
        self.host
            .send_file(&format!("{name}.watch.json"), printed)?;
        self.host
            .send_file(&format!("{name}.stderr"), watch.stderr())
    }

    /// Waits until the agent has told of who writes.
    pub fn wait_for_broker(&mut self, pid: u32, limit: Duration) -> anyhow::Result<()> {
        if self.wait_for(limit, |watch| watch.knows_broker(pid))? {
            return Ok(());
        }
        let trouble = self.watch.as_mut().and_then(Watch::trouble);
        let why = || format!("the agent did not find the broker in {limit:?}");
        bail!(AgentError(trouble.unwrap_or_else(why)))
    }

    /// Waits until the agent has said something; `false` if it did not in time, or ended.
    pub fn wait_for(
        &mut self,
        limit: Duration,
        is_so: impl Fn(&Watch) -> bool,
    ) -> anyhow::Result<bool> {
        let until = Instant::now() + limit;
        let watch = self.watch.as_mut().context("no agent runs")?;
        while !is_so(watch) {
            if Instant::now() > until || watch.trouble().is_some() {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }
}

/// The agent's failure is the product's, any other the lab's.
fn failed_cell(fault: Fault, err: &anyhow::Error) -> CellResult {
    CellResult {
        id: fault,
        outcome: match err.is::<AgentError>() {
            true => Outcome::Failed,
            false => Outcome::Harness,
        },
        asserts: Vec::new(),
        why: format!("{err:#}"),
        took_ms: 0,
        said: Vec::new(),
    }
}

fn is_as_expected(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Passed | Outcome::ExpectedGap)
}
