//! Failed syncs and failed requests, in whichever order they arrive. In: sync,
//! request and writeback events. Out: cases of failures, and notices of failed
//! requests that no sync of a broker was told of. A foreign file's request
//! never becomes part of a case.

use super::case::{Class, Key, NO_SLOT, Origin, Seen, SyncFact};
use super::join::{How, join_failed};
use super::output::Output;
use super::{Core, judge};
use crate::event::{RequestEvent, SyncEvent, WbErrEvent};

/// A failed write-back that no sync was told of is worth a notice after this.
const UNTOLD_NS: u64 = 2_000_000_000;
/// And again, for failures that come after this.
const UNTOLD_AGAIN_NS: u64 = 60_000_000_000;

impl Core {
    pub(super) fn on_failed_sync(&mut self, sync: &SyncEvent, errno: i32, out: &mut Vec<Output>) {
        let dev = self.world.dev_of(sync);
        let disks = self.world.leaf_disks(dev);
        let join = join_failed(sync, &disks, &self.memory);
        let key = self.key_of_failure(sync, errno, dev);
        let file = self.world.kafka_file(&sync.names, sync.root);
        let seen = Seen {
            exit_ns: sync.exit_ns,
            errno,
            topic_partition: file.as_ref().and_then(|file| file.topic_partition.clone()),
            path: file.as_ref().map(|file| file.path.clone()),
            file_kind: file.map(|file| file.kind),
        };
        self.adopt_lines(&key, &seen);
        let victim = match &join.how {
            How::Late { .. } => join
                .requests
                .first()
                .map(|request| (request.complete_ns, "writeback")),
            _ => Some((sync.exit_ns, sync.op.as_str())),
        };
        self.notices.untold.remove(&sync.root);
        let in_flight_ended = self.end_of_tracked_stall(sync);
        let is_slow = sync.exit_ns.saturating_sub(sync.enter_ns) >= self.world.start.slow_ns;
        let breakdown = is_slow.then(|| self.measure_now(sync, None).breakdown);
        let (case, _) = self.open_case(&key, victim.map_or(sync.exit_ns, |victim| victim.0));
        if let (Some(path), Some((time_ns, op))) = (&seen.path, victim) {
            case.add_victim(time_ns, path, op);
        }
        if let Some(partition) = &seen.topic_partition {
            case.add_partition(partition);
        }
        case.add_seen(seen);
        case.count_requests(&join.requests);
        case.add_sync(SyncFact {
            sync: sync.clone(),
            in_flight: false,
            confirmed: None,
            stack: Vec::new(),
            unseen_end: false,
            join: Some(join),
            stall: None,
            breakdown,
        });
        self.attach_pending(&key);
        self.emit_or_mark(&key, out);
        if let Some(stall) = in_flight_ended {
            self.emit(&stall, out);
        }
    }

    fn key_of_failure(&self, sync: &SyncEvent, errno: i32, dev: u32) -> Key {
        let key = |class| Key {
            class,
            broker: sync.broker,
            root: sync.root,
            dev,
            origin: Origin::Syncs,
        };
        // A file system that aborted its journal fails the next calls with EROFS.
        let class = match Class::of_errno(errno) {
            Class::ReadOnly if self.cases.contains_key(&key(Class::Io)) => Class::Io,
            class => class,
        };
        key(class)
    }

