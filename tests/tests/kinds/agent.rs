//! `fsyncscope watch --json` on the test's own process, and what it has printed.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const BINARY_VARIABLE: &str = "FSYNCSCOPE_BIN";

/// See the module's comment.
pub struct Agent {
    process: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    stderr: PathBuf,
}

impl Agent {
    /// Starts it, and waits until it follows this process and its directory.
    pub fn start(lab: &Lab, log_dir: &Path) -> Agent {
        Self::of_process(lab, std::process::id(), log_dir)
    }

    /// The same for another process.
    pub fn of_process(lab: &Lab, pid: u32, log_dir: &Path) -> Agent {
        let binary = PathBuf::from(env::var_os(BINARY_VARIABLE).unwrap_or_default());
        assert!(
            binary.is_file(),
            "set {BINARY_VARIABLE} to a built fsyncscope: {binary:?} is no file"
        );
        let stderr = lab.dir().join("agent.err");
        // Else it would follow what this process prints.
        let log = lab.dir().join("server.log");
        fs::write(&log, "").unwrap();
        let mut command = lab.command(binary);
        command
            .args(["watch", "--json", "--pid", &pid.to_string()])
            .args(["--stall", "500ms", "--duration", "90s", "--log-dir"])
            .arg(log_dir)
            .arg("--follow-log")
            .arg(log)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&stderr).unwrap());
        let mut process = proc::spawn(command).unwrap();
        let stdout = process.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line);
                let value = value.unwrap_or_else(|err| panic!("{err} in {line}"));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut agent = Agent {
            process,
            lines,
            seen: Vec::new(),
            stderr,
        };
        agent.wait_for("broker", |line| {
            (line["type"] == "broker" && line["pid"] == pid).then_some(Value::Null)
        });
        agent
    }

    /// Waits for the first line in which something is found, from now on.
    pub fn wait_for(
        &mut self,
        what: &str,
        find: impl Fn(&Value) -> Option<Value>,
    ) -> (Value, Value) {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {what}; {}", self.story());
            };
            self.seen.push(line.clone());
            if let Some(found) = find(&line) {
                return (line, found);
            }
        }
    }

    /// Ends it as Ctrl-C does, and returns all that it has printed.
    pub fn finish(mut self) -> Vec<Value> {
        proc::signal(self.process.id(), libc::SIGINT).unwrap();
        let status = proc::wait(&mut self.process, LIMIT).unwrap();
        assert!(status.is_some(), "still there: {}", self.story());
        self.seen.extend(self.lines.iter());
        let last = self.seen.last();
        assert!(
            last.is_some_and(|line| line["type"] == "stopped"),
            "{}",
            self.story()
        );
        std::mem::take(&mut self.seen)
    }

    fn story(&self) -> String {
        let lines: Vec<String> = self.seen.iter().map(Value::to_string).collect();
        let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
        format!("printed:\n{}\nstderr:\n{stderr}", lines.join("\n"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.process, libc::SIGTERM, Duration::from_secs(10));
    }
}

/// The syncs of a line: those of an incident, or the slow one that it is.
pub fn syncs(line: &Value) -> impl Iterator<Item = &Value> {
    let of_incident = line["syncs"].as_array().into_iter().flatten();
    of_incident.chain((line["type"] == "slow_sync").then_some(line))
}
