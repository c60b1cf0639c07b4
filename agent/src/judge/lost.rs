//! Data that was lost before anybody was told: its rule, its sentence, its place
//! in the incident. In: a [`Writeback`] or a failed journal request of a case.
//! Out: rules, reasons, `operations[]`. Who is told later is told here too.

use super::errno::errno_name;
use super::verdict::tell_request;
use crate::correlate::case::Case;
use crate::correlate::world::World;
use crate::correlate::writeback::Writeback;
use crate::event::RequestEvent;
use crate::incident::{IncidentOperation, IncidentTold};
use crate::sink::units::show_ns;

/// Files named in `operations[]`.
const MAX_OPERATIONS: usize = 10;

/// The rule that lost data meets.
pub(super) fn rule_of_lost(lost: &Writeback) -> &'static str {
    let is_errno = |errno: i32| {
        lost.errno == errno || lost.requests.iter().any(|request| request.errno == errno)
    };
    if is_errno(libc::ENOSPC) {
        "W3"
    } else if lost.requests.is_empty() {
        "W2"
    } else if is_errno(libc::ENODEV) || is_errno(libc::ENXIO) {
        "W5"
    } else if is_errno(libc::ETIMEDOUT) {
        "W6"
    } else if lost.op == "read" {
        "W4"
    } else {
        "W1"
    }
}

/// What failed, of which file, and who knows of it.
pub(super) fn tell_lost(lost: &Writeback, world: &World) -> String {
    let name = lost
        .path
        .clone()
        .unwrap_or_else(|| format!("inode {}", lost.file.ino));
    let partition = lost
        .topic_partition
        .as_ref()
        .map_or(String::new(), |partition| format!(" ({partition})"));
    let Some(first) = lost.requests.first() else {
        return format!(
            "writeback of {name}{partition} failed with {}, but no failed request of it was seen; {}",
            errno_name(lost.errno),
            tell_told(lost)
        );
    };
    let more = match lost.nr_failed {
        0 | 1 => String::new(),
        count => format!(" (the first of {count})"),
    };
    let failed = tell_request(first, world);
    if lost.op == "read" {
        return format!(
            "{failed}{more}: data of {name}{partition}; whoever reads it gets an error"
        );
    }
    let whose = if first.flags.iter().any(|flag| flag == "sync") {
        "that something waited for"
    } else {
        "in the kernel's own writeback"
    };
    format!(
        "{failed}{more} {whose}, with data of {name}{partition}; {}",
        tell_told(lost)
    )
}

/// `not yet told: …`, or who was.
fn tell_told(lost: &Writeback) -> String {
    let mut who: Vec<String> = Vec::new();
    for told in &lost.told {
        let age = show_ns(told.time_ns.saturating_sub(lost.first_ns));
        who.push(match &told.op {
            Some(op) => format!("{op} of thread {} was told {age} later", told.comm),
            None => format!(
                "{} (pid {}), which is not the broker's sync, was told {age} later",
                told.comm, told.pid
            ),
        });
    }
    if lost
        .told
        .iter()
        .any(|told| told.op.as_deref() == Some("sync_file_range"))
    {
        who.push("sync_file_range proves no durability and takes the error with it: a later fsync of the same descriptor may succeed".to_owned());
    }
    if !lost.is_told_to_broker() {
        who.insert(
            0,
            "not yet told: no sync of the broker has returned this error".to_owned(),
        );
        if !lost.told.is_empty() {
            who.push("a descriptor that is opened from now on will not be told".to_owned());
        }
    }
    who.join("; ")
}

/// A failed journal request that no sync was told of yet.
pub(super) fn tell_journal(request: &RequestEvent, world: &World) -> String {
    format!(
        "{}, which is journal or metadata of {}; not yet told: no sync of the broker has failed since",
        tell_request(request, world),
        world.disk_name(request.rdev)
    )
}

/// A failed flush that no sync was told of.
pub(super) fn tell_flush(request: &RequestEvent, world: &World) -> String {
    format!(
        "{}, and no sync of a broker waited for it: what the disk had taken in before it, and not yet made durable, may be lost, and nobody is told",
        tell_request(request, world)
    )
}

/// What the journal's failure came to: the mount's own options say it.
pub(super) fn tell_read_only(case: &Case, world: &World) -> Option<String> {
    let dirs = world.read_only_among(&case.aborted_dirs);
    let (_, sign) = dirs.first()?;
    let paths: Vec<&str> = dirs.iter().map(|(path, _)| path.as_str()).collect();
    Some(format!(
        "the journal is aborted: the file system of {} has turned read-only ({sign}), and takes no writes until it is mounted again",
        paths.join(", ")
    ))
}

/// `operations[]` of the incident.
pub(super) fn show_operations(case: &Case, world: &World) -> Vec<IncidentOperation> {
    let shown = case.writebacks.iter().take(MAX_OPERATIONS);
    shown
        .map(|lost| IncidentOperation {
            op: if lost.op == "read" {
                "read".to_owned()
            } else {
                "writeback".to_owned()
            },
            path: lost.path.clone(),
            topic_partition: lost.topic_partition.clone(),
            errno: errno_name(lost.errno),
            time: world.rfc3339(lost.first_ns),
            nr_failed: lost.nr_failed,
            told: lost
                .told
                .iter()
                .map(|told| IncidentTold {
                    time: world.rfc3339(told.time_ns),
                    pid: told.pid,
                    comm: told.comm.clone(),
                    op: told.op.clone(),
                })
                .collect(),
        })
        .collect()
}
