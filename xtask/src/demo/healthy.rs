//! Nothing happens: a broker under steady load on two healthy disks, `watch` and
//! `export` at their defaults beside it. In: a lab and the agent. Out: what was
//! found wrong, which is anything reported at all, a watcher that saw no syncs,
//! or an exporter that could not be scraped; and the measured numbers.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::metrics::Scrape;

use super::agent::{Agent, Output};
use super::compare::{self, Told};
use super::ending::Row;
use super::exporter::{Exporter, Scraped};
use super::stage::{Plan, Stage};
use super::{Outcome, start_agent};
use crate::process::say;

const COUNT: &str = "fsyncscope_sync_duration_seconds_count";
const FAILURES: &str = "fsyncscope_sync_failures_total";
const ERRORS: &str = "fsyncscope_sync_errors_total";
const LOST: &str = "fsyncscope_events_lost_total";
const OPS: [&str; 5] = ["fsync", "fdatasync", "msync", "sync_file_range", "syncfs"];
/// Fewer fsyncs a second, over all directories, are no load: it produces six
/// times as many flushed records.
const LEAST_FSYNCS_PER_S: u64 = 10;
const SAY_EVERY: Duration = Duration::from_secs(30);

/// All that is checked.
struct Seen {
    /// The broker's, on the two disks.
    log_dirs: Vec<String>,
    seconds: u64,
    /// Whether load was made to the end.
    is_loaded: bool,
    /// Flushes that each disk served meanwhile, by its own count.
    disk_flushes: Vec<u64>,
    /// Of watch, incidents of this broker or of nobody.
    output: Output,
    /// Incidents of other brokers on this host.
    foreign: usize,
    watch_code: i32,
    scraped: Scraped,
    export_code: i32,
}

/// Plays it for so long.
pub fn play(lab: &Lab, plan: &Plan, binary: &Path, minutes: u32) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set_up(lab, plan)?;
    let log_dirs = stage.log_dirs();
    let agent = start_agent(lab, binary)?;
    say("starting fsyncscope export");
    let exporter = Exporter::start(lab, binary, &log_dirs)?;
    let flushes_before = stage.disk_flushes()?;
    let seconds = u64::from(minutes) * 60;
    say(format!(
        "{minutes} min in which nothing is to be reported; the first incident ends it"
    ));
    wait(&agent, stage.pid(), &exporter, Duration::from_secs(seconds));
    let is_loaded = stage.is_producing();
    let flushes = stage.disk_flushes()?;
    say("stopping the agents");
    let (scraped, export_code) = exporter.stop()?;
    let (mut output, watch_code) = agent.stop()?;
    let all = output.told.len();
    output
        .told
        .retain(|told| !compare::is_of_other_broker(&told.last, stage.pid()));
    let seen = Seen {
        log_dirs,
        seconds,
        is_loaded,
        disk_flushes: flushes
            .iter()
            .zip(flushes_before)
            .map(|(after, before)| after - before)
            .collect(),
        foreign: all - output.told.len(),
        output,
        watch_code,
        scraped,
        export_code,
    };
    Ok(Outcome {
        wrong: check(&seen),
        facts: facts(&seen),
        told: seen.output.told,
    })
}

fn wait(agent: &Agent, pid: u32, exporter: &Exporter, time: Duration) {
    let begin = Instant::now();
    let mut next = SAY_EVERY;
    let is_ours = |told: &Told| !compare::is_of_other_broker(&told.last, pid);
    while begin.elapsed() < time && !agent.output().told.iter().any(is_ours) {
        thread::sleep(Duration::from_millis(200));
        if begin.elapsed() < next {
            continue;
        }
        next += SAY_EVERY;
        let scraped = exporter.scraped();
        let count = |op| scraped.last.sum(COUNT, &[("op", op)]).unwrap_or(0.0);
        say(format!(
            "{} of {} s: {} fsync, {} msync, {} printed as slow, {} scrapes",
            begin.elapsed().as_secs(),
            time.as_secs(),
            count("fsync"),
            count("msync"),
            agent.output().ending.slow_syncs,
            scraped.times
        ));
    }
}

/// All that is wrong.
fn check(seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for told in &seen.output.told {
        wrong.push(format!("an incident was reported: {}", told.last_line));
    }
    let has_incident = !seen.output.told.is_empty() || seen.foreign > 0;
    for (what, code) in [("watch", seen.watch_code), ("export", seen.export_code)] {
        if code != 0 && !(code == 1 && has_incident) {
            wrong.push(format!("the exit code of {what} is {code} instead of 0"));
        }
    }
    if !seen.is_loaded {
        wrong.push("a producer ended early: the load was not steady".into());
    }
    if seen.disk_flushes.contains(&0) {
        wrong.push(format!(
            "a disk served no flush: {:?}; nothing was tested",
            seen.disk_flushes
        ));
    }
    check_summary(seen, &mut wrong);
    check_scrapes(seen, &mut wrong);
    wrong
}

/// The summary's rows of the broker's directories.
fn rows(seen: &Seen) -> impl Iterator<Item = &Row> {
    let rows = seen.output.ending.rows.iter();
    rows.filter(|row| seen.log_dirs.contains(&row.log_dir))
}

