//! One boot: starts the machine, answers the guest's lines, watches over it, and
//! gives what came out. A guest that hangs, panics or ends early is stopped and
//! the cell it was in is named. In: a job. Out: a [`Record`] of it.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::guest::base64;
use fsyncscope_tests::guest::fault::Fault;
use fsyncscope_tests::guest::protocol::{
    CellResult, FromGuest, Outcome, Plan, PlanDisk, Stage, ToGuest, modules_order,
};
use fsyncscope_tests::lab::Lab;
use serde_json::Value;

use super::disk::GuestDisk;
use super::image::Image;
use super::initramfs::Cpio;
use super::qemu::{self, Machine};

/// From power-on to the first line, and from there until the disk is mounted; on an idle
/// machine each takes some seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// For `check`, whose programs an emulated machine verifies, and for power-off.
const CHECK_LIMIT: Duration = Duration::from_secs(240);

/// Set by Ctrl-C: machines are stopped and nothing is left.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// What a guest runs.
#[derive(Debug)]
pub struct Programs {
    /// Process 1.
    pub init: Vec<u8>,
    /// The agent.
    pub agent: Vec<u8>,
}

/// One boot to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The file system on the disk.
    pub fs: FsKind,
    /// The cells; none: only `check`.
    pub faults: Vec<Fault>,
    /// The image with a broker, if the cells need one.
    pub broker_disk: Option<PathBuf>,
    /// Further arguments of every run of the agent.
    pub agent_args: Vec<String>,
    /// Keep captures of passed cells.
    pub keep_all: bool,
}

impl Job {
    /// Its disk is partitioned.
    fn has_stack(&self) -> bool {
        self.faults.iter().any(|fault| fault.is_stacked())
    }
}

/// What came out of a boot.
#[derive(Debug, Default)]
pub struct Record {
    /// What `check --json` printed.
    pub check: Option<Value>,
    /// Each cell of the job, in its order.
    pub cells: Vec<CellResult>,
    /// Why it ended before all was done.
    pub failure: Option<String>,
    /// It hung before the agent was there: nothing was said of the agent.
    pub is_unborn: bool,
    /// `check` said that something is missing, or said nothing; the first cell is failed
    /// by it, if there is one. Where there is none, also that the guest died under it.
    pub bad_check: Option<String>,
    /// It is a second boot: why the first, before the agent was there, was given up.
    pub given_up: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Boots, and sees it through. Evidence goes into `evidence`.
pub fn run(
    lab: &Lab,
    nth: usize,
    image: &Image,
    programs: &Programs,
    job: &Job,
    evidence: &Path,
    say: &dyn Fn(&str),
) -> anyhow::Result<Record> {
    let begin = Instant::now();
    let dir = lab.dir().join(format!("vm-{nth}"));
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    fs::create_dir_all(evidence).with_context(|| format!("create {}", evidence.display()))?;
    let initramfs = dir.join("initramfs");
    fs::write(&initramfs, pack(image, programs, job)?).context("write the initramfs")?;
    let disk = GuestDisk::serve(lab, &dir, job.fs, job.has_stack())?;
    let broker_disk = job.broker_disk.as_deref();
    let mut machine = Machine::start(lab, &dir, image, &initramfs, &disk.file(), broker_disk)?;
    let stream = machine.connect()?;
    let mut guest = Guest {
        disk: &disk,
        machine: &mut machine,
        stream: stream.try_clone()?,
        evidence: evidence.to_owned(),
        record: Record::default(),
        now: Now::Booting,
    };
    let ending = guest.serve(&stream, job, say);
    let mut record = guest.finish(job, ending);
    record.took = begin.elapsed();
    for name in ["console.log", "qemu.log", "truth.ndjson"] {
        let _ = fs::copy(dir.join(name), evidence.join(name));
    }
    drop(machine);
    drop(disk);
    let _ = fs::remove_dir_all(&dir);
    Ok(record)
}

fn pack(image: &Image, programs: &Programs, job: &Job) -> anyhow::Result<Vec<u8>> {
    let plan = Plan {
        cells: job.faults.clone(),
        fs: job.fs,
        disk: PlanDisk {
            name: "nvme0n1".to_owned(),
            serial: qemu::SERIAL.to_owned(),
            qemu_id: Some(qemu::DISK_ID.to_owned()),
        },
        // The only virtio disk.
        broker_disk: job.broker_disk.as_ref().map(|_| "vda".to_owned()),
        agent_args: job.agent_args.clone(),
        keep_all: job.keep_all,
    };
    let mut cpio = Cpio::new(&["dev", "proc", "sys", "tmp", "data", "run", "modules"]);
    cpio.program("init", &programs.init);
    cpio.program("fsyncscope", &programs.agent);
    cpio.file("plan.json", &serde_json::to_vec(&plan)?);
    for module in &image.modules {
        cpio.file(&format!("modules/{}", module.file_name), &module.bytes);
    }
    for stage in Stage::ALL {
        let modules = image.modules.iter().filter(|module| module.stage == stage);
        let order: String = modules
            .map(|module| format!("{}\n", module.file_name))
            .collect();
        cpio.file(
            modules_order(stage).trim_start_matches('/'),
            order.as_bytes(),
        );
    }
    Ok(cpio.finish())
}

/// What the guest is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    Booting,
    /// The init runs, and waits for the disk.
    Mounting,
    Checking,
    Cell(Fault),
    Done,
}

