//! A fault that makes requests wait: is each sync that had to wait reported, as
//! a finding where it is one, with the request that was held, and does its time
//! line say what the disk really did? In: the truth, what was said. Out: answers.

use fsyncscope_tests::campaign::{Call, CallRecord};

use super::compare::{has_unlisted_syncs, headline, sync_of};
use super::known::Known;
use super::row::{Check, Row};
use super::said::{Said, Told};
use crate::incident::{Breakdown, Request};

/// Within this, or [`SHARE`] of it, a time is right.
const EXACT_NS: u64 = 5_000_000;
/// A twentieth.
const SHARE: u64 = 20;

fn tolerance_ns(of_ns: u64) -> u64 {
    EXACT_NS.max(of_ns / SHARE)
}

/// The way of a request through loop device and server beyond what the server
/// writes down takes this at most on a machine that has other things to do,
const WAY_NS: (u64, u64) = (3_000_000, 30_000_000);

/// or as long as nine of ten syncs took at that time for which nothing was held.
fn way_ns(known: &Known) -> u64 {
    let mut others: Vec<u64> = known
        .watched_calls()
        .filter(|call| call.call.is_sync() && known.overlap_ns(call) == 0)
        .map(CallRecord::duration_ns)
        .collect();
    others.sort_unstable();
    let usual_ns = others.get(others.len() * 9 / 10).copied().unwrap_or(0);
    usual_ns.clamp(WAY_NS.0, WAY_NS.1)
}

/// See the module's comment.
pub(super) fn compare_held(known: &Known, said: &Said, of_fault: &[&Told], row: &mut Row) {
    // Of a fault that also makes requests fail, those incidents are compared there.
    let of_fault: Vec<&Told> = of_fault
        .iter()
        .copied()
        .filter(|told| told.last.verdict != "CONFIRMED" || known.fault.kind.is_delay())
        .collect();
    let of_fault = of_fault.as_slice();
    let concerned: Vec<&CallRecord> = known
        .watched_calls()
        .filter(|call| is_concerned(known, call))
        .collect();
    if concerned.is_empty() {
        return;
    }
    row.ask(Check::Found);
    for call in &concerned {
        compare_call(known, said, of_fault, call, row);
    }
    compare_finding(known, said, of_fault, &concerned, row);
}

/// A sync that was slow, and at least for half of its time because of the fault.
fn is_concerned(known: &Known, call: &CallRecord) -> bool {
    let duration_ns = call.duration_ns();
    call.call.is_sync() && is_slow(known, duration_ns) && known.held_ns(call) * 2 >= duration_ns
}

/// Longer than the agent's threshold, whose clock starts in the kernel.
fn is_slow(known: &Known, duration_ns: u64) -> bool {
    duration_ns >= known.slow_ns + known.slow_ns / 5
}

fn compare_call(known: &Known, said: &Said, of_fault: &[&Told], call: &CallRecord, row: &mut Row) {
    let Some(sync) = sync_of(known, said, call) else {
        match call.call {
            Call::DsyncWrite | Call::UringFsync if known.fault.is_xfs => {
                let reason = "xfs before 7 has no exit event for syncs that are no syscall";
                row.gap(Check::Found, reason);
            }
            Call::DsyncWrite if !is_slow(known, call.duration_ns() - call.before_sync_ns) => {
                let reason = "an O_DSYNC write was seen to wait before its sync began";
                row.gap(Check::Found, reason);
            }
            _ if has_unlisted_syncs(of_fault) => {}
            _ => {
                let text = format!(
                    "a {} of {} ms is not reported",
                    call.call.name(),
                    call.duration_ns() / 1_000_000
                );
                row.wrong(Check::Found, text);
            }
        }
        return;
    };
    if call.errno != 0 {
        return;
    }
    row.ask(Check::Delay);
    let Some(breakdown) = sync.breakdown.as_ref().filter(|parts| parts.is_whole()) else {
        row.wrong(Check::Delay, "no breakdown");
        return;
    };
    if breakdown.sum_ns().abs_diff(sync.duration_ns) > 1_000 {
        row.wrong(Check::Delay, "the breakdown does not sum to the duration");
    }
    if sync.in_flight {
        return;
    }
    let began_ns = said.mono_ns(&sync.time).unwrap_or(call.enter_ns);
    let call = &CallRecord {
        enter_ns: match call.call {
            // Its sync begins when the write is done.
            Call::DsyncWrite => began_ns.max(call.enter_ns),
            _ => call.enter_ns,
        },
        ..call.clone()
    };
    let held_ns = known.held_ns(call);
    let slack_ns = tolerance_ns(held_ns);
    let (tied_ns, said_ns) = (breakdown.tied_ns(), device_ns(breakdown));
    // Not less than what the fault held: while it was, one request may have been
    // in the queue and another in the device. Not more than what the disk did.
    let most_ns = known.busy_ns(call).max(held_ns) + way_ns(known) * known.nr_requests(call);
    if tied_ns + slack_ns < held_ns || said_ns > most_ns + slack_ns {
        let text = format!(
            "a {} of {} ms: {} ms tied to requests, and the disk held it {} ms",
            call.call.name(),
            call.duration_ns() / 1_000_000,
            tied_ns / 1_000_000,
            held_ns / 1_000_000
        );
        row.wrong(Check::Delay, text);
    }
}

