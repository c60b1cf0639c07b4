//! The table of rules: what must hold, the verdict it gives, how sure that is.
//! docs/DIAGNOSE.md shows the same table (a test compares them). Everything a
//! verdict rests on is a row here; `verdict.rs` only finds the row that holds.

use crate::incident::{Cause, Verdict};

/// A rule.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Cited in the reasons of an incident.
    pub id: &'static str,
    /// What must hold.
    pub when: &'static str,
    /// Then the verdict is this.
    pub verdict: Verdict,
    /// And the cause; none where the rule proves the failure but not its cause.
    pub cause: Option<Cause>,
    /// 0..1, before the adjustments.
    pub confidence: f64,
}

/// What makes a verdict less sure.
#[derive(Debug, PartialEq)]
pub struct Adjustment {
    /// Cited in the reasons of an incident.
    pub id: &'static str,
    /// What must hold.
    pub when: &'static str,
    /// The confidence is multiplied by this.
    pub factor: f64,
}

const fn rule(
    id: &'static str,
    when: &'static str,
    verdict: Verdict,
    cause: Option<Cause>,
    confidence: f64,
) -> Rule {
    Rule {
        id,
        when,
        verdict,
        cause,
        confidence,
    }
}

use Cause::{
    Application, DeviceError, DeviceGone, DeviceSaturated, DeviceStall, DeviceTimeout,
    FilesystemError, Journal, Neighbour, NoSpace, Quota, ReadOnly,
};
use Verdict::{Confirmed, NotTheDisk, Stalled, Unknown};

/// Every rule. Of several that hold, the surest gives the verdict.
pub const RULES: &[Rule] = &[
    rule(
        "E1",
        "a sync failed, and a request of the same file failed during the call",
        Confirmed,
        Some(DeviceError),
        0.99,
    ),
    rule(
        "E2",
        "a sync failed, a request of the same file had failed before it, and the errseq value told is that of this writeback error",
        Confirmed,
        Some(DeviceError),
        0.97,
    ),
    rule(
        "E3",
        "a sync failed, and a request of the same file had failed before it, though no errseq value ties the two",
        Confirmed,
        Some(DeviceError),
        0.90,
    ),
    rule(
        "E4",
        "a sync failed, and a device flush failed during the call on a disk under its file system",
        Confirmed,
        Some(DeviceError),
        0.90,
    ),
    rule(
        "E5",
        "a sync failed, and a journal or metadata request of its file system failed in the minute before it returned",
        Confirmed,
        Some(Journal),
        0.90,
    ),
    rule(
        "E6",
        "a sync failed, and the kernel side counted failed requests of the file during the call whose records are missing",
        Confirmed,
        Some(DeviceError),
        0.85,
    ),
    rule(
        "E7",
        "as E1 to E4, and the request's status says that the device is gone",
        Confirmed,
        Some(DeviceGone),
        0.95,
    ),
    rule(
        "E8",
        "as E1 to E3, and the request's status is a time-out",
        Confirmed,
        Some(DeviceTimeout),
        0.95,
    ),
    rule(
        "E9",
        "a sync failed with ENOSPC, from the file system or from the device",
        Confirmed,
        Some(NoSpace),
        0.95,
    ),
    rule(
        "E10",
        "a sync failed with EDQUOT",
        Confirmed,
        Some(Quota),
        0.95,
    ),
    rule(
        "E11",
        "a sync failed with EROFS",
        Confirmed,
        Some(ReadOnly),
        0.95,
    ),
    rule(
        "E12",
        "a sync failed with EUCLEAN, EBADMSG or ESHUTDOWN and no failed request was seen",
        Confirmed,
        Some(FilesystemError),
        0.90,
    ),
    rule(
        "E13",
        "a sync failed and writeback of its file had failed, but no failed request was seen",
        Confirmed,
        None,
        0.75,
    ),
    rule(
        "E14",
        "a sync failed and nothing was seen to fail below it",
        Confirmed,
        None,
        0.60,
    ),
    rule(
        "E15",
        "a sync failed with EBADF or EINVAL: the call was wrong, no storage was asked",
        NotTheDisk,
        Some(Application),
        0.90,
    ),
    rule(
        "E16",
        "a sync succeeded although a write of its file had failed before it: the success proves nothing for that data",
        Confirmed,
        Some(DeviceError),
        0.90,
    ),
    rule(
        "E17",
        "a sync failed with EROFS or ESHUTDOWN, and a journal or metadata request of its file system had failed before, however long",
        Confirmed,
        Some(Journal),
        0.95,
    ),
    rule(
        "E18",
        "a sync failed, no failed request was seen, and its disk is no longer in sysfs",
        Confirmed,
        Some(DeviceGone),
        0.95,
    ),
    rule(
        "W1",
        "a write of a file under a log directory failed before any sync of it did; the reasons say who was told since",
        Confirmed,
        Some(DeviceError),
        0.97,
    ),
    rule(
        "W2",
        "writeback of a file under a log directory failed, but no failed request of it was seen",
        Confirmed,
        None,
        0.75,
    ),
    rule(
        "W3",
        "as W1 or W2, with ENOSPC",
        Confirmed,
        Some(NoSpace),
        0.95,
    ),
    rule(
        "W4",
        "a read of a file under a log directory failed",
        Confirmed,
        Some(DeviceError),
        0.90,
    ),
    rule(
        "W5",
        "as W1 or W4, and the request's status says that the device is gone",
        Confirmed,
        Some(DeviceGone),
        0.95,
    ),
    rule(
        "W6",
        "as W1 or W4, and the request's status is a time-out",
        Confirmed,
        Some(DeviceTimeout),
        0.95,
    ),
    rule(
        "W7",
        "a flush of a disk under a log directory failed, and no sync of a broker was told",
        Confirmed,
        Some(DeviceError),
        0.90,
    ),
    rule(
        "J1",
        "a journal or metadata request of a file system with a log directory failed, and no sync has failed since",
        Confirmed,
        Some(Journal),
        0.90,
    ),
    rule(
        "N1",
        "a sync exceeds what the broker's bytes need by more than --stall, and requests of other processes were outstanding on its disk for at least half of the time, moved at least half of the bytes, and as many as the disk's rate carries in half of the time",
        Stalled,
        Some(Neighbour),
        0.85,
    ),
    rule(
        "S1",
        "a sync exceeds what its bytes need by more than --stall, and requests of its disk account for at least half of its time",
        Stalled,
        Some(DeviceStall),
        0.95,
    ),
    rule(
        "S2",
        "as S1, but only requests not tied to the file account for it: the disk held them that long",
        Stalled,
        Some(DeviceStall),
        0.80,
    ),
    rule(
        "S3",
        "a sync exceeds what its bytes need by more than --stall, and requests account for less than half of its time",
        Stalled,
        None,
        0.70,
    ),
    rule(
        "S4",
        "a sync was taken for stalled while in flight, but now that it has returned, its bytes or what its disks wrote meanwhile explain it",
        Stalled,
        Some(DeviceSaturated),
        0.50,
    ),
    rule(
        "U1",
        "a storage line from before the agent watched: the kernel side is unknown for that time",
        Unknown,
        None,
        0.0,
    ),
    rule(
        "U2",
        "a storage line, and no failed sync in the log directory within two seconds",
        Unknown,
        None,
        0.0,
    ),
    rule(
        "L1",
        "a storage line with ENOSPC, no failed sync, and less than 1 MiB or no inode free when it came",
        Confirmed,
        Some(NoSpace),
        0.95,
    ),
    rule(
        "U3",
        "a storage line with an exception that no failing operation raises (file renamed, channel closed); the state that would prove it was not seen",
        Unknown,
        None,
        0.0,
    ),
];

