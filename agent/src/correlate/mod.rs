//! The pure core: events in, outputs out. It ties failed and stalled syncs to
//! the requests below them and to the broker's lines, opens one case per cause
//! and device, has it judged, and says when it changed. In: [`Stamped`] events
//! in order of arrival. Out: [`Output`]s. No I/O and no clock; every store is
//! bounded, and what is forgotten is counted.

mod bounded;
pub(crate) mod breakdown;
pub(crate) mod case;
pub(crate) mod commit;
mod failures;
pub(crate) mod join;
pub(crate) mod line;
mod lines;
mod memory;
pub(crate) mod neighbours;
mod notices;
mod output;
mod places;
mod rate;
mod recorder;
mod space;
mod spans;
pub(crate) mod stall;
mod stalls;
#[cfg(test)]
mod tests;
pub(crate) mod world;
pub(crate) mod writeback;

use std::collections::{BTreeMap, VecDeque};

pub use output::{BrokerSeen, Output, SlowSync, Started, Stopped, SummaryOutput, SummaryOutputRow};

use crate::event::{Event, Stamped, SyncEvent};
use crate::judge;
use case::{Case, Key};
use line::LineFact;
use memory::Memory;
use notices::Notices;
use rate::Rates;
use space::Known;
use world::World;
use writeback::Held;

/// Cases kept; a host with more broken pairs of directory and cause than this
/// has one cause that this tool does not see.
const MAX_CASES: usize = 128;
/// Updates of one case are at least this far apart, unless its verdict changed.
const UPDATE_EVERY_NS: u64 = 1_000_000_000;

/// See the module's comment.
#[derive(Debug)]
pub struct Core {
    world: World,
    memory: Memory,
    rates: Rates,
    notices: Notices,
    held: Held,
    cases: BTreeMap<Key, Case>,
    pending: VecDeque<LineFact>,
    spaces: VecDeque<Known>,
    findings: u64,
    forgotten_cases: u64,
    forgotten_writebacks: u64,
    /// When the last tick came.
    last_tick_ns: u64,
    stopped: bool,
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}

