//! Data that could not be written, before anybody was told. In: failed requests
//! and writeback errors of files under a log directory, failed journal writes of
//! their file systems, failed flushes of their disks, who was told. Out: cases opened at once, and what later
//! syncs of the same file make of them. Where a sync waits for the request, its
//! own return tells the story: such failures are held back for a moment.

use std::collections::VecDeque;

use super::bounded::push_bounded;
use super::case::{Case, Class, NO_SLOT, SyncFact};
use super::join::{How, Join, is_same_epoch};
use super::output::Output;
use super::{Core, Key};
use crate::enrich::may_be_same_file;
use crate::event::{FileId, RequestEvent, SyncEvent, WbErrEvent, WbTellEvent};

/// A sync that waits for a failed request returns well within this.
const HOLD_NS: u64 = 250_000_000;
/// Failures held back; beyond it the oldest is said at once.
const MAX_HELD: usize = 256;
/// Failed requests kept of one file.
const MAX_REQUESTS: usize = 4;
/// Callers kept that were told of one failure.
const MAX_TOLD: usize = 8;

/// Who was told of a failure.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub time_ns: u64,
    pub pid: u32,
    pub comm: String,
    /// The call, where it is one of a broker's.
    pub op: Option<String>,
}

/// Data of one file that a request could not write (or read).
#[derive(Clone, Debug, Default)]
pub(crate) struct Writeback {
    pub file: FileId,
    /// Its name and those of its parents; empty if unknown.
    pub names: Vec<String>,
    pub broker: u16,
    pub root: u16,
    pub path: Option<String>,
    pub topic_partition: Option<String>,
    /// write, read; what the first failed request was.
    pub op: String,
    pub first_ns: u64,
    pub errno: i32,
    /// 0 until the writeback error is seen.
    pub errseq: u32,
    /// Failed ones, oldest first.
    pub requests: Vec<RequestEvent>,
    /// How many failed.
    pub nr_failed: u64,
    pub told: Vec<Told>,
    /// A sync of it succeeded afterwards; said once.
    pub is_silent_said: bool,
}

impl Writeback {
    /// Whether it is this file's: another one may have had the same number.
    fn is_of(&self, file: &FileId, names: &[String]) -> bool {
        self.file == *file && may_be_same_file(&self.names, names)
    }

    /// A sync of a broker was told.
    pub(crate) fn is_told_to_broker(&self) -> bool {
        self.told.iter().any(|told| told.op.is_some())
    }

    fn tell(&mut self, told: Told) {
        let is_known = |known: &Told| known.pid == told.pid && known.op == told.op;
        if self.told.len() < MAX_TOLD && !self.told.iter().any(is_known) {
            self.told.push(told);
        }
    }

    fn add_request(&mut self, request: &RequestEvent) {
        self.nr_failed += 1;
        if self.requests.len() < MAX_REQUESTS {
            self.requests.push(request.clone());
        }
    }
}

/// Failures held back, with the time until which.
#[derive(Debug, Default)]
pub(super) struct Held {
    files: VecDeque<(u64, Writeback)>,
    journal: VecDeque<(u64, RequestEvent)>,
    flushes: VecDeque<(u64, RequestEvent)>,
}

impl Held {
    /// A sync was told of the failed journal of `s_dev`.
    pub(super) fn drop_journal(&mut self, s_dev: u32) {
        self.journal.retain(|(_, request)| request.rdev != s_dev);
    }

    /// Nothing more can come: all of it is due.
    pub(super) fn release(&mut self) {
        for due_ns in (self.files.iter_mut().map(|held| &mut held.0))
            .chain(self.journal.iter_mut().map(|held| &mut held.0))
            .chain(self.flushes.iter_mut().map(|held| &mut held.0))
        {
            *due_ns = 0;
        }
    }
}