fn watched(seen: &Seen, log_dir: &str, op: &str) -> u64 {
    rows(seen)
        .filter(|row| row.log_dir == log_dir && row.op == op)
        .map(|row| row.count)
        .sum()
}

fn check_summary(seen: &Seen, wrong: &mut Vec<String>) {
    let Some(stopped) = &seen.output.ending.stopped else {
        wrong.push("watch printed no last line".into());
        return;
    };
    if stopped.required_hook_missing {
        wrong.push("watch ran without a required hook: its silence proves nothing".into());
    }
    let mut fsyncs = 0;
    for dir in &seen.log_dirs {
        for op in ["fsync", "msync"] {
            if watched(seen, dir, op) == 0 {
                wrong.push(format!("watch counted no {op} in {dir}"));
            }
        }
        fsyncs += watched(seen, dir, "fsync");
    }
    if fsyncs < seen.seconds * LEAST_FSYNCS_PER_S {
        wrong.push(format!("{fsyncs} fsyncs in {} s are no load", seen.seconds));
    }
    for row in rows(seen).filter(|row| row.errors > 0) {
        wrong.push(format!(
            "watch counted {} failed {} in {}",
            row.errors, row.op, row.log_dir
        ));
    }
}

fn check_scrapes(seen: &Seen, wrong: &mut Vec<String>) {
    let scraped = &seen.scraped;
    wrong.extend(scraped.wrong.iter().map(|what| format!("export: {what}")));
    if scraped.times * 10 < seen.seconds {
        wrong.push(format!(
            "export was scraped {} times only in {} s",
            scraped.times, seen.seconds
        ));
    }
    if scraped.checked == 0 {
        wrong.push("promtool was never asked".into());
    }
    for dir in &seen.log_dirs {
        for (which, scrape) in [("first", &scraped.first), ("last", &scraped.last)] {
            check_failure_counters(scrape, which, dir, wrong);
        }
        for op in ["fsync", "msync"] {
            let count = scraped.last.sum(COUNT, &[("log_dir", dir), ("op", op)]);
            // It came after watch and went before.
            let (exported, watched) = (count.unwrap_or(0.0), watched(seen, dir, op) as f64);
            if exported > watched || exported < 0.8 * watched {
                wrong.push(format!(
                    "{op} in {dir}: export counted {exported}, watch {watched}"
                ));
            }
        }
    }
}

fn check_failure_counters(scrape: &Scrape, which: &str, dir: &str, wrong: &mut Vec<String>) {
    for op in OPS {
        let labels = [("log_dir", dir), ("op", op)];
        let eio = [("log_dir", dir), ("op", op), ("errno", "EIO")];
        for (name, labels) in [(FAILURES, &labels[..]), (ERRORS, &eio[..])] {
            match scrape.sum(name, labels) {
                Some(0.0) => {}
                value => wrong.push(format!(
                    "{name} of {op} in {dir} is {value:?} in the {which} scrape, not 0"
                )),
            }
        }
    }
}

/// The numbers, a line each.
fn facts(seen: &Seen) -> Vec<String> {
    let ending = &seen.output.ending;
    let mut lines = vec![format!(
        "watched: {} s, {} incidents, {} syncs printed as slow, exit code {}",
        seen.seconds,
        seen.output.told.len(),
        ending.slow_syncs,
        seen.watch_code
    )];
    for row in rows(seen) {
        lines.push(format!(
            "syncs:   {:>7} {:<5} in {} on {}: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            row.count,
            row.op,
            row.log_dir,
            row.device,
            row.p50_ns as f64 / 1e6,
            row.p99_ns as f64 / 1e6,
            row.max_ns as f64 / 1e6
        ));
    }
    lines.push(format!(
        "flushes: {:?} by the disks' own count",
        seen.disk_flushes
    ));
    let lost = ending.stopped.as_ref().map(|stopped| &stopped.lost);
    let lost = lost.into_iter().flatten().filter(|(_, count)| **count > 0);
    let lost: Vec<String> = lost.map(|(class, n)| format!("{n} {class}")).collect();
    let none = |text: String| if text.is_empty() { "none".into() } else { text };
    lines.push(format!("lost:    {}", none(lost.join(", "))));
    let last = &seen.scraped.last;
    let value = |name| last.sum(name, &[]).unwrap_or(f64::NAN);
    lines.push(format!(
        "export:  {} scrapes, the slowest {} ms, {} accepted by promtool, {} events lost, \
         {:.1} MB resident, {:.1} s of CPU, exit code {}",
        seen.scraped.times,
        seen.scraped.slowest.as_millis(),
        seen.scraped.checked,
        value(LOST),
        value("process_resident_memory_bytes") / 1e6,
        value("process_cpu_seconds_total"),
        seen.export_code
    ));
    if seen.foreign > 0 {
        lines.push(format!(
            "{} incidents of other brokers on this host do not count",
            seen.foreign
        ));
    }
    lines
}

#[cfg(test)]
#[path = "healthy_tests.rs"]
mod tests;