/// Every adjustment; they multiply.
pub const ADJUSTMENTS: &[Adjustment] = &[
    Adjustment {
        id: "A1",
        when: "evidence was lost before the incident was opened (not syncs under way when the agent came; not counts of a histogram; not other requests' completions where the requests that explain it are at hand)",
        factor: 0.90,
    },
    Adjustment {
        id: "A2",
        when: "the failed request carried pages of several files",
        factor: 0.95,
    },
    Adjustment {
        id: "A3",
        when: "/proc could not confirm that the thread is still in the call",
        factor: 0.85,
    },
    Adjustment {
        id: "A4",
        when: "a required hook is missing",
        factor: 0.90,
    },
    Adjustment {
        id: "A5",
        when: "the return of the call was not seen",
        factor: 0.90,
    },
    Adjustment {
        id: "A6",
        when: "the call failed before its file was named; it is taken for one of the broker's only file system whose journal failed",
        factor: 0.90,
    },
];

/// The rule of that id.
#[must_use]
pub fn find_rule(id: &str) -> &'static Rule {
    RULES
        .iter()
        .find(|rule| rule.id == id)
        .expect("rule ids are literals of this table")
}

/// The adjustment of that id.
#[must_use]
pub fn find_adjustment(id: &str) -> &'static Adjustment {
    ADJUSTMENTS
        .iter()
        .find(|row| row.id == id)
        .expect("adjustment ids are literals of this table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_this_table() {
        let page = include_str!("../../../docs/DIAGNOSE.md");
        for row in RULES {
            let verdict = serde_json::to_value(row.verdict).unwrap();
            let cause = row.cause.map_or(serde_json::json!("—"), |cause| {
                serde_json::to_value(cause).unwrap()
            });
            let (verdict, cause) = (verdict.as_str().unwrap(), cause.as_str().unwrap());
            let line = format!(
                "| {} | {} | `{verdict}` | {cause} | {:.2} |",
                row.id, row.when, row.confidence
            );
            assert!(page.contains(&line), "docs/DIAGNOSE.md lacks: {line}");
        }
        for row in ADJUSTMENTS {
            let line = format!("| {} | {} | × {:.2} |", row.id, row.when, row.factor);
            assert!(page.contains(&line), "docs/DIAGNOSE.md lacks: {line}");
        }
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<&str> = RULES
            .iter()
            .map(|row| row.id)
            .chain(ADJUSTMENTS.iter().map(|row| row.id))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), RULES.len() + ADJUSTMENTS.len());
    }
}