/// Time in the device where that is told apart from time in the queue, else both.
fn device_ns(breakdown: &Breakdown) -> u64 {
    let parts = [
        breakdown.flush_device_ns,
        breakdown.journal_device_ns,
        breakdown.own_data_device_ns,
        breakdown.others_data_device_ns,
    ];
    if parts.iter().all(Option::is_none) {
        return breakdown.tied_ns();
    }
    parts.into_iter().flatten().sum()
}

/// From `--stall` on it is a finding: one, of the right cause, with the request.
fn compare_finding(
    known: &Known,
    said: &Said,
    of_fault: &[&Told],
    concerned: &[&CallRecord],
    row: &mut Row,
) {
    let longest_ns = concerned
        .iter()
        // The agent's threshold is beyond what the bytes need, and its clock
        // starts in the kernel.
        .filter(|call| call.call.is_sync_syscall() && call.errno == 0)
        .map(|call| call.duration_ns())
        .max()
        .unwrap_or(0);
    let is_due = longest_ns >= known.stall_ns + known.stall_ns / 2;
    if !is_due && of_fault.is_empty() {
        return;
    }
    row.ask(Check::Once);
    if of_fault.len() > 1 {
        let all: Vec<String> = of_fault.iter().map(|told| headline(&told.last)).collect();
        row.wrong(Check::Once, all.join("; "));
    }
    let Some(told) = of_fault.first() else {
        let text = format!("a sync of {} ms is no finding", longest_ns / 1_000_000);
        row.wrong(Check::Found, text);
        return;
    };
    let incident = &told.last;
    row.ask(Check::Cause);
    if incident.verdict != "STALLED" || incident.cause.as_deref() != Some("device-stall") {
        let text = format!("{} instead of STALLED device-stall", headline(incident));
        row.wrong(Check::Cause, text);
    }
    let disk = incident.device.as_ref().map(|device| device.disk.as_str());
    if disk != Some(&known.disk) {
        let text = format!("on {} instead of {}", disk.unwrap_or("no disk"), known.disk);
        row.wrong(Check::Cause, text);
    }
    compare_held_request(known, said, told, row);
}

/// The request that was held longest is named, with its time in the device.
fn compare_held_request(known: &Known, said: &Said, told: &Told, row: &mut Row) {
    let longest = known
        .held()
        .filter_map(|request| {
            let held_ns = request.reply?.monotonic_ns - request.arrival.monotonic_ns;
            Some((held_ns, request))
        })
        .max_by_key(|(held_ns, _)| *held_ns);
    let Some((held_ns, real)) = longest else {
        return;
    };
    row.ask(Check::Sector);
    let of_disk = |request: &&Request| {
        let found = known.find_held(&request.op, request.sector, request.nr_bytes);
        found.is_some() && request.disk == known.disk
    };
    let listed: Vec<_> = told.last.requests.iter().filter(of_disk).collect();
    if listed.is_empty() {
        let text = format!(
            "the held {:?} of sector {} is not named",
            real.op, real.sector
        );
        row.wrong(Check::Sector, text.to_lowercase());
        return;
    }
    row.ask(Check::Delay);
    let is_exact = |request: &&Request| {
        let slack_ns = tolerance_ns(held_ns);
        let Some((ns, from_ns)) = request.device_ns.zip(said.mono_ns(&request.time)) else {
            return false;
        };
        // Behind a flush that is held, it waits in the loop device: all of that
        // is the disk to the block layer.
        let most_ns = known.busy_within((from_ns, from_ns + ns)).max(held_ns);
        ns + slack_ns >= held_ns && ns <= most_ns + slack_ns + way_ns(known)
    };
    if !listed.iter().any(is_exact) {
        let said: Vec<String> = listed
            .iter()
            .map(|request| format!("{:?}", request.device_ns.map(|ns| ns / 1_000_000)))
            .collect();
        let text = format!(
            "the held request took {} ms, said to be {}",
            held_ns / 1_000_000,
            said.join(", ")
        );
        row.wrong(Check::Delay, text);
    }
}
