//! Failed syncs and failed requests, in whichever order they arrive. In: sync,
//! request and writeback events. Out: cases of failures, and notices of failed
//! requests that no sync of a broker was told of. A foreign file's request
//! never becomes part of a case.

use super::case::{Case, Class, Key, NO_SLOT, Origin, Seen, SyncFact};
use super::join::{How, join_failed};
use super::memory::Memory;
use super::output::Output;
use super::world::World;
use super::{Core, judge};
use crate::event::{RequestEvent, SyncEvent};

/// Disks that are remembered to be gone; a host has fewer under its log.dirs.
const MAX_GONE: usize = 256;

impl Core {
    pub(super) fn on_failed_sync(&mut self, sync: &SyncEvent, errno: i32, out: &mut Vec<Output>) {
        let dev = dev_of_failed(&self.world, &self.memory, sync);
        let disks = self.world.leaf_disks(dev);
        let join = join_failed(sync, dev, &disks, &self.memory);
        // Whatever the errno: what fails because of the journal is the journal's.
        let class = match join.how {
            How::Journal => Class::Io,
            _ => Class::of_errno(errno),
        };
        let key = self.failure_key(class, dev);
        let file = self.world.kafka_file(&sync.names, sync.root);
        let seen = Seen {
            broker: sync.broker,
            root_path: self.world.root_path(sync.root).map(str::to_owned),
            exit_ns: sync.exit_ns,
            errno,
            topic_partition: file.as_ref().and_then(|file| file.topic_partition.clone()),
            path: file.as_ref().map(|file| file.path.clone()),
            file_kind: file.map(|file| file.kind),
        };
        self.adopt_lines(&key, sync, &seen);
        let victim = match &join.how {
            How::Late { .. } => join
                .requests
                .first()
                .map(|request| (request.complete_ns, "writeback")),
            _ => Some((sync.exit_ns, sync.op.as_str())),
        };
        self.tell_by_sync(sync);
        let in_flight_ended = self.end_of_tracked_stall(sync);
        let fact = self.fact_of(sync);
        let submitted = self.memory.recorder.submitted(&join.requests);
        let first_ns = victim.map_or(sync.exit_ns, |victim| victim.0);
        let is_aborted = join.how == How::Journal;
        let (case, is_new) = self.open_case(&key, first_ns);
        if is_new {
            (case.broker, case.root) = (sync.broker, sync.root);
        }
        if let (Some(path), Some((time_ns, op))) = (&seen.path, victim) {
            case.add_victim(time_ns, path, op);
        }
        if let Some(partition) = &seen.topic_partition {
            case.add_partition(partition);
        }
        case.add_seen(seen);
        case.count_requests(&join.requests);
        case.add_sync(SyncFact {
            join: Some(join),
            submitted,
            ..fact
        });
        if is_aborted {
            self.note_aborted(&key, dev);
            self.held.drop_journal(dev);
        }
        self.attach_pending(&key);
        self.emit_or_mark(&key, out);
        if let Some(stall) = in_flight_ended {
            self.emit(&stall, out);
        }
    }

    /// A disk that is gone explains syncs that failed without a request.
    pub(super) fn on_present(&mut self, dev: u32, is_there: bool, out: &mut Vec<Output>) {
        if is_there {
            self.world.gone.remove(&dev);
            return;
        }
        if self.world.gone.len() < MAX_GONE && self.world.gone.insert(dev) {
            let disk = self.world.disk_name(dev);
            self.notice(out, "warn", format!("disk {disk} is gone"));
        }
        let failures = self
            .cases
            .keys()
            .filter(|key| key.class == Class::Io && key.origin == Origin::Syncs);
        for key in failures.cloned().collect::<Vec<_>>() {
            self.emit_or_mark(&key, out);
        }
    }

