//! The loop: one place where everything that can happen is taken up, stamped,
//! recorded and given to the core. In: the ring, ticks, helpers' answers, log
//! lines; out: what the core says, to `emit`. Nothing here touches a watched
//! file system or waits for a helper.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use fsyncscope_abi::loss::Loss;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use crate::{
    brokerlog::FollowEvent,
    config::Config,
    correlate::{Core, Output},
    decode::{FlagMasks, decode_record},
    discover::{Broker, DiscoverRequest},
    enrich::{DeviceInfo, device::decode_dev},
    event::{Event, InFlightEvent, SpaceEvent, Stamped, Summary},
    helper::{
        HelperCommand, Worker, WorkerError, WorkerHandle,
        clock::{monotonic_ns, offset_ns, realtime_ns},
    },
    ring::{RingWaker, drain},
    run::{
        asks,
        drivers::Drivers,
        logs::Logs,
        namer::{Named, Namer},
        scan,
        shared::{Counts, Shared},
        spans::Spans,
        start::Attached,
    },
};

mod present;
mod space;
mod ticks;

/// Four ticks a second: a hang is told within the second after `--stall`.
const TICK: Duration = Duration::from_millis(250);
/// A broker takes seconds from its start to its first sync.
const DISCOVER_EVERY_TICKS: u64 = 4;
/// Records taken from the ring in one turn, so that ticks are not starved.
const RING_TURN: usize = 1024;
/// A step of the realtime clock that matters for log lines.
const CLOCK_STEP_NS: i64 = 5_000_000;

/// What can happen.
pub(super) enum Input {
    Discovered(Result<asks::Found, WorkerError>),
    Device(u32, Result<DeviceInfo, String>),
    Threads(Box<InFlightEvent>),
    Named(Box<Named>),
    Space(Option<SpaceEvent>),
}

/// Takes what the core says.
pub type Emit = Box<dyn FnMut(&Output)>;
/// Takes each event before the core does, to keep it.
pub type Record = Box<dyn FnMut(&Stamped)>;

/// See the module's comment.
pub struct Live {
    config: Config,
    shared: Arc<Shared>,
    ring: RingBuf<MapData>,
    masks: FlagMasks,
    spans: Spans,
    core: Core,
    emit: Emit,
    record: Option<Record>,
    logs: Logs,
    follow: mpsc::Receiver<(u16, FollowEvent)>,
    tx: mpsc::Sender<Input>,
    rx: mpsc::Receiver<Input>,
    finder: WorkerHandle,
    watcher: WorkerHandle,
    namer: Namer,
    now_ns: u64,
    offset_ns: i64,
    ticks: u64,
    is_discovering: bool,
    is_looking: bool,
    is_asking_space: bool,
    gone: BTreeSet<u32>,
    has_slow: bool,
    skip_pids: Vec<u32>,
    written: BTreeMap<u32, u64>,
    told_lost: BTreeMap<String, u64>,
    is_told_none: bool,
    on_new_broker: Option<OnNewBroker>,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    drivers: Drivers,
}

/// Told whenever a broker was found, so that a short-lived one is not missed
/// between two scrapes.
pub type OnNewBroker = Box<dyn Fn()>;

/// What a run came to.
pub struct Outcome {
    /// Incidents.
    pub findings: u64,
    /// A required hook was missing.
    pub is_hook_missing: bool,
}

