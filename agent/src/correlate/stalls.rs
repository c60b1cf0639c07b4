//! Syncs that take too long, in flight or returned. In: sync and in-flight
//! events, the disks' rates. Out: one case per device and episode, and slow
//! syncs that are no finding. A sync that its own bytes explain is none.

use super::case::{Class, Key, NO_SLOT, Origin, SyncFact};
use super::neighbours::Household;
use super::output::{Output, SlowSync};
use super::stall::{Scene, Stall, measure};
use super::{Core, UPDATE_EVERY_NS};
use crate::event::{InFlightEvent, InFlightRequest, InFlightSync, RequestEvent, SyncEvent};
use crate::judge;
use crate::sink::breakdown::name_parts;
use crate::sink::units::{show_bytes, show_ns, show_rate};

/// Nothing stalled for this long: the episode is over.
const QUIET_NS: u64 = 10_000_000_000;
/// A stall within this time after an episode belongs to it.
const SAME_EPISODE_NS: u64 = 300_000_000_000;
/// A sync in flight that is no longer seen has ended unseen.
const UNSEEN_NS: u64 = 2_000_000_000;
/// Requests may be reported after the sync that waited for them.
const LATE_REQUEST_NS: u64 = 5_000_000_000;

impl Core {
    pub(super) fn on_in_flight(&mut self, event: &InFlightEvent, out: &mut Vec<Output>) {
        for in_flight in &event.syncs {
            // The descriptors of a process that ends are gone before its call is.
            let in_flight = &InFlightSync {
                sync: self.named(&in_flight.sync),
                ..in_flight.clone()
            };
            if in_flight.confirmed == Some(false) {
                self.end_unseen(|fact| fact.is_same_call(&in_flight.sync), out);
                continue;
            }
            let stall = self.measure_now(&in_flight.sync, Some(&event.requests));
            let duration_ns = in_flight
                .sync
                .exit_ns
                .saturating_sub(in_flight.sync.enter_ns);
            if stall.is_stalled(duration_ns, self.world.start.stall_ns) {
                self.add_hanging(in_flight, stall, duration_ns, out);
            }
        }
    }

    fn add_hanging(
        &mut self,
        in_flight: &InFlightSync,
        stall: Stall,
        duration_ns: u64,
        out: &mut Vec<Output>,
    ) {
        let key = self.stall_case(&in_flight.sync);
        let Some(case) = self.cases.get_mut(&key) else {
            return;
        };
        let is_new = !case
            .syncs
            .iter()
            .any(|fact| fact.is_same_call(&in_flight.sync));
        case.add_sync(SyncFact {
            sync: in_flight.sync.clone(),
            in_flight: true,
            confirmed: in_flight.confirmed,
            stack: in_flight.stack.clone(),
            unseen_end: false,
            submitted: Vec::new(),
            join: None,
            stall: Some(stall),
            breakdown: None,
            commit: None,
        });
        if is_new {
            case.next_report_ns = duration_ns * 2;
            self.emit_or_mark(&key, out);
        } else if duration_ns >= case.next_report_ns {
            // Twice as long as at the last report: 2 s, 4 s, 8 s…
            case.next_report_ns = duration_ns * 2;
            case.last_stand = Some(judge::stand(case, &self.world));
            self.emit(&key, out);
        }
    }

    pub(super) fn on_finished_sync(&mut self, sync: &SyncEvent, out: &mut Vec<Output>) {
        if sync.ret == 0 && self.on_silent_success(sync, out) {
            return;
        }
        let duration_ns = sync.exit_ns.saturating_sub(sync.enter_ns);
        let stall = self.measure_now(sync, None);
        let known = self
            .cases
            .iter()
            .find(|(_, case)| case.syncs.iter().any(|fact| fact.is_same_call(sync)))
            .map(|(key, _)| key.clone());
        let is_stalled = stall.is_stalled(duration_ns, self.world.start.stall_ns);
        if duration_ns >= self.world.start.slow_ns {
            self.memory.recorder.miss(sync.enter_ns, sync.exit_ns);
        }
        if known.is_none() && !is_stalled {
            if duration_ns >= self.world.start.slow_ns {
                out.push(Output::SlowSync(Box::new(self.show_slow(
                    sync,
                    &stall,
                    duration_ns,
                ))));
            }
            return;
        }
        let key = known.clone().unwrap_or_else(|| self.stall_case(sync));
        let Some(case) = self.cases.get_mut(&key) else {
            return;
        };
        case.count_requests(&stall.requests);
        case.add_sync(SyncFact {
            submitted: self.memory.recorder.submitted(&stall.requests),
            stall: Some(stall),
            ..SyncFact::new(sync.clone())
        });
        // Of many that return together the last one, or one a second, speaks.
        let is_last = !case.has_in_flight();
        let is_due = self.world.now_ns >= case.last_emit_ns + UPDATE_EVERY_NS;
        if known.is_some() && (is_last || is_due) {
            case.last_stand = Some(judge::stand(case, &self.world));
            self.emit(&key, out);
        } else {
            self.emit_or_mark(&key, out);
        }
    }

