//! Totals and states to metric families of the `prometheus` crate.
//!
//! Comes in: [`State`]. Goes out: families in a fixed order, to be sorted by
//! the registry and written (labels escaped) by its text encoder.

use std::collections::BTreeMap;

use fsyncscope_abi::{ABI_VERSION, block::req_op, keys::SLOT_NONE};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Series, MetricFamily, MetricType,
};

use super::{
    labels::{SYNC_OPS, Values, with},
    names::{self, Kind, Metric},
    source::Snapshot,
    state::State,
};
use crate::{
    decode::{req_op_name, sync_op_name},
    histogram::{Totals, to_prometheus_buckets},
};

impl State {
    /// All metrics that have a value.
    pub fn families(&self, version: &str) -> Vec<MetricFamily> {
        let mut families = self.histograms();
        families.extend(self.counters());
        families.extend(self.in_flight());
        families.extend(self.infos(version));
        families
    }

    fn histograms(&self) -> Vec<MetricFamily> {
        let syncs = &self.syncs.by_labels;
        let whole = if self.last.detail.is_full() {
            "device"
        } else {
            "total"
        };
        let stages = [
            ("queue", &self.queue.by_labels),
            (whole, &self.device.by_labels),
        ];
        let blocks = stages.into_iter().flat_map(|(stage, by_labels)| {
            by_labels
                .iter()
                .map(move |(labels, totals)| (with(labels, stage), totals))
        });
        let flush = req_op_name(req_op::FLUSH);
        let flushes = self
            .device
            .by_labels
            .iter()
            .filter(|(labels, _)| labels.last() == Some(&flush))
            .map(|(labels, totals)| (labels[..1].to_vec(), totals));
        vec![
            histogram(
                &names::SYNC_DURATION,
                syncs.iter().map(|(l, t)| (l.clone(), t)),
            ),
            values(
                &names::SYNC_FAILURES,
                syncs
                    .iter()
                    .map(|(labels, totals)| (labels.clone(), totals.nr_errors as f64)),
            ),
            histogram(&names::BLOCK_DURATION, blocks),
            histogram(&names::FLUSH_DURATION, flushes),
        ]
    }

    fn counters(&self) -> Vec<MetricFamily> {
        let counter = |metric, by_labels: &BTreeMap<Values, u64>| {
            values(
                metric,
                by_labels
                    .iter()
                    .map(|(labels, n)| (labels.clone(), *n as f64)),
            )
        };
        let run = self.bpf_run_ns.by_labels.iter();
        vec![
            counter(&names::SYNC_ERRORS, &self.sync_errors.by_labels),
            counter(&names::BLOCK_ERRORS, &self.block_errors.by_labels),
            counter(&names::NVME_ERRORS, &self.nvme_errors.by_labels),
            counter(&names::WRITEBACK_ERRORS, &self.writeback_errors.by_labels),
            counter(&names::BROKER_LOG_EVENTS, &self.log_events.by_labels),
            counter(&names::INCIDENTS, &self.incidents.by_labels),
            counter(&names::INCIDENT_OPEN, &self.open_incidents),
            counter(&names::EVENTS_LOST, &self.losses.by_labels),
            values(
                &names::BPF_RUN,
                run.map(|(labels, ns)| (labels.clone(), *ns as f64 / 1e9)),
            ),
        ]
    }

    /// What is in flight, with zeros for the directories of brokers that run.
    fn in_flight(&self) -> Vec<MetricFamily> {
        let mut syncs = BTreeMap::<Values, (f64, f64)>::new();
        for root in &self.last.roots {
            if let Some(place) = self.places.sync(root.broker, root.slot, root.s_dev) {
                for op in SYNC_OPS {
                    syncs.insert(with(&place, sync_op_name(op)), (0.0, 0.0));
                }
            }
        }
        for row in &self.last.in_flight {
            if let Some(place) = self.places.sync(row.broker, row.root, row.s_dev) {
                let sum = syncs.entry(with(&place, sync_op_name(row.op))).or_default();
                *sum = (sum.0 + row.count as f64, sum.1.max(row.oldest_seconds));
            }
        }
        let mut blocks = BTreeMap::<Values, f64>::new();
        if self.last.detail.is_full() {
            for disk in self.last.devices.iter().filter(|row| row.is_watched_disk) {
                blocks.insert(vec![self.places.device(disk.dev)], 0.0);
            }
            for (dev, count) in &self.last.block_in_flight {
                *blocks.entry(vec![self.places.device(*dev)]).or_default() += *count as f64;
            }
        }
        vec![
            values(
                &names::SYNC_IN_FLIGHT,
                syncs.iter().map(|(l, (count, _))| (l.clone(), *count)),
            ),
            values(
                &names::SYNC_IN_FLIGHT_OLDEST,
                syncs
                    .iter()
                    .map(|(labels, (_, oldest))| (labels.clone(), *oldest)),
            ),
            values(&names::BLOCK_IN_FLIGHT, blocks),
        ]
    }