    /// One cause on one device is one case. An I/O error is the disk's, the rest
    /// is the file system's.
    pub(super) fn failure_key(&self, class: Class, s_dev: u32) -> Key {
        let disk = self.world.leaf_disks(s_dev).first().copied();
        let key = |class, dev| Key {
            class,
            broker: NO_SLOT,
            root: NO_SLOT,
            dev,
            origin: Origin::Syncs,
        };
        let of_disk = key(Class::Io, disk.unwrap_or(s_dev));
        match class {
            Class::Io => of_disk,
            // A file system that aborted its journal fails the next calls with EROFS.
            Class::ReadOnly if self.cases.contains_key(&of_disk) => of_disk,
            class => key(class, s_dev),
        }
    }

    /// A case made of lines becomes the case of the failure that explains them.
    fn adopt_lines(&mut self, key: &Key, sync: &SyncEvent, seen: &Seen) {
        if self.cases.contains_key(key) {
            return;
        }
        let lines_key = self.cases.iter().find_map(|(lines_key, case)| {
            let is_candidate = lines_key.origin == Origin::Lines
                && lines_key.broker == sync.broker
                && (lines_key.root == sync.root || lines_key.root == NO_SLOT);
            let mut trial = case.clone();
            trial.seen.clear();
            trial.add_seen(seen.clone());
            let ties = || {
                case.lines
                    .iter()
                    .any(|line| line.tie_to(&trial, true).is_some())
            };
            (is_candidate && ties()).then(|| lines_key.clone())
        });
        if let Some(mut case) = lines_key.and_then(|lines_key| self.cases.remove(&lines_key)) {
            case.key = key.clone();
            case.root = sync.root;
            case.add_seen(seen.clone());
            let ties: Vec<_> = case
                .lines
                .iter()
                .map(|line| line.tie_to(&case, true))
                .collect();
            for (line, tie) in case.lines.iter_mut().zip(ties) {
                line.tie = tie.unwrap_or(line.tie);
            }
            self.cases.insert(key.clone(), case);
        }
    }

    pub(super) fn on_request(&mut self, request: &RequestEvent, out: &mut Vec<Output>) {
        let mut request = RequestEvent {
            rdev: self.world.metadata_device(request),
            ..request.clone()
        };
        if request.is_failover {
            self.on_failover(&request, out);
            // At --detail normal nothing sees the issue.
            if request.issue_ns == 0 {
                (request.issue_ns, request.start_ns) = (request.start_ns, 0);
            }
        }
        let request = &request;
        // One that a path gave back was held by it until then.
        self.memory.remember_request(request);
        if request.errno == 0 {
            self.remeasure(request);
            return;
        }
        let is_tied = self.rejoin(out);
        let is_journal =
            request.is_metadata_of(request.rdev) && !self.world.places_on(request.rdev).is_empty();
        if is_journal && !is_tied {
            self.on_lost_journal(request, out);
        }
        let is_flush = request.op == "flush" && !self.world.places_above(request.dev).is_empty();
        if is_flush && !is_tied {
            self.on_lost_flush(request, out);
        }
        let is_file_known =
            request.file.s_dev != 0 && matches!(request.file_source.as_str(), "page" | "direct");
        if is_tied || !is_file_known {
            return;
        }
        if request.root != NO_SLOT {
            self.on_lost_data(request, out);
        } else if self
            .notices
            .allow(&format!("foreign {}", request.dev), self.world.now_ns)
        {
            let disk = self.world.disk_name(request.dev);
            let name = request
                .names
                .first()
                .cloned()
                .unwrap_or_else(|| format!("inode {}", request.file.ino));
            self.notice(
                out,
                "info",
                format!("a {} to {disk} failed with {} for {name}, a file of no broker; no broker is concerned", request.op, request.status),
            );
        }
    }

    /// A path failed, not the disk: its requests go on by another. Once a minute, for
    /// a path that dies takes all that is in flight on it.
    fn on_failover(&mut self, request: &RequestEvent, out: &mut Vec<Output>) {
        let key = format!("failover {}", request.disk);
        if self.notices.allow(&key, self.world.now_ns) {
            let disk = self.world.disk_name(request.dev);
            let answer = request.nvme.as_ref().map_or("", |nvme| &nvme.text);
            let what = match request.op.as_str() {
                "flush" => "the kernel takes the cache flush for done",
                _ => "multipath sends what was in flight on it by another path",
            };
            let path = &request.disk;
            let text = format!("path {path} of {disk} answered {answer}: {what}");
            self.notice(out, "warn", text);
        }
    }

