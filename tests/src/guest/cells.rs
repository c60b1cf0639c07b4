//! Runs the cells of a plan: a writer that behaves like a broker on the disk, the
//! agent over it, a fault in the disk, and what was said against what was done.
//! In: the plan. Out: a [`CellResult`] for each, to the host. What is expected is
//! in `expect`; how a fault is made in `make`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::broker::{self, Running};
use super::expect::{self, BrokerTruth, Evidence};
use super::fault::Fault;
use super::hooks;
use super::host::Host;
use super::make;
use super::protocol::{AGENT_PATH, CellResult, FromGuest, Outcome, Plan, Stage};
use super::stack::{self, Stack};
use super::system;
use super::watch::Watch;
use crate::lab::Lab;
use crate::writer::Writer;

/// Where the disk is mounted.
pub const DATA_DIR: &str = "/data";

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

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
    /// What `check` has said.
    said_of_hooks: Value,
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
        for fault in self.plan.cells.clone() {
            self.host.progress(&format!("{} …", fault.name()))?;
            let begin = Instant::now();
            let done = match fault {
                Fault::BrokenFact => self.run_broken_fact(),
                fault if fault.is_brokers() => broker::run_cell(self, fault),
                _ => self.run_cell(fault),
            };
            let mut result = match done {
                Ok(result) => result,
                Err(err) => CellResult {
                    id: fault,
                    outcome: Outcome::Harness,
                    asserts: Vec::new(),
                    why: format!("{err:#}"),
                    took_ms: 0,
                    said: Vec::new(),
                },
            };
            result.took_ms = begin.elapsed().as_millis() as u64;
            let is_kept = self.plan.keep_all || result.outcome != Outcome::Passed;
            self.host.say(&FromGuest::Cell(result))?;
            if is_kept {
                self.keep(fault)?;
            }
            // A run that was stopped for its capture has nothing more to say.
        }
        self.stop_watch()?;
        Ok(())
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

    /// `check --json`, once: which form each hook has on this kernel.
    fn check(&mut self) -> anyhow::Result<()> {
        self.host.progress("check …")?;
        let said = self.run_check(&[])?;
        self.said_of_hooks = said.clone();
        self.host.say(&FromGuest::Check { said })
    }

    fn run_check(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(agent_on_disk()?)
            .args(["check", "--json"])
            .args(args)
            .args(&self.plan.agent_args)
            .stdin(Stdio::null())
            .output()
            .context("run check")?;
        let mut said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if let Some(fields) = said.as_object_mut() {
            fields.insert("exit_code".to_owned(), output.status.code().into());
        } else {
            let text = String::from_utf8_lossy(&output.stderr);
            eprintln!("guest: check: {}", text.trim());
        }
        Ok(said)
    }

    /// The agent is told to believe a BTF that is wrong.
    fn run_broken_fact(&self) -> anyhow::Result<CellResult> {
        const BROKEN: &str = "/tmp/broken.btf";
        let btf = std::fs::read(KERNEL_BTF).with_context(|| format!("read {KERNEL_BTF}"))?;
        std::fs::write(BROKEN, hooks::break_facts(btf)?)?;
        let said = self.run_check(&["--test-btf", BROKEN])?;
        std::fs::remove_file(BROKEN)?;
        let asserts = hooks::compare_broken(&said);
        let (outcome, why) = expect::conclude(&asserts);
        Ok(CellResult {
            id: Fault::BrokenFact,
            outcome,
            asserts,
            why,
            took_ms: 0,
            said: vec![said],
        })
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
        let known = self.wait_for(Duration::from_secs(60), |watch| {
            watch.knows_broker(writer.pid())
        })?;
        anyhow::ensure!(known, "the agent did not find the writer in 60 s");
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
        self.wait_for(make::answer_limit(fault), |watch| {
            expect::is_complete(fault, &watch.told_from(first_line))
        })?;
        make::end(self, fault)?;
        if fault == Fault::Healthy {
            thread::sleep(make::HEALTHY_TIME);
        }
        let (server_log, broker) = end(self)?;

        let truth = self.host.disk_log()?.split_off(known_requests);
        let lines = match &self.watch {
            Some(watch) => watch.lines_from(0),
            None => Vec::new(),
        };
        let told = super::watch::collect(&lines[first_line.min(lines.len())..]);
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
            caller_errnos: parse_errnos(&server_log),
            truth,
            told,
            missing_hooks: missing_hooks(&lines),
            lost: lost_in(&lines),
            broker,
            preempts: hooks::preempts(&self.said_of_hooks),
        };
        make::restore(self, fault)?;
        let mut asserts = expect::compare(&evidence);
        if fault == Fault::Healthy {
            asserts.extend(hooks::compare_forms(
                &self.said_of_hooks,
                &self.plan.agent_args,
            ));
            asserts.push(hooks::compare_best(
                &self.said_of_hooks,
                &self.plan.agent_args,
                &evidence,
            ));
        }
        if fault.is_forced() {
            asserts.extend(hooks::compare_forced(fault, &lines, &evidence));
        }
        if fault == Fault::LateModules {
            asserts.extend(hooks::compare_late(&lines));
        }
        let (outcome, why) = expect::conclude(&asserts);
        if outcome == Outcome::Failed {
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

    /// The agent for a cell: the one that runs, if it has not been shown such a
    /// fault yet and has the same arguments.
    pub fn start_watch(&mut self, fault: Fault) -> anyhow::Result<()> {
        let kind = make::kind(fault);
        let own = fault.agent_args().iter().map(|arg| (*arg).to_owned());
        let args: Vec<String> = self.plan.agent_args.iter().cloned().chain(own).collect();
        if self.watch.is_some() && args == self.watch_args && !self.shown.contains(&kind) {
            self.shown.push(kind);
            return Ok(());
        }
        self.stop_watch()?;
        self.nth_watch += 1;
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

    /// Ends the agent and sends its capture and what it printed.
    fn keep(&mut self, fault: Fault) -> anyhow::Result<()> {
        let Some(mut watch) = self.watch.take() else {
            return Ok(());
        };
        let stopped = watch.stop();
        let name = fault.name();
        self.host
            .send_file(&format!("{name}.ndjson.zst"), watch.capture())?;
        let printed = Path::new("/tmp/printed");
        std::fs::write(printed, watch.lines_from(0).join("\n"))?;
        self.host
            .send_file(&format!("{name}.watch.json"), printed)?;
        stopped.map(|_| ())
    }

    /// Waits until the agent has said something; `false` if it did not in time.
    pub fn wait_for(
        &mut self,
        limit: Duration,
        is_so: impl Fn(&Watch) -> bool,
    ) -> anyhow::Result<bool> {
        let until = Instant::now() + limit;
        let watch = self.watch.as_ref().context("no agent runs")?;
        while !is_so(watch) {
            if Instant::now() > until {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }
}

/// `check` proves its hooks by a sync and a read of the agent's own binary: it must
/// lie on the disk, where requests are made, not in the initramfs.
fn agent_on_disk() -> anyhow::Result<PathBuf> {
    let path = Path::new(DATA_DIR).join("fsyncscope");
    if !path.exists() {
        std::fs::copy(AGENT_PATH, &path).context("copy the agent to the disk")?;
        std::fs::File::open(&path)?.sync_all()?;
    }
    Ok(path)
}

/// The errnos of a broker's log, by name, in its texts.
fn parse_errnos(log: &str) -> Vec<String> {
    const TEXTS: [(&str, &str); 6] = [
        ("Input/output error", "EIO"),
        ("No data available", "ENODATA"),
        ("No such device", "ENODEV"),
        ("No space left on device", "ENOSPC"),
        ("Read-only file system", "EROFS"),
        ("Structure needs cleaning", "EUCLEAN"),
    ];
    let mut found: Vec<String> = Vec::new();
    for line in log.lines().filter(|line| line.starts_with("java.io.")) {
        for (text, name) in TEXTS {
            if line.contains(text) && !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
            }
        }
    }
    found
}

fn missing_hooks(lines: &[String]) -> Vec<String> {
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["type"] == "hook" && line["required"] == true)
        .filter(|line| line["state"] == "failed" || line["state"] == "absent")
        .filter_map(|line| line["name"].as_str().map(str::to_owned))
        .collect()
}

/// What incidents say was lost: the largest number of each class.
fn lost_in(lines: &[String]) -> BTreeMap<String, u64> {
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        for (class, count) in line["lost"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap_or(0);
            let most = lost.entry(class.clone()).or_default();
            *most = count.max(*most);
        }
    }
    lost.retain(|_, count| *count > 0);
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_are_read_from_a_brokers_lines() {
        let log = "[t] ERROR Error while flushing log for a-0 (x)\n\
                   java.io.IOException: No data available\n\tat y\n\
                   java.io.UncheckedIOException: java.io.IOException: Input/output error (msync)\n\
                   java.io.IOException: No data available\n";
        assert_eq!(parse_errnos(log), ["ENODATA", "EIO"]);
        assert_eq!(parse_errnos("[t] INFO No space left on device"), [""; 0]);
    }

    #[test]
    fn hooks_and_losses_are_read_from_the_agents_lines() {
        let lines = [
            r#"{"type":"hook","name":"a","required":true,"state":"failed"}"#,
            r#"{"type":"hook","name":"b","required":false,"state":"failed"}"#,
            r#"{"type":"hook","name":"c","required":true,"state":"attached","lost":"text"}"#,
            r#"{"id":"x","verdict":"STALLED","lost":{"ring_full":2,"map_full":0}}"#,
        ]
        .map(str::to_owned);
        assert_eq!(missing_hooks(&lines), ["a"]);
        assert_eq!(
            lost_in(&lines),
            BTreeMap::from([("ring_full".to_owned(), 2)])
        );
    }
}
