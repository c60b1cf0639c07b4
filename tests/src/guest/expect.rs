//! What must be said of each fault, held against what was said. In: the known
//! truth of a cell and the agent's incidents. Out: assertions. Pure: the guest
//! collects, the tests make up.

mod broker;
mod request;
mod stack;
mod sync;
mod timeout;

use std::collections::BTreeMap;
use std::path::Path;

pub use self::broker::{BrokerTruth, Placed};
use super::fault::Fault;
use super::gaps;
use super::protocol::{Assertion, Outcome};
use crate::faultdisk::{FsKind, Op, TruthRequest};
use crate::incident::{Incident, Request, Sync};

/// An incident.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// As first printed.
    pub first: Incident,
    /// As last printed.
    pub last: Incident,
    /// The line of the last.
    pub last_line: String,
    /// A sync of it was in flight in one of its versions.
    pub was_in_flight: bool,
}

/// All that is known of a cell when it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// What was done.
    pub fault: Fault,
    /// On which file system.
    pub fs: FsKind,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// The disk as the user knows it.
    pub disk: String,
    /// Its serial number.
    pub serial: String,
    /// What is between it and the file system, top first.
    pub layers: Vec<String>,
    /// The writer.
    pub writer_pid: u32,
    /// The segment that was hit.
    pub victim: String,
    /// The errnos that the writer printed, by name.
    pub caller_errnos: Vec<String>,
    /// What the disk did to requests.
    pub truth: Vec<TruthRequest>,
    /// What was said.
    pub told: Vec<Told>,
    /// Required hooks that are not there.
    pub missing_hooks: Vec<String>,
    /// Events that the agent says it lost, by the time of the cell's end.
    pub lost: BTreeMap<String, u64>,
    /// The kernel preempts its own code.
    pub preempts: bool,
    /// The kernel was in a reset of the controller that waited, when the answer was there
    /// or time was up.
    pub is_in_reset: bool,
    /// How the agent ended, if it did not live until here.
    pub trouble: Option<String>,
    /// The broker, if the writer is a real one.
    pub broker: Option<BrokerTruth>,
}

/// Nobody is blamed.
const NO_CAUSE: &str = "no cause";

fn cause_of(incident: &Incident) -> &str {
    incident.cause.as_deref().unwrap_or(NO_CAUSE)
}

/// The answer that each fault must get.
struct Wanted {
    verdict: &'static str,
    cause: &'static str,
    /// What else may be said, since it is true as well.
    also: &'static [&'static str],
}

fn wanted(fault: Fault) -> Option<Wanted> {
    let (verdict, cause, also): (_, _, &[_]) = match fault.on_disk() {
        Fault::Healthy | Fault::BrokenFact => return None,
        Fault::WriteError
        | Fault::LateError
        | Fault::BrokerWriteError
        | Fault::Partition
        | Fault::DmLinear
        | Fault::Md
        | Fault::LateModules
        | Fault::ForcedTracepoint => ("CONFIRMED", "device-error", &[]),
        // What a layer does by itself, no request of a disk has seen.
        Fault::DmDelay => ("STALLED", NO_CAUSE, &[]),
        Fault::DmError => ("CONFIRMED", NO_CAUSE, &[]),
        // The journal's own flush may be the first that fails.
        Fault::FlushError => ("CONFIRMED", "device-error", &["journal"]),
        Fault::Stall | Fault::BrokerHang => ("STALLED", "device-stall", &[]),
        Fault::NoSpace => ("CONFIRMED", "no-space", &[]),
        // To the sync, a reset is a device that holds its write.
        Fault::Reset => ("STALLED", "device-stall", &["device-reset"]),
        Fault::JournalError => ("CONFIRMED", "journal", &["read-only"]),
        Fault::Timeout => (
            "CONFIRMED",
            "device-error",
            &["device-timeout", "device-stall", "journal"],
        ),
        Fault::Removed => ("CONFIRMED", "device-gone", &["journal", "device-error"]),
    };
    Some(Wanted {
        verdict,
        cause,
        also,
    })
}

/// The incident that answers the fault, once it is there.
pub fn find_answer(fault: Fault, told: &[Told]) -> Option<&Told> {
    let wanted = wanted(fault)?;
    let is_answer = |told: &&Told, cause: &str| {
        told.last.verdict == wanted.verdict && cause_of(&told.last) == cause
    };
    let answer = told.iter().find(|told| is_answer(told, wanted.cause));
    // The reset takes back the write that is held and a flush or write of the
    // journal alike: where that one is given up first, it is what failed the sync,
    // and the write may even succeed when it is sent again.
    let by_journal = || told.iter().find(|told| is_answer(told, "journal"));
    match fault {
        Fault::Timeout => answer.or_else(by_journal),
        _ => answer,
    }
}

