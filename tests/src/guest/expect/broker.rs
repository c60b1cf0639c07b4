//! What must be said of a fault under a real broker, as `xtask demo` asserts it on
//! this machine: verdict and cause are `expect`'s, here are syncs, requests and the
//! broker's line. In: the cell's evidence. Out: assertions. Pure.

use std::path::Path;

use super::{Sheet, Told, list, overlaps};
use crate::faultdisk::{Op, TruthRequest};
use crate::incident::{Incident, Request, Sync};

/// A file, and the sectors that hold it, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// As the broker names it.
    pub path: String,
    /// First and last.
    pub sectors: Vec<(u64, u64)>,
}

/// What is known of the broker when a cell is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerTruth {
    /// Its log directory on the disk.
    pub log_dir: String,
    /// The files of its partitions there, and the checkpoints.
    pub files: Vec<Placed>,
    /// Its server.log, whole.
    pub log: Vec<String>,
}

/// The agent looks once a second, on a machine that is emulated and shared.
const TOLD_WITHIN_NS: u64 = 9_000_000_000;

impl BrokerTruth {
    /// Its exception has no text of an errno, whatever the errno is: that of Java's
    /// `FileDescriptor.sync`, by which checkpoints are synced. Then the errno is held
    /// against that of the request.
    pub(super) fn is_mute(&self) -> bool {
        let mut lines = self.log.iter();
        lines.any(|line| line.starts_with("java.io.SyncFailedException"))
    }

    fn file_at(&self, sector: u64) -> Option<&str> {
        let holds = |file: &&Placed| {
            let mut ranges = file.sectors.iter();
            ranges.any(|(first, last)| (*first..=*last).contains(&sector))
        };
        self.files.iter().find(holds).map(|file| &*file.path)
    }
}

/// `/data/kafka/orders-3/x.log` → `orders-3`.
fn partition_of(path: &str) -> Option<&str> {
    path.rsplit('/').nth(1)
}

impl<'a> Sheet<'a> {
    /// The log directory cannot be written: the broker's first line of that is there, and
    /// the sync that this line names.
    pub(super) fn check_brokers_write_error(&mut self, incident: &Incident) {
        let evidence = self.evidence;
        let Some(broker) = self.brokers_truth() else {
            return;
        };
        self.check_failed_sync(incident);
        self.check_write(incident, false);
        let failed: Vec<&Sync> = (incident.syncs.iter())
            .filter(|sync| sync.errno.is_some())
            .collect();
        self.check_all_in_dir(&failed, &broker.log_dir);

        let requests = || (incident.requests.iter()).filter(|request| request.errno.is_some());
        let is_real = |request: &&Request| {
            let failed = evidence.truth.iter();
            let mut failed = failed.filter(|truth| truth.errno != 0);
            failed.any(|truth| overlaps(truth, request))
        };
        let unreal: Vec<String> = (requests().filter(|request| !is_real(request)))
            .map(|request| format!("{:?}", request.sector))
            .collect();
        self.is("sectors that did not fail", "none", &list(&unreal, "none"));
        // Of a file that is gone since, no sectors are known.
        let named = requests().filter_map(|request| {
            let path = broker.file_at(request.sector?)?;
            Some((path, request.path.as_deref().unwrap_or("no file")))
        });
        let wrong = |(path, said): (&str, &str)| match path == said {
            true => None,
            false => Some(format!("{said} instead of {path}")),
        };
        let nr_named = named.clone().count();
        let wrong: Vec<String> = named.filter_map(wrong).collect();
        self.is("requests of another file", "none", &list(&wrong, "none"));
        self.put("requests with a file", nr_named > 0, "some", "none");

        let lines: Vec<&str> = (incident.log_events.iter())
            .filter(|event| {
                let index = usize::try_from(event.line_number).unwrap_or(0);
                let line = index.checked_sub(1).and_then(|nth| broker.log.get(nth));
                line.is_some_and(|line| line.contains(event.text.trim()))
            })
            .map(|event| event.text.trim())
            .collect();
        let (all, right) = (incident.log_events.len(), lines.len());
        self.put(
            "line numbers",
            right == all && all > 0,
            "all of server.log",
            &format!("{right} of {all}"),
        );
        // Which file the broker finds unwritable first is chance.
        let mut printed = broker.log.iter();
        let wanted = printed.find(|line| Named::in_line(line, &broker.log_dir).is_some());
        let wanted = wanted.map_or("a directory that failed", |line| &**line);
        let shown: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let is_there = lines.iter().any(|line| wanted.contains(line));
        self.put(
            "line of the broker",
            is_there,
            wanted,
            &list(&shown, "none"),
        );
        let shown: Vec<String> = failed.iter().map(|sync| show_sync(sync)).collect();
        self.put(
            "sync that the line names",
            is_told(incident, &broker.log_dir),
            wanted,
            &list(&shown, "none"),
        );
    }

