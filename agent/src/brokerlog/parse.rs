//! Takes a log line apart: time, level, message, logger. Knows Kafka's default
//! layout `[%d] %p %m (%c)%n` and its epoch and ISO 8601 variants, with an
//! optional `[thread]` before the level. In: a line, or a joined record. Out:
//! [`LogRecord`]. Other layouts give `None`.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::joiner::{RawRecord, Stamp};
use super::timestamp::parse_time;

/// log4j's levels, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// FATAL.
    Fatal,
    /// ERROR.
    Error,
    /// WARN.
    Warn,
    /// INFO.
    Info,
    /// DEBUG.
    Debug,
    /// TRACE.
    Trace,
}

impl Level {
    /// The level that a word names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "FATAL" => Self::Fatal,
            "ERROR" => Self::Error,
            "WARN" => Self::Warn,
            "INFO" => Self::Info,
            "DEBUG" => Self::Debug,
            "TRACE" => Self::Trace,
            _ => return None,
        })
    }

    /// As log4j prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

/// A record of the broker's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// The time printed in the line, nanoseconds since 1970; the broker's own
    /// clock and zone. None where the digits are no date.
    pub time: Option<i64>,
    /// Level.
    pub level: Level,
    /// The last parenthesised word of the message; empty if there is none.
    pub logger: String,
    /// Message without logger.
    pub message: String,
    /// Thread, where the layout prints it.
    pub thread: Option<String>,
    /// Continuation lines.
    pub stack: Vec<String>,
    /// The first line as it was printed.
    pub line: String,
    /// Some of the record was cut off.
    pub truncated: bool,
    /// Arrival at the follower.
    pub stamp: Stamp,
}

/// Takes one line apart. `tz` applies where the time has no offset.
#[must_use]
pub fn parse_line(line: &str, tz: &TimeZone) -> Option<LogRecord> {
    let (time, rest) = parse_time(line, tz)?;
    let (rest, thread) = take_thread(rest.trim_start_matches([' ', '-']));
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let level = Level::parse(word.trim_matches(['[', ']', ':']))?;
    let (message, logger) = split_logger(rest.trim());
    Some(LogRecord {
        time,
        level,
        logger: logger.to_owned(),
        message: message.to_owned(),
        thread: thread.map(str::to_owned),
        stack: Vec::new(),
        line: line.to_owned(),
        truncated: false,
        stamp: Stamp::default(),
    })
}

/// Takes a joined record apart. A message of several lines carries its logger
/// at the end of its last line (Kafka's dump of its configuration does).
#[must_use]
pub fn parse_record(raw: &RawRecord, tz: &TimeZone) -> Option<LogRecord> {
    let mut record = parse_line(&raw.first, tz)?;
    record.truncated = raw.truncated;
    record.stamp = raw.stamp;
    record.stack.clone_from(&raw.stack);
    if record.logger.is_empty() {
        let end = raw
            .stack
            .iter()
            .position(|line| line.starts_with("\tat "))
            .unwrap_or(raw.stack.len());
        let found = raw.stack[..end]
            .iter()
            .map(|line| split_logger(line).1)
            .find(|logger| !logger.is_empty());
        record.logger = found.unwrap_or_default().to_owned();
    }
    Some(record)
}

/// `[thread] rest`, where the bracket does not hold the level itself.
fn take_thread(text: &str) -> (&str, Option<&str>) {
    let inner = text
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'));
    match inner {
        Some((thread, rest)) if Level::parse(thread.trim()).is_none() => {
            (rest.trim_start(), Some(thread))
        }
        _ => (text, None),
    }
}

/// Cuts the last parenthesised word off, if it looks like a logger.
fn split_logger(text: &str) -> (&str, &str) {
    let trimmed = text.trim_end();
    let found = trimmed.strip_suffix(')').and_then(|body| {
        let open = body.rfind('(')?;
        let name = &body[open + 1..];
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._$-".contains(&b));
        is_name.then(|| (body[..open].trim_end(), name))
    });
    found.unwrap_or((trimmed, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> LogRecord {
        parse_line(line, &TimeZone::UTC).unwrap()
    }

    #[test]
    fn default_layout_is_taken_apart() {
        let record = parse(
            "[2026-11-23 22:37:30,827] ERROR Error (really) while x (exclusive) (kafka.log.UnifiedLog$)",
        );
        assert_eq!(record.time, Some(1_795_473_450_827_000_000));
        assert_eq!(record.level, Level::Error);
        assert_eq!(record.logger, "kafka.log.UnifiedLog$");
        assert_eq!(record.message, "Error (really) while x (exclusive)");
    }

    #[test]
    fn thread_and_padding_variants_parse() {
        for line in [
            "[2026-11-23T22:37:30.827Z] [kafka-scheduler-1] WARN  [Broker id=1] x (state.change.logger)",
            "2026-11-23 22:37:30,827 [kafka-scheduler-1] WARN  [Broker id=1] x (state.change.logger)",
        ] {
            let record = parse(line);
            assert_eq!(record.level, Level::Warn);
            assert_eq!(record.thread.as_deref(), Some("kafka-scheduler-1"));
            assert_eq!(record.message, "[Broker id=1] x");
        }
    }

    #[test]
    fn logger_must_end_the_line() {
        assert_eq!(parse("[1795473450827] INFO took 5 (ms) today").logger, "");
        assert_eq!(
            parse("[1795473450827] INFO took (5 ms)").message,
            "took (5 ms)"
        );
    }

    #[test]
    fn foreign_layouts_are_refused() {
        for line in [
            "",
            "[2026-11-23 22:37:30,827]",
            "[2026-11-23 22:37:30,827] hello",
            "INFO x (y)",
        ] {
            assert_eq!(parse_line(line, &TimeZone::UTC), None, "{line}");
        }
    }

    #[test]
    fn multi_line_message_has_its_logger_at_its_end() {
        let raw = RawRecord {
            first: "[2026-11-23 22:37:30,827] INFO KafkaConfig values: ".into(),
            stack: vec![
                "\tlog.dirs = /a".into(),
                " (kafka.server.KafkaConfig)".into(),
            ],
            ..RawRecord::default()
        };
        assert_eq!(
            parse_record(&raw, &TimeZone::UTC).unwrap().logger,
            "kafka.server.KafkaConfig"
        );
    }
}