impl Core {
    /// A failed request of a file under a log directory, tied to no sync yet.
    pub(super) fn on_lost_data(&mut self, request: &RequestEvent, out: &mut Vec<Output>) {
        if let Some(known) = self.writeback_of(&request.file, &request.names) {
            known.add_request(request);
            self.mark_writeback(&request.file, &request.names, Some(request));
            return;
        }
        // REQ_SYNC: somebody waits for it. Plain writeback has nobody to tell.
        let is_waited_for = request.flags.iter().any(|flag| flag == "sync");
        let mut writeback = self.new_writeback(&request.file, request.root, &request.names);
        writeback.op.clone_from(&request.op);
        writeback.first_ns = request.complete_ns;
        writeback.errno = request.errno;
        writeback.add_request(request);
        let wait_ns = if is_waited_for { HOLD_NS } else { 0 };
        let due_ns = self.world.now_ns + wait_ns;
        self.held.files.push_back((due_ns, writeback));
        self.say_lost_data(out);
    }

    /// A failed journal or metadata request of a broker's file system.
    pub(super) fn on_lost_journal(&mut self, request: &RequestEvent, out: &mut Vec<Output>) {
        let due_ns = self.world.now_ns + HOLD_NS;
        self.held.journal.push_back((due_ns, request.clone()));
        self.say_lost_data(out);
    }

    /// A failed flush of a disk under log directories, tied to no sync yet.
    pub(super) fn on_lost_flush(&mut self, request: &RequestEvent, out: &mut Vec<Output>) {
        let due_ns = self.world.now_ns + HOLD_NS;
        self.held.flushes.push_back((due_ns, request.clone()));
        self.say_lost_data(out);
    }

    pub(super) fn on_wb_err(&mut self, wb_err: &WbErrEvent, out: &mut Vec<Output>) {
        self.memory.remember_wb_err(wb_err);
        self.rejoin(out);
        if let Some(known) = self.writeback_of(&wb_err.file, &wb_err.names) {
            let is_news = known.errno != wb_err.errno;
            (known.errseq, known.errno) = (wb_err.errseq, wb_err.errno);
            if is_news {
                self.mark_writeback(&wb_err.file, &wb_err.names, None);
            }
            return;
        }
        let is_told = self.cases.values().any(|case| {
            case.syncs
                .iter()
                .filter(|fact| fact.join.is_some() && fact.sync.file == wb_err.file)
                .any(|fact| may_be_same_file(&fact.sync.names, &wb_err.names))
        });
        if wb_err.root == NO_SLOT || is_told {
            return;
        }
        let mut writeback = self.new_writeback(&wb_err.file, wb_err.root, &wb_err.names);
        writeback.op = "write".to_owned();
        writeback.first_ns = wb_err.time_ns;
        (writeback.errno, writeback.errseq) = (wb_err.errno, wb_err.errseq);
        let due_ns = self.world.now_ns + HOLD_NS;
        self.held.files.push_back((due_ns, writeback));
        self.say_lost_data(out);
    }

    /// Somebody was told. A broker's sync also comes as an event of its own.
    pub(super) fn on_wb_tell(&mut self, tell: &WbTellEvent) {
        if tell.in_sync {
            return;
        }
        let Some(known) = self.writeback_of(&tell.file, &[]) else {
            return;
        };
        if known.errseq == 0 || tell.errseq == 0 || is_same_epoch(known.errseq, tell.errseq) {
            known.tell(Told {
                time_ns: tell.time_ns,
                pid: tell.pid,
                comm: tell.comm.clone(),
                op: None,
            });
            self.mark_writeback(&tell.file, &[], None);
        }
    }

    /// A sync of a broker failed: what was held back for its file is its story.
    pub(super) fn tell_by_sync(&mut self, sync: &SyncEvent) {
        let is_of = |lost: &Writeback| lost.is_of(&sync.file, &sync.names);
        self.held.files.retain(|(_, held)| !is_of(held));
        let told = Told {
            time_ns: sync.exit_ns,
            pid: sync.pid,
            comm: sync.comm.clone(),
            op: Some(sync.op.clone()),
        };
        if let Some(known) = self.writeback_of(&sync.file, &sync.names) {
            known.tell(told);
        }
    }

