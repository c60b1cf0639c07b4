//! The work that is watched. In: the disk, a duration. Out: how many syncs were
//! done and at which rate. A load is started first and held, so that a watcher
//! can be given its pid and be attached before the first sync.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::scene::Scene;

/// The loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// fio, two jobs, 4 KiB writes each followed by fsync.
    Fio,
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
    child: Child,
}

impl Load {
    /// All of them.
    pub const ALL: [Load; 1] = [Load::Fio];

    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Load::Fio => "A: fio, 2 jobs, 4 KiB write + fsync",
        }
    }

    /// Starts it and holds it before its first sync.
    pub fn start_held(self, scene: &Scene, duration: Duration) -> anyhow::Result<Running> {
        let mut command = match self {
            Load::Fio => fio(&scene.mount(), duration),
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("start the load")?;
        let running = Running { child };
        // fio is in its start delay by then.
        thread::sleep(Duration::from_millis(300));
        signal(running.pid(), libc::SIGSTOP)?;
        Ok(running)
    }
}

impl Running {
    /// Its process; all its jobs are threads of it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go.
    pub fn release(&self) -> anyhow::Result<()> {
        signal(self.pid(), libc::SIGCONT)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> anyhow::Result<Done> {
        let mut text = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut stdout, &mut text)
                .context("read the load's result")?;
        }
        let status = self.child.wait().context("wait for the load")?;
        if !status.success() {
            bail!("the load failed: {status}");
        }
        parse_fio(&text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
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
