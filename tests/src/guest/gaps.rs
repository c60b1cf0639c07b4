//! What cannot hold on some kernel, with the reason: few, and each because the
//! kernel tells nothing. A row here turns a failed assertion into an expected
//! gap. Pure.

use super::expect::Evidence;
use super::fault::Fault;
use crate::faultdisk::FsKind;

/// Why this assertion cannot hold in this cell; `None`: it must.
pub fn reason(evidence: &Evidence, name: &str) -> Option<&'static str> {
    let is_answer = matches!(name, "nothing false" | "verdict and cause");
    (is_answer && is_unreturned_flush(evidence)).then_some(
        "xfs of 5.10 does not return a failed flush of its own (xfs_blkdev_issue_flush is \
         void); only its log's is seen, which shuts it down: CONFIRMED journal, and UNKNOWN \
         for an append that fails then",
    )
}

/// The flush that failed is told of as the log's; nothing else is said but that an
/// append failed.
fn is_unreturned_flush(evidence: &Evidence) -> bool {
    let told = || evidence.told.iter().map(|told| &told.last);
    let mut others = told().filter(|last| last.cause.as_deref() != Some("journal"));
    evidence.fault == Fault::FlushError
        && evidence.fs == FsKind::Xfs
        && evidence.kernel.starts_with("5.10.")
        && told().any(|last| {
            let is_told = last.verdict == "CONFIRMED" && last.cause.as_deref() == Some("journal");
            is_told && last.requests.iter().any(|request| request.errno.is_some())
        })
        && others.all(|last| last.verdict == "UNKNOWN" && last.syncs.is_empty())
}
