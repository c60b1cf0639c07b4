//! What really happened around one fault, as the disk and the callers wrote it
//! down. In: the disk's log, the workload's records. Out: plain data for
//! `compare`, with the questions it asks of it. Pure.

use std::collections::BTreeMap;

use fsyncscope_tests::campaign::{Call, CallRecord, Record};
use fsyncscope_tests::faultdisk::{Op, TruthEntry, TruthRequest};

use super::draw::Fault;

/// First and last sector.
pub type Sectors = (u64, u64);
/// A span of time, CLOCK_MONOTONIC, ns.
pub type Span = (u64, u64);

/// A sector's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A file.
    File(u64),
    /// The journal or log.
    Journal,
    /// Inode tables, bitmaps, other metadata at a fixed place.
    Metadata,
    /// Directory blocks, files deleted in between.
    Unknown,
}

/// Where a file system keeps what is no file, first and last sector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Journal or log.
    pub journal: Vec<(u64, u64)>,
    /// Inode tables.
    pub tables: Vec<(u64, u64)>,
    /// Where files begin: all before is metadata.
    pub data_first: u64,
}

/// Names and places of files in the course of time: inode numbers and sectors are
/// used again.
#[derive(Clone, Debug, Default)]
pub struct Files {
    names: BTreeMap<u64, Vec<(u64, String)>>,
    places: BTreeMap<u64, Vec<(u64, Vec<Sectors>)>>,
}

impl Files {
    /// Learns from a record.
    pub fn learn(&mut self, record: &Record) {
        match record {
            Record::Name { at_ns, ino, path } => {
                let names = self.names.entry(*ino).or_default();
                names.push((*at_ns, path.clone()));
            }
            Record::Placed {
                at_ns,
                ino,
                sectors,
            } => {
                let places = self.places.entry(*ino).or_default();
                places.push((*at_ns, sectors.clone()));
            }
            _ => {}
        }
    }

    /// Forgets what was over before this moment.
    pub fn forget_before(&mut self, at_ns: u64) {
        self.names.values_mut().for_each(|all| cut(all, at_ns));
        self.places.values_mut().for_each(|all| cut(all, at_ns));
    }

    /// The file that held this sector at this moment; if none was known to, the
    /// next one that did: a new file says its place after its first sync.
    pub fn at(&self, sector: u64, at_ns: u64) -> Option<u64> {
        let holds = |sectors: &[Sectors]| sectors.iter().any(|(a, b)| (*a..=*b).contains(&sector));
        let then = self.places.iter().find(|(_, all)| {
            let last = all.iter().rev().find(|(since_ns, _)| *since_ns <= at_ns);
            last.is_some_and(|(_, sectors)| holds(sectors))
        });
        if let Some((ino, _)) = then {
            return Some(*ino);
        }
        let later = self.places.iter().filter_map(|(ino, all)| {
            let next = all
                .iter()
                .find(|(since_ns, sectors)| *since_ns > at_ns && holds(sectors));
            Some((next?.0, *ino))
        });
        later.min().map(|(_, ino)| ino)
    }

    /// Whether the inode had this name at some moment of this time.
    pub fn had_name(&self, ino: u64, path: &str, within: Span) -> bool {
        /// A rename is over before its caller can say so.
        const EDGE_NS: u64 = 100_000_000;
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let names = self.names.get(&ino).map_or(&[][..], Vec::as_slice);
        names.iter().enumerate().any(|(nth, (since_ns, name))| {
            let until_ns = names.get(nth + 1).map_or(u64::MAX, |next| next.0);
            name == path
                && *since_ns <= within.1 + EDGE_NS
                && until_ns.saturating_add(EDGE_NS) >= within.0
        })
    }

    /// Whether any name of the inode is known.
    pub fn is_named(&self, ino: u64) -> bool {
        self.names.contains_key(&ino)
    }

    /// Its last name.
    pub fn last_name(&self, ino: u64) -> Option<&str> {
        let (_, name) = self.names.get(&ino)?.last()?;
        Some(name)
    }

