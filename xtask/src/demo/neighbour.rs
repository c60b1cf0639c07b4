//! The scenario in which another process takes the disk: a slow disk, the broker's
//! small flushes, and fio with a deep queue on the same file system. In: the
//! stage. Out: the course, and the points on which the tool disagrees with it:
//! it must name the process, and the bytes that the disk saw of it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use fsyncscope_tests::faultdisk::{Op, TruthRequest};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;

use super::compare::Told;
use super::stage::Stage;
use super::truth::{Outsider, Placed, Truth};
use crate::cli::ScenarioName;
use crate::incident::Neighbour;
use crate::process::{output, say};

/// Of all disks, from before the agent looks: they are slow, not slowed.
const BYTES_PER_S: u64 = 20_000_000;
/// What fio keeps in the queue: 1.6 s of that.
const QUEUED: [&str; 2] = ["--iodepth=64", "--bs=512k"];
const SECONDS: u64 = 20;

/// Slows the disks and lays out the file, so that later writes allocate nothing.
pub fn prepare(lab: &Lab, stage: &Stage) -> anyhow::Result<()> {
    stage.set_bandwidth(BYTES_PER_S)?;
    output(fio(lab, stage).arg("--create_only=1")).context("lay out the neighbour's file")?;
    Ok(())
}

/// Returns when fio has ended.
pub fn play(lab: &Lab, stage: &Stage) -> anyhow::Result<Outsider> {
    stage
        .disk()
        .set_rules(&super::rules(stage, ScenarioName::Neighbour)?)?;
    let mut command = fio(lab, stage);
    command
        .args(["--time_based".into(), format!("--runtime={SECONDS}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = proc::spawn(command).context("start fio")?;
    let pid = child.id();
    say(format!(
        "fio (pid {pid}) writes beside the broker for {SECONDS} s"
    ));
    let status = proc::wait(&mut child, Duration::from_secs(SECONDS + 40))?;
    if !status.is_some_and(|status| status.success()) {
        proc::end(&mut child, libc::SIGKILL, Duration::from_secs(5))?;
        bail!("fio did not end well: {status:?}");
    }
    let path = file(stage);
    Ok(Outsider {
        pid,
        file: Placed {
            sectors: stage.disk().file_sectors(&path)?,
            path: path.display().to_string(),
        },
    })
}

fn file(stage: &Stage) -> PathBuf {
    stage.disk().mountpoint().join("backup.bin")
}

fn fio(lab: &Lab, stage: &Stage) -> Command {
    let mut command = lab.command("fio");
    command
        .args(["--name=backup", "--size=64m", "--rw=write", "--direct=1"])
        // A thread: the process that writes is the one that was started.
        .args(["--ioengine=libaio", "--overwrite=1", "--thread"])
        .args(QUEUED)
        .arg(format!("--filename={}", file(stage).display()))
        .arg(format!("--output={}", lab.dir().join("fio.out").display()));
    command
}

/// What is wrong with the report.
pub fn compare(told: &Told, truth: &Truth, wrong: &mut Vec<String>) {
    let Some(outsider) = &truth.outsider else {
        wrong.push("there was no neighbour: nothing was tested".into());
        return;
    };
    let incident = &told.last;
    for sync in &incident.syncs {
        let path = sync.path.as_deref().unwrap_or("an unknown file");
        if sync.pid != truth.broker_pid || !path.starts_with(&truth.log_dir) {
            wrong.push(format!(
                "a stalled {} of {path} by pid {}",
                sync.op, sync.pid
            ));
        }
        if let Some(errno) = &sync.errno {
            wrong.push(format!(
                "{} of {path} is said to fail with {errno}",
                sync.op
            ));
        }
    }
    if let Some(event) = incident.log_events.first() {
        wrong.push(format!(
            "the broker prints nothing of a stall, but: `{}`",
            event.text
        ));
    }
    if incident
        .neighbours
        .iter()
        .any(|who| who.pid == truth.broker_pid)
    {
        wrong.push("the broker is called its own neighbour".into());
    }
    let Some(named) = incident.neighbours.first() else {
        wrong.push("no neighbour is named".into());
        return;
    };
    if named.pid != outsider.pid || named.comm.as_deref() != Some("fio") {
        wrong.push(format!(
            "the first neighbour is {:?} (pid {}), not fio (pid {})",
            named.comm, named.pid, outsider.pid
        ));
    }
    // Named from its directory on, as far as that is known.
    let is_its_file = |path: &str| outsider.file.path.ends_with(path);
    if !named.path.as_deref().is_some_and(is_its_file) {
        wrong.push(format!(
            "the neighbour's file is said to be {:?}, not {}",
            named.path, outsider.file.path
        ));
    }
    // What a worker of the kernel issued for it has the file alone.
    let is_its =
        |who: &&Neighbour| who.pid == outsider.pid || who.path.as_deref().is_some_and(is_its_file);
    let (its, rest): (Vec<_>, Vec<_>) = incident.neighbours.iter().partition(is_its);
    let bytes_of = |list: &[&Neighbour]| list.iter().map(|who| who.nr_bytes).sum::<u64>();
    if bytes_of(&rest) * 10 > bytes_of(&its) {
        wrong.push(format!(
            "others are said to have moved {} bytes beside it",
            bytes_of(&rest)
        ));
    }
    compare_bytes(told, truth, outsider, bytes_of(&its), wrong);
}

/// The bytes are those of the longest stalled sync's time.
fn compare_bytes(
    told: &Told,
    truth: &Truth,
    outsider: &Outsider,
    said_bytes: u64,
    wrong: &mut Vec<String>,
) {
    let longest = told.last.syncs.iter().max_by_key(|sync| sync.duration_ns);
    let Some((sync, begin_ns)) = longest.and_then(|sync| Some((sync, sync.begin_ns()?))) else {
        wrong.push("no stalled sync with its time".into());
        return;
    };
    let end_ns = begin_ns + sync.duration_ns;
    let is_its = |request: &&TruthRequest| {
        let mut sectors = outsider.file.sectors.iter();
        let at = request.sector;
        let reply_ns = request.reply.map(|reply| reply.realtime_ns);
        request.op == Op::Write
            && sectors.any(|(first, last)| (*first..=*last).contains(&at))
            && reply_ns.is_some_and(|at_ns| (begin_ns..=end_ns).contains(&at_ns))
    };
    let bytes: u64 = truth
        .requests
        .iter()
        .filter(is_its)
        .map(|request| request.bytes)
        .sum();
    // Requests at both ends may count or not.
    let slack = bytes / 10 + (2 << 20);
    if bytes == 0 || said_bytes.abs_diff(bytes) > slack {
        wrong.push(format!(
            "the neighbour is said to have moved {said_bytes} bytes, the disk saw {bytes}"
        ));
    }
}

#[cfg(test)]
#[path = "neighbour_tests.rs"]
mod tests;