impl Now {
    fn limit(self) -> Duration {
        match self {
            Now::Booting | Now::Mounting => BOOT_LIMIT,
            Now::Checking | Now::Done => CHECK_LIMIT,
            // The agent may have to be started for the cell.
            Now::Cell(fault) => Duration::from_secs(fault.limit_s()) + CHECK_LIMIT,
        }
    }

    /// Modules that come late come after the agent.
    fn is_before_agent(self, job: &Job) -> bool {
        let is_first = job.faults.contains(&Fault::LateModules);
        matches!(self, Now::Booting | Now::Mounting) && !is_first
    }

    fn name(self) -> &'static str {
        match self {
            Now::Booting => "boot",
            Now::Mounting => "the init, before the disk was there",
            Now::Checking => "check",
            Now::Cell(fault) => fault.name(),
            Now::Done => "power-off",
        }
    }
}

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// The guest said that all is done.
    Done,
    /// The guest's kernel or the guest failed under the cell.
    Guest(String),
    /// The guest hung before the agent was there: the emulated machine or its kernel did.
    Unborn(String),
    /// The lab failed.
    Harness(String),
}

struct Guest<'a> {
    disk: &'a GuestDisk,
    machine: &'a mut Machine,
    stream: UnixStream,
    evidence: PathBuf,
    record: Record,
    now: Now,
}