    /// Where each file lies now that has a name and a place.
    pub fn placed(&self) -> impl Iterator<Item = (&str, &[Sectors])> {
        self.places.iter().filter_map(|(ino, all)| {
            let (_, sectors) = all.last().filter(|(_, sectors)| !sectors.is_empty())?;
            Some((self.last_name(*ino)?, sectors.as_slice()))
        })
    }
}

/// Leaves the last one before this moment, and all after it.
fn cut<T>(all: &mut Vec<(u64, T)>, at_ns: u64) {
    let after = all.partition_point(|(since_ns, _)| *since_ns <= at_ns);
    all.drain(..after.saturating_sub(1));
}

/// See the module's comment.
#[derive(Clone, Debug)]
pub struct Known {
    /// What was drawn.
    pub fault: Fault,
    /// The disk's name, like loop0.
    pub disk: String,
    /// Process of the workload.
    pub pid: u32,
    /// Where the file system keeps what is no file.
    pub layout: Layout,
    /// Names and places.
    pub files: Files,
    /// All requests of the window; those touched by the fault have an errno or a
    /// delay.
    pub requests: Vec<TruthRequest>,
    /// All calls of the window.
    pub calls: Vec<CallRecord>,
    /// The watched window: from when the agent was attached to when it was told
    /// to end.
    pub watched: Span,
    /// When the fault's rules came into force, and when they were lifted.
    pub armed: Span,
    /// The file system went down with it.
    pub is_aborted: bool,
    /// `--slow` of the agent.
    pub slow_ns: u64,
    /// `--stall`.
    pub stall_ns: u64,
}

impl Known {
    /// Requests that the fault failed.
    pub fn failed(&self) -> impl Iterator<Item = &TruthRequest> {
        self.requests.iter().filter(|request| request.errno != 0)
    }

    /// Requests that the fault held.
    pub fn held(&self) -> impl Iterator<Item = &TruthRequest> {
        self.requests.iter().filter(|request| request.delay_ms > 0)
    }

    /// The moment of its first effect.
    pub fn first_ns(&self) -> Option<u64> {
        let touched = self.failed().chain(self.held());
        touched.map(|request| request.arrival.monotonic_ns).min()
    }

    /// Calls that began under the eyes of the agent.
    pub fn watched_calls(&self) -> impl Iterator<Item = &CallRecord> {
        let (from, to) = self.watched;
        self.calls
            .iter()
            .filter(move |call| call.enter_ns >= from && call.exit_ns <= to)
    }

    /// Watched syncs that failed.
    pub fn failed_syncs(&self) -> impl Iterator<Item = &CallRecord> {
        self.watched_calls()
            .filter(|call| call.call.is_sync() && call.errno != 0)
    }

    /// Who owned a sector when a request for it arrived.
    pub fn owner(&self, sector: u64, at_ns: u64) -> Owner {
        let within = |ranges: &[Sectors]| ranges.iter().any(|(a, b)| (*a..=*b).contains(&sector));
        if within(&self.layout.journal) {
            return Owner::Journal;
        }
        if within(&self.layout.tables) || sector < self.layout.data_first {
            return Owner::Metadata;
        }
        self.files
            .at(sector, at_ns)
            .map_or(Owner::Unknown, Owner::File)
    }

    /// The same of the first sector of a request.
    pub fn owner_of(&self, request: &TruthRequest) -> Owner {
        self.owner(request.sector, request.arrival.monotonic_ns)
    }

    /// The failed request that this one is, or is a part of.
    pub fn find_failed(
        &self,
        op: &str,
        sector: Option<u64>,
        nr_bytes: u64,
    ) -> Option<&TruthRequest> {
        self.failed()
            .find(|request| is_same(request, op, sector, nr_bytes))
    }

