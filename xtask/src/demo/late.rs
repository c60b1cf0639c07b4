//! The scenario in which nobody is told until it is too late: a broker that flushes
//! as most do, writeback that fails in the background, a device that is healthy
//! again, and the roll's fsync that is told. In: the stage. Out: the course, and
//! the points on which the tool disagrees with it. Nobody's sysctl is touched:
//! writeback comes when the kernel's defaults have it.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use fsyncscope_tests::faultdisk::Stamp;

use super::compare::{self, Told};
use super::stage::Stage;
use super::truth::Truth;
use super::wait_for;
use crate::cli::ScenarioName;
use crate::incident::{Operation, Sync};
use crate::process::{output, say};

/// The age at which the next record rolls the segment.
pub const SEGMENT_MS: &str = "45000";
/// The same, from the first record on, with room for the producer's start.
const ROLL_AFTER: Duration = Duration::from_secs(47);
/// Producers of which at least one reaches each partition.
const MAX_PRODUCERS: usize = 20;
/// The promise.
const TOLD_WITHIN_NS: u64 = 1_000_000_000;
/// An fsync with I/O of its own on this disk may be as quick, but one that is
/// slower than this did not return at once.
const AT_ONCE_NS: u64 = 50_000_000;

/// Where the segments lie now.
pub fn sectors(stage: &Stage) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut sectors = Vec::new();
    for segment in stage.segments()? {
        sectors.extend(stage.disk().file_sectors(&segment)?);
    }
    if sectors.is_empty() {
        bail!("no segment has a block yet");
    }
    Ok(sectors)
}

/// Returns when the segments are rolled.
pub fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let begin = Instant::now();
    stage.stop_producing()?;
    // What was produced so far is safe, and its last blocks will be written again
    // with what comes now: their sectors are known before.
    let mut sync = Command::new("sync");
    output(sync.arg("-f").arg(stage.disk().mountpoint()))?;
    let nr_segments = stage.segments()?.len();
    stage
        .disk()
        .set_rules(&super::rules(stage, ScenarioName::Late)?)?;
    if !stage.produce(300)? {
        bail!("the records that are to be lost were not taken");
    }
    wait_for("the kernel's writeback to meet the error", 60, || {
        stage.disk().stats().is_ok_and(|stats| stats.touched > 0)
    })?;
    thread::sleep(Duration::from_secs(1));
    stage.disk().clear()?;
    say("the device is healthy again");
    if stage.segments()?.len() != nr_segments {
        bail!("a segment was rolled before its time");
    }
    thread::sleep(Duration::from_secs(5).max(ROLL_AFTER.saturating_sub(begin.elapsed())));
    say("producing again until all segments are rolled");
    // A producer without keys keeps to a partition for a while, and only a record rolls
    // a segment; records are refused once the directory is offline.
    for _ in 0..MAX_PRODUCERS {
        let is_taken = stage.produce(100)?;
        if !is_taken || stage.segments()?.len() >= 2 * nr_segments {
            return Ok(());
        }
    }
    bail!("not every segment was rolled by {MAX_PRODUCERS} producers")
}

/// The first write that the disk failed, when it was answered.
fn first_failure(truth: &Truth) -> Option<Stamp> {
    let replies = truth.failed().filter_map(|request| request.reply);
    replies.min_by_key(|at| at.monotonic_ns)
}

/// How soon it was told.
pub fn facts(truth: &Truth, ours: &[Told]) -> Vec<String> {
    let (Some(told), Some(failure)) = (ours.first(), first_failure(truth)) else {
        return Vec::new();
    };
    let took_ns = told.first_at_ns.saturating_sub(failure.monotonic_ns);
    vec![format!(
        "told:    {} ms after the disk failed the write; {} failed in all",
        took_ns / 1_000_000,
        truth.failed().count()
    )]
}