/// Whether the answer says all that the cell waits for.
pub fn is_complete(fault: Fault, victim: &Path, told: &[Told]) -> bool {
    let Some(answer) = find_answer(fault, told) else {
        return false;
    };
    let syncs = &answer.last.syncs;
    match fault.on_disk() {
        Fault::Healthy | Fault::BrokenFact => true,
        // The next write is held as well.
        Fault::DmDelay => answer.was_in_flight,
        Fault::Stall | Fault::BrokerHang => {
            answer.was_in_flight && syncs.iter().all(|sync| !sync.in_flight)
        }
        Fault::Reset => syncs.iter().all(|sync| !sync.in_flight),
        Fault::LateError => syncs.iter().any(|sync| sync.told_late_by_ns.is_some()),
        // What waits for its journal may fail before it.
        Fault::Timeout => {
            let is_victim = |path: &String| Path::new(path) == victim;
            let mut paths = syncs.iter().filter_map(|sync| sync.path.as_ref());
            syncs.iter().any(|sync| sync.errno.is_some()) && paths.any(is_victim)
        }
        Fault::FlushError | Fault::JournalError | Fault::Removed => {
            syncs.iter().any(|sync| sync.errno.is_some())
        }
        Fault::WriteError
        | Fault::Partition
        | Fault::DmLinear
        | Fault::Md
        | Fault::LateModules
        | Fault::ForcedTracepoint
        | Fault::NoSpace => !answer.last.log_events.is_empty(),
        // The line of an append may come first, where an index file failed first.
        Fault::BrokerWriteError => broker::is_told(&answer.last, &victim.to_string_lossy()),
        Fault::DmError => {
            !answer.last.log_events.is_empty() && syncs.iter().any(|sync| sync.errno.is_some())
        }
    }
}

/// See the module's comment.
pub fn compare(evidence: &Evidence) -> Vec<Assertion> {
    let mut sheet = Sheet {
        evidence,
        rows: Vec::new(),
    };
    sheet.check_nothing_false();
    sheet.is(
        "hooks",
        "all required",
        &list(&evidence.missing_hooks, "all required"),
    );
    sheet.is("loss", "none", &show_lost(&losses(&evidence.lost)));
    let trouble = evidence.trouble.as_deref().unwrap_or("runs");
    sheet.is("agent", "runs", trouble);
    if let Some(wanted) = wanted(evidence.fault) {
        sheet.check_answer(&wanted);
    }
    sheet.rows
}

/// Of an agent that has ended, with all that it has printed.
pub fn compare_loss_at_end(lost: &BTreeMap<String, u64>, preempts: bool) -> Assertion {
    let got = show_lost(&losses(lost));
    let passed = got == "none";
    let gap = (!passed).then(|| gaps::reason_of_loss(&losses(lost), preempts));
    Assertion {
        name: "loss by the agent's end".to_owned(),
        passed,
        wanted: "none".to_owned(),
        got,
        gap: gap.flatten().map(str::to_owned),
    }
}

/// How a cell with these assertions ended, and why, in one line.
pub fn conclude(asserts: &[Assertion]) -> (Outcome, String) {
    let failed = || asserts.iter().filter(|assert| !assert.passed);
    let hard: Vec<String> = failed()
        .filter(|assert| assert.gap.is_none())
        .map(|assert| {
            format!(
                "{}: {} instead of {}",
                assert.name, assert.got, assert.wanted
            )
        })
        .collect();
    if !hard.is_empty() {
        return (Outcome::Failed, hard.join("; "));
    }
    let mut reasons: Vec<&str> = failed()
        .filter_map(|assert| assert.gap.as_deref())
        .collect();
    reasons.dedup();
    match reasons.is_empty() {
        true => (Outcome::Passed, String::new()),
        false => (Outcome::ExpectedGap, reasons.join("; ")),
    }
}

struct Sheet<'a> {
    evidence: &'a Evidence,
    rows: Vec<Assertion>,
}

