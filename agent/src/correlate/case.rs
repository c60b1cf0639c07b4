//! A case: all that was seen of one cause on one device (and, for failures, in
//! one log directory), before it gets a verdict. In: facts from `correlate`.
//! Out: to `judge`. What is listed is bounded, what is counted is not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bounded::push_bounded;
use super::commit::{Commit, CommitId};
use super::join::Join;
use super::line::LineFact;
use super::stall::Stall;
use super::writeback::Writeback;
use crate::event::{RequestEvent, RequestSpan, Space, SyncEvent};
use crate::incident::{Breakdown, Totals};

/// Syncs and requests listed of one case.
pub(crate) const MAX_LISTED: usize = 10;
/// Lines listed of one case.
const MAX_LINES: usize = 20;
/// Partitions named in the blast radius.
const MAX_PARTITIONS: usize = 100;
/// Requests told apart when counting; beyond it one may count twice.
const MAX_COUNTED: usize = 4096;
/// Files listed whose data was lost.
pub(crate) const MAX_WRITEBACKS: usize = 64;
/// Failed syncs that a late line can still be tied to.
const MAX_SEEN: usize = 256;

/// What sort of case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Something failed with an I/O error.
    Io,
    /// No room: ENOSPC.
    NoSpace,
    /// No room: EDQUOT.
    Quota,
    /// EROFS.
    ReadOnly,
    /// The call itself was wrong: EBADF, EINVAL.
    Application,
    /// Something took too long.
    Stall,
}

impl Class {
    pub(crate) fn of_errno(errno: i32) -> Self {
        match errno {
            libc::ENOSPC => Self::NoSpace,
            libc::EDQUOT => Self::Quota,
            libc::EROFS => Self::ReadOnly,
            libc::EBADF | libc::EINVAL => Self::Application,
            _ => Self::Io,
        }
    }
}

/// What makes two facts one case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub class: Class,
    /// Broker slot of lines only; [`NO_SLOT`] for what is the device's.
    pub broker: u16,
    /// Root slot of lines only, as above.
    pub root: u16,
    /// Of stalls and I/O errors the first leaf disk, else the file system.
    pub dev: u32,
    pub origin: Origin,
}

/// What a case was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Syncs that failed or stalled.
    Syncs,
    /// Lines only.
    Lines,
    /// Lines from before the agent watched: nothing seen now explains them.
    History,
    /// Lines with an exception that no failing operation raises.
    OtherException,
}

/// No slot.
pub(crate) const NO_SLOT: u16 = 0xffff;

/// A sync of a case.
#[derive(Clone, Debug)]
pub(crate) struct SyncFact {
    pub sync: SyncEvent,
    pub in_flight: bool,
    /// /proc agreed that it was in flight.
    pub confirmed: Option<bool>,
    pub stack: Vec<String>,
    /// It ended, but its return was not seen.
    pub unseen_end: bool,
    pub join: Option<Join>,
    pub stall: Option<Stall>,
    /// Of a failed sync that was also slow.
    pub breakdown: Option<Breakdown>,
    /// Of it: the commit that it waited for longest.
    pub commit: Option<Commit>,
    /// Requests of it with a known submitter, from the flight recorder.
    pub submitted: Vec<RequestSpan>,
}

impl SyncFact {
    /// A sync that returned, of which nothing more is known.
    pub(crate) fn new(sync: SyncEvent) -> Self {
        Self {
            sync,
            in_flight: false,
            confirmed: None,
            stack: Vec::new(),
            unseen_end: false,
            join: None,
            stall: None,
            breakdown: None,
            commit: None,
            submitted: Vec::new(),
        }
    }

    pub(crate) fn duration_ns(&self) -> u64 {
        self.sync.exit_ns.saturating_sub(self.sync.enter_ns)
    }

    /// The commit of a journal that it waited for longest.
    pub(crate) fn commit(&self) -> Option<&Commit> {
        let of_stall = || self.stall.as_ref().and_then(|stall| stall.commit.as_ref());
        self.commit.as_ref().or_else(of_stall)
    }

    pub(crate) fn commit_id(&self) -> Option<CommitId> {
        self.commit().map(Commit::id)
    }

    pub(crate) fn is_same_call(&self, sync: &SyncEvent) -> bool {
        self.sync.tid == sync.tid && self.sync.enter_ns == sync.enter_ns
    }
}

