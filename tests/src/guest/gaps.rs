//! What cannot hold on some kernel, with the reason: few, and each because the
//! kernel tells nothing. A row here turns a failed assertion into an expected
//! gap. Pure.

use std::collections::BTreeMap;

use super::expect::{Evidence, losses};
use super::fault::Fault;
use crate::faultdisk::FsKind;
use crate::incident::Incident;

/// Why this assertion cannot hold in this cell; `None`: it must.
pub fn reason(evidence: &Evidence, name: &str) -> Option<&'static str> {
    if name == FORM && has_no_trampolines(evidence) {
        return Some(
            "no fexit on arm64 before 6.4: it has no register_ftrace_direct; the tracepoints of \
             system calls are used",
        );
    }
    if name == "loss" {
        return reason_of_loss(&losses(&evidence.lost), evidence.preempts);
    }
    if name == "errno of the caller" && is_never_returned(evidence) {
        return Some(
            "the kernel did not come out of its own reset of the controller (it waits in \
             nvme_reset_work): the caller was told nothing, the write is outstanding, and told \
             of as such",
        );
    }
    if name == "files" && is_old_xfs(evidence) && is_without_files(evidence) {
        return Some(
            "5.10 has no BTF of modules, so where xfs keeps a file's inode is not known: a \
             sync that fails at once has no file",
        );
    }
    let is_answer = matches!(name, "nothing false" | "verdict and cause");
    if name == "nothing false" && is_unnamed(evidence) {
        return Some(
            "5.10 has no BTF of modules, so where xfs keeps a file's inode is not known: a \
             sync that fails without a request on a disk that is gone is CONFIRMED without a \
             file and so without a cause",
        );
    }
    let is_errno = name == "errno of the caller";
    let is_unreturned = is_answer && is_unreturned_flush(evidence);
    (is_unreturned || is_errno && is_untold_flush(evidence)).then_some(
        "xfs of 5.10 does not return a failed flush of its own (xfs_blkdev_issue_flush is \
         void): no sync fails; the flush is told of, or its log's, which shuts it down, and \
         an append that fails then is UNKNOWN",
    )
}

/// The assertion of the form that fsync's hook has.
pub const FORM: &str = "form of fsync";

/// arm64 before 6.4. Source: v6.4 `arch/arm64/Kconfig`, HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS.
fn has_no_trampolines(evidence: &Evidence) -> bool {
    evidence.arch == "aarch64" && version_of(&evidence.kernel) < (6, 4)
}

fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-', '+']);
    let mut number = || numbers.next().and_then(|text| text.parse().ok());
    (number().unwrap_or(0), number().unwrap_or(0))
}

/// Of [`losses`]: a few runs were left out, and what these would have ended; nothing else is lost.
pub fn reason_of_loss(lost: &BTreeMap<String, u64>, preempts: bool) -> Option<&'static str> {
    let is_known = |class: &String| ["recursion", "lost_exit"].contains(&class.as_str());
    let is_few = lost.values().sum::<u64>() <= MOST_LEFT_OUT;
    let is_by_preemption = lost.contains_key("recursion") && lost.keys().all(is_known) && is_few;
    (preempts && is_by_preemption).then_some(
        "this kernel preempts its own code, programs as well: while one waits, its next run \
         on that CPU is left out; counted and said",
    )
}

/// More would not be by chance.
const MOST_LEFT_OUT: u64 = 10;

/// The flush that failed is told of, by the log's or by itself; nothing else is said but
/// that an append failed.
fn is_unreturned_flush(evidence: &Evidence) -> bool {
    let told = || evidence.told.iter().map(|told| &told.last);
    evidence.fault == Fault::FlushError
        && is_old_xfs(evidence)
        && told().any(is_of_flush)
        && told().all(|last| is_of_flush(last) || is_of_append(last))
}

/// The same, and no sync of a caller was told: what a caller printed was of an append.
fn is_untold_flush(evidence: &Evidence) -> bool {
    let mut told = evidence.told.iter().map(|told| &told.last);
    let is_told = (told.clone()).any(|last| last.syncs.iter().any(|sync| sync.errno.is_some()));
    let is_explained = evidence.caller_errnos.is_empty() || told.any(is_of_append);
    is_unreturned_flush(evidence) && !is_told && is_explained
}

fn is_of_flush(last: &Incident) -> bool {
    let is_blamed = matches!(last.cause.as_deref(), Some("journal" | "device-error"));
    let is_failed = last.requests.iter().any(|request| request.errno.is_some());
    last.verdict == "CONFIRMED" && is_blamed && is_failed
}

fn is_of_append(last: &Incident) -> bool {
    last.verdict == "UNKNOWN" && last.syncs.is_empty()
}

/// Beside the disk that is gone, a sync whose file is not known failed.
fn is_unnamed(evidence: &Evidence) -> bool {
    let told = || evidence.told.iter().map(|told| &told.last);
    let is_nameless = |last: &Incident| {
        last.verdict == "CONFIRMED"
            && last.cause.is_none()
            && !last.syncs.is_empty()
            && last.syncs.iter().all(|sync| sync.path.is_none())
    };
    let is_right = |last: &Incident| {
        matches!(
            last.cause.as_deref(),
            Some("device-gone" | "device-error" | "journal")
        )
    };
    evidence.fault == Fault::Removed
        && is_old_xfs(evidence)
        && told().any(|last| last.cause.as_deref() == Some("device-gone"))
        && told().any(is_nameless)
        && told().all(|last| is_right(last) || is_nameless(last) || is_of_append(last))
}

/// The kernel's own stack shows that it waits in its reset; else a command that times out
/// must come back. And no sync may be said to have failed of which the caller knows nothing.
fn is_never_returned(evidence: &Evidence) -> bool {
    let mut syncs = evidence.told.iter().flat_map(|told| &told.last.syncs);
    evidence.fault == Fault::Timeout
        && evidence.caller_errnos.is_empty()
        && syncs.all(|sync| sync.errno.is_none())
        && evidence.is_in_reset
}

/// No file is named at all: one that is must be right.
fn is_without_files(evidence: &Evidence) -> bool {
    let mut syncs = evidence.told.iter().flat_map(|told| &told.last.syncs);
    syncs.all(|sync| sync.errno.is_none() || sync.path.is_none())
}

fn is_old_xfs(evidence: &Evidence) -> bool {
    evidence.fs == FsKind::Xfs && evidence.kernel.starts_with("5.10.")
}
