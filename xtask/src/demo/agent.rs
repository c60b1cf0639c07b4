//! The agent at work beside the demo. In: its binary. Out: its incidents, each
//! as first and last printed, stamped by the clock of the disk's log; then its
//! exit code.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fsyncscope_tests::faultdisk::Stamp;
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;

use super::compare::Told;
use super::ending::Ending;
use crate::incident::parse_line;

/// What it prints on stderr when all hooks are in place.
const ATTACHED: &str = "fsyncscope: attached";

/// All incidents, and how it ended.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// By incident, in order of their first line.
    pub told: Vec<Told>,
    /// The rest of what is looked at.
    pub ending: Ending,
}

/// The agent.
pub struct Agent {
    child: Child,
    stderr: PathBuf,
    output: Arc<Mutex<Output>>,
    reader: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts `watch --json --record` and waits until it is attached.
    pub fn start(lab: &Lab, binary: &Path) -> anyhow::Result<Agent> {
        let stderr = lab.dir().join("agent.err");
        let mut command: Command = lab.command(binary);
        command
            .args(["watch", "--json", "--record"])
            .arg(lab.dir().join("capture.ndjson.zst"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?);
        let mut child =
            proc::spawn(command).with_context(|| format!("start {}", binary.display()))?;
        let stdout = child.stdout.take().context("no pipe from the agent")?;
        let output = Arc::new(Mutex::new(Output::default()));
        let shared = Arc::clone(&output);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut output = shared.lock().unwrap_or_else(|e| e.into_inner());
                output.add(&line, Stamp::now().monotonic_ns);
            }
        });
        let mut agent = Agent {
            child,
            stderr,
            output,
            reader: Some(reader),
        };
        agent.wait_until_attached()?;
        Ok(agent)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    fn wait_until_attached(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !self.said().contains(ATTACHED) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended early, {status}: {}", self.said().trim());
            }
            if begin.elapsed() > Duration::from_secs(30) {
                bail!(
                    "the agent is not attached after 30 s: {}",
                    self.said().trim()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What it has printed until now.
    pub fn output(&self) -> Output {
        self.output
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }

    /// Ends it as Ctrl-C does. Out: all that it printed, and its exit code.
    pub fn stop(mut self) -> anyhow::Result<(Output, i32)> {
        let status = proc::end(&mut self.child, libc::SIGINT, Duration::from_secs(15))?;
        if let Some(reader) = self.reader.take() {
            // The pipe is closed with the process.
            let _ = reader.join();
        }
        let code = status.and_then(|status| status.code());
        let code = code
            .with_context(|| format!("the agent did not end in order: {}", self.said().trim()))?;
        Ok((self.output(), code))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.child, libc::SIGINT, Duration::from_secs(5));
    }
}

impl Output {
    fn add(&mut self, line: &str, at_ns: u64) {
        let Some(incident) = parse_line(line) else {
            self.ending.add(line);
            return;
        };
        match self
            .told
            .iter_mut()
            .find(|told| told.last.id == incident.id)
        {
            Some(told) => {
                told.last = incident;
                told.last_line = line.to_string();
            }
            None => self.told.push(Told {
                first_at_ns: at_ns,
                first: incident.clone(),
                last: incident,
                last_line: line.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_belong_to_their_incident() {
        let mut output = Output::default();
        output.add(r#"{"id":"a","verdict":"UNKNOWN"}"#, 5);
        output.add(r#"{"id":"b","verdict":"STALLED"}"#, 6);
        output.add(r#"{"id":"a","verdict":"CONFIRMED"}"#, 7);
        output.add("no incident", 8);
        output.add(r#"{"type":"slow_sync"}"#, 9);
        assert_eq!(output.ending.slow_syncs, 1);
        assert_eq!(output.told.len(), 2);
        assert_eq!(output.told[0].first_at_ns, 5);
        assert_eq!(output.told[0].first.verdict, "UNKNOWN");
        assert_eq!(output.told[0].last.verdict, "CONFIRMED");
        assert!(output.told[0].last_line.contains("CONFIRMED"));
    }
}