    /// A sync that no hook named may have been named while it hung.
    pub(super) fn named(&self, sync: &SyncEvent) -> SyncEvent {
        let mut sync = sync.clone();
        if sync.file.s_dev == 0 && sync.names.is_empty() {
            let mut facts = self.cases.values().flat_map(|case| &case.syncs);
            if let Some(fact) = facts.find(|fact| fact.is_same_call(&sync)) {
                (sync.root, sync.nr_files) = (fact.sync.root, fact.sync.nr_files);
                sync.names.clone_from(&fact.sync.names);
            }
        }
        sync
    }

    /// `outstanding` is given for a sync in flight.
    pub(super) fn measure_now(
        &self,
        sync: &SyncEvent,
        outstanding: Option<&[InFlightRequest]>,
    ) -> Stall {
        let s_dev = self.world.dev_of(sync);
        let disks = self.world.leaf_disks(s_dev);
        let scene = Scene {
            household: Household {
                roots: &self.world.roots_of(sync.broker),
                file_systems: &self.world.file_systems(),
                s_dev,
            },
            s_dev,
            disks: &disks,
            rate: self.rates.of_disks(&disks),
            moved_bytes: self.rates.moved(&disks, sync.enter_ns, sync.exit_ns),
            is_journal_dark: !self.world.sees_journal(),
            is_asker_dark: !self.world.start.detail.is_full(),
            is_in_flight: outstanding.is_some(),
            outstanding: outstanding.unwrap_or_default(),
        };
        measure(sync, &scene, &self.memory)
    }

    /// The case of the device under `sync`, made or reopened if need be.
    fn stall_case(&mut self, sync: &SyncEvent) -> Key {
        let dev = self.world.dev_of(sync);
        let disk = self.world.leaf_disks(dev).first().copied().unwrap_or(dev);
        let key = Key {
            class: Class::Stall,
            broker: NO_SLOT,
            root: NO_SLOT,
            dev: disk,
            origin: Origin::Syncs,
        };
        if let Some(case) = self.cases.get_mut(&key)
            && !case.is_open
        {
            if sync.enter_ns > case.last_ns + SAME_EPISODE_NS {
                self.cases.remove(&key);
            } else {
                case.is_open = true;
                case.last_stand = None;
            }
        }
        let file = self.world.kafka_file(&sync.names, sync.root);
        let (case, is_new) = self.open_case(&key, sync.enter_ns);
        if is_new {
            (case.broker, case.root) = (sync.broker, sync.root);
        }
        if let Some(file) = file {
            case.add_victim(sync.enter_ns, &file.path, &sync.op);
            if let Some(partition) = &file.topic_partition {
                case.add_partition(partition);
            }
        }
        key
    }