/// What a line is compared with: one failed sync, in short.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub broker: u16,
    /// Its log directory.
    pub root_path: Option<String>,
    pub exit_ns: u64,
    pub errno: i32,
    pub topic_partition: Option<String>,
    pub path: Option<String>,
    pub file_kind: Option<String>,
}

impl Seen {
    pub(crate) fn is_index(&self) -> bool {
        self.file_kind
            .as_deref()
            .is_some_and(|kind| kind.contains("index"))
    }
}

/// See the module's comment.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub key: Key,
    /// Broker and root slot of its first fact.
    pub broker: u16,
    pub root: u16,
    pub id: String,
    pub first_ns: u64,
    pub last_ns: u64,
    pub is_open: bool,
    pub syncs: Vec<SyncFact>,
    pub seen: VecDeque<Seen>,
    pub lines: Vec<LineFact>,
    /// Files whose data was lost before a sync said so.
    pub writebacks: VecDeque<Writeback>,
    /// Failed journal or metadata requests that no sync was told of at once.
    pub journal: Vec<RequestEvent>,
    /// Failed flushes that no sync was told of.
    pub flushes: Vec<RequestEvent>,
    /// Log directories on file systems whose journal failed.
    pub aborted_dirs: BTreeSet<String>,
    /// What was free when a line said that nothing was.
    pub space: Option<Space>,
    pub first_victim: Option<(u64, String, String)>,
    pub partitions: BTreeSet<String>,
    pub brokers: BTreeSet<u16>,
    /// Log directories, by root slot.
    pub roots: BTreeSet<u16>,
    pub totals: Totals,
    counted: BTreeSet<(u64, u32, Option<u64>)>,
    /// Commits that its syncs waited for, and how many did.
    commits: BTreeMap<CommitId, u64>,
    /// Losses when it was opened.
    pub lost: BTreeMap<String, u64>,
    /// What was last given out, to tell whether anything changed.
    pub last_emit_ns: u64,
    pub is_dirty: bool,
    pub times_emitted: u64,
    pub last_stand: Option<String>,
    /// A sync in flight is reported again at this age.
    pub next_report_ns: u64,
}

impl Case {
    pub(crate) fn new(key: Key, id: String, first_ns: u64) -> Self {
        Self {
            brokers: BTreeSet::new(),
            roots: BTreeSet::new(),
            writebacks: VecDeque::new(),
            journal: Vec::new(),
            flushes: Vec::new(),
            aborted_dirs: BTreeSet::new(),
            space: None,
            broker: key.broker,
            root: key.root,
            key,
            id,
            first_ns,
            last_ns: first_ns,
            is_open: true,
            syncs: Vec::new(),
            seen: VecDeque::new(),
            lines: Vec::new(),
            first_victim: None,
            partitions: BTreeSet::new(),
            totals: Totals::default(),
            counted: BTreeSet::new(),
            commits: BTreeMap::new(),
            lost: BTreeMap::new(),
            last_emit_ns: 0,
            is_dirty: false,
            times_emitted: 0,
            last_stand: None,
            next_report_ns: 0,
        }
    }

    /// Takes a sync; the list keeps the first ones, for stalls the longest.
    pub(crate) fn add_sync(&mut self, fact: SyncFact) {
        self.last_ns = self.last_ns.max(fact.sync.exit_ns);
        if let Some(known) = self
            .syncs
            .iter_mut()
            .find(|known| known.is_same_call(&fact.sync))
        {
            let stack = std::mem::take(&mut known.stack);
            let before = std::mem::replace(known, fact);
            if known.stack.is_empty() {
                known.stack = stack;
            }
            let (before, now) = (before.commit_id(), known.commit_id());
            self.move_commit(before, now);
            return;
        }
        self.move_commit(None, fact.commit_id());
        self.totals.syncs += 1;
        self.add_place(fact.sync.broker, fact.sync.root);
        if self.syncs.len() < MAX_LISTED {
            self.syncs.push(fact);
            return;
        }
        let shortest = self
            .syncs
            .iter()
            .enumerate()
            .filter(|(_, known)| known.stall.is_some() && !known.in_flight)
            .min_by_key(|(_, known)| known.duration_ns());
        if let Some((at, known)) = shortest
            && (fact.in_flight || fact.duration_ns() > known.duration_ns())
        {
            self.syncs[at] = fact;
        }
    }

    /// A sync waited for the second commit, and not for the first.
    pub(crate) fn move_commit(&mut self, before: Option<CommitId>, now: Option<CommitId>) {
        if before == now {
            return;
        }
        if let Some(count) = before.and_then(|id| self.commits.get_mut(&id)) {
            *count = count.saturating_sub(1);
        }
        if let Some(id) = now
            && (self.commits.len() < MAX_COUNTED || self.commits.contains_key(&id))
        {
            *self.commits.entry(id).or_default() += 1;
        }
    }

