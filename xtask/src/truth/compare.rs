//! Does what the agent said agree with what was done? In: the known truth of one
//! fault, and all that was said in its window. Out: a [`Row`]. Pure. What fails
//! is compared in `failed`, what is held in `held`; here is what both need, and
//! what holds of every window: nothing may be said that did not happen.

use fsyncscope_tests::campaign::{Call, CallRecord};
use fsyncscope_tests::faultdisk::TruthRequest;

use super::draw::Kind;
use super::failed::compare_failed;
use super::held::compare_held;
use super::known::{Known, Owner, errno_name, expected_errno};
use super::row::{Check, Row, SlowAccount, VerdictRow};
use super::said::{Said, Told, rule_of};
use crate::incident::{Breakdown, Incident, Request, Sync};

/// The caller's clock is read outside of the kernel, on a busy machine a good
/// while before and after.
const CALLER_SLACK_NS: u64 = 5_000_000;

/// What an incident is to the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// It rests on what the fault did.
    OfFault,
    /// It rests on a sync that really took that long, without the fault.
    Own,
    /// Nothing of what it rests on happened.
    False,
}

/// See the module's comment.
pub fn compare(known: &Known, said: &Said) -> Row {
    let mut row = answer(known, said);
    row.lost = said.lost.clone();
    account_slow(known, said, &mut row);
    add_verdicts(known, said, &mut row);
    row
}

/// All questions.
fn answer(known: &Known, said: &Said) -> Row {
    let mut row = Row::new(&known.fault);
    let of_fault: Vec<&Told> = said
        .told
        .iter()
        .filter(|told| relation(known, said, &told.last) == Relation::OfFault)
        .collect();
    compare_false(known, said, &mut row);
    if known.failed().next().is_some() || known.fault.kind == Kind::Gone {
        compare_failed(known, said, &of_fault, &mut row);
    }
    if known.held().next().is_some() {
        compare_held(known, said, &of_fault, &mut row);
    }
    compare_syncs(known, said, &mut row);
    row
}

/// The call that a sync of the agent's is about.
pub(super) fn call_of<'a>(known: &'a Known, said: &Said, sync: &Sync) -> Option<&'a CallRecord> {
    let began_ns = said.mono_ns(&sync.time)?;
    known.find_call(sync.tid, sync.ino, began_ns)
}

/// The sync of the agent's that is about a call, in incidents before slow ones.
pub(super) fn sync_of<'a>(known: &Known, said: &'a Said, call: &CallRecord) -> Option<&'a Sync> {
    said.syncs()
        .find(|sync| call_of(known, said, sync) == Some(call))
}

pub(super) fn relation(known: &Known, said: &Said, incident: &Incident) -> Relation {
    let is_touched = |request: &Request| {
        let (op, sector, bytes) = (request.op.as_str(), request.sector, request.nr_bytes);
        match request.errno {
            Some(_) => {
                known.find_failed(op, sector, bytes).is_some()
                    || flush_of(known, said, request).is_some()
            }
            None => known.find_held(op, sector, bytes).is_some(),
        }
    };
    if incident.requests.iter().any(is_touched) {
        return Relation::OfFault;
    }
    let calls = || {
        incident
            .syncs
            .iter()
            .filter_map(|sync| call_of(known, said, sync))
    };
    let first_ns = known.first_ns().unwrap_or(known.armed.0);
    let is_hit = |call: &CallRecord| {
        known.held_ns(call) > 0 || (call.errno != 0 && call.exit_ns >= first_ns)
    };
    if calls().any(is_hit) {
        return Relation::OfFault;
    }
    let is_of_hit_file = incident.first_victim.as_ref().is_some_and(|victim| {
        known.failed().any(|request| {
            let at_ns = request.arrival.monotonic_ns;
            matches!(known.owner_of(request), Owner::File(ino)
                if known.files.had_name(ino, &victim.path, (at_ns, at_ns)))
        })
    });
    if is_of_hit_file && incident.verdict == "CONFIRMED" {
        return Relation::OfFault;
    }
    let is_long = |call: &CallRecord| call.duration_ns() + CALLER_SLACK_NS >= known.stall_ns;
    if incident.verdict == "STALLED" && calls().any(is_long) {
        return Relation::Own;
    }
    Relation::False
}

