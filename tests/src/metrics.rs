//! `/metrics` as a scraper sees it. In: an address, or the text that was served.
//! Out: samples to look up and to add up, and what `promtool` says of the text.
//! A reader of its own, not the agent's types: it reads what is served.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// One line of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Of the series, with `_count` and the like.
    pub name: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// Whether it has all these labels, among others.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        let has = |(name, value): &(&str, &str)| {
            self.labels.get(*name).map(String::as_str) == Some(*value)
        };
        labels.iter().all(has)
    }
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    /// As it was served.
    pub text: String,
    /// From the request's begin to the answer's end.
    pub took: Duration,
    /// Its lines.
    pub samples: Vec<Sample>,
}

impl Scrape {
    /// The series of a name with these labels, among others.
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let samples = self.samples.iter();
        samples
            .filter(|sample| sample.name == name && sample.has(labels))
            .collect()
    }

    /// Their sum; `None` if there is no such series, which is not the same as 0.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let series = self.series(name, labels);
        (!series.is_empty()).then(|| series.iter().map(|sample| sample.value).sum())
    }
}

/// Asks for /metrics.
pub fn scrape(addr: SocketAddr, limit: Duration) -> anyhow::Result<Scrape> {
    let begin = Instant::now();
    let text = get(addr, "/metrics", limit).with_context(|| format!("scrape {addr}"))?;
    let took = begin.elapsed();
    let samples = parse(&text)?;
    Ok(Scrape {
        text,
        took,
        samples,
    })
}

/// HTTP/1.0, so that the answer is the rest of the stream.
fn get(addr: SocketAddr, path: &str, limit: Duration) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of header")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{status}: {}", body.trim());
    }
    Ok(body.to_owned())
}

/// All samples of a text in Prometheus' format.
pub fn parse(text: &str) -> anyhow::Result<Vec<Sample>> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse_line(line).with_context(|| format!("read the sample `{line}`")))
        .collect()
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = parse_value(quoted)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: rest.trim().parse().ok()?,
    })
}

/// A label's value up to its closing quote, and what comes behind that.
fn parse_value(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// `promtool check metrics` on this text: an error with its words unless it
/// accepts it.
pub fn check_with_promtool(text: &str) -> anyhow::Result<()> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run promtool (Debian's package prometheus has it)")?;
    let mut stdin = child.stdin.take().context("promtool without stdin")?;
    // It reads to the end before it prints: neither side can wait for the other.
    let sent = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("wait for promtool")?;
    sent.context("hand the text to promtool")?;
    if !output.status.success() {
        bail!(
            "promtool check metrics: {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total Things.\n# TYPE a_total counter\n\
        a_total{dir=\"/d \\\"x\\\", y\",op=\"fsync\"} 3\n\
        a_total{dir=\"/e\",op=\"fsync\"} 4\n\
        a_total{dir=\"/e\",op=\"msync\"} 0\n\
        up 1e3\n";

    fn scraped() -> Scrape {
        Scrape {
            samples: parse(TEXT).unwrap(),
            ..Scrape::default()
        }
    }

    #[test]
    fn labels_may_hold_quotes_and_commas() {
        let first = &scraped().samples[0];
        assert_eq!(first.labels["dir"], "/d \"x\", y");
        assert_eq!(first.labels["op"], "fsync");
        assert_eq!(scraped().sum("up", &[]), Some(1000.0));
    }

    #[test]
    fn a_sum_of_nothing_is_not_zero() {
        let scrape = scraped();
        assert_eq!(scrape.sum("a_total", &[("op", "fsync")]), Some(7.0));
        assert_eq!(scrape.sum("a_total", &[("op", "msync")]), Some(0.0));
        assert_eq!(scrape.sum("a_total", &[("op", "syncfs")]), None);
    }

    #[test]
    fn what_is_no_sample_is_an_error() {
        for line in ["a{b=\"c} 1", "a{b=\"c\"} x", "a", "<html>"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