    /// A sync succeeded although data of its file was lost before: said once;
    /// true if so.
    pub(super) fn on_silent_success(&mut self, sync: &SyncEvent, out: &mut Vec<Output>) -> bool {
        let found = self.cases.iter_mut().find_map(|(key, case)| {
            let lost = case.writebacks.iter_mut().find(|lost| {
                lost.is_of(&sync.file, &sync.names)
                    && sync.file.s_dev != 0
                    && lost.op != "read"
                    && lost.first_ns < sync.enter_ns
            })?;
            (!std::mem::replace(&mut lost.is_silent_said, true))
                .then(|| (key.clone(), lost.first_ns, lost.requests.clone()))
        });
        let Some((key, first_ns, requests)) = found else {
            return false;
        };
        let how = How::Silent {
            by_ns: sync.enter_ns.saturating_sub(first_ns),
        };
        let stalled = self.end_of_tracked_stall(sync);
        let fact = self.fact_of(sync);
        if let Some(case) = self.cases.get_mut(&key) {
            case.add_sync(SyncFact {
                join: Some(Join { how, requests }),
                ..fact
            });
        }
        self.emit(&key, out);
        if let Some(stalled) = stalled {
            self.emit(&stalled, out);
        }
        true
    }

    /// Says what was held back long enough.
    pub(super) fn say_lost_data(&mut self, out: &mut Vec<Output>) {
        let now_ns = self.world.now_ns;
        let is_due = |due_ns: u64, len: usize| due_ns <= now_ns || len > MAX_HELD;
        let mut changed = Vec::new();
        while let Some(at) =
            (self.held.files.iter()).position(|(due_ns, _)| is_due(*due_ns, self.held.files.len()))
            && let Some((_, lost)) = self.held.files.remove(at)
        {
            changed.push(self.open_lost(lost));
        }
        while let Some((due_ns, _)) = self.held.journal.front()
            && is_due(*due_ns, self.held.journal.len())
            && let Some((_, request)) = self.held.journal.pop_front()
        {
            changed.push(self.open_journal(&request));
        }
        // After the journal's: a flush that failed below one of its writes is told there.
        while let Some((due_ns, _)) = self.held.flushes.front()
            && is_due(*due_ns, self.held.flushes.len())
            && let Some((_, request)) = self.held.flushes.pop_front()
        {
            changed.extend(self.open_flush(&request));
        }
        changed.dedup();
        for key in changed {
            self.emit_or_mark(&key, out);
        }
    }

    fn open_lost(&mut self, lost: Writeback) -> Key {
        let class = Class::of_errno(lost.errno);
        let key = self.failure_key(class, lost.file.s_dev);
        let (case, is_new) = self.open_case(&key, lost.first_ns);
        if is_new {
            (case.broker, case.root) = (lost.broker, lost.root);
        }
        case.add_place(lost.broker, lost.root);
        if let Some(path) = &lost.path {
            let op = if lost.op == "read" {
                "read"
            } else {
                "writeback"
            };
            case.add_victim(lost.first_ns, path, op);
        }
        if let Some(partition) = &lost.topic_partition {
            case.add_partition(partition);
        }
        case.last_ns = case.last_ns.max(lost.first_ns);
        case.count_requests(&lost.requests);
        let is_full = case.add_writeback(lost);
        self.forgotten_writebacks += u64::from(is_full);
        key
    }

    fn open_journal(&mut self, request: &RequestEvent) -> Key {
        let class = Class::of_errno(request.errno);
        let key = self.failure_key(class, request.rdev);
        let places = self.world.places_on(request.rdev);
        let flushes: Vec<RequestEvent> = self.memory.flushes_below(request).cloned().collect();
        let (case, is_new) = self.open_case(&key, request.complete_ns);
        if is_new && let Some(&(broker, root)) = places.first() {
            (case.broker, case.root) = (broker, root);
        }
        for (broker, root) in places {
            case.add_place(broker, root);
        }
        case.last_ns = case.last_ns.max(request.complete_ns);
        case.count_requests(std::slice::from_ref(request));
        case.add_journal(request);
        for flush in &flushes {
            case.count_requests(std::slice::from_ref(flush));
            case.add_journal(flush);
        }
        self.note_aborted(&key, request.rdev);
        key
    }