fn compare_false(known: &Known, said: &Said, row: &mut Row) {
    row.ask(Check::NoFalse);
    for told in &said.told {
        if relation(known, said, &told.last) == Relation::False {
            row.wrong(Check::NoFalse, headline(&told.last));
        }
    }
}

/// Every sync that was spoken of, in whatever connection.
fn compare_syncs(known: &Known, said: &Said, row: &mut Row) {
    for sync in said.syncs() {
        row.ask(Check::Caller);
        let what = format!("{} by tid {}", sync.op, sync.tid);
        let Some(call) = call_of(known, said, sync) else {
            row.wrong(Check::Caller, format!("{what} was not called"));
            continue;
        };
        if sync.pid != known.pid {
            let text = format!("{what}: pid {} instead of {}", sync.pid, known.pid);
            row.wrong(Check::Caller, text);
        }
        if !is_named(call.call, &sync.op) {
            let text = format!("{what} was a {}", call.call.name());
            row.wrong(Check::Caller, text);
        }
        if !sync.in_flight && sync.duration_ns > call.duration_ns() + CALLER_SLACK_NS {
            let text = format!(
                "{what}: {} ms, and its caller says {} ms",
                sync.duration_ns / 1_000_000,
                call.duration_ns() / 1_000_000
            );
            row.wrong(Check::Caller, text);
        }
        compare_sync_file(known, sync, call, row);
        if sync.errno.is_some() || call.errno != 0 {
            row.ask(Check::Errno);
            let expected = (call.errno != 0).then(|| errno_name(call.errno));
            if !sync.in_flight && sync.errno.as_deref() != expected {
                let said = sync.errno.as_deref().unwrap_or("success");
                let expected = expected.unwrap_or("success");
                row.wrong(
                    Check::Errno,
                    format!("{}: {said} instead of {expected}", sync.op),
                );
            }
        }
    }
}

fn compare_sync_file(known: &Known, sync: &Sync, call: &CallRecord, row: &mut Row) {
    let what = format!("{} of inode {}", call.call.name(), call.ino);
    row.ask(Check::Named);
    if sync.ino.is_none() {
        // Which one is told apart by its number: that it has none is one miss.
        let text = format!("a {} is of no file", call.call.name());
        row.wrong(Check::Named, text);
        return;
    }
    row.ask(Check::File);
    if sync.ino != Some(call.ino) {
        row.wrong(Check::File, format!("{what}: said to be of {:?}", sync.ino));
        return;
    }
    // A directory's name is not among the records.
    if !known.files.is_named(call.ino) {
        return;
    }
    let within = (call.enter_ns, call.exit_ns);
    match sync.path.as_deref() {
        None => row.wrong(Check::Named, format!("{what} has no path")),
        Some(path) if !known.files.had_name(call.ino, path, within) => {
            row.wrong(Check::File, format!("{what}: said to be of {path}"));
        }
        Some(_) => {}
    }
}

/// Whether the agent may call it so. What it calls syncs that are no syscall of
/// their own is its own affair.
fn is_named(call: Call, op: &str) -> bool {
    !call.is_sync_syscall() || call.name() == op
}

/// The failed flush that a failed write owes its error to.
fn flush_of<'a>(known: &'a Known, said: &Said, request: &Request) -> Option<&'a TruthRequest> {
    let at_ns = said.mono_ns(&request.time)?;
    known.find_flush_of(&request.op, request.sector, at_ns)
}