    /// The failed flush that failed a write to journal or metadata which the disk
    /// itself never failed: a write that asked for a flush before it, or for FUA of
    /// a disk that has none, is given the flush's error, and the block layer takes
    /// those flags from it.
    pub fn find_flush_of(
        &self,
        op: &str,
        sector: Option<u64>,
        at_ns: u64,
    ) -> Option<&TruthRequest> {
        /// The write may have waited for the flush, and is finished after it.
        const NEAR_NS: u64 = 1_000_000_000;
        let is_fixed = sector.is_some_and(|sector| {
            matches!(self.owner(sector, at_ns), Owner::Journal | Owner::Metadata)
        });
        if op != "write" || !is_fixed {
            return None;
        }
        self.failed().find(|request| {
            request.op == Op::Flush && request.arrival.monotonic_ns.abs_diff(at_ns) < NEAR_NS
        })
    }

    /// The held request that this one is, or is a part of.
    pub fn find_held(&self, op: &str, sector: Option<u64>, nr_bytes: u64) -> Option<&TruthRequest> {
        self.held()
            .find(|request| is_same(request, op, sector, nr_bytes))
    }

    /// The call of this thread that was under way at this moment; with
    /// io_uring, of any thread, since the kernel's worker calls.
    pub fn find_call(&self, tid: u32, ino: Option<u64>, at_ns: u64) -> Option<&CallRecord> {
        /// Of one clock, but a printed time has made a way through another.
        const EDGE_NS: u64 = 50_000;
        let is_it = |call: &&CallRecord| {
            let by_ring = call.call == Call::UringFsync && ino == Some(call.ino);
            (call.tid == tid || by_ring)
                && call.enter_ns <= at_ns + EDGE_NS
                && call.exit_ns + EDGE_NS >= at_ns
                && call.call != Call::Read
        };
        // Of one that ends and one that begins at that moment the nearer one.
        let found = self.calls.iter().filter(is_it);
        found.min_by_key(|call| (call.tid != tid, call.enter_ns.abs_diff(at_ns)))
    }

    /// How much of a call fell into what the fault held and it can have waited
    /// for: nobody returns before what he waits for.
    pub fn held_ns(&self, call: &CallRecord) -> u64 {
        let answered = self
            .held()
            .map(span_of)
            .filter(|span| span.1 <= call.exit_ns);
        covered(answered, (call.enter_ns, call.exit_ns))
    }

    /// How much of a call fell into what the fault held, waited for or not.
    pub fn overlap_ns(&self, call: &CallRecord) -> u64 {
        covered(self.held().map(span_of), (call.enter_ns, call.exit_ns))
    }

    /// How many requests reached the disk during a call.
    pub fn nr_requests(&self, call: &CallRecord) -> u64 {
        let is_during = |request: &&TruthRequest| {
            (call.enter_ns..call.exit_ns).contains(&request.arrival.monotonic_ns)
        };
        self.requests.iter().filter(is_during).count() as u64
    }

    /// How much of a call some request was in the disk, held or not.
    pub fn busy_ns(&self, call: &CallRecord) -> u64 {
        self.busy_within((call.enter_ns, call.exit_ns))
    }

    /// The same of any time.
    pub fn busy_within(&self, within: Span) -> u64 {
        covered(self.requests.iter().map(span_of), within)
    }
}

fn span_of(request: &TruthRequest) -> Span {
    let end = request.reply.map_or(u64::MAX, |reply| reply.monotonic_ns);
    (request.arrival.monotonic_ns, end)
}

