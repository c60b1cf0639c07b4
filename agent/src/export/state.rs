//! What the exporter remembers between scrapes.
//!
//! Comes in: snapshots. Goes out: totals by label values ([`State::families`]
//! in `families` makes metrics of them). Not here: locking, reading the maps.

use std::collections::BTreeMap;

use fsyncscope_abi::{
    hist::HistKey,
    loss::{Loss, RECURSION},
};

use super::{
    labels::{BLOCK_OPS, Places, SYNC_OPS, Values, with},
    names::{KNOWN_ERRNOS, KNOWN_STATUSES},
    source::Snapshot,
    tracked::{TrackedCounters, TrackedHists},
};
use crate::{
    decode::{KNOWN_NVME, req_op_name, sync_op_name},
    detail::Detail,
    incident::{Cause, Verdict},
};

/// Totals since the agent started, and the last snapshot for what is a state.
#[derive(Debug, Default)]
pub struct State {
    pub(super) places: Places,
    pub(super) last: Snapshot,
    pub(super) syncs: TrackedHists<HistKey>,
    pub(super) queue: TrackedHists<(u32, u8)>,
    pub(super) device: TrackedHists<(u32, u8)>,
    /// Keys: broker, root, s_dev, op, errno.
    pub(super) sync_errors: TrackedCounters<(u16, u16, u32, u8, String)>,
    pub(super) block_errors: TrackedCounters<(u32, u8, String)>,
    /// Keys: disk, status code type, status code.
    pub(super) nvme_errors: TrackedCounters<(u32, u8, u8)>,
    pub(super) writeback_errors: TrackedCounters<(u16, u32, String)>,
    pub(super) log_events: TrackedCounters<(u16, String)>,
    pub(super) losses: TrackedCounters<String>,
    pub(super) incidents: TrackedCounters<(Verdict, Option<Cause>)>,
    pub(super) bpf_run_ns: TrackedCounters<String>,
    pub(super) open_incidents: BTreeMap<Values, u64>,
}

impl State {
    /// Takes up a snapshot.
    pub fn absorb(&mut self, mut snapshot: Snapshot) {
        self.places.learn(&snapshot);
        self.ensure_known(&snapshot);
        self.absorb_hists(&snapshot);
        self.absorb_counters(&snapshot);
        // Nobody reads them again, and they are most of the memory.
        snapshot.hists = Vec::new();
        snapshot.block_hists = Vec::new();
        self.last = snapshot;
    }

    /// The keys of this broker slot will start again at 0, under another name.
    pub fn forget_broker(&mut self, slot: u16) {
        self.syncs.forget(|key| key.broker == slot);
        self.sync_errors.forget(|key| key.0 == slot);
        self.log_events.forget(|key| key.0 == slot);
    }

    fn absorb_hists(&mut self, snapshot: &Snapshot) {
        for (key, hist) in &snapshot.hists {
            if let Some(place) = self.places.sync(key.broker, key.root, key.s_dev) {
                self.syncs
                    .absorb(*key, hist, with(&place, sync_op_name(key.op as u8)));
            }
        }
        for row in &snapshot.block_hists {
            let labels = block_labels(&self.places, row.dev, row.op);
            if snapshot.detail.is_full() {
                self.queue
                    .absorb((row.dev, row.op), &row.queue, labels.clone());
            }
            if snapshot.detail >= Detail::Normal {
                self.device.absorb((row.dev, row.op), &row.device, labels);
            }
        }
    }

    fn absorb_counters(&mut self, snapshot: &Snapshot) {
        for row in &snapshot.sync_errors {
            let key = (row.broker, row.root, row.s_dev, row.op, row.errno.clone());
            if let Some(place) = self.places.sync(row.broker, row.root, row.s_dev) {
                let labels = with(&with(&place, sync_op_name(row.op)), &row.errno);
                self.sync_errors.absorb(key, row.total, labels);
            }
        }
        for row in &snapshot.block_errors {
            let key = (row.dev, row.op, row.status.clone());
            let labels = with(&block_labels(&self.places, row.dev, row.op), &row.status);
            self.block_errors.absorb(key, row.total, labels);
        }
        for row in &snapshot.nvme_errors {
            let labels = nvme_labels(&self.places, row.dev, row.sct, row.sc);
            self.nvme_errors
                .absorb((row.dev, row.sct, row.sc), row.total, labels);
        }
        for row in &snapshot.writeback_errors {
            let key = (row.root, row.s_dev, row.errno.clone());
            if let Some(place) = self.places.root(row.root, row.s_dev) {
                self.writeback_errors
                    .absorb(key, row.total, with(&place, &row.errno));
            }
        }
        for row in &snapshot.log_events {
            if let Some(broker) = self.places.broker(row.broker) {
                let labels = vec![broker, row.event.clone()];
                self.log_events
                    .absorb((row.broker, row.event.clone()), row.total, labels);
            }
        }
        for (class, total) in &snapshot.losses {
            self.losses
                .absorb(class.clone(), *total, vec![class.clone()]);
        }
        for (verdict, cause, total) in &snapshot.incidents {
            let labels = verdict_labels(*verdict, *cause);
            self.incidents.absorb((*verdict, *cause), *total, labels);
        }
        for (program, total) in &snapshot.bpf_run_ns {
            self.bpf_run_ns
                .absorb(program.clone(), *total, vec![program.clone()]);
        }
        self.open_incidents.values_mut().for_each(|open| *open = 0);
        for row in &snapshot.open_incidents {
            let mut labels = vec![row.broker.clone(), row.log_dir.clone(), row.device.clone()];
            labels.extend(verdict_labels(row.verdict, row.cause));
            *self.open_incidents.entry(labels).or_default() += 1;
        }
    }

