//! Things worth a line that are no incident, and how often they may be said.
//! In: from `correlate`. Out: notices. Bounded.

use std::collections::BTreeMap;

use fsyncscope_abi::loss::Loss;

use super::Core;
use super::bounded::Lru;
use super::output::Output;

/// One topic is mentioned at most this often.
const EVERY_NS: u64 = 60_000_000_000;
const MAX_TOPICS: usize = 256;

/// See the module's comment.
#[derive(Debug)]
pub(super) struct Notices {
    said: Lru<String, Option<u64>>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            said: Lru::new(MAX_TOPICS),
        }
    }
}

impl Notices {
    /// Whether `topic` may be mentioned now.
    pub(super) fn allow(&mut self, topic: &str, now_ns: u64) -> bool {
        let last = self.said.touch(&topic.to_owned());
        if last.is_some_and(|last_ns| now_ns < last_ns + EVERY_NS) {
            return false;
        }
        *last = Some(now_ns);
        true
    }
}

impl Core {
    pub(super) fn on_losses(&mut self, total: &BTreeMap<String, u64>, out: &mut Vec<Output>) {
        for (class, &count) in total {
            let before = self.world.losses.insert(class.clone(), count).unwrap_or(0);
            if count > before
                && self
                    .notices
                    .allow(&format!("lost {class}"), self.world.now_ns)
            {
                let what = match class == Loss::HistFull.name() {
                    true => "counts in the summary and in /metrics are short by them",
                    false => "verdicts are less sure",
                };
                self.notice(
                    out,
                    "warn",
                    format!("events were lost: {class}, {count} so far; {what}"),
                );
            }
        }
    }

    pub(super) fn on_log_file(
        &mut self,
        broker: u16,
        file: &str,
        state: &str,
        why: &str,
        out: &mut Vec<Output>,
    ) {
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        let level = if matches!(state, "opened" | "rotated") {
            "info"
        } else {
            "warn"
        };
        let text = format!(
            "log of {}, {file}, {state}{why}",
            self.world.broker_name(broker)
        );
        self.notice(out, level, text);
    }
}
