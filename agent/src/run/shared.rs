//! What the loop and a scrape share: the maps, the tables, and counts that only
//! the loop sees pass by. Locks are held for one reading, never across I/O; for
//! milliseconds where the kernel has no memory at hand for an entry.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    correlate::Output,
    event::{Event, HookState},
    incident::{Cause, Incident, Verdict},
    probe::maps::Maps,
    run::tables::Tables,
};

/// See the module's comment.
pub struct Shared {
    maps: Mutex<Maps>,
    tables: Mutex<Tables>,
    counts: Mutex<Counts>,
}

/// Counts of what passed by.
#[derive(Default)]
pub struct Counts {
    /// (broker, root, s_dev, op, errno name) → failed syncs.
    pub sync_errors: BTreeMap<(u16, u16, u32, String, String), u64>,
    /// (disk, op, status) → failed requests.
    pub block_errors: BTreeMap<(u32, String, String), u64>,
    /// (root, s_dev, errno name) → files whose writeback failed.
    pub writeback_errors: BTreeMap<(u16, u32, String), u64>,
    /// (broker, event) → storage lines.
    pub log_events: BTreeMap<(u16, String), u64>,
    /// Incident id → as it stands.
    pub incidents: BTreeMap<String, Incident>,
    /// (verdict, cause) → incidents so far.
    pub incident_totals: BTreeMap<(Verdict, Option<Cause>), u64>,
    /// Losses of the agent itself by class.
    pub lost: BTreeMap<String, u64>,
    /// Hooks.
    pub hooks: Vec<HookState>,
    /// Kernel memory of maps and programs.
    pub bpf_memory_bytes: u64,
    /// Programs: hook, id.
    pub programs: Vec<(String, u32)>,
}

/// Incidents kept for the gauges; the oldest closed one goes first.
const MAX_INCIDENTS: usize = 256;

impl Shared {
    /// Shares these.
    pub fn new(maps: Maps, counts: Counts) -> Self {
        Shared {
            maps: Mutex::new(maps),
            tables: Mutex::default(),
            counts: Mutex::new(counts),
        }
    }

    /// The maps.
    pub fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables. Lock them before the maps where both are needed.
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Counts an event on its way to the core.
    pub fn add_event(&mut self, event: &Event) {
        let errno = |errno: i64| {
            crate::decode::errno_name(i32::try_from(errno.unsigned_abs()).unwrap_or(0))
        };
        match event {
            Event::Sync(sync) if sync.ret < 0 => {
                let key = (
                    sync.broker,
                    sync.root,
                    sync.file.s_dev,
                    sync.op.clone(),
                    errno(sync.ret),
                );
                *self.sync_errors.entry(key).or_default() += 1;
            }
            Event::Request(rq) if rq.status != "OK" => {
                *self
                    .block_errors
                    .entry((rq.dev, rq.op.clone(), rq.status.clone()))
                    .or_default() += 1;
            }
            Event::WbErr(wb) => {
                let key = (wb.root, wb.file.s_dev, errno(i64::from(wb.errno)));
                *self.writeback_errors.entry(key).or_default() += 1;
            }
            Event::BrokerLog(line) if !line.history => {
                let key = (line.broker, line.storage.kind.as_str().to_owned());
                *self.log_events.entry(key).or_default() += 1;
            }
            Event::Hook(hook) => {
                match self.hooks.iter_mut().find(|known| known.name == hook.name) {
                    Some(known) => known.clone_from(hook),
                    None => self.hooks.push(hook.clone()),
                }
            }
            _ => {}
        }
    }

    /// Keeps what the core said.
    pub fn add_output(&mut self, output: &Output) {
        let Output::Incident(incident) = output else {
            return;
        };
        let is_new = self
            .incidents
            .insert(incident.id.clone(), (**incident).clone())
            .is_none();
        if is_new {
            *self
                .incident_totals
                .entry((incident.verdict, incident.cause))
                .or_default() += 1;
        }
        if self.incidents.len() > MAX_INCIDENTS {
            let oldest = self
                .incidents
                .values()
                .filter(|i| i.state == "closed")
                .min_by(|a, b| a.time.cmp(&b.time));
            if let Some(id) = oldest
                .or_else(|| self.incidents.values().next())
                .map(|i| i.id.clone())
            {
                self.incidents.remove(&id);
            }
        }
    }
}
