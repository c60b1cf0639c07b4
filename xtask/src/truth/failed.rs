//! A fault that makes requests fail: is the request reported, by the right name,
//! with the syncs that were told, for the right cause, once? In: the truth, what
//! was said. Out: answers.

use std::collections::BTreeSet;

use fsyncscope_tests::campaign::{Call, CallRecord};
use fsyncscope_tests::faultdisk::{Op, TruthRequest};

use super::compare::{compare_request, has_unlisted_syncs, headline, sync_of};
use super::draw::Kind;
use super::known::{Known, Owner, errno_name, is_same};
use super::row::{Check, Row};
use super::said::{Said, Told};

/// A failed writeback is to be reported within this.
const EARLY_NS: u64 = 1_000_000_000;
/// The line is read a moment after it was printed.
const READ_NS: u64 = 300_000_000;

/// See the module's comment.
pub(super) fn compare_failed(known: &Known, said: &Said, of_fault: &[&Told], row: &mut Row) {
    compare_found(known, said, of_fault, row);
    compare_early(known, of_fault, row);
    compare_callers(known, said, of_fault, row);
    for told in of_fault {
        for request in &told.last.requests {
            compare_request(known, said, request, row);
        }
        match is_unseen(known, said, of_fault) {
            true => row.gap(Check::Cause, UNSEEN),
            false => compare_cause(known, told, row),
        }
    }
    if !of_fault.is_empty() {
        row.ask(Check::Once);
    }
    let failures: Vec<String> = of_fault
        .iter()
        .filter(|told| told.last.verdict != "STALLED")
        .map(|told| headline(&told.last))
        .collect();
    if failures.len() > 1 {
        row.wrong(Check::Once, failures.join("; "));
    }
}

/// Why a failed request may be missing (docs/ARCHITECTURE.md, "Decisions that were
/// measured").
const UNSEEN: &str = "this machine's kernel ran no program at the request's end, in a soft \
                      interrupt upon a thread of PID 1, and the agent says so";

/// The only failed request is one whose end no program saw: the agent counted it as
/// `missed_complete`, confirms the failed sync with little confidence, and blames
/// nobody.
fn is_unseen(known: &Known, said: &Said, of_fault: &[&Told]) -> bool {
    let lost = said.lost.as_deref().unwrap_or_default();
    let is_modest = |told: &&Told| {
        let incident = &told.last;
        incident.cause.is_none() && incident.requests.is_empty() && incident.confidence < 0.9
    };
    known.failed().count() == 1
        && lost.contains("\"missed_complete\"")
        && !of_fault.is_empty()
        && of_fault.iter().all(is_modest)
}

fn compare_found(known: &Known, said: &Said, of_fault: &[&Told], row: &mut Row) {
    row.ask(Check::Found);
    if known.fault.kind == Kind::Gone {
        // The server that keeps the log is what was killed.
        if of_fault.is_empty() {
            row.wrong(Check::Found, "nothing was said");
        }
        return;
    }
    let listed = || of_fault.iter().flat_map(|told| &told.last.requests);
    let is_listed = |real: &TruthRequest| {
        listed()
            .any(|said| said.errno.is_some() && is_same(real, &said.op, said.sector, said.nr_bytes))
    };
    if known.failed().any(&is_listed) {
        compare_files_found(known, of_fault, &is_listed, row);
        return;
    }
    if is_unseen(known, said, of_fault) {
        row.gap(Check::Found, UNSEEN);
        return;
    }
    let text = match of_fault.first() {
        Some(told) => format!("the request is not in {}", headline(&told.last)),
        None => match said.notices.iter().find(|(_, text)| is_about(known, text)) {
            Some((_, text)) => format!("only a notice: {text}"),
            None => "nothing was said".to_owned(),
        },
    };
    row.wrong(Check::Found, text);
}

/// Each file whose data failed is to be found, unless the list was too short.
fn compare_files_found(
    known: &Known,
    of_fault: &[&Told],
    is_listed: &impl Fn(&TruthRequest) -> bool,
    row: &mut Row,
) {
    let is_cut = of_fault
        .iter()
        .any(|told| told.last.totals.requests > told.last.requests.len() as u64);
    if is_cut {
        return;
    }
    let file_of = |real: &TruthRequest| match (real.op, known.owner_of(real)) {
        (Op::Write, Owner::File(ino)) => Some(ino),
        _ => None,
    };
    let found: BTreeSet<u64> = known
        .failed()
        .filter(|real| is_listed(real))
        .filter_map(file_of)
        .collect();
    for real in known.failed() {
        if let Some(ino) = file_of(real).filter(|ino| !found.contains(ino)) {
            let text = format!(
                "a failed write of inode {ino}, sector {}, is not reported",
                real.sector
            );
            row.wrong(Check::Found, text);
        }
    }
}

/// Whether a notice names a file that the fault hit.
fn is_about(known: &Known, text: &str) -> bool {
    known.failed().any(|request| match known.owner_of(request) {
        Owner::File(ino) => known
            .files
            .last_name(ino)
            .is_some_and(|name| text.contains(name)),
        _ => false,
    })
}