impl Live {
    /// Sets the loop up. Must be called within the runtime.
    pub fn new(
        config: Config,
        attached: Attached,
        emit: Emit,
        record: Option<Record>,
    ) -> (Self, Arc<Shared>) {
        let Attached {
            probe,
            masks,
            start,
            ..
        } = attached;
        let (ring, maps) = probe.maps;
        let counts = Counts {
            programs: probe.programs,
            ..Counts::default()
        };
        let shared = Arc::new(Shared::new(maps, counts));
        let (follow_tx, follow) = mpsc::channel(1024);
        let (tx, rx) = mpsc::channel(64);
        let logs = Logs::new(follow_tx, config.follow_log.clone(), realtime_ns());
        let mut live = Live {
            config,
            shared: Arc::clone(&shared),
            ring,
            masks,
            spans: Spans::new(PathBuf::from("/proc"), masks),
            core: Core::new(),
            emit,
            record,
            logs,
            follow,
            namer: Namer::new(tx.clone()),
            tx,
            rx,
            finder: Worker::new(HelperCommand::default()).into_handle(),
            watcher: Worker::new(HelperCommand::default()).into_handle(),
            now_ns: 0,
            offset_ns: start.clock_offset_ns,
            ticks: 0,
            is_discovering: false,
            is_looking: false,
            is_asking_space: false,
            gone: BTreeSet::new(),
            has_slow: false,
            skip_pids: Vec::new(),
            written: BTreeMap::new(),
            told_lost: BTreeMap::new(),
            is_told_none: false,
            on_new_broker: None,
            logger: probe.logger,
            drivers: Drivers::new(probe.links, probe.late),
        };
        live.feed(Event::Start(Box::new(start)));
        for state in probe.states {
            live.feed(Event::Hook(state));
        }
        (live, shared)
    }

    /// Whom to tell of a new broker.
    pub fn on_new_broker(&mut self, tell: OnNewBroker) {
        self.on_new_broker = Some(tell);
    }

