//! One reading of maps, tables and counts for /metrics. Runs on a blocking
//! thread at scrape; reads kernel maps and memory only.

use std::{collections::BTreeMap, sync::Arc};

use fsyncscope_abi::{block::req_op, sync::op};

use crate::{
    brokerlog::StorageEventKind,
    decode::split_nvme_status,
    detail::Detail,
    export::{
        BlockErrorRow, BlockHistRow, BrokerRow, DeviceRow, HookRow, InFlightRow, LogEventRow,
        NvmeErrorRow, OpenIncidentRow, RootRow, Snapshot, Source, SyncErrorRow, WritebackErrorRow,
    },
    helper::clock::monotonic_ns,
    histogram::fold,
    run::{scan, shared::Shared},
};

/// The live source.
pub struct LiveSource {
    /// What the loop shares.
    pub shared: Arc<Shared>,
    /// What the maps are filled with.
    pub detail: Detail,
}

impl Source for LiveSource {
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let mut snapshot = Snapshot {
            detail: self.detail,
            ..Snapshot::default()
        };
        self.add_maps(&mut snapshot);
        self.add_tables(&mut snapshot);
        self.add_counts(&mut snapshot);
        Ok(snapshot)
    }
}

impl LiveSource {
    fn add_maps(&self, snapshot: &mut Snapshot) {
        let maps = self.shared.maps();
        for (key, per_cpu) in maps.hist.iter().filter_map(Result::ok) {
            snapshot.hists.push((key, fold(&per_cpu)));
        }
        for (key, per_cpu) in maps.block_hist.iter().filter_map(Result::ok) {
            let device: Vec<_> = per_cpu.iter().map(|hist| hist.device).collect();
            let queue: Vec<_> = per_cpu.iter().map(|hist| hist.queue).collect();
            snapshot.block_hists.push(BlockHistRow {
                dev: (key >> 32) as u32,
                op: key as u8,
                queue: fold(&queue),
                device: fold(&device),
            });
        }
        for (key, total) in maps.nvme_errors.iter().filter_map(Result::ok) {
            let (sct, sc) = split_nvme_status(key as u16);
            snapshot.nvme_errors.push(NvmeErrorRow {
                dev: (key >> 32) as u32,
                sct,
                sc,
                total,
            });
        }
        snapshot.block_in_flight = scan::outstanding_counts(&maps).into_iter().collect();
        let now_ns = monotonic_ns();
        let mut in_flight: BTreeMap<_, InFlightRow> = BTreeMap::new();
        for (_, state) in maps
            .ops
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, state)| state.enter_ns != 0)
        {
            let row = in_flight
                .entry((state.broker, state.root, state.inode.s_dev, state.op))
                .or_insert_with(|| InFlightRow {
                    broker: state.broker,
                    root: state.root,
                    s_dev: state.inode.s_dev,
                    op: state.op,
                    ..InFlightRow::default()
                });
            row.count += 1;
            row.oldest_seconds = row
                .oldest_seconds
                .max(now_ns.saturating_sub(state.enter_ns) as f64 / 1e9);
        }
        snapshot.in_flight = in_flight.into_values().collect();
        snapshot.losses = scan::losses(&maps).into_iter().collect();
    }

    fn add_tables(&self, snapshot: &mut Snapshot) {
        let tables = self.shared.tables();
        for (slot, row) in tables
            .brokers
            .iter()
            .enumerate()
            .filter(|(_, row)| row.is_alive)
        {
            snapshot.brokers.push(BrokerRow {
                slot: slot as u16,
                cluster_id: row.broker.cluster_id.clone(),
                node_id: row.broker.node_id.clone(),
                pid: row.broker.pid,
                version: row.broker.version.clone(),
            });
        }
        // A directory whose disk is not named yet waits, or its series would be
        // born under a number and go on under a name.
        let is_named = |s_dev: &u32| !tables.unresolved.contains(s_dev);
        for (slot, row) in tables
            .roots
            .iter()
            .enumerate()
            .filter(|(_, row)| is_named(&row.s_dev))
        {
            snapshot.roots.push(RootRow {
                slot: slot as u16,
                broker: row.broker,
                log_dir: row.path.clone(),
                s_dev: row.s_dev,
                is_readonly: None,
            });
        }
        let mut devices: BTreeMap<u32, DeviceRow> = BTreeMap::new();
        for (dev, info) in &tables.devices {
            let one = info.leaves.first().filter(|_| info.leaves.len() == 1);
            let name = one.map_or_else(|| info.name.clone(), |leaf| leaf.name.clone());
            devices.entry(*dev).or_insert_with(|| DeviceRow {
                dev: *dev,
                name,
                ..DeviceRow::default()
            });
            for leaf in &info.leaves {
                devices.insert(
                    leaf.dev,
                    DeviceRow {
                        dev: leaf.dev,
                        name: leaf.name.clone(),
                        is_watched_disk: true,
                        model: leaf.model.clone(),
                        serial: leaf.serial.clone(),
                        firmware: leaf.firmware.clone(),
                    },
                );
            }
        }
        snapshot.devices = devices.into_values().collect();
    }

    fn add_counts(&self, snapshot: &mut Snapshot) {
        let counts = self.shared.counts();
        for ((broker, root, s_dev, op, errno), total) in &counts.sync_errors {
            snapshot.sync_errors.push(SyncErrorRow {
                broker: *broker,
                root: *root,
                s_dev: *s_dev,
                op: sync_op_code(op),
                errno: errno.clone(),
                total: *total,
            });
        }
        for ((dev, op, status), total) in &counts.block_errors {
            snapshot.block_errors.push(BlockErrorRow {
                dev: *dev,
                op: block_op_code(op),
                status: status.clone(),
                total: *total,
            });
        }
        for ((root, s_dev, errno), total) in &counts.writeback_errors {
            snapshot.writeback_errors.push(WritebackErrorRow {
                root: *root,
                s_dev: *s_dev,
                errno: errno.clone(),
                total: *total,
            });
        }
        for (class, total) in &counts.lost {
            snapshot.losses.push((class.clone(), *total));
        }
        for hook in &counts.hooks {
            snapshot.hooks.push(HookRow {
                name: hook.name.clone(),
                form: hook.form.clone(),
                is_attached: !hook.form.is_empty(),
                is_required: hook.required,
            });
        }
        snapshot.log_event_kinds = StorageEventKind::ALL
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect();
        for ((broker, event), total) in &counts.log_events {
            snapshot.log_events.push(LogEventRow {
                broker: *broker,
                event: event.clone(),
                total: *total,
            });
        }
        snapshot.incidents = counts
            .incident_totals
            .iter()
            .map(|((verdict, cause), total)| (*verdict, *cause, *total))
            .collect();
        for incident in counts
            .incidents
            .values()
            .filter(|incident| incident.state != "closed")
        {
            let broker = incident.broker.as_ref();
            snapshot.open_incidents.push(OpenIncidentRow {
                broker: broker
                    .map(|b| {
                        b.node_id
                            .map_or_else(|| b.pid.to_string(), |id| id.to_string())
                    })
                    .unwrap_or_default(),
                log_dir: broker.and_then(|b| b.log_dir.clone()).unwrap_or_default(),
                device: incident
                    .device
                    .as_ref()
                    .map(|device| device.disk.clone())
                    .unwrap_or_default(),
                verdict: incident.verdict,
                cause: incident.cause,
            });
        }
        let (memory, run_ns) = crate::probe::usage(&counts.programs);
        snapshot.bpf_memory_bytes = memory;
        snapshot.bpf_run_ns = run_ns;
    }
}

fn sync_op_code(name: &str) -> u8 {
    (1..=op::LAST)
        .find(|code| crate::decode::sync_op_name(*code) == name)
        .unwrap_or(0)
}

fn block_op_code(name: &str) -> u8 {
    match name {
        "read" => req_op::READ,
        "write" => req_op::WRITE,
        "flush" => req_op::FLUSH,
        "discard" => req_op::DISCARD,
        "secure_erase" => req_op::SECURE_ERASE,
        "write_zeroes" => req_op::WRITE_ZEROES,
        other => other
            .trim_start_matches("op(")
            .trim_end_matches(')')
            .parse()
            .unwrap_or(u8::MAX),
    }
}