    /// A case made of lines becomes the case of the failure that explains them.
    fn adopt_lines(&mut self, key: &Key, seen: &Seen) {
        if self.cases.contains_key(key) {
            return;
        }
        let lines_key = self.cases.iter().find_map(|(lines_key, case)| {
            let is_candidate = lines_key.origin == Origin::Lines
                && lines_key.broker == key.broker
                && (lines_key.root == key.root || lines_key.root == NO_SLOT);
            let mut trial = case.clone();
            trial.seen.clear();
            trial.add_seen(seen.clone());
            let root = self.world.root_path(key.root);
            let ties = || {
                case.lines
                    .iter()
                    .any(|line| line.tie_to(&trial, root, true).is_some())
            };
            (is_candidate && ties()).then(|| lines_key.clone())
        });
        if let Some(mut case) = lines_key.and_then(|lines_key| self.cases.remove(&lines_key)) {
            case.key = key.clone();
            case.root = key.root;
            case.add_seen(seen.clone());
            let root = self.world.root_path(key.root);
            let ties: Vec<_> = case
                .lines
                .iter()
                .map(|line| line.tie_to(&case, root, true))
                .collect();
            for (line, tie) in case.lines.iter_mut().zip(ties) {
                line.tie = tie.unwrap_or(line.tie);
            }
            self.cases.insert(key.clone(), case);
        }
    }

    pub(super) fn on_request(&mut self, request: &RequestEvent, out: &mut Vec<Output>) {
        self.memory.remember_request(request);
        if request.errno == 0 {
            self.remeasure(request);
            return;
        }
        let is_tied = self.rejoin(out);
        let is_file_known =
            request.file.s_dev != 0 && matches!(request.file_source.as_str(), "page" | "direct");
        if is_tied || !is_file_known {
            return;
        }
        if request.root != NO_SLOT {
            let path = self
                .world
                .kafka_file(&request.names, request.root)
                .map(|file| file.path);
            let untold =
                self.notices
                    .untold
                    .entry(request.root)
                    .or_insert_with(|| super::notices::Untold {
                        first_ns: request.complete_ns,
                        op: request.op.clone(),
                        path: path.unwrap_or_else(|| format!("inode {}", request.file.ino)),
                        disk: request.dev,
                        count: 0,
                        told: false,
                    });
            untold.count += 1;
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

    pub(super) fn on_wb_err(&mut self, wb_err: &WbErrEvent, out: &mut Vec<Output>) {
        self.memory.remember_wb_err(wb_err);
        self.rejoin(out);
    }

    /// Joins again what had been joined poorly; true if anything improved.
    fn rejoin(&mut self, out: &mut Vec<Output>) -> bool {
        let mut changed = Vec::new();
        for (key, case) in &mut self.cases {
            let mut found = Vec::new();
            for fact in &mut case.syncs {
                let Some(old) = &fact.join else { continue };
                let disks = self.world.leaf_disks(self.world.dev_of(&fact.sync));
                let new = join_failed(&fact.sync, &disks, &self.memory);
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

    pub(super) fn expire_failed_writeback(&mut self, out: &mut Vec<Output>) {
        let now_ns = self.world.now_ns;
        let mut texts = Vec::new();
        for untold in self
            .notices
            .untold
            .values_mut()
            .filter(|untold| !untold.told)
        {
            if now_ns < untold.first_ns + UNTOLD_NS {
                continue;
            }
            untold.told = true;
            // Said again if failures go on: forgotten below after a while.
            texts.push(format!(
                "a {} of {} to {} failed ({} so far), and no sync of the broker was told of it yet: acknowledged data may not be on the disk",
                untold.op,
                untold.path,
                self.world.disk_name(untold.disk),
                untold.count,
            ));
        }
        self.notices
            .untold
            .retain(|_, untold| now_ns < untold.first_ns + UNTOLD_AGAIN_NS);
        for text in texts {
            self.notice(out, "warn", text);
        }
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
        How::Nothing => 0,
    }
}

impl Core {
    /// A sync that had been reported as hanging returned with an error.
    fn end_of_tracked_stall(&mut self, sync: &SyncEvent) -> Option<Key> {
        let (key, case) = self.cases.iter_mut().find(|(_, case)| {
            case.syncs
                .iter()
                .any(|fact| fact.in_flight && fact.is_same_call(sync))
        })?;
        let fact = case.syncs.iter_mut().find(|fact| fact.is_same_call(sync))?;
        fact.in_flight = false;
        fact.sync = sync.clone();
        case.last_stand = Some(judge::stand(case, &self.world));
        Some(key.clone())
    }
}
