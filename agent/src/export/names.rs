//! Names, types, labels and help of every metric: the contract of
//! docs/METRICS.md, which a test compares with this table. Not here: values.

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never goes down while the agent lives.
    Counter,
    /// A state.
    Gauge,
    /// Latencies with the bounds of [`crate::histogram::BOUNDS`].
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Label names in the order of their values.
    pub labels: &'static [&'static str],
    /// Text of `# HELP`.
    pub help: &'static str,
}

const SYNC: &[&str] = &["cluster_id", "broker", "log_dir", "device", "op"];
const SYNC_ERRNO: &[&str] = &["cluster_id", "broker", "log_dir", "device", "op", "errno"];
const ROOT: &[&str] = &["cluster_id", "broker", "log_dir", "device"];
const ROOT_ERRNO: &[&str] = &["cluster_id", "broker", "log_dir", "device", "errno"];
const INCIDENT: &[&str] = &["broker", "log_dir", "device", "verdict", "cause"];

/// One constant per metric, and the list of all.
macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: concat!("fsyncscope_", $name), kind: Kind::$kind, labels: $labels, help: $help };
        )*
        /// All metrics but those of the process.
        pub const ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    SYNC_DURATION = Histogram "sync_duration_seconds" SYNC,
        "Time from enter to exit of a sync call by a broker, failed ones included.";
    SYNC_FAILURES = Counter "sync_failures_total" SYNC,
        "Sync calls of a broker that returned an error.";
    SYNC_ERRORS = Counter "sync_errors_total" SYNC_ERRNO,
        "Sync calls of a broker that returned an error, by errno.";
    SYNC_IN_FLIGHT = Gauge "sync_in_flight" SYNC,
        "Sync calls of a broker that have not returned.";
    SYNC_IN_FLIGHT_OLDEST = Gauge "sync_in_flight_oldest_seconds" SYNC,
        "Age of the oldest sync call that has not returned, 0 if there is none.";
    BLOCK_DURATION = Histogram "block_duration_seconds" &["device", "op", "stage"],
        "Time of block requests waiting for issue (stage queue) and from issue to completion (stage device); from allocation to completion (stage total) where --detail normal has the two in one.";
    BLOCK_ERRORS = Counter "block_errors_total" &["device", "op", "status"],
        "Block requests that completed with an error, by block status.";
    BLOCK_IN_FLIGHT = Gauge "block_in_flight" &["device"],
        "Block requests issued and not completed.";
    FLUSH_DURATION = Histogram "flush_duration_seconds" &["device"],
        "Time from issue to completion of flushes of a device's volatile cache.";
    NVME_ERRORS = Counter "nvme_errors_total" &["device", "sct", "sc"],
        "NVMe commands that ended with a status, also those that were sent again, by status code type and code.";
    WRITEBACK_ERRORS = Counter "writeback_errors_total" ROOT_ERRNO,
        "Writeback errors recorded on files, whether or not a caller was told.";
    FILESYSTEM_READONLY = Gauge "filesystem_readonly" ROOT,
        "1 if the file system of the log directory is read-only.";
    BROKER_LOG_EVENTS = Counter "broker_log_events_total" &["broker", "event"],
        "Storage events in a broker's log.";
    INCIDENTS = Counter "incidents_total" &["verdict", "cause"],
        "Incidents by verdict and cause.";
    INCIDENT_OPEN = Gauge "incident_open" INCIDENT,
        "Number of open incidents, 0 after they were closed.";
    BROKERS = Gauge "brokers" &[],
        "Brokers that run and are watched.";
    BROKER_INFO = Gauge "broker_info" &["cluster_id", "broker", "pid", "version"],
        "Always 1, for each broker that runs.";
    DEVICE_INFO = Gauge "device_info" &["device", "model", "serial", "firmware"],
        "Always 1, for each device of a log directory.";
    HOOK_ATTACHED = Gauge "hook_attached" &["hook", "form", "required"],
        "1 if the kernel hook is attached.";
    EVENTS_LOST = Counter "events_lost_total" &["class"],
        "What the tool missed, by class of loss.";
    BPF_MEMORY = Gauge "bpf_memory_bytes" &[],
        "Kernel memory of the maps and programs.";
    BPF_RUN = Counter "bpf_run_seconds_total" &["program"],
        "Run time of the kernel programs, where BPF statistics are enabled.";
    BUILD_INFO = Gauge "build_info" &["version", "abi", "arch"],
        "Always 1.";
}

/// Errnos of syncs and writeback that exist at 0 from the start: what a disk, a
/// full or a shut-down file system gives.
pub const KNOWN_ERRNOS: &[&str] = &[
    "EIO",
    "ENODATA",
    "ENODEV",
    "ENOLINK",
    "ENOSPC",
    "EDQUOT",
    "EREMOTEIO",
    "EROFS",
    "ETIMEDOUT",
    "EUCLEAN",
];

/// Block statuses that exist at 0 from the start: those that are about the
/// device and whose numbers mean the same in every supported kernel.
pub const KNOWN_STATUSES: &[&str] = &[
    "IOERR",
    "MEDIUM",
    "NOSPC",
    "PROTECTION",
    "TARGET",
    "TIMEOUT",
    "TRANSPORT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_metric_with_its_type_and_labels() {
        let document = include_str!("../../../docs/METRICS.md");
        for metric in ALL {
            let labels = match metric.labels {
                [] => "none".into(),
                labels => labels.join(", "),
            };
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let row = format!("| `{}` | {kind} | {labels} |", metric.name);
            assert!(
                document.contains(&row),
                "docs/METRICS.md lacks the row: {row}"
            );
        }
    }
}
