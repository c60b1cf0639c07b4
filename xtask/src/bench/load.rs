//! The work that is watched. In: the disk, a duration. Out: how many syncs were
//! done and at which rate. A load is started first and held, so that a watcher
//! can be given its pid and be attached before the first sync.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fsyncscope_tests::writer::{Writer, WriterConfig};
use serde::Deserialize;

use super::scene::Scene;

/// How long a load waits before its first sync.
const HOLD: Duration = Duration::from_secs(1);

/// The loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// fio, two jobs, 4 KiB writes each followed by fsync.
    Fio,
    /// The lab's writer: 50 partitions in turn by two threads, each flush an
    /// fsync of the segment and an msync of both indexes.
    Partitions,
}

/// What a load has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Done {
    /// Sync calls.
    pub syncs: u64,
    /// Sync calls a second.
    pub syncs_per_second: f64,
}

/// A load that is held or at work.
pub struct Running {
    duration: Duration,
    process: Process,
}

enum Process {
    Fio(Child),
    Writer(Box<Writer>),
}

impl Load {
    /// All of them.
    pub const ALL: [Load; 2] = [Load::Fio, Load::Partitions];

    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Load::Fio => "A: fio, 2 jobs, 4 KiB write + fsync",
            Load::Partitions => "B: 50 partitions, 4 KiB write + fsync + 2 msync",
        }
    }

    /// Starts it and holds it before its first sync.
    pub fn start_held(self, scene: &Scene, duration: Duration) -> anyhow::Result<Running> {
        let process = match self {
            Load::Fio => start_fio(scene, duration)?,
            Load::Partitions => start_writer(scene)?,
        };
        let running = Running { duration, process };
        signal(running.pid(), libc::SIGSTOP)?;
        // The hold is over by the clock, and nothing runs.
        thread::sleep(HOLD);
        Ok(running)
    }
}

fn start_fio(scene: &Scene, duration: Duration) -> anyhow::Result<Process> {
    let child = fio(&scene.mount(), duration)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("start fio")?;
    // It is in its start delay by then.
    thread::sleep(Duration::from_millis(300));
    Ok(Process::Fio(child))
}

fn start_writer(scene: &Scene) -> anyhow::Result<Process> {
    let mut config = WriterConfig::new(scene.beside("writer"), vec![scene.mount().join("kafka")]);
    config.partitions = 50;
    config.handlers = 2;
    config.flushes_per_s = 0.0;
    config.checkpoint_ms = 0;
    config.segment_bytes = 4 << 20;
    config.hold_before_first_sync_ms = HOLD.as_millis() as u64;
    let writer = Writer::start(&scene.lab, config)?;
    Ok(Process::Writer(Box::new(writer)))
}

impl Running {
    /// Its process; all its jobs are threads of it.
    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Fio(child) => child.id(),
            Process::Writer(writer) => writer.pid(),
        }
    }

    /// Lets it go.
    pub fn release(&self) -> anyhow::Result<()> {
        signal(self.pid(), libc::SIGCONT)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> anyhow::Result<Done> {
        match &mut self.process {
            Process::Fio(child) => finish_fio(child),
            Process::Writer(writer) => finish_writer(writer, self.duration),
        }
    }
}

fn finish_fio(child: &mut Child) -> anyhow::Result<Done> {
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        std::io::Read::read_to_string(&mut stdout, &mut text).context("read fio's result")?;
    }
    let status = child.wait().context("wait for fio")?;
    if !status.success() {
        bail!("fio failed: {status}");
    }
    parse_fio(&text)
}

/// The rate is that between the first flush and the end of the time; the calls
/// are all that it ever made.
fn finish_writer(writer: &mut Writer, duration: Duration) -> anyhow::Result<Done> {
    writer.wait_for_flushes(1, Duration::from_secs(10))?;
    let begin = Instant::now();
    let first = writer.flushes()?;
    thread::sleep(duration);
    let flushes = writer.flushes()? - first;
    let elapsed = begin.elapsed();
    let counts = writer.finish()?;
    let syncs: u64 = counts.ops.values().map(|calls| calls.total()).sum();
    let failed: u64 = counts.ops.values().map(|calls| calls.failed).sum();
    if failed > 0 || counts.flushes == 0 {
        bail!(
            "the writer made {} flushes, {failed} calls failed",
            counts.flushes
        );
    }
    let syncs_per_flush = syncs as f64 / counts.flushes as f64;
    Ok(Done {
        syncs,
        syncs_per_second: flushes as f64 * syncs_per_flush / elapsed.as_secs_f64(),
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process does not end on anything but SIGKILL; the writer
        // ends itself in its own drop once it runs again.
        if let Process::Fio(child) = &mut self.process
            && let Ok(None) = child.try_wait()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn fio(folder: &Path, duration: Duration) -> Command {
    let mut command = Command::new("fio");
    command
        .args([
            "--name=sync",
            "--rw=write",
            "--bs=4k",
            "--fsync=1",
            "--ioengine=psync",
        ])
        .args([
            "--numjobs=2",
            "--thread",
            "--size=64m",
            "--time_based",
            "--startdelay=1",
        ])
        .args(["--group_reporting", "--output-format=json"])
        .arg(format!("--runtime={}", duration.as_secs()))
        .arg(format!("--directory={}", folder.display()));
    command
}

#[derive(Deserialize)]
struct FioResult {
    jobs: Vec<FioJob>,
}

#[derive(Deserialize)]
struct FioJob {
    sync: FioSync,
    write: FioWrite,
}

#[derive(Deserialize)]
struct FioSync {
    total_ios: u64,
}

#[derive(Deserialize)]
struct FioWrite {
    iops: f64,
}

/// One write belongs to one fsync, so the rate of one is that of the other;
/// fio gives a rate only for writes.
fn parse_fio(text: &str) -> anyhow::Result<Done> {
    // fio may print notes before its JSON.
    let json = text.find('{').map_or(text, |at| &text[at..]);
    let result: FioResult = serde_json::from_str(json).context("read fio's result")?;
    let job = result.jobs.first().context("fio reports no job")?;
    if job.sync.total_ios == 0 {
        bail!("fio made no fsync");
    }
    Ok(Done {
        syncs: job.sync.total_ios,
        syncs_per_second: job.write.iops,
    })
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: i32) -> anyhow::Result<()> {
    // SAFETY: kill touches no memory; the pid is that of a child not waited for.
    if unsafe { libc::kill(pid as i32, signal) } != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("send signal {signal} to {pid}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fios_result_is_read_behind_its_notes() {
        let text = "note: x\n{\"jobs\":[{\"sync\":{\"total_ios\":10},\"write\":{\"iops\":2.5}}]}";
        let expected = Done {
            syncs: 10,
            syncs_per_second: 2.5,
        };
        assert_eq!(parse_fio(text).unwrap(), expected);
    }

    #[test]
    fn a_load_without_syncs_is_an_error() {
        let text = "{\"jobs\":[{\"sync\":{\"total_ios\":0},\"write\":{\"iops\":2.5}}]}";
        assert!(parse_fio(text).is_err());
    }
}
