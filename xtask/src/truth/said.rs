//! What the agent said, as a reader of docs/OUTPUT.md knows it: only the fields
//! that are compared. In: lines of `watch --json`, each with the moment at which
//! it was read. Out: incidents as last printed, slow syncs, notices.

use jiff::Timestamp;
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
    pub first_victim: Option<Victim>,
    pub syncs: Vec<Sync>,
    pub requests: Vec<Request>,
    pub device: Option<Device>,
    pub totals: Totals,
}

/// What failed first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Victim {
    pub path: String,
    pub op: String,
}

/// How many there are, listed or not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Totals {
    pub syncs: u64,
    pub requests: u64,
}

/// A sync.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sync {
    pub op: String,
    pub path: Option<String>,
    pub ino: Option<u64>,
    pub pid: u32,
    pub tid: u32,
    pub time: String,
    pub duration_ns: u64,
    pub errno: Option<String>,
    pub in_flight: bool,
    pub told_late_by_ns: Option<u64>,
    pub breakdown: Option<Breakdown>,
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
    pub sector: Option<u64>,
    pub nr_bytes: u64,
    pub op: String,
    pub time: String,
    pub device_ns: Option<u64>,
    pub errno: Option<String>,
    pub path: Option<String>,
    pub in_flight: bool,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Device {
    pub disk: String,
}

/// An incident, as it was last told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// When its first line was read, CLOCK_MONOTONIC.
    pub first_at_ns: u64,
    /// The last one.
    pub last: Incident,
}

/// All that was said in one run of the agent.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Realtime minus monotonic, as the agent took it.
    pub clock_offset_ns: i64,
    /// In the order of their first lines.
    pub told: Vec<Told>,
    /// Syncs that were slow and no finding.
    pub slow: Vec<Sync>,
    /// Text of notices, with the moment.
    pub notices: Vec<(u64, String)>,
    /// Losses, as text, from the last line.
    pub lost: Option<String>,
    /// Hooks that failed.
    pub failed_hooks: Vec<String>,
    /// The last line was printed.
    pub is_whole: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Other {
    #[serde(rename = "type")]
    kind: String,
    text: String,
    clock_offset_ns: i64,
    state: String,
    name: String,
    lost: serde_json::Value,
}

impl Said {
    /// Takes one line that was read at this moment.
    pub fn add(&mut self, line: &str, at_ns: u64) {
        if let Some(incident) = parse_incident(line) {
            match self
                .told
                .iter_mut()
                .find(|told| told.last.id == incident.id)
            {
                Some(told) => told.last = incident,
                None => self.told.push(Told {
                    first_at_ns: at_ns,
                    last: incident,
                }),
            }
            return;
        }
        let Ok(other) = serde_json::from_str::<Other>(line) else {
            return;
        };
        match other.kind.as_str() {
            "started" => self.clock_offset_ns = other.clock_offset_ns,
            "slow_sync" => self.slow.extend(serde_json::from_str::<Sync>(line).ok()),
            "notice" => self.notices.push((at_ns, other.text)),
            "hook" if other.state == "failed" => self.failed_hooks.push(other.name),
            "stopped" => {
                self.is_whole = true;
                let is_loss = |lost: &serde_json::Value| {
                    lost.as_object().is_some_and(|classes| !classes.is_empty())
                };
                self.lost = Some(other.lost)
                    .filter(is_loss)
                    .map(|lost| lost.to_string());
            }
            _ => {}
        }
    }

    /// A printed time as CLOCK_MONOTONIC ns.
    pub fn mono_ns(&self, time: &str) -> Option<u64> {
        let time: Timestamp = time.parse().ok()?;
        u64::try_from(time.as_nanosecond() - i128::from(self.clock_offset_ns)).ok()
    }

    /// All syncs, of incidents and slow ones.
    pub fn syncs(&self) -> impl Iterator<Item = &Sync> {
        let in_incidents = self.told.iter().flat_map(|told| &told.last.syncs);
        in_incidents.chain(&self.slow)
    }
}

fn parse_incident(line: &str) -> Option<Incident> {
    let incident: Incident = serde_json::from_str(line).ok()?;
    (!incident.id.is_empty() && !incident.verdict.is_empty()).then_some(incident)
}

/// The rule that gave the verdict: cited at the end of the first reason.
pub fn rule_of(incident: &Incident) -> Option<&str> {
    let reason = incident.reasons.first()?;
    let (_, cited) = reason.rsplit_once('(')?;
    cited.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_and_updates_belong_to_their_incident() {
        let mut said = Said::default();
        said.add(r#"{"type":"started","clock_offset_ns":1000}"#, 1);
        said.add(r#"{"schema":1,"id":"a","verdict":"UNKNOWN"}"#, 5);
        said.add(r#"{"type":"slow_sync","op":"msync","tid":3}"#, 6);
        let last = r#"{"schema":1,"id":"a","verdict":"STALLED","reasons":["a (b) c (S1)"]}"#;
        said.add(last, 7);
        said.add(r#"{"type":"stopped","lost":{}}"#, 8);
        assert_eq!((said.told.len(), said.slow.len()), (1, 1));
        assert_eq!(said.told[0].first_at_ns, 5);
        assert_eq!(rule_of(&said.told[0].last), Some("S1"));
        assert!(said.is_whole && said.lost.is_none());
        let time = said.mono_ns("1970-01-01T00:00:01.000001500Z");
        assert_eq!(time, Some(1_000_000_500));
    }
}
