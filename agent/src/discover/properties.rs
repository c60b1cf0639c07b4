//! Reads Java properties, but keeps only what an allow-list names: no password
//! of a broker's configuration stays in memory, captures or output. In: bytes.
//! Out: allowed keys and values. Pure.

use std::collections::BTreeMap;

/// Keys that may be kept, exactly.
const ALLOWED: &[&str] = &[
    "log.dirs",
    "log.dir",
    "metadata.log.dir",
    "node.id",
    "broker.id",
    "process.roles",
    "cluster.id",
    "version",
    "directory.id",
    "log.dir.failure.timeout.ms",
    "log.segment.bytes",
    "log.segment.ms",
    "log.roll.ms",
    "log.roll.hours",
    "min.insync.replicas",
    "default.replication.factor",
    "unclean.leader.election.enable",
    "broker.heartbeat.interval.ms",
    "broker.session.timeout.ms",
];

/// Whether a key may be kept: the list above and `log.flush.*`.
#[must_use]
pub fn is_allowed(key: &str) -> bool {
    ALLOWED.contains(&key) || key.starts_with("log.flush.")
}

/// Parses properties text; a later line wins over an earlier one, as in Java.
#[must_use]
pub fn parse_properties(text: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .map(|line| line.trim_ascii_start());
    while let Some(line) = lines.next() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line[0] == b'#' || line[0] == b'!' {
            continue;
        }
        let (key, value) = split_pair(line);
        let key = String::from_utf8_lossy(key);
        let allowed = is_allowed(&key);
        let mut whole = if allowed { value.to_vec() } else { Vec::new() };
        // The lines that continue a refused value are passed over as well:
        // they must not be taken for keys.
        let mut last = value;
        while is_continued(last) {
            let Some(next) = lines.next() else { break };
            let next = next.strip_suffix(b"\r").unwrap_or(next);
            if allowed {
                whole.pop();
                whole.extend_from_slice(next);
            }
            last = next;
        }
        if allowed {
            found.insert(
                key.into_owned(),
                unescape(&String::from_utf8_lossy(whole.trim_ascii_end())),
            );
        }
    }
    found
}

/// Splits at the first `=`, `:` or blank that is not escaped.
fn split_pair(line: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < line.len() && !matches!(line[at], b'=' | b':' | b' ' | b'\t') {
        at += if line[at] == b'\\' { 2 } else { 1 };
    }
    let at = at.min(line.len());
    let rest = line[at..].trim_ascii_start();
    let rest = rest
        .strip_prefix(b"=")
        .or_else(|| rest.strip_prefix(b":"))
        .unwrap_or(rest);
    (&line[..at], rest.trim_ascii_start())
}

fn is_continued(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('u') => {
                let code: String = chars.by_ref().take(4).collect();
                out.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_spellings_are_read() {
        let found = parse_properties(
            b"# c\n! d\nlog.dirs = /a,\\\n   /b\r\nnode.id:7\nprocess.roles broker,controller\nlog.flush.interval.messages=1\nlog.dir=/x\\u0041\\ y\nbroker.id=1\nbroker.id=2",
        );
        assert_eq!(found["log.dirs"], "/a,/b");
        assert_eq!(found["node.id"], "7");
        assert_eq!(found["process.roles"], "broker,controller");
        assert_eq!(found["log.flush.interval.messages"], "1");
        assert_eq!(found["log.dir"], "/xA y");
        assert_eq!(found["broker.id"], "2");
    }

    #[test]
    fn secrets_are_not_kept_even_over_several_lines() {
        let found = parse_properties(
            b"ssl.keystore.password=geheim\nsasl.jaas.config=x \\\n  log.dirs=geheim \\\n  node.id=geheim\nlog.dir=/ok\n",
        );
        assert_eq!(found.len(), 1);
        assert!(!format!("{found:?}").contains("geheim"));
    }

    #[test]
    fn garbage_never_panics() {
        for text in [
            &b"\\"[..],
            b"=",
            b"\xff\xfe\\\n",
            b"log.dirs\\",
            b"log.dirs=\\u12",
            b"log.dirs=\\",
        ] {
            let _ = parse_properties(text);
        }
    }
}
