//! Who watches the load: nobody, the peers, the agent. In: the load's process
//! and device. Out: a running watcher that is known to be attached, and how
//! long that took.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::bpf;
use super::scene::{Scene, check_interrupt};
use crate::process::say;

/// What the agent prints on stderr when all its hooks are in place.
const ATTACHED: &str = "fsyncscope: attached";

/// The numbers of the agent as one would ask bpftrace for them: tracepoints
/// only, so that it runs on kernels without kprobes too, and requests known by
/// device and sector, since a tracepoint does not show the pointer.
const SCRIPT: &str = "
tracepoint:block:block_rq_issue { @issued[args->dev, args->sector] = nsecs; }
tracepoint:block:block_rq_complete /@issued[args->dev, args->sector]/ {
    @device_ns = hist(nsecs - @issued[args->dev, args->sector]);
    delete(@issued[args->dev, args->sector]);
}
tracepoint:syscalls:sys_enter_fsync, tracepoint:syscalls:sys_enter_fdatasync,
tracepoint:syscalls:sys_enter_msync { @entered[tid] = nsecs; }
tracepoint:syscalls:sys_exit_fsync, tracepoint:syscalls:sys_exit_fdatasync,
tracepoint:syscalls:sys_exit_msync /@entered[tid]/ {
    @sync_ns = hist(nsecs - @entered[tid]); delete(@entered[tid]);
}";

/// Who watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Nobody.
    Baseline,
    /// Empty programs on issue and complete.
    Empty,
    /// biolatency of libbpf-tools, all devices.
    Biolatency,
    /// The same, this device only.
    BiolatencyDisk,
    /// A bpftrace script that gives the same numbers.
    Bpftrace,
    /// The agent on the load's process.
    Agent(PathBuf),
    /// The same at `--detail normal`.
    AgentNormal(PathBuf),
    /// The same at `--detail low`.
    AgentLow(PathBuf),
    /// The agent on every process.
    AgentAll(PathBuf),
}

/// A watcher at work.
pub struct Running {
    child: Child,
    /// From exec to attached.
    pub attach_time: Duration,
    stdout: PathBuf,
    stderr: PathBuf,
    name: &'static str,
    is_agent: bool,
}

impl Contender {
    /// Everybody that can take part.
    pub fn all(agent: Option<&PathBuf>) -> Vec<Contender> {
        let mut all = vec![
            Contender::Baseline,
            Contender::Empty,
            Contender::Biolatency,
            Contender::BiolatencyDisk,
            Contender::Bpftrace,
        ];
        if let Some(agent) = agent {
            all.push(Contender::Agent(agent.clone()));
            all.push(Contender::AgentNormal(agent.clone()));
            all.push(Contender::AgentLow(agent.clone()));
            all.push(Contender::AgentAll(agent.clone()));
        }
        all
    }

    /// As the table calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Contender::Baseline => "nobody",
            Contender::Empty => "empty raw tracepoints",
            Contender::Biolatency => "biolatency",
            Contender::BiolatencyDisk => "biolatency -d",
            Contender::Bpftrace => "bpftrace script",
            Contender::Agent(_) => "fsyncscope --pid",
            Contender::AgentNormal(_) => "fsyncscope --pid --detail normal",
            Contender::AgentLow(_) => "fsyncscope --pid --detail low",
            Contender::AgentAll(_) => "fsyncscope --all",
        }
    }

    fn is_agent(&self) -> bool {
        matches!(
            self,
            Contender::Agent(_)
                | Contender::AgentNormal(_)
                | Contender::AgentLow(_)
                | Contender::AgentAll(_)
        )
    }

    fn command(&self, scene: &Scene, pid: u32) -> Option<Command> {
        let mut command;
        match self {
            Contender::Baseline | Contender::Empty => return None,
            Contender::Bpftrace => {
                command = Command::new("bpftrace");
                command.args(["-e", SCRIPT]);
            }
            Contender::Biolatency => command = Command::new("/usr/sbin/biolatency"),
            Contender::BiolatencyDisk => {
                command = Command::new("/usr/sbin/biolatency");
                command.args(["-d", scene.device.trim_start_matches("/dev/")]);
            }
            Contender::Agent(path) | Contender::AgentNormal(path) | Contender::AgentLow(path) => {
                command = Command::new(path);
                command.args(["watch", "--json", "--pid", &pid.to_string()]);
                // fio has no configuration that names its directory; without
                // one the agent would leave the disk out, and be too cheap.
                command.arg("--log-dir").arg(scene.mount());
                match self {
                    Contender::AgentNormal(_) => command.args(["--detail", "normal"]),
                    Contender::AgentLow(_) => command.args(["--detail", "low"]),
                    _ => &mut command,
                };
            }
            Contender::AgentAll(path) => {
                command = Command::new(path);
                command.args(["watch", "--json", "--all"]);
            }
        }
        Some(command)
    }

    /// Starts it and waits until it is attached.
    pub fn start(&self, scene: &Scene, pid: u32) -> anyhow::Result<Option<Running>> {
        let Some(mut command) = self.command(scene, pid) else {
            return Ok(None);
        };
        let stdout = scene.beside("stdout");
        let stderr = scene.beside("stderr");
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?);
        let begin = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("start {}", self.name()))?;
        let mut running = Running {
            child,
            attach_time: Duration::ZERO,
            stdout,
            stderr,
            name: self.name(),
            is_agent: self.is_agent(),
        };
        running.attach_time = if self.is_agent() {
            running.wait_for_line(begin)?
        } else {
            running.wait_for_programs(begin)?
        };
        Ok(Some(running))
    }
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on stderr.
    pub fn read_stderr(&self) -> String {
        fs::read(&self.stderr)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn check_alive(&mut self, begin: Instant) -> anyhow::Result<()> {
        check_interrupt()?;
        if let Some(status) = self.child.try_wait()? {
            bail!("ended early, {status}: {}", self.read_stderr().trim());
        }
        if begin.elapsed() > Duration::from_secs(30) {
            bail!("not attached after 30 s: {}", self.read_stderr().trim());
        }
        Ok(())
    }

    fn wait_for_line(&mut self, begin: Instant) -> anyhow::Result<Duration> {
        while !self.read_stderr().contains(ATTACHED) {
            self.check_alive(begin)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(begin.elapsed())
    }

    /// The peers say nothing while their stdout is no terminal: attached is who
    /// has loaded programs and loads no more for half a second.
    fn wait_for_programs(&mut self, begin: Instant) -> anyhow::Result<Duration> {
        let mut seen = 0;
        let mut since = Instant::now();
        let mut attach_time = Duration::ZERO;
        loop {
            self.check_alive(begin)?;
            let new = bpf::read_held_by(Path::new("/proc"), self.pid())?.len();
            if new != seen {
                seen = new;
                since = Instant::now();
                attach_time = begin.elapsed();
            } else if seen > 0 && since.elapsed() > Duration::from_millis(500) {
                return Ok(attach_time);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in order; it has ten seconds. A peer that takes longer is killed: all
    /// that is measured of it has been measured by then. Out: all that it printed.
    pub fn stop(mut self) -> anyhow::Result<String> {
        super::load::signal(self.pid(), libc::SIGINT)?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > Duration::from_secs(10) {
                if self.is_agent {
                    bail!("still there ten seconds after SIGINT");
                }
                say(format!(
                    "{}: still there ten seconds after SIGINT: killed",
                    self.name
                ));
                self.child.kill().context("kill it")?;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let said = fs::read(&self.stdout).context("read its output")?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It had its chance in `stop`, or we are on the way out of an error.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
