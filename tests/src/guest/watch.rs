//! The agent in the guest: `watch --json` over a writer. Out: its lines, each
//! with the moment at which it was read; the incidents among them, as first and
//! as last printed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::expect::Told;
use super::protocol::AGENT_PATH;
use super::said;
use crate::incident::parse_line;
use crate::proc;

/// What it prints on stderr when all hooks are in place.
const ATTACHED: &str = "fsyncscope: attached";

/// Programs are verified by an emulated machine.
const ATTACH_LIMIT: Duration = Duration::from_secs(120);

/// The agent did not do what it is for: its failure, not the lab's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AgentError(pub String);

/// The agent.
pub struct Watch {
    child: Child,
    stderr: PathBuf,
    capture: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it and waits until it is attached.
    pub fn start(nth: usize, stall: &str, args: &[String]) -> anyhow::Result<Self> {
        let stderr = PathBuf::from(format!("/tmp/agent-{nth}.err"));
        let capture = PathBuf::from(format!("/tmp/agent-{nth}.ndjson.zst"));
        let mut command = Command::new(AGENT_PATH);
        command
            .args(["watch", "--json", "--verbose", "--stall", stall, "--record"])
            .arg(&capture)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?);
        let mut child = proc::spawn(command).with_context(|| format!("start {AGENT_PATH}"))?;
        let stdout = child.stdout.take().context("no pipe from the agent")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                shared.lock().unwrap_or_else(|e| e.into_inner()).push(line);
            }
        });
        let mut watch = Watch {
            child,
            stderr,
            capture,
            lines,
            reader: Some(reader),
        };
        watch.wait_until_attached()?;
        Ok(watch)
    }

    fn wait_until_attached(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !self.complaint().contains(ATTACHED) {
            if let Some(trouble) = self.trouble() {
                bail!(AgentError(trouble));
            }
            if begin.elapsed() > ATTACH_LIMIT {
                let complaint = self.complaint();
                bail!(AgentError(format!(
                    "the agent is not attached after {ATTACH_LIMIT:?}: {}",
                    complaint.trim()
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub fn trouble(&mut self) -> Option<String> {
        let how = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(err) => err.to_string(),
        };
        let complaint = self.complaint();
        Some(format!(
            "the agent ended early, {how}: {}",
            complaint.trim()
        ))
    }

    /// What it has said on stderr.
    pub fn complaint(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its capture.
    pub fn capture(&self) -> &Path {
        &self.capture
    }

    /// What it has said on stderr, as a file.
    pub fn stderr(&self) -> &Path {
        &self.stderr
    }

    /// How many lines it has printed.
    pub fn len(&self) -> usize {
        self.lines.lock().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// Whether it has printed nothing yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lines from that one on.
    pub fn lines_from(&self, first: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
        lines.get(first..).unwrap_or_default().to_vec()
    }

    /// Whether it has told of this broker, and reads its log.
    pub fn knows_broker(&self, pid: u32) -> bool {
        let lines = self.lines_from(0);
        let mut lines = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_broker = |line: &Value| line["type"] == "broker" && line["pid"] == pid;
        let opens_log = |line: &Value| {
            let text = line["text"].as_str().unwrap_or_default();
            line["type"] == "notice" && text.starts_with("log of ") && text.ends_with(", opened")
        };
        // The log is opened after the broker is told of.
        lines.any(|line| is_broker(&line)) && lines.any(|line| opens_log(&line))
    }

    /// The incidents among the lines from that one on, see [`told_since`].
    pub fn told_from(&self, first: usize) -> Vec<Told> {
        told_since(&self.lines_from(0), first)
    }

    /// Ends it as Ctrl-C does.
    ///
    /// # Errors
    /// It did not end in order, or its exit code is not that of what it has said.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let status = proc::end(&mut self.child, libc::SIGINT, Duration::from_secs(30))?;
        if let Some(reader) = self.reader.take() {
            // The pipe is closed with the process.
            let _ = reader.join();
        }
        let code = status.and_then(|status| status.code());
        let wanted = said::exit_code(&self.lines_from(0));
        if code == Some(wanted) {
            return Ok(());
        }
        let code = code.map_or("no exit code".to_owned(), |code| {
            format!("exit code {code}")
        });
        let complaint = self.complaint();
        bail!(AgentError(format!(
            "the agent ended with {code} instead of {wanted}: {}",
            complaint.trim()
        )))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.child, libc::SIGINT, Duration::from_secs(5));
    }
}

/// The incidents among the lines from that one on, but for those that were told of before
/// it with the same verdict and cause: they end in their own time.
pub fn told_since(lines: &[String], first: usize) -> Vec<Told> {
    let (before, since) = lines.split_at(first.min(lines.len()));
    let before = collect(before);
    let is_known = |told: &Told| {
        let last = &told.last;
        (before.iter().map(|told| &told.last)).any(|old| {
            old.id == last.id && (&old.verdict, &old.cause) == (&last.verdict, &last.cause)
        })
    };
    let mut told = collect(since);
    told.retain(|told| !is_known(told));
    told
}

/// Incidents in the order of their first lines.
pub fn collect(lines: &[String]) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    for line in lines {
        let Some(incident) = parse_line(line) else {
            continue;
        };
        match told.iter_mut().find(|told| told.last.id == incident.id) {
            Some(told) => {
                told.was_in_flight |= incident.syncs.iter().any(|sync| sync.in_flight);
                told.last = incident;
                told.last_line = line.clone();
            }
            None => told.push(Told {
                was_in_flight: incident.syncs.iter().any(|sync| sync.in_flight),
                first: incident.clone(),
                last: incident,
                last_line: line.clone(),
            }),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_that_was_in_flight_is_remembered_as_such() {
        let lines = [
            r#"{"id":"a","verdict":"STALLED","syncs":[{"in_flight":true}]}"#,
            r#"{"type":"notice"}"#,
            r#"{"id":"a","verdict":"STALLED","syncs":[{"duration_ns":7}]}"#,
            r#"{"id":"b","verdict":"CONFIRMED"}"#,
        ];
        let told = collect(&lines.map(str::to_owned));
        assert_eq!(told.len(), 2);
        assert!(told[0].was_in_flight && !told[0].last.syncs[0].in_flight);
        assert!(told[0].first.syncs[0].in_flight);
        assert!(!told[1].was_in_flight);
    }

    #[test]
    fn an_incident_of_before_may_end_and_not_become_another() {
        let line = |id: &str, verdict: &str| format!(r#"{{"id":"{id}","verdict":"{verdict}"}}"#);
        let mut lines = vec![line("a", "STALLED")];
        lines.extend([line("a", "STALLED"), line("b", "CONFIRMED")]);
        let ids = |lines: &[String]| -> Vec<String> {
            let told = told_since(lines, 1).into_iter();
            told.map(|told| told.last.id).collect()
        };
        assert_eq!(ids(&lines), ["b"]);
        lines.push(line("a", "CONFIRMED"));
        assert_eq!(ids(&lines), ["a", "b"]);
    }
}
