//! What is read out of lines: a broker's log, and what the agent printed beside its
//! incidents. In: text. Out: errnos, hooks, losses. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::incident::parse_line;

/// The errnos of a broker's log, by name, in its texts.
pub fn parse_errnos(log: &str) -> Vec<String> {
    const TEXTS: [(&str, &str); 6] = [
        ("Input/output error", "EIO"),
        ("No data available", "ENODATA"),
        ("No such device", "ENODEV"),
        ("No space left on device", "ENOSPC"),
        ("Read-only file system", "EROFS"),
        ("Structure needs cleaning", "EUCLEAN"),
    ];
    let mut found: Vec<String> = Vec::new();
    for line in log.lines().filter(|line| line.starts_with("java.io.")) {
        for (text, name) in TEXTS {
            if line.contains(text) && !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
            }
        }
    }
    found
}

/// Required hooks that are not there, by what was said of each last.
pub fn missing_hooks(lines: &[String]) -> Vec<String> {
    let mut missing = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let (true, Some(name)) = (line["type"] == "hook", line["name"].as_str()) else {
            continue;
        };
        missing.retain(|known| known != name);
        let is_there = line["state"] != "failed" && line["state"] != "absent";
        if line["required"] == true && !is_there {
            missing.push(name.to_owned());
        }
    }
    missing
}

/// What was lost by all that the agent says of it, incidents, notices and its end: the
/// largest number of each class.
pub fn lost_in(lines: &[String]) -> BTreeMap<String, u64> {
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();
    let mut put = |class: &str, count: u64| {
        let most = lost.entry(class.to_owned()).or_default();
        *most = count.max(*most);
    };
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        for (class, count) in line["lost"].as_object().into_iter().flatten() {
            put(class, count.as_u64().unwrap_or(0));
        }
        if let Some((class, count)) = line["text"].as_str().and_then(parse_notice) {
            put(class, count);
        }
    }
    lost.retain(|_, count| *count > 0);
    lost
}

/// `events were lost: recursion, 3 so far; …`
fn parse_notice(text: &str) -> Option<(&str, u64)> {
    let (class, rest) = text.strip_prefix("events were lost: ")?.split_once(", ")?;
    let (count, _) = rest.split_once(" so far")?;
    Some((class, count.parse().ok()?))
}

/// With what the agent must end after these lines (docs/OUTPUT.md, "Exit codes").
pub fn exit_code(lines: &[String]) -> i32 {
    let has_found = lines.iter().any(|line| parse_line(line).is_some());
    match (has_found, missing_hooks(lines).is_empty()) {
        (true, _) => 1,
        (false, false) => 3,
        (false, true) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_are_read_from_a_brokers_lines() {
        let log = "[t] ERROR Error while flushing log for a-0 (x)\n\
                   java.io.IOException: No data available\n\tat y\n\
                   java.io.UncheckedIOException: java.io.IOException: Input/output error (msync)\n\
                   java.io.IOException: No data available\n";
        assert_eq!(parse_errnos(log), ["ENODATA", "EIO"]);
        assert_eq!(parse_errnos("[t] INFO No space left on device"), [""; 0]);
    }

    #[test]
    fn hooks_and_losses_are_read_from_the_agents_lines() {
        let lines = [
            r#"{"type":"hook","name":"a","required":true,"state":"failed"}"#,
            r#"{"type":"hook","name":"b","required":false,"state":"failed"}"#,
            r#"{"type":"hook","name":"c","required":true,"state":"attached","lost":"text"}"#,
            r#"{"id":"x","verdict":"STALLED","lost":{"ring_full":2,"map_full":0}}"#,
        ]
        .map(str::to_owned);
        assert_eq!(missing_hooks(&lines), ["a"]);
        assert_eq!(
            lost_in(&lines),
            BTreeMap::from([("ring_full".to_owned(), 2)])
        );
    }

    #[test]
    fn what_was_lost_without_an_incident_is_in_notices() {
        let notice = |text: &str| format!(r#"{{"type":"notice","level":"warn","text":"{text}"}}"#);
        let lines = [
            notice("events were lost: recursion, 1 so far; verdicts are less sure"),
            notice("events were lost: recursion, 3 so far; verdicts are less sure"),
            notice("log of broker 1, server.log, opened"),
        ];
        let lost = lost_in(&lines);
        assert_eq!(lost, BTreeMap::from([("recursion".to_owned(), 3)]));
    }

    #[test]
    fn an_exit_code_is_that_of_what_was_said() {
        let hook = r#"{"type":"hook","name":"a","required":true,"state":"failed"}"#;
        let incident = r#"{"id":"x","verdict":"STALLED"}"#;
        let code = |lines: &[&str]| {
            exit_code(&lines.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[incident]), 1);
        assert_eq!(code(&[hook]), 3);
        assert_eq!(code(&[incident, hook]), 1);
        let there = hook.replace("failed", "attached");
        assert_eq!(code(&[hook, &there]), 0);
    }
}