/// What is wrong with the report.
pub fn compare(told: &Told, truth: &Truth, wrong: &mut Vec<String>) {
    let Some(failure) = first_failure(truth) else {
        wrong.push("the disk failed no write: nothing was tested".into());
        return;
    };
    let took_ns = told.first_at_ns.saturating_sub(failure.monotonic_ns);
    if told.first_at_ns < failure.monotonic_ns || took_ns > TOLD_WITHIN_NS {
        wrong.push(format!(
            "first reported {} ms after the failure",
            took_ns / 1_000_000
        ));
    }
    compare_first(told, truth, wrong);
    compare::compare_failed_syncs(&told.last, truth, "fsync", &["log"], wrong);
    compare::compare_failed_requests(&told.last, truth, wrong);
    compare::compare_log_line(&told.last, truth, wrong);
    compare_lost(told, truth, wrong);
    compare_age(told, failure.realtime_ns, wrong);
}

fn compare_first(told: &Told, truth: &Truth, wrong: &mut Vec<String>) {
    let first = &told.first;
    if !first.syncs.is_empty() || !first.log_events.is_empty() {
        wrong.push("the first report has a sync or a line already".into());
    }
    let is_lost = |operation: &Operation| {
        let path = operation.path.as_deref().unwrap_or_default();
        operation.op == "writeback"
            && operation.errno.as_deref() == Some("EIO")
            && operation.topic_partition.is_some()
            && path.starts_with(&truth.log_dir)
            && operation.told.is_empty()
    };
    if !first.operations.iter().any(is_lost) {
        wrong.push("the first report names no lost data of a partition".into());
    }
    if !first
        .reasons
        .iter()
        .any(|reason| reason.contains("not yet told"))
    {
        wrong.push("the first report does not say `not yet told`".into());
    }
}

/// Each write that failed is reported, with the file that it belongs to.
fn compare_lost(told: &Told, truth: &Truth, wrong: &mut Vec<String>) {
    let incident = &told.last;
    for failed in truth.failed() {
        let end = failed.sector + failed.bytes / 512;
        let is_reported = incident.requests.iter().any(|request| {
            let sector = request.sector.unwrap_or(u64::MAX);
            request.errno.is_some()
                && sector < end
                && sector + request.nr_bytes / 512 > failed.sector
        });
        // Ten are listed.
        if !is_reported && incident.totals.requests <= 10 {
            wrong.push(format!(
                "the write that failed at sector {} is not reported",
                failed.sector
            ));
        }
        let Some(path) = truth.file_at(failed.sector) else {
            continue;
        };
        let is_named = incident
            .operations
            .iter()
            .any(|lost| lost.path.as_deref() == Some(path));
        if !is_named && incident.operations.len() < 10 {
            wrong.push(format!("{path} is not among the lost files"));
        }
    }
    let is_told = |lost: &Operation| lost.told.iter().any(|who| who.pid == truth.broker_pid);
    if !incident.operations.iter().any(is_told) {
        wrong.push("of no lost file it is said that the broker was told".into());
    }
}

/// The fsync that was told had no I/O of its own to wait for, and the age of the
/// failure is right.
fn compare_age(told: &Told, failed_at_ns: u64, wrong: &mut Vec<String>) {
    let late: Vec<&Sync> = told
        .last
        .syncs
        .iter()
        .filter(|sync| sync.op == "fsync" && sync.errno.is_some() && sync.told_late_by_ns.is_some())
        .collect();
    if late.is_empty() {
        wrong.push("no failed fsync that is said to be told late".into());
    }
    for sync in late {
        let Some(begin_ns) = sync.begin_ns() else {
            wrong.push(format!("the fsync's time is {:?}", sync.time));
            continue;
        };
        let age_ns = begin_ns.saturating_sub(failed_at_ns);
        let said_ns = sync.told_late_by_ns.unwrap_or_default();
        // Several writes failed, at most a second apart.
        if said_ns.abs_diff(age_ns) > 1_500_000_000 {
            wrong.push(format!(
                "told late by {} ms, which were {} ms",
                said_ns / 1_000_000,
                age_ns / 1_000_000
            ));
        }
        if sync.duration_ns > AT_ONCE_NS {
            wrong.push(format!(
                "the fsync took {} ms: it did not return at once",
                sync.duration_ns / 1_000_000
            ));
        }
    }
}

#[cfg(test)]
#[path = "late_tests.rs"]
mod tests;