impl Sheet<'_> {
    /// The two texts are the same.
    fn is(&mut self, name: &str, wanted: &str, got: &str) {
        self.put(name, wanted == got, wanted, got);
    }

    fn put(&mut self, name: &str, passed: bool, wanted: &str, got: &str) {
        let gap = match passed {
            true => None,
            false => gaps::reason(self.evidence, name).map(str::to_owned),
        };
        self.rows.push(Assertion {
            name: name.to_owned(),
            passed,
            wanted: wanted.to_owned(),
            got: got.to_owned(),
            gap,
        });
    }

    /// Nothing may be said but the answer, and what is true beside it.
    fn check_nothing_false(&mut self) {
        let wanted = wanted(self.evidence.fault);
        let is_true = |incident: &Incident| {
            let cause = cause_of(incident);
            wanted.as_ref().is_some_and(|wanted| {
                // Where nobody is blamed, the verdict alone tells right from wrong.
                let is_right = cause != NO_CAUSE || incident.verdict == wanted.verdict;
                is_right && (cause == wanted.cause || wanted.also.contains(&cause))
            })
        };
        let told = self.evidence.told.iter().map(|told| &told.last);
        let others: Vec<String> = told.filter(|last| !is_true(last)).map(headline).collect();
        self.is("nothing false", "nothing", &list(&others, "nothing"));
    }

    fn check_answer(&mut self, wanted: &Wanted) {
        let evidence = self.evidence;
        let answer = find_answer(evidence.fault, &evidence.told);
        let is_hung = evidence.fault == Fault::Timeout && evidence.caller_errnos.is_empty();
        if is_hung && answer.is_none() {
            return self.check_never_returned();
        }
        let all: Vec<String> = evidence
            .told
            .iter()
            .map(|told| headline(&told.last))
            .collect();
        let headline = format!("{} {}", wanted.verdict, wanted.cause);
        self.put(
            "verdict and cause",
            answer.is_some(),
            &headline,
            &list(&all, "nothing"),
        );
        let Some(answer) = answer else { return };
        self.check_device(&answer.last);
        match evidence.fault.on_disk() {
            Fault::Healthy | Fault::BrokenFact => {}
            Fault::NoSpace => self.check_no_space(&answer.last),
            Fault::DmDelay => self.check_held_above(answer),
            Fault::DmError => self.check_failed_above(&answer.last),
            Fault::WriteError
            | Fault::Partition
            | Fault::DmLinear
            | Fault::Md
            | Fault::LateModules
            | Fault::ForcedTracepoint => {
                self.check_failed_sync(&answer.last);
                self.check_write(&answer.last, true);
                self.check_line(&answer.last);
            }
            Fault::LateError => {
                self.check_failed_sync(&answer.last);
                self.check_write(&answer.last, true);
                self.check_late(answer);
            }
            Fault::FlushError => {
                self.check_failed_sync(&answer.last);
                self.check_files(&answer.last);
                self.check_flush(&answer.last);
            }
            Fault::JournalError => {
                self.check_failed_sync(&answer.last);
                self.check_write(&answer.last, false);
            }
            Fault::Stall => self.check_held(answer),
            // QEMU stands still while the controller waits for its disk: whether
            // anything is told meanwhile says nothing about the agent.
            Fault::Reset => {
                self.check_sync_file(&answer.last);
                self.check_held_sector(&answer.last);
            }
            Fault::Removed => {
                self.check_failed_sync(&answer.last);
                self.check_files(&answer.last);
            }
            Fault::Timeout => {
                self.check_failed_sync(&answer.last);
                self.check_sync_file(&answer.last);
                self.check_given_up(&answer.last);
            }
            Fault::BrokerWriteError => self.check_brokers_write_error(&answer.last),
            Fault::BrokerHang => self.check_brokers_hang(answer),
        }
    }

    fn check_device(&mut self, incident: &Incident) {
        let device = incident.device.clone().unwrap_or_default();
        let (disk, serial) = (self.evidence.disk.clone(), self.evidence.serial.clone());
        self.is("device", &disk, &device.disk);
        self.is(
            "serial",
            &serial,
            device.serial.as_deref().unwrap_or("none"),
        );
        self.check_layers(&device.path);
    }
}

fn overlaps(truth: &TruthRequest, request: &Request) -> bool {
    let Some(sector) = request.sector else {
        return truth.op == Op::Flush && request.op == "flush";
    };
    let end = sector + request.nr_bytes / 512;
    truth.op != Op::Flush && sector < truth.sector + truth.bytes / 512 && end > truth.sector
}

fn headline(incident: &Incident) -> String {
    format!("{} {}", incident.verdict, cause_of(incident))
}

fn list(items: &[String], none: &str) -> String {
    let mut items = items.to_vec();
    items.sort();
    items.dedup();
    match items.is_empty() {
        true => none.to_owned(),
        false => items.join(", "),
    }
}

/// What counts as one: of each of the writer's threads, a sync may have been under
/// way when the agent found it.
pub(super) fn losses(lost: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let is_under_way = |class: &str, count: u64| class == "unmatched_exit" && count <= 2;
    let lost = lost.iter();
    lost.filter(|(class, count)| !is_under_way(class, **count))
        .map(|(class, count)| (class.clone(), *count))
        .collect()
}

fn show_lost(lost: &BTreeMap<String, u64>) -> String {
    let lost: Vec<String> = lost
        .iter()
        .map(|(class, count)| format!("{class} {count}"))
        .collect();
    list(&lost, "none")
}

#[cfg(test)]
#[path = "expect_tests.rs"]
mod tests;