/// A request of the agent's that failed, held against the disk's log.
pub(super) fn compare_request(known: &Known, said: &Said, request: &Request, row: &mut Row) {
    let Some(errno) = request.errno.as_deref() else {
        return;
    };
    if known.fault.kind == Kind::Gone {
        // Its log went with it.
        return;
    }
    row.ask(Check::Sector);
    let place = match request.sector {
        Some(sector) => format!("{} of sector {sector}", request.op),
        None => request.op.clone(),
    };
    let found = known
        .find_failed(&request.op, request.sector, request.nr_bytes)
        .or_else(|| flush_of(known, said, request));
    let Some(real) = found else {
        row.wrong(Check::Sector, format!("the disk failed no {place}"));
        return;
    };
    if request.disk != known.disk {
        let text = format!("{place}: on {} instead of {}", request.disk, known.disk);
        row.wrong(Check::Sector, text);
    }
    row.ask(Check::Errno);
    let expected = errno_name(expected_errno(real));
    if errno != expected {
        row.wrong(
            Check::Errno,
            format!("{place}: {errno} instead of {expected}"),
        );
    }
    if request.op == "flush" {
        return;
    }
    let at_ns = real.arrival.monotonic_ns;
    let owner = known.owner(request.sector.unwrap_or(real.sector), at_ns);
    if owner == Owner::Unknown {
        return;
    }
    row.ask(Check::Named);
    let Some(path) = request.path.as_deref() else {
        row.wrong(
            Check::Named,
            format!("{place} has no file, and was of {owner:?}"),
        );
        return;
    };
    let is_right = match owner {
        Owner::File(ino) => known.files.had_name(ino, path, (at_ns, at_ns)),
        _ => ["journal", "metadata", "log"]
            .iter()
            .any(|word| path.starts_with(word)),
    };
    row.ask(Check::File);
    if !is_right {
        row.wrong(Check::File, format!("{place}: of {path}, not of {owner:?}"));
    }
}

/// Whether incidents of the fault have more syncs than they list.
pub(super) fn has_unlisted_syncs(of_fault: &[&Told]) -> bool {
    of_fault
        .iter()
        .any(|told| told.last.totals.syncs > told.last.syncs.len() as u64)
}

/// Each slow sync by its caller's clock, and what the agent made of it.
fn account_slow(known: &Known, said: &Said, row: &mut Row) {
    let least_ns = known.slow_ns + known.slow_ns / 5;
    let mut slow = Vec::new();
    for call in known.watched_calls() {
        if !call.call.is_sync() || call.duration_ns() < least_ns {
            continue;
        }
        let sync = sync_of(known, said, call);
        let breakdown = sync
            .and_then(|sync| sync.breakdown.as_ref())
            .filter(|breakdown| breakdown.is_whole());
        if call.errno != 0 && breakdown.is_none() {
            // What a failed sync waited for is another question.
            continue;
        }
        slow.push(SlowAccount {
            duration_ns: call.duration_ns(),
            held_ns: known.held_ns(call),
            is_reported: sync.is_some(),
            tied: breakdown.map(|parts| share_without(parts, parts.other_ns)),
            explained: breakdown
                .map(|parts| share_without(parts, parts.other_ns - parts.other_cpu_ns)),
        });
    }
    row.slow = slow;
}

fn share_without(breakdown: &Breakdown, rest_ns: u64) -> f64 {
    1.0 - rest_ns as f64 / breakdown.sum_ns().max(1) as f64
}

fn add_verdicts(known: &Known, said: &Said, row: &mut Row) {
    const DECIDING: [Check; 5] = [
        Check::Cause,
        Check::Sector,
        Check::File,
        Check::Errno,
        Check::NoFalse,
    ];
    for told in &said.told {
        if relation(known, said, &told.last) == Relation::Own {
            // Nobody wrote down why it was long.
            continue;
        }
        // As if nothing else had been said.
        let alone = Said {
            told: vec![told.clone()],
            slow: Vec::new(),
            ..said.clone()
        };
        let answers = answer(known, &alone).answers;
        let is_wrong = |check: &Check| {
            answers
                .get(check)
                .is_some_and(|answer| !answer.wrong.is_empty())
        };
        row.verdicts.push(VerdictRow {
            rule: rule_of(&told.last).unwrap_or("none").to_owned(),
            confidence: told.last.confidence,
            is_right: !DECIDING.iter().any(is_wrong),
        });
    }
}

/// An incident in short.
pub(super) fn headline(incident: &Incident) -> String {
    let cause = incident.cause.as_deref().unwrap_or("no cause");
    let rule = rule_of(incident).unwrap_or("no rule");
    format!("{} {cause} ({rule}) {}", incident.verdict, incident.id)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
