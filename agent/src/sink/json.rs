//! NDJSON: one object an output. In: outputs. Out: lines. An incident is the
//! bare object of docs/OUTPUT.md and is known by `schema`; everything else
//! carries `type`.

use serde::Serialize;
use serde_json::{Value, json};

use crate::correlate::Output;

/// Renders outputs as NDJSON. Holds no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonSink;

impl JsonSink {
    /// The line of `output`.
    #[must_use]
    pub fn render(&mut self, output: &Output) -> String {
        let line = match output {
            Output::Incident(incident) => serde_json::to_string(incident),
            Output::Started(started) => typed("started", started),
            Output::BrokerSeen(broker) => typed("broker", broker),
            Output::Hook(hook) => typed("hook", hook),
            Output::SlowSync(slow) => typed("slow_sync", slow),
            Output::Notice { time, level, text } => typed(
                "notice",
                &json!({"time": time, "level": level, "text": text}),
            ),
            Output::Summary(summary) => typed("summary", summary),
            Output::Stopped(stopped) => typed("stopped", stopped),
        };
        // Outputs hold no map with keys that are not strings: this cannot fail.
        line.map_or_else(
            |error| format!("{{\"type\":\"error\",\"text\":\"{error}\"}}\n"),
            |line| line + "\n",
        )
    }
}

fn typed(kind: &str, value: &impl Serialize) -> serde_json::Result<String> {
    let mut object = serde_json::Map::new();
    object.insert("type".to_owned(), Value::from(kind));
    if let Value::Object(fields) = serde_json::to_value(value)? {
        object.extend(fields);
    }
    serde_json::to_string(&object)
}