/// How much of `within` the spans cover together.
pub fn covered(spans: impl Iterator<Item = Span>, within: Span) -> u64 {
    let mut cut: Vec<Span> = spans
        .map(|(from, to)| (from.max(within.0), to.min(within.1)))
        .filter(|(from, to)| from < to)
        .collect();
    cut.sort_unstable();
    let mut sum = 0;
    let mut end = within.0;
    for (from, to) in cut {
        sum += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    sum
}

/// Whether a request that was spoken of is this one, or a part of it, or has it
/// as a part.
pub fn is_same(request: &TruthRequest, op: &str, sector: Option<u64>, nr_bytes: u64) -> bool {
    let name = match request.op {
        Op::Read => "read",
        Op::Write => "write",
        Op::Flush => "flush",
        Op::Discard => "discard",
    };
    if name != op {
        return false;
    }
    if request.op == Op::Flush {
        return true;
    }
    let Some(sector) = sector else { return false };
    let end = sector + nr_bytes.div_ceil(512);
    let request_end = request.sector + request.bytes / 512;
    // A request of the file system may be split on its way down, or the part of
    // a merged one may be meant: one lies within the other.
    let is_within = sector >= request.sector && end <= request_end;
    let is_around = sector <= request.sector && end >= request_end;
    is_within || is_around
}

/// The touched and untouched requests among entries; of one still held only its
/// arrival is known.
pub fn requests(entries: &[TruthEntry]) -> Vec<TruthRequest> {
    let mut by_seq: BTreeMap<u64, TruthRequest> = BTreeMap::new();
    for entry in entries {
        if let TruthEntry::Held(request) | TruthEntry::Request(request) = entry {
            by_seq.insert(request.seq, request.clone());
        }
    }
    by_seq.into_values().collect()
}

/// The errno that the block layer makes of the server's answer: the loop driver
/// answers a failed flush with EIO whatever it was.
pub fn expected_errno(request: &TruthRequest) -> i32 {
    if request.op == Op::Flush {
        libc::EIO
    } else {
        request.errno
    }
}

/// The name of an errno that the campaign uses or that follows from one.
pub fn errno_name(errno: i32) -> &'static str {
    match errno {
        0 => "OK",
        libc::EIO => "EIO",
        libc::ENODATA => "ENODATA",
        libc::ENOSPC => "ENOSPC",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EILSEQ => "EILSEQ",
        libc::EROFS => "EROFS",
        libc::ENODEV => "ENODEV",
        libc::EUCLEAN => "EUCLEAN",
        libc::EBADF => "EBADF",
        libc::ESHUTDOWN => "ESHUTDOWN",
        libc::ENOTCONN => "ENOTCONN",
        _ => "another errno",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_counts_once() {
        let spans = [(0, 10), (5, 20), (30, 40), (90, 200)];
        assert_eq!(covered(spans.into_iter(), (5, 100)), 15 + 10 + 10);
    }

    fn placed(at_ns: u64, ino: u64, first: u64) -> Record {
        let sectors = match first {
            0 => Vec::new(),
            _ => vec![(first, first + 7)],
        };
        Record::Placed {
            at_ns,
            ino,
            sectors,
        }
    }

    #[test]
    fn a_sector_belongs_to_who_held_it_then() {
        let mut files = Files::default();
        for (at_ns, ino, first) in [(10, 12, 100), (20, 12, 0), (30, 13, 100), (30, 14, 200)] {
            files.learn(&placed(at_ns, ino, first));
        }
        assert_eq!(files.at(103, 15), Some(12));
        // Written before its owner could say where it lies.
        assert_eq!(files.at(103, 25), Some(13));
        assert_eq!(files.at(203, 5), Some(14));
        assert_eq!(files.at(108, 40), None);
        files.forget_before(35);
        assert_eq!(files.at(103, 40), Some(13));
        assert_eq!(files.at(103, 15), Some(13));
    }

    #[test]
    fn a_name_counts_for_the_time_at_which_it_was_one() {
        let mut files = Files::default();
        let second = 1_000_000_000;
        for (at_ns, path) in [(second, "/a.tmp"), (3 * second, "/a"), (9 * second, "/b")] {
            files.learn(&Record::Name {
                at_ns,
                ino: 12,
                path: path.into(),
            });
        }
        let had = |path, at| files.had_name(12, path, (at * second, at * second));
        assert!(had("/a.tmp", 2) && had("/a", 4) && had("/b", 10));
        assert!(!had("/a", 2) && !had("/a.tmp", 4) && !had("/b", 4));
    }
}
