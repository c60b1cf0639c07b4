//! `fsyncscope watch --json` as several tests of the live ring need it: started in
//! the lab, every line kept, ended in order or with its owner. The binary is the
//! one that `FSYNCSCOPE_BIN` names; nothing of it is linked in here.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;
use serde_json::Value;

/// Where in the lab's folder everything lies that the agent has printed.
pub const PRINTED: &str = "agent.out";
/// For one line to come, and for the end.
pub const LIMIT: Duration = Duration::from_secs(30);
const BINARY_VARIABLE: &str = "FSYNCSCOPE_BIN";

/// The agent's binary.
pub fn binary() -> PathBuf {
    let path = PathBuf::from(env::var_os(BINARY_VARIABLE).unwrap_or_default());
    assert!(
        path.is_file(),
        "set {BINARY_VARIABLE} to a built fsyncscope: {path:?} is no file"
    );
    path
}

/// See the module's comment.
pub struct Watch {
    process: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    stderr: PathBuf,
}

impl Watch {
    /// Watches one process.
    pub fn start(lab: &Lab, pid: u32, args: &[&str]) -> Watch {
        let stderr = lab.dir().join("agent.err");
        let mut command = lab.command(binary());
        command
            .args(["watch", "--json", "--pid", &pid.to_string()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&stderr).unwrap());
        let mut process = proc::spawn(command).unwrap();
        let stdout = process.stdout.take().unwrap();
        let mut printed = fs::File::create(lab.dir().join(PRINTED)).unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                writeln!(printed, "{line}").unwrap();
                let value = serde_json::from_str(&line);
                let value = value.unwrap_or_else(|err| panic!("{err} in {line}"));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Watch {
            process,
            lines,
            seen: Vec::new(),
            stderr,
        }
    }

    /// Waits for the first line in which something is found, from now on.
    pub fn wait_for<T>(&mut self, what: &str, find: impl Fn(&Value) -> Option<T>) -> (Value, T) {
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

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.process, libc::SIGTERM, Duration::from_secs(10));
    }
}