    /// Runs until `shutdown` is ready, then ends in order: drain, summary, stop.
    ///
    /// # Errors
    /// When the ring cannot be polled.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = &'static str>,
    ) -> anyhow::Result<Outcome> {
        let waker = RingWaker::new(&self.ring)?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(shutdown);
        let mut more = false;
        let why = loop {
            tokio::select! {
                why = &mut shutdown => break why,
                ready = waker.readable(), if !more => ready.context("poll the ring")?,
                () = std::future::ready(()), if more => {}
                Some(input) = self.rx.recv() => { self.on_input(input)?; continue }
                Some((slot, event)) = self.follow.recv() => {
                    for event in self.logs.on_event(slot, event) {
                        self.ask_for_space(&event);
                        self.feed(event);
                    }
                    continue
                }
                _ = tick.tick() => { self.on_tick(); continue }
            }
            more = !self.drain_ring();
        };
        self.drain_ring();
        while self.namer.waiting() > 0
            && let Some(input) = self.rx.recv().await
        {
            self.on_input(input)?;
        }
        for event in self.logs.flush(u64::MAX) {
            self.feed(event);
        }
        self.feed_losses();
        let summary = self.summary();
        self.feed(Event::Summary(Box::new(summary)));
        self.feed(Event::Stop {
            why: why.to_owned(),
        });
        Ok(Outcome {
            findings: self.core.findings(),
            is_hook_missing: self.core.is_required_hook_missing(),
        })
    }

    /// Stamps an event, keeps it, counts it, gives it to the core.
    fn feed(&mut self, event: Event) {
        self.now_ns = self.now_ns.max(monotonic_ns());
        let stamped = Stamped {
            mono_ns: self.now_ns,
            event,
        };
        if let Some(record) = &mut self.record {
            record(&stamped);
        }
        let outputs = self.core.handle(&stamped);
        let mut counts = self.shared.counts();
        counts.add_event(&stamped.event);
        for output in &outputs {
            counts.add_output(output);
            (self.emit)(output);
        }
    }

    /// True if the ring was emptied.
    fn drain_ring(&mut self) -> bool {
        let mut events = Vec::new();
        let mut broken = 0;
        let masks = self.masks;
        let emptied = drain(&mut self.ring, RING_TURN, |bytes| {
            match decode_record(bytes, masks) {
                Ok(event) => events.push(event),
                Err(error) => {
                    log::warn!("decode a record of {} bytes: {error}", bytes.len());
                    broken += 1;
                }
            }
        });
        if broken > 0 {
            self.lose("undecoded", broken);
        }
        // What explains a sync comes before it.
        let spans = self.spans.for_returned(&self.shared.maps(), &events);
        for event in spans.into_iter().chain(events) {
            if let Some(event) = self.namer.keep(event) {
                self.feed(event);
            }
        }
        emptied
    }

    fn lose(&self, class: &str, count: u64) {
        *self
            .shared
            .counts()
            .lost
            .entry(class.to_owned())
            .or_default() += count;
    }

    fn on_input(&mut self, input: Input) -> anyhow::Result<()> {
        match input {
            Input::Discovered(Ok(found)) => {
                self.is_discovering = false;
                for (dev, info) in &found.devices {
                    self.on_device(*dev, info)?;
                }
                self.on_brokers(&found.brokers)?;
            }
            Input::Discovered(Err(error)) => {
                self.is_discovering = false;
                self.lose("discovery", 1);
                if let WorkerError::Deadline {
                    progress: Some(progress),
                    ..
                } = &error
                    && !self.skip_pids.contains(&progress.pid)
                {
                    self.skip_pids.push(progress.pid);
                }
                log::warn!("look for brokers: {error}");
            }
            Input::Device(dev, Ok(info)) => {
                self.on_device(dev, &info)?;
                let is_last = self.shared.tables().unresolved.is_empty();
                if is_last && let Some(tell) = &self.on_new_broker {
                    tell();
                }
            }
            Input::Device(dev, Err(why)) => {
                let (major, minor) = decode_dev(dev);
                // Numbers with major 0 have no disk by nature; the broker's notes
                // name the file system.
                let level = if major == 0 {
                    log::Level::Info
                } else {
                    log::Level::Warn
                };
                log::log!(level, "resolve device {major}:{minor}: {why}");
                self.shared
                    .tables()
                    .unresolved
                    .retain(|unresolved| *unresolved != dev);
            }
            Input::Named(named) => {
                let event = self.namer.take(*named, &self.shared.tables().roots);
                self.feed(event);
            }
            Input::Space(event) => {
                self.is_asking_space = false;
                if let Some(event) = event {
                    self.feed(Event::Space(event));
                }
            }
            Input::Threads(event) => {
                self.is_looking = false;
                let mut event = *event;
                {
                    // What ended meanwhile comes through the ring.
                    let maps = self.shared.maps();
                    event.syncs.retain(|sync| scan::is_still_in(&maps, sync));
                }
                if !event.syncs.is_empty() {
                    let spans = self.spans.for_in_flight(&self.shared.maps(), &event);
                    if let Some(spans) = spans {
                        self.feed(spans);
                    }
                    self.feed(Event::InFlight(event));
                }
            }
        }
        Ok(())
    }

    fn on_device(&mut self, dev: u32, info: &DeviceInfo) -> anyhow::Result<()> {
        let event = (self.shared.tables()).apply_device(dev, info, &mut self.shared.maps())?;
        self.feed(event);
        Ok(())
    }

    fn on_brokers(&mut self, brokers: &[Broker]) -> anyhow::Result<()> {
        if brokers.is_empty() && !self.is_told_none && !self.config.is_all {
            self.is_told_none = true;
            if self.config.pids.is_empty() {
                log::warn!(
                    "no Kafka broker found yet; looking again every second (name a process with --pid)"
                );
            } else {
                log::warn!("none of the processes named by --pid runs; looking again every second");
            }
        }
        // A process that made a helper hang is not seen now, and not gone.
        let (events, unresolved) = {
            let mut tables = self.shared.tables();
            let mut found = brokers.to_vec();
            for slot in &tables.brokers {
                if slot.is_alive && self.skip_pids.contains(&slot.broker.pid) {
                    found.push(slot.broker.clone());
                }
            }
            let events = tables.apply(&found, &mut self.shared.maps())?;
            (events, tables.unresolved.clone())
        };
        let is_new = events
            .iter()
            .any(|event| matches!(event, Event::Broker { .. }));
        for event in events {
            let follow = match &event {
                Event::Broker { slot, broker } => self.logs.follow(*slot, broker),
                _ => None,
            };
            self.feed(event);
            if let Some(event) = follow {
                self.feed(event);
            }
        }
        if is_new
            && unresolved.is_empty()
            && let Some(tell) = &self.on_new_broker
        {
            tell();
        }
        for dev in unresolved {
            let (finder, tx) = (self.finder.clone(), self.tx.clone());
            tokio::spawn(async move {
                let result = asks::device(&finder, dev).await;
                let _ = tx.send(Input::Device(dev, result)).await;
            });
        }
        Ok(())
    }

    fn summary(&self) -> Summary {
        scan::summary(&self.shared.maps())
    }
}