impl Guest<'_> {
    fn serve(&mut self, stream: &UnixStream, job: &Job, say: &dyn Fn(&str)) -> Ending {
        let (sender, lines) = mpsc::channel();
        let reader = match stream.try_clone() {
            Ok(reader) => reader,
            Err(err) => return Ending::Harness(format!("read the guest's lines: {err}")),
        };
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut since = Instant::now();
        let mut complaint = None;
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    since = Instant::now();
                    let line: FromGuest = match serde_json::from_str(&line) {
                        Ok(line) => line,
                        Err(err) => {
                            return Ending::Harness(format!("parse the guest's line: {err}"));
                        }
                    };
                    if let FromGuest::Progress { text } = &line {
                        say(text);
                        complaint = text
                            .strip_prefix("error: ")
                            .map(str::to_owned)
                            .or(complaint);
                    }
                    if let Err(err) = self.obey(line, job) {
                        return Ending::Harness(format!("{err:#}"));
                    }
                    if self.now == Now::Done {
                        return Ending::Done;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if STOP.load(Ordering::Relaxed) {
                        return Ending::Harness("stopped".to_owned());
                    }
                    if since.elapsed() > self.now.limit() {
                        let (name, seconds) = (self.now.name(), since.elapsed().as_secs());
                        let why = format!("hung in {name}: no word for {seconds} s");
                        return match self.now.is_before_agent(job) {
                            true => Ending::Unborn(why),
                            false => Ending::Guest(why),
                        };
                    }
                    if self.machine.is_over() {
                        return self.ended_early(complaint, job);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return self.ended_early(complaint, job);
                }
            }
        }
    }

    fn ended_early(&self, complaint: Option<String>, job: &Job) -> Ending {
        let name = self.now.name();
        let console = self.machine.console();
        if let Some(line) = console.lines().find(|line| line.contains("Kernel panic")) {
            let why = format!("panicked in {name}: {}", line.trim());
            return match self.now.is_before_agent(job) {
                true => Ending::Harness(why),
                false => Ending::Guest(why),
            };
        }
        if STOP.load(Ordering::Relaxed) {
            return Ending::Harness("stopped".to_owned());
        }
        let said = console.lines().rev().find(|line| line.contains("guest: "));
        let why = complaint.or_else(|| said.map(|line| line.trim().to_owned()));
        Ending::Harness(format!(
            "the guest ended in {name}: {}",
            why.as_deref().unwrap_or("it said nothing")
        ))
    }

    fn obey(&mut self, line: FromGuest, job: &Job) -> anyhow::Result<()> {
        let wants_answer = line.wants_answer();
        let done = match line {
            FromGuest::Hello { .. } => {
                self.now = Now::Mounting;
                return Ok(());
            }
            FromGuest::Progress { .. } => {
                if self.now == Now::Mounting {
                    self.now = Now::Checking;
                }
                return Ok(());
            }
            FromGuest::Check { said } => {
                self.record.bad_check = bad_check(&said, !job.agent_args.is_empty());
                self.record.check = Some(said);
                self.now = job
                    .faults
                    .first()
                    .map_or(Now::Checking, |fault| Now::Cell(*fault));
                return Ok(());
            }
            FromGuest::Cell(mut cell) => {
                // So that it is played again with it, and counted once.
                if let (Some(why), true) = (&self.record.bad_check, self.record.cells.is_empty()) {
                    (cell.outcome, cell.why) = (Outcome::Failed, why.clone());
                }
                self.record.cells.push(cell);
                let next = job.faults.get(self.record.cells.len());
                self.now = next.map_or(Now::Checking, |fault| Now::Cell(*fault));
                return Ok(());
            }
            FromGuest::File { name, data } => return self.keep(&name, &data),
            FromGuest::Done => {
                self.now = Now::Done;
                return Ok(());
            }
            FromGuest::Inject { rules } => self.disk.set_rules(rules).map(|()| ToGuest::Ok),
            FromGuest::Clear => self.disk.clear().map(|()| ToGuest::Ok),
            FromGuest::DiskLog => self
                .disk
                .truth()
                .map(|entries| ToGuest::DiskLog { entries }),
            FromGuest::DeviceDel { id } => self.machine.unplug(&id).map(|()| ToGuest::Ok),
        };
        if wants_answer {
            let answer = done.unwrap_or_else(|err| ToGuest::Error {
                text: format!("{err:#}"),
            });
            let mut text = serde_json::to_vec(&answer)?;
            text.push(b'\n');
            self.stream.write_all(&text).context("answer the guest")?;
        }
        Ok(())
    }

    /// A part of a file.
    fn keep(&self, name: &str, data: &str) -> anyhow::Result<()> {
        let name = Path::new(name)
            .file_name()
            .context("a file without a name")?;
        let path = self.evidence.join(name);
        let bytes = base64::decode(data).context("decode the guest's file")?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        file.write_all(&bytes)
            .with_context(|| format!("write {}", path.display()))
    }

    /// A cell that did not come back is one as well: the first of them is what
    /// the guest was in, the others were never tried.
    fn finish(self, job: &Job, ending: Ending) -> Record {
        let mut record = self.record;
        record.failure = match &ending {
            Ending::Done => None,
            Ending::Guest(why) | Ending::Unborn(why) | Ending::Harness(why) => Some(why.clone()),
        };
        record.is_unborn = matches!(ending, Ending::Unborn(_));
        // Where there are cells, the first of them carries it.
        if let (Ending::Guest(why), true) = (&ending, job.faults.is_empty()) {
            record.bad_check = Some(why.clone());
        }
        let (outcome, why) = match ending {
            Ending::Done => (Outcome::Harness, "the guest left it out".to_owned()),
            Ending::Guest(why) => (Outcome::Failed, why),
            Ending::Unborn(why) | Ending::Harness(why) => (Outcome::Harness, why),
        };
        let known = record.cells.len();
        for (nth, fault) in job.faults.iter().enumerate().skip(known) {
            let is_first = nth == known;
            record.cells.push(CellResult {
                id: *fault,
                outcome: if is_first { outcome } else { Outcome::Harness },
                asserts: Vec::new(),
                why: match is_first {
                    true => why.clone(),
                    false => format!("not tried: {why}"),
                },
                took_ms: 0,
                said: Vec::new(),
            });
        }
        record
    }
}

/// Why what `check` printed is not as it must be. Where forms of hooks are avoided, it
/// may miss some.
fn bad_check(said: &Value, may_miss_hooks: bool) -> Option<String> {
    if let Some(error) = said["error"].as_str() {
        return Some(format!("check printed no report: {error}"));
    }
    let code = said["exit_code"].as_i64();
    match (code, may_miss_hooks) {
        (Some(0), _) | (Some(3), true) => None,
        (Some(code), _) => Some(format!("check ended with exit code {code}")),
        (None, _) => Some("check ended without an exit code".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn check_must_print_a_report_and_miss_nothing() {
        let bad = |said: Value, may_miss| bad_check(&said, may_miss).is_some();
        assert!(!bad(json!({"hooks": [], "exit_code": 0}), false));
        assert!(bad(json!({"hooks": [], "exit_code": 3}), false));
        assert!(!bad(json!({"hooks": [], "exit_code": 3}), true));
        assert!(bad(json!({"error": "killed", "exit_code": null}), true));
        assert!(bad(Value::Null, true));
    }
}