    /// Joins again what had been joined poorly; true if anything improved.
    pub(super) fn rejoin(&mut self, out: &mut Vec<Output>) -> bool {
        let mut changed = Vec::new();
        for (key, case) in &mut self.cases {
            let mut found = Vec::new();
            for fact in case.syncs.iter_mut().filter(|fact| fact.sync.ret < 0) {
                let Some(old) = &fact.join else { continue };
                let dev = dev_of_failed(&self.world, &self.memory, &fact.sync);
                let disks = self.world.leaf_disks(dev);
                let new = join_failed(&fact.sync, dev, &disks, &self.memory);
                let (old_rank, new_rank) = (rank(&old.how), rank(&new.how));
                if new_rank > old_rank
                    || new_rank == old_rank && new.requests.len() > old.requests.len()
                {
                    found.extend(new.requests.iter().cloned());
                    fact.join = Some(new);
                    changed.push(key.clone());
                }
            }
            case.count_requests(&found);
        }
        changed.dedup();
        for key in &changed {
            self.emit_or_mark(key, out);
        }
        !changed.is_empty()
    }
}

/// The file system of a failed sync. One that aborted its journal fails calls
/// before they name a file: then it is the one of the broker's that did so.
fn dev_of_failed(world: &World, memory: &Memory, sync: &SyncEvent) -> u32 {
    let dev = world.dev_of(sync);
    let errno = i32::try_from(-sync.ret).unwrap_or(0);
    if dev != 0 || !matches!(Class::of_errno(errno), Class::Io | Class::ReadOnly) {
        return dev;
    }
    let mut aborted = world.file_systems_of(sync.broker);
    aborted.retain(|&s_dev| {
        memory
            .failed_fileless()
            .any(|request| request.is_metadata_of(s_dev) && request.complete_ns <= sync.exit_ns)
    });
    match aborted.as_slice() {
        [s_dev] => *s_dev,
        _ => 0,
    }
}

/// How good a join is.
fn rank(how: &How) -> u8 {
    match how {
        How::During => 7,
        How::Late {
            by_errseq: true, ..
        } => 6,
        How::Late { .. } => 5,
        How::Flush => 4,
        How::Journal => 3,
        How::Counters => 2,
        How::WbErr { .. } => 1,
        How::Nothing | How::Silent { .. } => 0,
    }
}

impl Core {
    /// A sync that returned; of a slow one, where its time went.
    pub(super) fn fact_of(&self, sync: &SyncEvent) -> SyncFact {
        let mut fact = SyncFact::new(sync.clone());
        if fact.duration_ns() >= self.world.start.slow_ns {
            let stall = self.measure_now(sync, None);
            fact.breakdown = Some(stall.breakdown);
            fact.commit = stall.commit;
        }
        fact
    }

    /// A sync that had been reported as hanging returned, as the story of another case.
    pub(super) fn end_of_tracked_stall(&mut self, sync: &SyncEvent) -> Option<Key> {
        let is_it =
            |fact: &SyncFact| (fact.in_flight || fact.unseen_end) && fact.is_same_call(sync);
        let tracks = |(_, case): &(&Key, &Case)| case.syncs.iter().any(is_it);
        let key = self.cases.iter().find(tracks)?.0.clone();
        // By now the files of its requests are known.
        let stall = self.measure_now(sync, None);
        let submitted = self.memory.recorder.submitted(&stall.requests);
        let case = self.cases.get_mut(&key)?;
        case.count_requests(&stall.requests);
        let fact = case.syncs.iter_mut().find(|fact| is_it(fact))?;
        let before = fact.commit_id();
        *fact = SyncFact {
            stall: Some(stall),
            submitted,
            stack: std::mem::take(&mut fact.stack),
            confirmed: fact.confirmed,
            ..SyncFact::new(sync.clone())
        };
        let now = fact.commit_id();
        case.move_commit(before, now);
        case.last_stand = Some(judge::stand(case, &self.world));
        Some(key)
    }
}
