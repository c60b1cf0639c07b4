//! Does what the tool said agree with what was done? In: what is expected, the
//! truth, the incidents with the moments at which they were first printed. Out:
//! the points on which they disagree; none means that the demo passes. Pure.

use fsyncscope_tests::faultdisk::{Op, TruthRequest};

use super::scenario::Expect;
use super::truth::{Truth, errno_name};
use super::{journal, late, neighbour};
use crate::incident::{Incident, Request, Sync};

/// A sync in flight becomes a finding after this; the agent's default.
const STALL_NS: u64 = 1_000_000_000;
/// And must be printed by then.
const PRINTED_WITHIN_NS: u64 = 1_000_000_000;

/// An incident as it was first and last printed.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// At the first line, by CLOCK_MONOTONIC.
    pub first_at_ns: u64,
    /// The first line.
    pub first: Incident,
    /// The last line.
    pub last: Incident,
    /// The same as it was printed.
    pub last_line: String,
}

/// What was told of this broker, not of others on the host.
pub fn of_broker(truth: &Truth, told: &[Told]) -> Vec<Told> {
    let ours = told.iter().filter(|told| is_of_broker(&told.last, truth));
    ours.cloned().collect()
}

/// All disagreements. In: what was told of the broker.
pub fn compare(expect: Expect, truth: &Truth, ours: &[Told]) -> Vec<String> {
    match expect {
        Expect::Nothing => ours
            .iter()
            .map(|told| {
                format!(
                    "nothing was to be said of the broker, but: {}",
                    headline(&told.last)
                )
            })
            .collect(),
        Expect::Unknown => compare_unknown(ours),
        Expect::Failed {
            op,
            file_kinds,
            has_log_line,
            said,
        } => with_one(ours, "CONFIRMED", "device-error", |told, wrong| {
            compare_device(&told.last, truth, wrong);
            compare_failed_syncs(&told.last, truth, op, file_kinds, wrong);
            compare_failed_requests(&told.last, truth, wrong);
            if has_log_line {
                compare_log_line(&told.last, truth, wrong);
            }
            if let Some(word) = said
                && !told.last.reasons.iter().any(|reason| reason.contains(word))
            {
                wrong.push(format!("no reason says `{word}`"));
            }
        }),
        Expect::ToldLate => with_one(ours, "CONFIRMED", "device-error", |told, wrong| {
            compare_device(&told.last, truth, wrong);
            late::compare(told, truth, wrong);
        }),
        Expect::Journal => with_one(ours, "CONFIRMED", "journal", |told, wrong| {
            compare_device(&told.last, truth, wrong);
            journal::compare(told, truth, wrong);
        }),
        Expect::Neighbour => with_one(ours, "STALLED", "neighbour", |told, wrong| {
            compare_device(&told.last, truth, wrong);
            neighbour::compare(told, truth, wrong);
        }),
        Expect::FlushHeld {
            delay_ms,
            while_in_flight,
        } => with_one(ours, "STALLED", "device-stall", |told, wrong| {
            compare_device(&told.last, truth, wrong);
            compare_held(told, truth, delay_ms, wrong);
            if while_in_flight {
                compare_told_in_time(told, truth, wrong);
            }
        }),
    }
}

/// Of the broker: said to be, or naming one of its files.
fn is_of_broker(incident: &Incident, truth: &Truth) -> bool {
    let is_said = incident
        .broker
        .as_ref()
        .is_some_and(|broker| broker.pid == truth.broker_pid);
    is_said
        || incident
            .syncs
            .iter()
            .any(|sync| sync.pid == truth.broker_pid)
}

/// Of a broker that is not the demo's. What names no broker at all may concern
/// the demo's disks.
pub fn is_of_other_broker(incident: &Incident, pid: u32) -> bool {
    incident
        .broker
        .as_ref()
        .is_some_and(|broker| broker.pid != pid)
}

fn headline(incident: &Incident) -> String {
    let cause = incident.cause.as_deref().unwrap_or("no cause");
    format!("{} ({cause}), incident {}", incident.verdict, incident.id)
}

fn compare_unknown(ours: &[Told]) -> Vec<String> {
    if ours.is_empty() {
        return vec!["the broker's error was not reported at all".into()];
    }
    ours.iter()
        .filter(|told| told.last.verdict != "UNKNOWN")
        .map(|told| format!("UNKNOWN was to be said, but: {}", headline(&told.last)))
        .collect()
}

/// Exactly one incident, of this verdict and cause, that passes the rest.
fn with_one(
    ours: &[Told],
    verdict: &str,
    cause: &str,
    rest: impl Fn(&Told, &mut Vec<String>),
) -> Vec<String> {
    let [told] = ours else {
        let list: Vec<String> = ours.iter().map(|told| headline(&told.last)).collect();
        return vec![format!(
            "one incident was to be reported, not {}: {}",
            ours.len(),
            list.join("; ")
        )];
    };
    let mut wrong = Vec::new();
    if told.last.verdict != verdict {
        wrong.push(format!(
            "verdict {} instead of {verdict}",
            told.last.verdict
        ));
    }
    if told.last.cause.as_deref() != Some(cause) {
        wrong.push(format!("cause {:?} instead of {cause}", told.last.cause));
    }
    rest(told, &mut wrong);
    wrong
}

fn compare_device(incident: &Incident, truth: &Truth, wrong: &mut Vec<String>) {
    let disk = incident.device.as_ref().map(|device| device.disk.as_str());
    if disk != Some(&truth.disk) {
        wrong.push(format!("device {disk:?} instead of {}", truth.disk));
    }
}

