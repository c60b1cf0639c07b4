//! Who else used the disk while a sync was slow. In: the requests that overlap
//! it, what belongs to its broker. Out: [`Others`]: processes and files with
//! their bytes, flushes and longest request, and whether they took the disk. A
//! request that could be the broker's own is never a neighbour's.

use std::collections::BTreeMap;

use super::breakdown::{begin_and_issue, is_journal, is_own};
use super::case::NO_SLOT;
use super::recorder::Recorder;
use super::spans::{Span, length, union_within};
use crate::event::{FileId, RequestSpan, SyncEvent};

/// Neighbours listed.
const MAX_LISTED: usize = 10;

/// A process, or a file where the process is not known (its data was written
/// back by the kernel).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Neighbour {
    /// 0 = not known.
    pub pid: u32,
    pub comm: String,
    /// s_dev 0 = not known, or a process's several files.
    pub file: FileId,
    pub names: Vec<String>,
    /// Journal or metadata of this file system.
    pub rdev: u32,
    pub nr_requests: u64,
    pub nr_bytes: u64,
    pub nr_flushes: u64,
    pub longest_ns: u64,
}

/// See the module's comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Others {
    /// Most bytes first.
    pub list: Vec<Neighbour>,
    /// Bytes of theirs that completed during the call.
    pub nr_bytes: u64,
    /// Those of them that were written.
    pub written_bytes: u64,
    /// Bytes of all requests that completed during the call, whoever's.
    pub all_bytes: u64,
    /// Time of the call during which a request of theirs was outstanding.
    pub busy_ns: u64,
}

/// What is known of the sync's broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Household<'a> {
    /// Root slots of its log directories.
    pub roots: &'a [u16],
    /// File systems that hold log directories, of any broker.
    pub file_systems: &'a [u32],
    /// The sync's file system.
    pub s_dev: u32,
}

/// Who else had requests on the disks of `sync`; `requests` are those of its
/// disks that overlap it.
pub(crate) fn find_others(
    sync: &SyncEvent,
    household: &Household<'_>,
    requests: &[RequestSpan],
    recorder: &Recorder,
) -> Others {
    let mut others = Others::default();
    let mut groups: BTreeMap<(u32, String, FileId, u32), Neighbour> = BTreeMap::new();
    let mut busy: Vec<Span> = Vec::new();
    let submitters = sole_submitters(sync, requests);
    for request in requests {
        let is_inside = request.complete_ns > sync.enter_ns && request.complete_ns <= sync.exit_ns;
        let nr_bytes = u64::from(request.nr_bytes) * u64::from(is_inside);
        others.all_bytes += nr_bytes;
        if !is_foreign(request, sync, household, recorder) {
            continue;
        }
        let Some((begin_ns, _)) = begin_and_issue(request) else {
            continue;
        };
        busy.push((begin_ns, request.complete_ns));
        others.nr_bytes += nr_bytes;
        if request.op != "read" {
            others.written_bytes += nr_bytes;
        }
        let submitter = submitters.get(&request.file).copied().flatten();
        let (pid, comm) = submitter
            .filter(|_| request.pid == 0)
            .unwrap_or((request.pid, &request.comm));
        let file = match (pid, request.file_source.as_str()) {
            (1.., _) | (_, "blockdev") => FileId::default(),
            _ => request.file.clone(),
        };
        let rdev = if pid == 0 { request.rdev } else { 0 };
        let key = (pid, comm.to_owned(), file.clone(), rdev);
        let group = groups.entry(key).or_insert_with(|| Neighbour {
            pid,
            comm: comm.to_owned(),
            names: recorder
                .names_of(&request.file)
                .unwrap_or_default()
                .to_vec(),
            file,
            rdev,
            ..Neighbour::default()
        });
        // A process is known by its file only while it is but one.
        if recorder.names_of(&request.file).unwrap_or_default() != group.names {
            group.names.clear();
        }
        group.nr_requests += 1;
        group.nr_bytes += nr_bytes;
        group.nr_flushes += u64::from(request.op == "flush");
        let took_ns = request.complete_ns.saturating_sub(begin_ns);
        group.longest_ns = group.longest_ns.max(took_ns);
    }
    others.busy_ns = length(&union_within(busy, (sync.enter_ns, sync.exit_ns)));
    others.list = groups.into_values().collect();
    others
        .list
        .sort_by_key(|group| std::cmp::Reverse((group.nr_bytes, group.longest_ns)));
    others.list.truncate(MAX_LISTED);
    others
}