    fn infos(&self, version: &str) -> Vec<MetricFamily> {
        let Snapshot {
            brokers,
            roots,
            devices,
            hooks,
            ..
        } = &self.last;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let readonly = roots.iter().filter_map(|root| {
            let place = self.places.sync(root.broker, root.slot, root.s_dev)?;
            Some((place, f64::from(u8::from(root.is_readonly?))))
        });
        let brokers_info = brokers.iter().filter_map(|row| {
            let place = self.places.sync(row.slot, SLOT_NONE, 0)?;
            let [cluster_id, broker, ..] = place.as_slice() else {
                return None;
            };
            let (pid, version) = (row.pid.to_string(), text(&row.version));
            Some((vec![cluster_id.clone(), broker.clone(), pid, version], 1.0))
        });
        // A disk and its partitions carry one name; what any of them knows counts.
        let mut by_name = BTreeMap::<String, [String; 3]>::new();
        for row in devices {
            let known = by_name.entry(self.places.device(row.dev)).or_default();
            for (known, value) in known
                .iter_mut()
                .zip([&row.model, &row.serial, &row.firmware])
            {
                if known.is_empty() {
                    *known = text(value);
                }
            }
        }
        let devices_info = by_name.into_iter().map(|(name, known)| {
            let [model, serial, firmware] = known;
            (vec![name, model, serial, firmware], 1.0)
        });
        let hooks_attached = hooks.iter().map(|row| {
            let labels = vec![
                row.name.clone(),
                row.form.clone(),
                row.is_required.to_string(),
            ];
            (labels, f64::from(u8::from(row.is_attached)))
        });
        let build = vec![
            version.to_owned(),
            ABI_VERSION.to_string(),
            std::env::consts::ARCH.into(),
        ];
        vec![
            values(&names::FILESYSTEM_READONLY, unique(readonly)),
            values(&names::BROKERS, [(vec![], brokers.len() as f64)]),
            values(&names::BROKER_INFO, unique(brokers_info)),
            values(&names::DEVICE_INFO, devices_info),
            values(&names::HOOK_ATTACHED, unique(hooks_attached)),
            values(
                &names::BPF_MEMORY,
                [(vec![], self.last.bpf_memory_bytes as f64)],
            ),
            values(&names::BUILD_INFO, [(build, 1.0)]),
        ]
    }
}

/// One value a label set: two brokers may share a directory, and a series that
/// comes twice makes Prometheus refuse the scrape.
fn unique(rows: impl Iterator<Item = (Values, f64)>) -> BTreeMap<Values, f64> {
    let mut by_labels = BTreeMap::new();
    for (labels, value) in rows {
        let largest: &mut f64 = by_labels.entry(labels).or_default();
        *largest = largest.max(value);
    }
    by_labels
}

/// A family of counters or gauges.
pub(super) fn values(
    metric: &Metric,
    rows: impl IntoIterator<Item = (Values, f64)>,
) -> MetricFamily {
    family(metric, rows, |series, value| match metric.kind {
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            series.set_gauge(gauge);
        }
        Kind::Counter | Kind::Histogram => {
            let mut counter = Counter::default();
            counter.set_value(value);
            series.set_counter(counter);
        }
    })
}

fn histogram<'a>(
    metric: &Metric,
    rows: impl Iterator<Item = (Values, &'a Totals)>,
) -> MetricFamily {
    family(metric, rows, |series, totals| {
        let (buckets, sum_seconds, count) = to_prometheus_buckets(totals);
        let buckets = buckets.into_iter().map(|(upper_bound, cumulative)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(upper_bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_sum(sum_seconds);
        histogram.set_sample_count(count);
        series.set_histogram(histogram);
    })
}

fn family<V>(
    metric: &Metric,
    rows: impl IntoIterator<Item = (Values, V)>,
    fill: impl Fn(&mut Series, V),
) -> MetricFamily {
    let series = rows.into_iter().map(|(labels, value)| {
        debug_assert_eq!(
            labels.len(),
            metric.labels.len(),
            "labels of {}",
            metric.name
        );
        let pairs = metric.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).into());
            pair.set_value(value);
            pair
        });
        let mut series = Series::from_label(pairs.collect());
        fill(&mut series, value);
        series
    });
    let mut family = MetricFamily::default();
    family.set_metric(series.collect());
    family.set_name(metric.name.into());
    family.set_help(metric.help.into());
    family.set_field_type(match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family
}