    /// Every series that is known to be possible exists at 0 before it is
    /// needed: `increase()` does not see the step from nothing to 1.
    fn ensure_known(&mut self, snapshot: &Snapshot) {
        for root in &snapshot.roots {
            let Some(place) = self.places.sync(root.broker, root.slot, root.s_dev) else {
                continue;
            };
            for op in SYNC_OPS {
                let labels = with(&place, sync_op_name(op));
                for errno in KNOWN_ERRNOS {
                    self.sync_errors.ensure(with(&labels, *errno));
                }
                self.syncs.ensure(labels);
            }
            for errno in KNOWN_ERRNOS {
                self.writeback_errors.ensure(with(&place, *errno));
            }
        }
        for disk in snapshot.devices.iter().filter(|row| row.is_watched_disk) {
            for op in BLOCK_OPS {
                let labels = block_labels(&self.places, disk.dev, op);
                for status in KNOWN_STATUSES {
                    self.block_errors.ensure(with(&labels, *status));
                }
                if snapshot.detail.is_full() {
                    self.queue.ensure(labels.clone());
                }
                if snapshot.detail >= Detail::Normal {
                    self.device.ensure(labels);
                }
            }
            if disk.name.starts_with("nvme") && snapshot.detail >= Detail::Normal {
                for (sct, sc) in KNOWN_NVME {
                    let labels = nvme_labels(&self.places, disk.dev, *sct, *sc);
                    self.nvme_errors.ensure(labels);
                }
            }
        }
        for broker in snapshot
            .brokers
            .iter()
            .filter_map(|row| self.places.broker(row.slot))
        {
            for event in &snapshot.log_event_kinds {
                self.log_events.ensure(vec![broker.clone(), event.clone()]);
            }
        }
        for class in Loss::ALL {
            self.losses.ensure(vec![class.name().into()]);
        }
        self.losses.ensure(vec![RECURSION.into()]);
        for verdict in VERDICTS {
            for cause in CAUSES.map(Some).into_iter().chain([None]) {
                self.incidents.ensure(verdict_labels(verdict, cause));
            }
        }
    }
}

fn block_labels(places: &Places, dev: u32, op: u8) -> Values {
    vec![places.device(dev), req_op_name(op)]
}

/// Codes as the specification writes them: `2`, `80h`.
fn nvme_labels(places: &Places, dev: u32, sct: u8, sc: u8) -> Values {
    vec![places.device(dev), sct.to_string(), format!("{sc:02x}h")]
}

fn verdict_labels(verdict: Verdict, cause: Option<Cause>) -> Values {
    vec![
        verdict_name(verdict).into(),
        cause.map_or("none", cause_name).into(),
    ]
}

const VERDICTS: [Verdict; 4] = [
    Verdict::Confirmed,
    Verdict::Stalled,
    Verdict::NotTheDisk,
    Verdict::Unknown,
];

const CAUSES: [Cause; 15] = [
    Cause::DeviceError,
    Cause::DeviceGone,
    Cause::DeviceReset,
    Cause::DeviceTimeout,
    Cause::DeviceStall,
    Cause::DeviceSaturated,
    Cause::Neighbour,
    Cause::Throttled,
    Cause::Journal,
    Cause::ReadOnly,
    Cause::NoSpace,
    Cause::Quota,
    Cause::FilesystemError,
    Cause::HostPaused,
    Cause::Application,
];

/// As in the incident's JSON; a match, so that a new verdict does not compile
/// until it has a series.
const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Confirmed => "CONFIRMED",
        Verdict::Stalled => "STALLED",
        Verdict::NotTheDisk => "NOT_THE_DISK",
        Verdict::Unknown => "UNKNOWN",
    }
}

/// As in the incident's JSON.
const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::DeviceError => "device-error",
        Cause::DeviceGone => "device-gone",
        Cause::DeviceReset => "device-reset",
        Cause::DeviceTimeout => "device-timeout",
        Cause::DeviceStall => "device-stall",
        Cause::DeviceSaturated => "device-saturated",
        Cause::Neighbour => "neighbour",
        Cause::Throttled => "throttled",
        Cause::Journal => "journal",
        Cause::ReadOnly => "read-only",
        Cause::NoSpace => "no-space",
        Cause::Quota => "quota",
        Cause::FilesystemError => "filesystem-error",
        Cause::HostPaused => "host-paused",
        Cause::Application => "application",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_spell_verdict_and_cause_as_the_incident_does() {
        for verdict in VERDICTS {
            assert_eq!(
                serde_json::to_value(verdict).unwrap(),
                verdict_name(verdict)
            );
        }
        for cause in CAUSES {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause_name(cause));
        }
    }
}