    /// The device holds a flush; the broker prints nothing.
    pub(super) fn check_brokers_hang(&mut self, answer: &Told) {
        let evidence = self.evidence;
        let Some(broker) = self.brokers_truth() else {
            return;
        };
        let mut held = evidence.truth.iter();
        let is_held = |truth: &&TruthRequest| truth.op == Op::Flush && truth.delay_ms > 0;
        let Some(held) = held.find(is_held) else {
            self.put("held flush", false, "one", "none");
            return;
        };
        let delay_ns = held.delay_ms * 1_000_000;
        let is_long = |ns: u64| ns >= delay_ns / 10 * 9;
        let is_named = |sync: &&Sync| {
            sync.in_flight && sync.tid != 0 && !sync.comm.is_empty() && sync.path.is_some()
        };
        let in_flight = answer.first.syncs.iter().find(is_named);
        let got = in_flight.map_or("no".to_owned(), |sync| {
            format!("after {} ms", sync.duration_ns / 1_000_000)
        });
        self.put(
            "told in flight, with thread and file",
            in_flight.is_some_and(|sync| sync.duration_ns < TOLD_WITHIN_NS),
            &format!("within {} ms", TOLD_WITHIN_NS / 1_000_000),
            &got,
        );
        let last = &answer.last;
        let long: Vec<&Sync> = (last.syncs.iter())
            .filter(|sync| is_long(sync.duration_ns))
            .collect();
        let by_flush = |sync: &&Sync| {
            let parts = sync.breakdown.as_ref();
            parts.is_some_and(|parts| parts.flush_ns * 2 > sync.duration_ns)
        };
        let shown: Vec<String> = last.syncs.iter().map(show_sync).collect();
        let is_there = long.iter().any(by_flush);
        self.put(
            "sync held by the device's flush",
            is_there,
            &format!("{} ms", held.delay_ms),
            &list(&shown, "none"),
        );
        self.check_all_in_dir(&long, &broker.log_dir);
        let flushes: Vec<&Request> = (last.requests.iter())
            .filter(|request| request.op == "flush")
            .collect();
        let is_it = |request: &&Request| {
            request.disk == evidence.disk && request.device_ns.is_some_and(is_long)
        };
        let is_there = flushes.iter().any(is_it);
        let shown: Vec<String> = (flushes.iter())
            .map(|request| format!("{} {:?} ns", request.disk, request.device_ns))
            .collect();
        self.put(
            "flush in the device",
            is_there,
            &format!("{} {} ms", evidence.disk, held.delay_ms),
            &list(&shown, "none"),
        );
        let lines: Vec<String> = (last.log_events.iter())
            .map(|event| event.text.clone())
            .collect();
        self.is("line of the broker", "none", &list(&lines, "none"));
    }

    fn brokers_truth(&mut self) -> Option<&'a BrokerTruth> {
        let truth = self.evidence.broker.as_ref();
        if truth.is_none() {
            self.put("broker", false, "one", "none");
        }
        truth
    }

    /// The broker's, in its directory on the disk.
    fn check_all_in_dir(&mut self, syncs: &[&Sync], log_dir: &str) {
        let writer_pid = self.evidence.writer_pid;
        let is_ours = |sync: &&&Sync| {
            let path = sync.path.as_deref().unwrap_or_default();
            sync.pid == writer_pid && path.starts_with(log_dir)
        };
        let others: Vec<String> = (syncs.iter().filter(|sync| !is_ours(sync)))
            .map(|sync| show_sync(sync))
            .collect();
        let got = list(&others, "none");
        self.is("syncs of others, or elsewhere", "none", &got);
    }
}

/// What could not be written, as the broker's line has it.
enum Named<'a> {
    /// A segment of this partition.
    Partition(&'a str),
    /// A checkpoint: it is written beside itself, and renamed.
    Checkpoint(&'a str),
}

impl<'a> Named<'a> {
    /// `None`: the line is of something else, or of another directory.
    fn in_line(line: &'a str, log_dir: &str) -> Option<Self> {
        let word_after = |words: &str| line.split_once(words)?.1.split_whitespace().next();
        let is_in_dir = line.contains(&format!(" in dir {log_dir} "));
        let partition = word_after("Error while flushing log for ").filter(|_| is_in_dir);
        let is_in_dir = |path: &&str| Path::new(path).starts_with(log_dir);
        let checkpoint = word_after("Error while writing to checkpoint file ").filter(is_in_dir);
        partition
            .map(Named::Partition)
            .or(checkpoint.map(Named::Checkpoint))
    }

    fn is_of(&self, sync: &Sync) -> bool {
        let path = sync.path.as_deref().unwrap_or_default();
        // By its suffix, with or without the dot.
        let kind = sync.file_kind.as_deref().unwrap_or_default();
        sync.op == "fsync"
            && match self {
                Named::Partition(name) => {
                    kind.trim_start_matches('.') == "log"
                        && partition_of(path) == Some(*name)
                        && sync.topic_partition.as_deref() == Some(*name)
                }
                Named::Checkpoint(name) => path.strip_suffix(".tmp") == Some(*name),
            }
    }
}

/// A line of the broker's that the directory failed, and the failed sync that it names.
pub(super) fn is_told(incident: &Incident, log_dir: &str) -> bool {
    let failed = || (incident.syncs.iter()).filter(|sync| sync.errno.is_some());
    let named =
        (incident.log_events.iter()).filter_map(|event| Named::in_line(&event.text, log_dir));
    named
        .into_iter()
        .any(|named| failed().any(|sync| named.is_of(sync)))
}

fn show_sync(sync: &Sync) -> String {
    let path = sync.path.as_deref().unwrap_or("no file");
    let errno = sync.errno.as_deref().unwrap_or("ok");
    let took_ms = sync.duration_ns / 1_000_000;
    format!("{} {path} {errno} by {} {took_ms} ms", sync.op, sync.pid)
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
