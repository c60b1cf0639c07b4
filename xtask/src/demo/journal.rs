//! The scenario in which the journal cannot be written: one device error, an
//! aborted journal, a read-only file system and the broker's lines are one story.
//! In: the incident and the truth. Out: the points on which they disagree. Pure.

use fsyncscope_tests::faultdisk::Op;

use super::compare::{self, Told};
use super::truth::{Truth, errno_name};

/// What is wrong with the report.
pub fn compare(told: &Told, truth: &Truth, wrong: &mut Vec<String>) {
    let incident = &told.last;
    if truth.failed().next().is_none() {
        wrong.push("the disk failed no write: nothing was tested".into());
    }
    compare_requests(told, truth, wrong);
    compare::compare_log_line(incident, truth, wrong);
    let failed: Vec<_> = incident
        .syncs
        .iter()
        .filter(|sync| sync.errno.is_some())
        .collect();
    if failed.is_empty() {
        wrong.push("no failed sync".into());
    }
    for sync in failed {
        if sync.pid != truth.broker_pid {
            wrong.push(format!(
                "a failed {} by pid {}, not by the broker",
                sync.op, sync.pid
            ));
        }
        // One that failed before its file was named has no path.
        if let Some(path) = &sync.path
            && !path.starts_with(&truth.log_dir)
        {
            wrong.push(format!("{} of {path} is not in {}", sync.op, truth.log_dir));
        }
    }
    for word in ["journal", "read-only"] {
        if !incident.reasons.iter().any(|reason| reason.contains(word)) {
            wrong.push(format!("no reason says `{word}`"));
        }
    }
}

fn compare_requests(told: &Told, truth: &Truth, wrong: &mut Vec<String>) {
    let requests = told.last.requests.iter();
    let failed: Vec<_> = requests.filter(|request| request.errno.is_some()).collect();
    if failed.is_empty() {
        wrong.push("no failed request".into());
    }
    for request in failed {
        let sector = request.sector.unwrap_or_default();
        let what = format!("{} at sector {sector}", request.op);
        match truth.find(Op::Write, sector, request.nr_bytes) {
            Some(done) if request.errno.as_deref() == Some(errno_name(done.errno)) => {}
            Some(done) => wrong.push(format!(
                "{what}: {:?} instead of {}",
                request.errno,
                errno_name(done.errno)
            )),
            None => wrong.push(format!("{what} is not in the disk's log")),
        }
        let is_journal = request
            .path
            .as_deref()
            .is_some_and(|path| path.contains("journal"));
        if !is_journal || request.disk != truth.disk {
            wrong.push(format!(
                "{what} on {} is said to be of {:?}, not of the journal",
                request.disk, request.path
            ));
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