impl Core {
    /// A core that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            world: World::default(),
            memory: Memory::new(),
            rates: Rates::default(),
            notices: Notices::default(),
            held: Held::default(),
            cases: BTreeMap::new(),
            pending: VecDeque::new(),
            spaces: VecDeque::new(),
            findings: 0,
            forgotten_cases: 0,
            forgotten_writebacks: 0,
            last_tick_ns: 0,
            stopped: false,
        }
    }

    /// Takes an event; returns what there is to say after it, in order.
    pub fn handle(&mut self, stamped: &Stamped) -> Vec<Output> {
        let mut out = Vec::new();
        self.world.now_ns = self.world.now_ns.max(stamped.mono_ns);
        match &stamped.event {
            Event::Start(start) => {
                self.world.set_start(start);
                out.push(Output::Started(Box::new(Started {
                    start: (**start).clone(),
                })));
            }
            Event::Clock { offset_ns } => self.world.offset_ns = *offset_ns,
            Event::Broker { slot, broker } => {
                if self.world.set_broker(*slot, broker) {
                    self.mark_read_only();
                    out.push(Output::BrokerSeen(Box::new(self.world.broker_seen(*slot))));
                }
            }
            Event::BrokerGone { slot, pid } => {
                let name = self.world.broker_name(*slot);
                self.notice(&mut out, "info", format!("{name} (pid {pid}) has ended"));
            }
            Event::Root {
                slot,
                broker,
                path,
                s_dev,
            } => self.world.set_root(*slot, *broker, path, *s_dev),
            Event::Device { dev, info } => self.world.set_device(*dev, info),
            Event::Present { dev, is_there } => self.on_present(*dev, *is_there, &mut out),
            Event::Sync(sync) => self.on_sync(sync, &mut out),
            Event::Request(request) => self.on_request(request, &mut out),
            Event::Spans(spans) => self.memory.recorder.remember(spans, stamped.mono_ns),
            Event::WbErr(wb_err) => self.on_wb_err(wb_err, &mut out),
            Event::WbTell(tell) => self.on_wb_tell(tell),
            Event::InFlight(in_flight) => self.on_in_flight(in_flight, &mut out),
            Event::Space(event) => self.on_space(event, &mut out),
            Event::BrokerLog(event) => self.on_broker_log(event, stamped.mono_ns, &mut out),
            Event::LogFile {
                broker,
                file,
                state,
                why,
            } => self.on_log_file(*broker, file, state, why, &mut out),
            Event::DiskBytes { written } => self.rates.sample(stamped.mono_ns, written),
            Event::Losses { total } => self.on_losses(total, &mut out),
            Event::Hook(hook) => {
                self.world.set_hook(hook);
                out.push(Output::Hook(hook.clone()));
            }
            Event::Tick => self.on_tick(&mut out),
            Event::Summary(summary) => {
                self.say_the_rest(&mut out);
                out.push(Output::Summary(Box::new(self.world.show_summary(summary))));
            }
            Event::Stop { why } => self.on_stop(why, &mut out),
        }
        out
    }

    /// Incidents so far; decides the exit code.
    #[must_use]
    pub fn findings(&self) -> u64 {
        self.findings
    }

    /// Incidents as they stand now, open ones first, for a report or a socket.
    #[must_use]
    pub fn incidents(&self) -> Vec<crate::incident::Incident> {
        let mut cases: Vec<&Case> = self.cases.values().collect();
        cases.sort_by_key(|case| (!case.is_open, case.first_ns));
        cases
            .iter()
            .map(|case| judge::report(case, &self.world, state_of(case)))
            .collect()
    }

    /// Whether a required hook is missing; decides the exit code.
    #[must_use]
    pub fn is_required_hook_missing(&self) -> bool {
        self.world.missing_hook().is_some()
    }

    fn notice(&self, out: &mut Vec<Output>, level: &'static str, text: String) {
        out.push(Output::Notice {
            time: self.world.rfc3339(self.world.now_ns),
            level,
            text,
        });
    }

    fn on_sync(&mut self, sync: &SyncEvent, out: &mut Vec<Output>) {
        let sync = &self.named(sync);
        self.memory.forget_others(&sync.file, &sync.names);
        let errno = i32::try_from(-sync.ret).unwrap_or(0);
        if errno > 0 && !judge::errno::is_restart(errno) {
            self.on_failed_sync(sync, errno, out);
        } else {
            self.on_finished_sync(sync, out);
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Output>) {
        self.expire_lines(out);
        let now_ns = self.world.now_ns;
        let last_tick_ns = std::mem::replace(&mut self.last_tick_ns, now_ns);
        self.expire_in_flight(last_tick_ns, out);
        self.say_lost_data(out);
        let due: Vec<Key> = self
            .cases
            .iter()
            .filter(|(_, case)| case.is_dirty && now_ns >= case.last_emit_ns + UPDATE_EVERY_NS)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.emit(&key, out);
        }
        self.close_quiet_stalls(out);
    }

    /// Nothing more can come: what was held back is said now, so that the
    /// summary and the end stand below it.
    fn say_the_rest(&mut self, out: &mut Vec<Output>) {
        self.held.release();
        self.say_lost_data(out);
        self.flush_lines(out);
        let dirty: Vec<Key> = self
            .cases
            .iter()
            .filter(|(_, case)| case.is_dirty)
            .map(|(key, _)| key.clone())
            .collect();
        for key in dirty {
            self.emit(&key, out);
        }
        self.close_ended_stalls(out);
    }

    fn on_stop(&mut self, why: &str, out: &mut Vec<Output>) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        self.say_the_rest(out);
        let mut lost = self.world.lost();
        for (class, count) in [
            (
                "evidence_forgotten",
                self.memory.dropped() + self.forgotten_writebacks,
            ),
            ("incidents_forgotten", self.forgotten_cases),
            ("spans_overwritten", self.memory.recorder.missed()),
            ("spans_forgotten", self.memory.recorder.forgotten()),
        ] {
            if count > 0 {
                lost.insert(class.to_owned(), count);
            }
        }
        out.push(Output::Stopped(Stopped {
            time: self.world.rfc3339(self.world.now_ns),
            why: why.to_owned(),
            findings: self.findings,
            open: self.cases.values().filter(|case| case.is_open).count() as u64,
            lost,
            required_hook_missing: self.is_required_hook_missing(),
        }));
    }

    /// The case of `key`, made if absent; true if it is new.
    fn open_case(&mut self, key: &Key, first_ns: u64) -> (&mut Case, bool) {
        let is_new = !self.cases.contains_key(key);
        if is_new {
            if self.cases.len() >= MAX_CASES {
                self.forget_a_case();
            }
            let mut case = Case::new(key.clone(), self.world.make_id(key, first_ns), first_ns);
            case.lost = self.world.lost();
            self.cases.insert(key.clone(), case);
            self.findings += 1;
        }
        (
            self.cases.get_mut(key).expect("it was inserted above"),
            is_new,
        )
    }

    fn forget_a_case(&mut self) {
        let oldest = self
            .cases
            .iter()
            .min_by_key(|(_, case)| (case.has_in_flight(), case.is_open, case.last_ns))
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.cases.remove(&key);
            self.forgotten_cases += 1;
        }
    }

    /// Gives a case out as it stands now.
    fn emit(&mut self, key: &Key, out: &mut Vec<Output>) {
        let now_ns = self.world.now_ns;
        let Some(case) = self.cases.get_mut(key) else {
            return;
        };
        let state = state_of(case);
        case.is_dirty = false;
        case.last_emit_ns = now_ns;
        case.times_emitted += 1;
        out.push(Output::Incident(Box::new(judge::report(
            case,
            &self.world,
            state,
        ))));
    }

    /// Gives a case out at once if it is new or its verdict changed, else marks it.
    fn emit_or_mark(&mut self, key: &Key, out: &mut Vec<Output>) {
        let Some(case) = self.cases.get_mut(key) else {
            return;
        };
        let stand = judge::stand(case, &self.world);
        if case.last_stand.as_ref() == Some(&stand) {
            case.is_dirty = true;
            return;
        }
        case.last_stand = Some(stand);
        self.emit(key, out);
    }
}

/// `open` the first time, then `updated`, at last `closed`.
fn state_of(case: &Case) -> &'static str {
    match (case.is_open, case.times_emitted) {
        (false, _) => "closed",
        (true, 0) => "open",
        (true, _) => "updated",
    }
}