/// Each failed sync is the broker's, and one is of this kind.
pub fn compare_failed_syncs(
    incident: &Incident,
    truth: &Truth,
    op: &str,
    kinds: &[&str],
    wrong: &mut Vec<String>,
) {
    let failed: Vec<&Sync> = incident
        .syncs
        .iter()
        .filter(|sync| sync.errno.is_some())
        .collect();
    let is_expected = |sync: &&&Sync| {
        sync.op == op
            && sync
                .file_kind
                .as_deref()
                // By its suffix, with or without the dot.
                .is_some_and(|kind| kinds.contains(&kind.trim_start_matches('.')))
            && sync.topic_partition.is_some()
    };
    if !failed.iter().any(|sync| is_expected(&sync)) {
        wrong.push(format!(
            "no failed {op} of a file of kind {}",
            kinds.join(" or ")
        ));
    }
    for sync in failed {
        let path = sync.path.as_deref().unwrap_or("an unknown file");
        if !path.starts_with(&truth.log_dir) {
            wrong.push(format!("{} of {path} is not in {}", sync.op, truth.log_dir));
        }
        if sync.pid != truth.broker_pid {
            wrong.push(format!(
                "{} of {path} is by pid {}, not by the broker",
                sync.op, sync.pid
            ));
        }
    }
}

/// Each failed request is one that the disk failed.
pub fn compare_failed_requests(incident: &Incident, truth: &Truth, wrong: &mut Vec<String>) {
    let failed: Vec<&Request> = incident
        .requests
        .iter()
        .filter(|request| request.errno.is_some())
        .collect();
    if failed.is_empty() {
        wrong.push("no failed request".into());
    }
    for request in failed {
        let Some(sector) = request.sector else {
            wrong.push(format!("a failed {} without sector", request.op));
            continue;
        };
        let what = format!("{} at sector {sector}", request.op);
        let Some(done) = truth.find(Op::Write, sector, request.nr_bytes) else {
            wrong.push(format!("{what} is not in the disk's log"));
            continue;
        };
        if request.errno.as_deref() != Some(errno_name(done.errno)) {
            wrong.push(format!(
                "{what}: {:?} instead of {}",
                request.errno,
                errno_name(done.errno)
            ));
        }
        if request.disk != truth.disk {
            wrong.push(format!(
                "{what}: on {} instead of {}",
                request.disk, truth.disk
            ));
        }
        // Of a file deleted since, the truth knows no sectors.
        if let Some(path) = truth.file_at(sector)
            && request.path.as_deref() != Some(path)
        {
            wrong.push(format!("{what}: file {:?} instead of {path}", request.path));
        }
    }
}

/// Each line is one of the broker's log.
pub fn compare_log_line(incident: &Incident, truth: &Truth, wrong: &mut Vec<String>) {
    if incident.log_events.is_empty() {
        wrong.push("no line of the broker's log".into());
    }
    for event in &incident.log_events {
        let index = event.line_number.checked_sub(1);
        let line = index.and_then(|index| truth.broker_log.get(index as usize));
        if !line.is_some_and(|line| line.contains(event.text.trim())) {
            wrong.push(format!(
                "line {} of the broker's log is not `{}`",
                event.line_number, event.text
            ));
        }
    }
}

fn held(truth: &Truth) -> impl Iterator<Item = &TruthRequest> {
    truth
        .requests
        .iter()
        .filter(|request| request.op == Op::Flush)
}

fn compare_held(told: &Told, truth: &Truth, delay_ms: u64, wrong: &mut Vec<String>) {
    if held(truth).next().is_none() {
        wrong.push("the disk held no flush: nothing was tested".into());
    }
    let is_long = |ns: u64| ns >= delay_ms * 900_000;
    let by_flush = |sync: &Sync| {
        sync.breakdown
            .as_ref()
            .is_some_and(|parts| parts.flush_ns * 2 > sync.duration_ns)
    };
    let syncs = &told.last.syncs;
    let long: Vec<&Sync> = syncs
        .iter()
        .filter(|sync| is_long(sync.duration_ns))
        .collect();
    if long.is_empty() {
        wrong.push(format!("no sync that took the {delay_ms} ms"));
    } else if !long.iter().any(|sync| by_flush(sync)) {
        wrong.push("no sync whose time is said to be the device's flush".into());
    }
    for sync in long {
        let is_ours = sync
            .path
            .as_deref()
            .is_some_and(|path| path.starts_with(&truth.log_dir));
        if !is_ours {
            wrong.push(format!(
                "a stalled {} of {:?}, not in {}",
                sync.op, sync.path, truth.log_dir
            ));
        }
    }
    let is_flush = |request: &Request| {
        request.op == "flush"
            && request.disk == truth.disk
            && request.device_ns.is_some_and(is_long)
    };
    if !told.last.requests.iter().any(is_flush) {
        wrong.push(format!(
            "no flush of {} that took the {delay_ms} ms in the device",
            truth.disk
        ));
    }
    if let Some(event) = told.last.log_events.first() {
        wrong.push(format!(
            "the broker prints nothing of a stall, but: `{}`",
            event.text
        ));
    }
}

fn compare_told_in_time(told: &Told, truth: &Truth, wrong: &mut Vec<String>) {
    let Some(flush) = held(truth).next() else {
        return;
    };
    let limit_ns = flush.arrival.monotonic_ns + STALL_NS + PRINTED_WITHIN_NS;
    if told.first_at_ns > limit_ns {
        wrong.push(format!(
            "reported {} ms too late",
            (told.first_at_ns - limit_ns) / 1_000_000
        ));
    }
    let named = |sync: &Sync| {
        sync.in_flight && sync.tid != 0 && !sync.comm.is_empty() && sync.path.is_some()
    };
    if !told.first.syncs.iter().any(named) {
        wrong.push("the first report names no sync in flight with thread and file".into());
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
pub mod tests;
