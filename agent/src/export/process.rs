//! The agent's own process metrics, under the names that every Prometheus
//! client uses.
//!
//! Comes in: /proc/self and /proc/stat, under a root given by the caller. Goes
//! out: metric families. The `process` feature of the `prometheus` crate gives
//! the same by way of `procfs`, four more crates for six numbers. A number that
//! cannot be read is left out.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    families::values,
    names::{Kind, Metric},
};

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        labels: &[],
        help,
    }
}

const METRICS: [Metric; 6] = [
    metric(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Total user and system CPU time spent in seconds.",
    ),
    metric(
        "process_open_fds",
        Kind::Gauge,
        "Number of open file descriptors.",
    ),
    metric(
        "process_max_fds",
        Kind::Gauge,
        "Maximum number of open file descriptors.",
    ),
    metric(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Virtual memory size in bytes.",
    ),
    metric(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory size in bytes.",
    ),
    metric(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start time of the process since unix epoch in seconds.",
    ),
];

/// Reads `/proc` at each collection.
#[derive(Debug)]
pub struct ProcessCollector {
    proc_root: PathBuf,
    ticks_per_second: f64,
    page_bytes: f64,
    descs: Vec<Desc>,
}

impl ProcessCollector {
    /// A collector for the own process; `proc_root` is `/proc` but in tests.
    pub fn new(proc_root: &Path) -> prometheus::Result<Self> {
        let descs: Result<Vec<Desc>, _> = METRICS
            .iter()
            .map(|m| Desc::new(m.name.into(), m.help.into(), Vec::new(), HashMap::new()))
            .collect();
        Ok(Self {
            proc_root: proc_root.into(),
            ticks_per_second: sysconf(libc::_SC_CLK_TCK).unwrap_or(100.0),
            page_bytes: sysconf(libc::_SC_PAGESIZE).unwrap_or(4096.0),
            descs: descs?,
        })
    }

    fn read(&self) -> [Option<f64>; METRICS.len()] {
        let read = |name: &str| fs::read_to_string(self.proc_root.join(name)).ok();
        let stat = read("self/stat").unwrap_or_default();
        // Fields are counted after the command, which may contain blanks: the
        // first one here is the third of proc(5).
        let stat: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        let field = |nr: usize| stat.get(nr - 3).and_then(|text| text.parse::<f64>().ok());
        let cpu = field(14).zip(field(15)).map(|(user, system)| user + system);
        let boot = read("stat").and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok())
        });
        let max_fds = read("self/limits").and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        });
        let open_fds = fs::read_dir(self.proc_root.join("self/fd")).ok();
        [
            cpu.map(|ticks| ticks / self.ticks_per_second),
            // One of them is the descriptor that lists them.
            open_fds.map(|fds| fds.count().saturating_sub(1) as f64),
            max_fds,
            field(23),
            field(24).map(|pages| pages * self.page_bytes),
            field(22)
                .zip(boot)
                .map(|(ticks, boot)| boot + ticks / self.ticks_per_second),
        ]
    }
}

fn sysconf(name: libc::c_int) -> Option<f64> {
    // SAFETY: sysconf takes a number and has no preconditions.
    let value = unsafe { libc::sysconf(name) };
    (value > 0).then_some(value as f64)
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let rows = METRICS.iter().zip(self.read());
        rows.map(|(metric, value)| values(metric, value.map(|value| (vec![], value))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_this_process_is_read_and_plausible() {
        let collector = ProcessCollector::new(Path::new("/proc")).unwrap();
        let [cpu, open_fds, max_fds, virtual_bytes, resident, start] =
            collector.read().map(Option::unwrap);
        assert!(cpu >= 0.0 && open_fds >= 3.0 && max_fds >= open_fds);
        assert!(virtual_bytes > resident && resident > 100_000.0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        // btime is whole seconds, and differs by as much as the clock was set since.
        assert!(
            (now.as_secs_f64() - start).abs() < 86_400.0,
            "started at {start}"
        );
    }

    #[test]
    fn without_proc_the_numbers_are_left_out() {
        let collector = ProcessCollector::new(Path::new("/nonexistent")).unwrap();
        assert!(
            collector
                .collect()
                .iter()
                .all(|family| family.get_metric().is_empty())
        );
    }
}