    /// None where it is known already to whom it was told.
    fn open_flush(&mut self, request: &RequestEvent) -> Option<Key> {
        let key = self.failure_key(Class::of_errno(request.errno), request.dev);
        let is_known = |case: &Case| case.requests().contains(&request);
        if self.cases.values().any(is_known) {
            return None;
        }
        let places = self.world.places_above(request.dev);
        let (case, is_new) = self.open_case(&key, request.complete_ns);
        if is_new && let Some(&(broker, root)) = places.first() {
            (case.broker, case.root) = (broker, root);
        }
        for (broker, root) in places {
            case.add_place(broker, root);
        }
        case.last_ns = case.last_ns.max(request.complete_ns);
        case.count_requests(std::slice::from_ref(request));
        case.add_flush(request);
        case.is_dirty = true;
        Some(key)
    }

    /// Writes and opens fail as well on a file system that aborted its journal:
    /// lines that name its directories belong to the case.
    pub(super) fn note_aborted(&mut self, key: &Key, s_dev: u32) {
        let places = self.world.places_on(s_dev);
        if let Some(case) = self.cases.get_mut(key) {
            let paths = places
                .iter()
                .filter_map(|&(_, root)| self.world.root_path(root));
            case.aborted_dirs.extend(paths.map(str::to_owned));
        }
    }

    /// What discovery tells of a broker says that an aborted file system took its
    /// consequence: its case has news.
    pub(super) fn mark_read_only(&mut self) {
        for case in self.cases.values_mut().filter(|case| case.is_open) {
            case.is_dirty |= !self.world.read_only_among(&case.aborted_dirs).is_empty();
        }
    }

    fn new_writeback(&self, file: &FileId, root: u16, names: &[String]) -> Writeback {
        let name = self.world.kafka_file(names, root);
        Writeback {
            file: file.clone(),
            names: names.to_vec(),
            broker: self.world.broker_of_root(root),
            root,
            topic_partition: name.as_ref().and_then(|name| name.topic_partition.clone()),
            path: name.map(|name| name.path),
            ..Writeback::default()
        }
    }

    /// What is known of lost data of a file, held back or in a case; the latest, where
    /// several files have had its number.
    fn writeback_of(&mut self, file: &FileId, names: &[String]) -> Option<&mut Writeback> {
        let held = self.held.files.iter_mut().map(|(_, lost)| lost);
        let cases = self.cases.values_mut().filter(|case| case.is_open);
        (cases.flat_map(|case| case.writebacks.iter_mut()))
            .chain(held)
            .filter(|lost| lost.is_of(file, names))
            .last()
    }

    fn mark_writeback(&mut self, file: &FileId, names: &[String], request: Option<&RequestEvent>) {
        let is_it = |lost: &Writeback| lost.is_of(file, names);
        let holds = |case: &&mut Case| case.writebacks.iter().any(is_it);
        if let Some(case) = self.cases.values_mut().find(holds) {
            case.count_requests(request.map_or(&[], std::slice::from_ref));
            case.is_dirty = true;
        }
    }
}

impl Case {
    /// The oldest goes first; true if one had to.
    pub(crate) fn add_writeback(&mut self, lost: Writeback) -> bool {
        self.totals.writebacks += 1;
        push_bounded(&mut self.writebacks, lost, super::case::MAX_WRITEBACKS)
    }

    fn add_journal(&mut self, request: &RequestEvent) {
        if self.journal.len() < super::case::MAX_LISTED {
            self.journal.push(request.clone());
        }
    }

    fn add_flush(&mut self, request: &RequestEvent) {
        if self.flushes.len() < super::case::MAX_LISTED {
            self.flushes.push(request.clone());
        }
    }
}
