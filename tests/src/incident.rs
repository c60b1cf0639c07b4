//! The incident as a reader of docs/OUTPUT.md knows it, for `demo`, `truth` and
//! the virtual machines. Deliberately not the agent's own types: all read the
//! contract, as a user's program would, and take only the fields that they
//! compare or print. Their meaning is in docs/OUTPUT.md.
#![allow(
    missing_docs,
    reason = "the fields are those of docs/OUTPUT.md, which says what each means"
)]

use std::collections::BTreeMap;

use serde::Deserialize;

/// One incident.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Incident {
    pub id: String,
    pub time: String,
    pub verdict: String,
    pub cause: Option<String>,
    pub confidence: f64,
    pub reasons: Vec<String>,
    pub broker: Option<Broker>,
    pub first_victim: Option<Victim>,
    pub log_events: Vec<LogEvent>,
    pub syncs: Vec<Sync>,
    pub requests: Vec<Request>,
    pub operations: Vec<Operation>,
    pub device: Option<Device>,
    pub neighbours: Vec<Neighbour>,
    pub lost: BTreeMap<String, u64>,
    pub totals: Totals,
}

/// What failed first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Victim {
    pub path: String,
    pub op: String,
}

/// Whose.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Broker {
    pub pid: u32,
    pub log_dir: Option<String>,
}

/// A line of the broker's log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LogEvent {
    pub time: String,
    pub file: String,
    pub line_number: u64,
    pub text: String,
}

/// A sync.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sync {
    pub op: String,
    pub path: Option<String>,
    pub topic_partition: Option<String>,
    pub file_kind: Option<String>,
    pub ino: Option<u64>,
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub time: String,
    pub duration_ns: u64,
    pub errno: Option<String>,
    pub in_flight: bool,
    pub told_late_by_ns: Option<u64>,
    pub breakdown: Option<Breakdown>,
}

impl Sync {
    /// When the call began, by CLOCK_REALTIME.
    pub fn begin_ns(&self) -> Option<u64> {
        let time: jiff::Timestamp = self.time.parse().ok()?;
        u64::try_from(time.as_nanosecond()).ok()
    }
}

/// Data that could not be written, known before a sync said so.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Operation {
    pub op: String,
    pub path: Option<String>,
    pub topic_partition: Option<String>,
    pub errno: Option<String>,
    pub told: Vec<Caller>,
}

/// Who was told of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Caller {
    pub pid: u32,
    pub comm: String,
}

/// Who else used the disk.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Neighbour {
    pub pid: u32,
    pub comm: Option<String>,
    pub path: Option<String>,
    pub nr_requests: u64,
    pub nr_bytes: u64,
    pub longest_ns: u64,
}

/// Also what is not listed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Totals {
    pub syncs: u64,
    pub requests: u64,
}

/// Where its time went. Which parts there are decides whether it counts as a
/// whole one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Breakdown {
    pub flush_ns: u64,
    pub journal_ns: Option<u64>,
    pub own_data_ns: u64,
    pub others_data_ns: Option<u64>,
    pub lock_ns: Option<u64>,
    pub other_ns: u64,
    pub other_cpu_ns: u64,
    pub flush_device_ns: Option<u64>,
    pub journal_device_ns: Option<u64>,
    pub own_data_device_ns: Option<u64>,
    pub others_data_device_ns: Option<u64>,
}

impl Breakdown {
    /// All six parts are there.
    pub fn is_whole(&self) -> bool {
        self.journal_ns.is_some() && self.others_data_ns.is_some() && self.lock_ns.is_some()
    }

    /// Its parts together.
    pub fn sum_ns(&self) -> u64 {
        self.tied_ns() + self.lock_ns.unwrap_or(0) + self.other_ns
    }

    /// Time tied to requests, queue and device.
    pub fn tied_ns(&self) -> u64 {
        let optional = [self.journal_ns, self.others_data_ns];
        self.flush_ns + self.own_data_ns + optional.into_iter().flatten().sum::<u64>()
    }
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Request {
    pub disk: String,
    pub dev: String,
    pub sector: Option<u64>,
    pub nr_bytes: u64,
    pub op: String,
    pub time: String,
    pub device_ns: Option<u64>,
    pub status: Option<String>,
    pub status_derived: bool,
    pub errno: Option<String>,
    pub path: Option<String>,
    pub nvme: Option<Nvme>,
    pub in_flight: bool,
}

/// The controller's own answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Nvme {
    pub sct: u8,
    pub sc: u8,
    pub dnr: bool,
    pub retries: u32,
    pub text: String,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Device {
    pub disk: String,
    pub path: Vec<String>,
    pub serial: Option<String>,
    pub backing_file: Option<String>,
}

/// The incident in a line of `watch --json`; `None` for lines of other kinds.
pub fn parse_line(line: &str) -> Option<Incident> {
    let incident: Incident = serde_json::from_str(line).ok()?;
    let is_incident = !incident.id.is_empty() && !incident.verdict.is_empty();
    is_incident.then_some(incident)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incidents_are_told_from_other_lines() {
        let line =
            r#"{"schema":1,"id":"a","verdict":"STALLED","syncs":[{"op":"fsync","new_field":1}]}"#;
        assert_eq!(parse_line(line).unwrap().syncs[0].op, "fsync");
        assert_eq!(parse_line(r#"{"id":"a","op":"fsync"}"#), None);
        assert_eq!(parse_line("text"), None);
    }
}