    /// A slow request may be reported after the sync that waited for it.
    pub(super) fn remeasure(&mut self, request: &RequestEvent) {
        for case in self
            .cases
            .values_mut()
            .filter(|case| case.key.class == Class::Stall && case.is_open)
        {
            let (mut found, mut moved) = (Vec::new(), Vec::new());
            for fact in case
                .syncs
                .iter_mut()
                .filter(|fact| !fact.in_flight && fact.join.is_none())
            {
                let sync = &fact.sync;
                let is_recent = self.world.now_ns <= sync.exit_ns + LATE_REQUEST_NS;
                if !is_recent
                    || request.complete_ns <= sync.enter_ns
                    || request.issue_ns >= sync.exit_ns
                {
                    continue;
                }
                let Some(old) = &fact.stall else { continue };
                let s_dev = self.world.dev_of(sync);
                let scene = Scene {
                    household: Household {
                        roots: &self.world.roots_of(sync.broker),
                        file_systems: &self.world.file_systems(),
                        s_dev,
                    },
                    s_dev,
                    disks: &self.world.leaf_disks(s_dev),
                    rate: old.rate,
                    moved_bytes: old.moved_bytes,
                    is_journal_dark: !self.world.sees_journal(),
                    is_asker_dark: !self.world.start.detail.is_full(),
                    is_in_flight: false,
                    outstanding: &[],
                };
                let mut new = measure(sync, &scene, &self.memory);
                (new.needed_ns, new.excess_ns) = (old.needed_ns, old.excess_ns);
                if new.requests.len() != old.requests.len() || new.breakdown != old.breakdown {
                    found.extend(new.requests.iter().cloned());
                    let before = fact.commit_id();
                    fact.stall = Some(new);
                    moved.push((before, fact.commit_id()));
                    case.is_dirty = true;
                }
            }
            case.count_requests(&found);
            for (before, now) in moved {
                case.move_commit(before, now);
            }
        }
    }

    /// As of the last tick, whose syncs in flight are known: on a host that was paused
    /// since, this tick's are not yet.
    pub(super) fn expire_in_flight(&mut self, last_tick_ns: u64, out: &mut Vec<Output>) {
        self.end_unseen(|fact| last_tick_ns > fact.sync.exit_ns + UNSEEN_NS, out);
    }

    fn end_unseen(&mut self, is_it: impl Fn(&SyncFact) -> bool, out: &mut Vec<Output>) {
        let mut changed = Vec::new();
        for (key, case) in &mut self.cases {
            for fact in case
                .syncs
                .iter_mut()
                .filter(|fact| fact.in_flight && is_it(fact))
            {
                (fact.in_flight, fact.unseen_end) = (false, true);
                changed.push(key.clone());
            }
        }
        changed.dedup();
        for key in changed {
            self.emit_or_mark(&key, out);
        }
    }

    pub(super) fn close_quiet_stalls(&mut self, out: &mut Vec<Output>) {
        let now_ns = self.world.now_ns;
        self.close_stalls(|last_ns| now_ns > last_ns + QUIET_NS, out);
    }

    pub(super) fn close_ended_stalls(&mut self, out: &mut Vec<Output>) {
        self.close_stalls(|_| true, out);
    }

    fn close_stalls(&mut self, is_due: impl Fn(u64) -> bool, out: &mut Vec<Output>) {
        let due: Vec<Key> = self
            .cases
            .iter()
            .filter(|(key, case)| {
                key.class == Class::Stall
                    && case.is_open
                    && !case.has_in_flight()
                    && is_due(case.last_ns)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            if let Some(case) = self.cases.get_mut(&key) {
                case.is_open = false;
            }
            self.emit(&key, out);
        }
    }

    fn show_slow(&self, sync: &SyncEvent, stall: &Stall, duration_ns: u64) -> SlowSync {
        let dev = self.world.dev_of(sync);
        let fact = SyncFact {
            stall: Some(stall.clone()),
            ..SyncFact::new(sync.clone())
        };
        let mut why: Vec<String> = name_parts(&stall.breakdown)
            .into_iter()
            .filter(|(ns, _)| *ns * 10 >= duration_ns)
            .map(|(ns, what)| format!("{what} {}", show_ns(ns)))
            .collect();
        if let Some(rate) = stall.rate
            && stall.needed_ns * 2 >= duration_ns
        {
            let bytes = if stall.moved_bytes > stall.own_bytes {
                format!(
                    "explained by what the disk wrote meanwhile: {}",
                    show_bytes(stall.moved_bytes)
                )
            } else {
                format!("explained by its bytes: {}", show_bytes(stall.own_bytes))
            };
            why.insert(0, format!("{bytes} at {}", show_rate(rate)));
        }
        if let Some(first) = stall.others.list.first().filter(|one| one.nr_bytes > 0) {
            why.push(format!(
                "beside {} {}",
                judge::name_neighbour(first, &self.world),
                show_bytes(first.nr_bytes)
            ));
        }
        SlowSync {
            sync: judge::show_sync(&fact, &self.world),
            broker: self.world.broker_name(sync.broker),
            disk: self
                .world
                .leaf_disks(dev)
                .first()
                .map(|&disk| self.world.disk_name(disk)),
            own_bytes: stall.own_bytes,
            why: why.join(", "),
        }
    }
}
