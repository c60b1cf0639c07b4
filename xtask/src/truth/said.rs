//! What the agent said. In: lines of `watch --json`, each with the moment at which
//! it was read. Out: incidents as last printed, slow syncs, notices.

use jiff::Timestamp;
use serde::Deserialize;

use crate::incident::{Incident, Sync, parse_line};

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
        if let Some(incident) = parse_line(line) {
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