/// Writeback that failed long before anybody asked is to be reported at once.
fn compare_early(known: &Known, of_fault: &[&Told], row: &mut Row) {
    let data = known.failed().find_map(|request| {
        let failed_ns = request.reply?.monotonic_ns;
        match (request.op, known.owner_of(request)) {
            (Op::Write, Owner::File(ino)) => Some((ino, failed_ns)),
            _ => None,
        }
    });
    let Some((ino, failed_ns)) = data else { return };
    // Somebody waited for it, or was told soon after: no time to be early.
    let is_waiting = |call: &CallRecord| {
        call.ino == ino
            && call.call != Call::StartWriteback
            && call.enter_ns < failed_ns + EARLY_NS + READ_NS
            && call.exit_ns > failed_ns
    };
    if known.calls.iter().any(is_waiting) || known.watched.1 < failed_ns + EARLY_NS + READ_NS {
        return;
    }
    row.ask(Check::Early);
    let first_ns = of_fault.iter().map(|told| told.first_at_ns).min();
    match first_ns {
        None => row.wrong(Check::Early, "no incident at all"),
        Some(at_ns) if at_ns > failed_ns + EARLY_NS + READ_NS => {
            let late_ms = (at_ns - failed_ns) / 1_000_000;
            row.wrong(
                Check::Early,
                format!("reported {late_ms} ms after the failure"),
            );
        }
        Some(_) => {}
    }
    let told_late = known
        .failed_syncs()
        .find(|call| call.ino == ino && call.enter_ns > failed_ns);
    let Some(call) = told_late else { return };
    let age_ns = call.enter_ns - failed_ns;
    let said_ns = of_fault
        .iter()
        .flat_map(|told| &told.last.syncs)
        .filter(|sync| sync.ino == Some(ino))
        .find_map(|sync| sync.told_late_by_ns);
    match said_ns {
        None => row.wrong(Check::Early, "the later sync is not tied to the failure"),
        Some(said_ns) if said_ns.abs_diff(age_ns) > 50_000_000 => {
            let text = format!(
                "told late by {} ms instead of {} ms",
                said_ns / 1_000_000,
                age_ns / 1_000_000
            );
            row.wrong(Check::Early, text);
        }
        Some(_) => {}
    }
}

/// Each sync that failed is to be reported.
fn compare_callers(known: &Known, said: &Said, of_fault: &[&Told], row: &mut Row) {
    let first_ns = known.first_ns().unwrap_or(known.armed.0);
    let failed: Vec<&CallRecord> = known
        .failed_syncs()
        .filter(|call| call.exit_ns >= first_ns)
        .collect();
    if failed.is_empty() {
        return;
    }
    row.ask(Check::Caller);
    if has_unlisted_syncs(of_fault) {
        return;
    }
    for call in failed {
        if sync_of(known, said, call).is_some() {
            continue;
        }
        let name = call.call.name();
        match call.call {
            Call::DsyncWrite | Call::UringFsync if known.fault.is_xfs => {
                let reason = "xfs before 7 has no exit event for syncs that are no syscall";
                row.gap(Check::Caller, reason);
            }
            _ => {
                let errno = errno_name(call.errno);
                row.wrong(
                    Check::Caller,
                    format!("a {name} that returned {errno} is not reported"),
                );
            }
        }
    }
}

fn compare_cause(known: &Known, told: &Told, row: &mut Row) {
    let incident = &told.last;
    if incident.verdict == "STALLED" {
        return;
    }
    row.ask(Check::Cause);
    if incident.verdict != "CONFIRMED" {
        row.wrong(
            Check::Cause,
            format!("{} instead of CONFIRMED", headline(incident)),
        );
    }
    let expected = expected_causes(known);
    let cause = incident.cause.as_deref().unwrap_or("none");
    if !expected.contains(&cause) {
        let text = format!(
            "{} instead of {}",
            headline(incident),
            expected.join(" or ")
        );
        row.wrong(Check::Cause, text);
    }
    let disk = incident.device.as_ref().map(|device| device.disk.as_str());
    if disk != Some(&known.disk) {
        let text = format!("on {} instead of {}", disk.unwrap_or("no disk"), known.disk);
        row.wrong(Check::Cause, text);
    }
}

/// What may be given as cause. Where a fault failed requests of two kinds, or a
/// flush failed inside of a commit, either story is true.
fn expected_causes(known: &Known) -> Vec<&'static str> {
    let mut causes = BTreeSet::new();
    if known.fault.kind == Kind::Gone {
        causes.extend(["device-gone", "device-error", "journal"]);
    }
    for request in known.failed() {
        match (request.op, known.owner_of(request)) {
            (Op::Flush, _) => {
                causes.insert("device-error");
                if known.is_aborted {
                    causes.insert("journal");
                }
            }
            (_, Owner::Journal | Owner::Metadata) => {
                causes.insert("journal");
            }
            (_, Owner::File(_) | Owner::Unknown) => {
                causes.insert(match request.errno {
                    libc::ENOSPC => "no-space",
                    libc::ETIMEDOUT => "device-timeout",
                    libc::ENODEV => "device-gone",
                    _ => "device-error",
                });
                if known.is_aborted {
                    causes.insert("journal");
                }
            }
        }
    }
    causes.into_iter().collect()
}