/// Processes by file, `None` where it had several. What the kernel's workers issue
/// of such a file, because the queue was full or pages were written back, is of
/// the process that issued the rest.
fn sole_submitters<'a>(
    sync: &SyncEvent,
    requests: &'a [RequestSpan],
) -> BTreeMap<&'a FileId, Option<(u32, &'a str)>> {
    let mut found = BTreeMap::new();
    let is_file = |request: &&RequestSpan| {
        let pid = request.pid;
        pid != 0 && pid != sync.pid && request.file.s_dev != 0 && request.file_source != "blockdev"
    };
    for request in requests.iter().filter(is_file) {
        let one = Some((request.pid, request.comm.as_str()));
        let known = found.entry(&request.file).or_insert(one);
        if known.map(|(pid, _)| pid) != Some(request.pid) {
            *known = None;
        }
    }
    found
}

fn is_foreign(
    request: &RequestSpan,
    sync: &SyncEvent,
    household: &Household<'_>,
    recorder: &Recorder,
) -> bool {
    if is_own(request, sync)
        || is_journal(request, household.s_dev)
        || household.roots.contains(&request.root) && request.file.s_dev != 0
    {
        return false;
    }
    if request.pid != 0 {
        return request.pid != sync.pid;
    }
    match request.file_source.as_str() {
        "blockdev" => request.rdev != 0 && !household.file_systems.contains(&request.rdev),
        _ if request.file.s_dev == 0 => false,
        // On a file system with log directories, a file that was written back
        // is a stranger only if its directory was looked at.
        _ if household.file_systems.contains(&request.file.s_dev) => {
            request.root == NO_SLOT && recorder.names_of(&request.file).is_some()
                || request.root != NO_SLOT
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{SpanFile, SpansEvent};

    const FS: u32 = 7;

    fn request(pid: u32, s_dev: u32, root: u16) -> RequestSpan {
        RequestSpan {
            op: "write".to_owned(),
            issue_ns: 100,
            complete_ns: 900,
            nr_bytes: 4_096,
            file: FileId { s_dev, ino: 99 },
            file_source: "page".to_owned(),
            pid,
            root,
            ..RequestSpan::default()
        }
    }

    fn others(requests: &[RequestSpan], is_named: bool) -> Others {
        let sync = SyncEvent {
            pid: 42,
            enter_ns: 0,
            exit_ns: 1_000,
            file: FileId { s_dev: FS, ino: 12 },
            ..SyncEvent::default()
        };
        let mut recorder = Recorder::default();
        let files = requests.iter().filter(|_| is_named).map(|one| SpanFile {
            file: one.file.clone(),
            names: vec!["backup.tar".to_owned()],
        });
        let event = SpansEvent {
            files: files.collect(),
            ..SpansEvent::default()
        };
        recorder.remember(&event, 1_000);
        let household = Household {
            roots: &[0],
            file_systems: &[FS],
            s_dev: FS,
        };
        find_others(&sync, &household, requests, &recorder)
    }

    #[test]
    fn what_may_be_the_brokers_own_is_no_neighbours() {
        let own = request(0, FS, 0);
        let by_broker = request(42, FS + 1, NO_SLOT);
        let unnamed = request(0, FS, NO_SLOT);
        let journal = RequestSpan {
            file_source: "blockdev".to_owned(),
            rdev: FS,
            ..request(0, 1, NO_SLOT)
        };
        let found = others(&[own, by_broker, unnamed, journal], false);
        assert_eq!((found.list.len(), found.busy_ns), (0, 0));
        assert_eq!(found.all_bytes, 4 * 4_096);
    }

    #[test]
    fn what_the_kernel_issues_of_a_file_is_its_one_submitters() {
        let list = |requests: &[RequestSpan]| {
            let found = others(requests, true).list;
            let shown = found.iter().map(|group| (group.pid, group.nr_requests));
            shown.collect::<Vec<_>>()
        };
        let (fio, kernel) = (request(77, FS, NO_SLOT), request(0, FS, NO_SLOT));
        assert_eq!(list(&[kernel.clone(), fio.clone()]), [(77, 2)]);
        // Of two that had requests of it, nobody knows which.
        let dd = request(78, FS, NO_SLOT);
        assert_eq!(list(&[fio, dd, kernel]), [(0, 1), (77, 1), (78, 1)]);
    }

    #[test]
    fn strangers_are_grouped_by_process_else_by_file() {
        let mut unsubmitted = request(0, FS, NO_SLOT);
        unsubmitted.file.ino = 98;
        let found = others(
            &[
                request(77, FS, NO_SLOT),
                request(77, FS + 1, NO_SLOT),
                unsubmitted,
            ],
            true,
        );
        let shown: Vec<(u32, u64)> = found
            .list
            .iter()
            .map(|group| (group.pid, group.nr_requests))
            .collect();
        assert_eq!(shown, [(77, 2), (0, 1)]);
        assert_eq!((found.nr_bytes, found.busy_ns), (3 * 4_096, 800));
        assert_eq!(found.list[1].names, ["backup.tar"]);
    }
}