    /// How many of its syncs waited for this commit.
    pub(crate) fn nr_syncs_of(&self, commit: &Commit) -> u64 {
        self.commits.get(&commit.id()).copied().unwrap_or(0)
    }

    /// Notes whose directory is concerned.
    pub(crate) fn add_place(&mut self, broker: u16, root: u16) {
        self.brokers.insert(broker);
        if root != NO_SLOT {
            self.roots.insert(root);
        }
    }

    pub(crate) fn add_seen(&mut self, seen: Seen) {
        push_bounded(&mut self.seen, seen, MAX_SEEN);
    }

    pub(crate) fn add_partition(&mut self, partition: &str) {
        if self.partitions.len() < MAX_PARTITIONS {
            self.partitions.insert(partition.to_owned());
        }
    }

    pub(crate) fn add_line(&mut self, line: LineFact) {
        self.totals.log_events += 1;
        let storage = &line.event.storage;
        for partition in storage.topic_partition.iter().chain(&storage.partitions) {
            self.add_partition(&partition.clone());
        }
        if self.lines.len() < MAX_LINES {
            self.lines.push(line);
        }
    }

    /// Notes what failed first; the earliest wins.
    pub(crate) fn add_victim(&mut self, time_ns: u64, path: &str, op: &str) {
        if self
            .first_victim
            .as_ref()
            .is_none_or(|known| time_ns < known.0)
        {
            self.first_victim = Some((time_ns, path.to_owned(), op.to_owned()));
        }
    }

    /// All that failed were syncs of index files.
    pub(crate) fn is_index_only(&self) -> bool {
        let is_index = |lost: &Writeback| {
            lost.path
                .as_deref()
                .is_some_and(|path| path.ends_with("index"))
        };
        !self.seen.is_empty()
            && self.seen.iter().all(Seen::is_index)
            && self.writebacks.iter().all(is_index)
    }

    /// Counts requests, each once however many syncs waited for it.
    pub(crate) fn count_requests(&mut self, requests: &[RequestEvent]) {
        for request in requests {
            let key = (request.complete_ns, request.dev, request.sector);
            if self.counted.len() >= MAX_COUNTED || self.counted.insert(key) {
                self.totals.requests += 1;
            }
        }
    }

    /// Process, thread and name of who submitted a request, where known.
    pub(crate) fn submitter_of(&self, request: &RequestEvent) -> Option<(u32, u32, String)> {
        let mut known = self.syncs.iter().flat_map(|fact| &fact.submitted);
        let span = known.find(|span| is_same(span, request))?;
        Some((span.pid, span.tid, span.comm.clone()))
    }

    /// Whether some sync has not returned.
    pub(crate) fn has_in_flight(&self) -> bool {
        self.syncs.iter().any(|fact| fact.in_flight)
    }

    /// Requests of its syncs and of lost data, each once, in order of completion.
    pub(crate) fn requests(&self) -> Vec<&RequestEvent> {
        let mut all: Vec<&RequestEvent> = self
            .syncs
            .iter()
            .flat_map(|fact| {
                let joined = fact.join.iter().flat_map(|join| &join.requests);
                joined.chain(fact.stall.iter().flat_map(|stall| &stall.requests))
            })
            .chain(self.writebacks.iter().flat_map(|lost| &lost.requests))
            .chain(&self.journal)
            .chain(&self.flushes)
            .collect();
        all.sort_by_key(|request| (request.complete_ns, request.dev, request.rq, request.sector));
        all.dedup_by_key(|request| (request.complete_ns, request.dev, request.rq, request.sector));
        all
    }
}

/// The flight recorder and a record of its own may tell of the same request.
pub(crate) fn is_same(span: &RequestSpan, request: &RequestEvent) -> bool {
    (span.dev, span.complete_ns, span.sector) == (request.dev, request.complete_ns, request.sector)
}

/// A stable id: FNV-1a over what makes the case.
pub(crate) fn make_id(key: &Key, disk: &str, dir: &str, node: &str, realtime_ns: i64) -> String {
    let text = format!("{:?}|{disk}|{node}|{dir}|{realtime_ns}", key.class);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let letter = if key.class == Class::Stall { 's' } else { 'f' };
    format!("{letter}-{:012x}", hash & 0xffff_ffff_ffff)
}
