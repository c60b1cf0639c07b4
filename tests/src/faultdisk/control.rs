//! How rules reach a disk server while it runs: a unix socket, one JSON object
//! a line each way. `Control` is the owner's end, `serve` the server's.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::server::{Disk, Stats};

/// What the owner asks of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase")]
pub enum Command {
    /// Put these rules in force, in place of all others.
    Set {
        /// The new rules.
        rules: Vec<Rule>,
    },
    /// No rules.
    Clear,
    /// Answer all held requests now.
    Release,
    /// Limit the rate, 0 for no limit.
    Bandwidth {
        /// The rate.
        bytes_per_s: u64,
    },
    /// Only count.
    Stats,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    stats: Stats,
}

/// Serves commands on this socket until the process ends.
pub fn serve(socket: &Path, disk: Arc<Disk>) -> anyhow::Result<()> {
    let listener =
        UnixListener::bind(socket).with_context(|| format!("bind {}", socket.display()))?;
    thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // One owner, short commands: one at a time is enough.
                if let Err(err) = serve_stream(stream, &disk) {
                    eprintln!("control: {err:#}");
                }
            }
        })?;
    Ok(())
}

fn serve_stream(stream: UnixStream, disk: &Disk) -> anyhow::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let error = match serde_json::from_str(&line?) {
            Ok(command) => {
                obey(disk, command);
                None
            }
            Err(err) => Some(format!("parse command: {err}")),
        };
        let answer = Answer {
            error,
            stats: disk.stats(),
        };
        writeln!(writer, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

fn obey(disk: &Disk, command: Command) {
    match command {
        Command::Set { rules } => disk.set_rules(rules),
        Command::Clear => disk.set_rules(Vec::new()),
        Command::Release => disk.release(),
        Command::Bandwidth { bytes_per_s } => disk.set_bandwidth(bytes_per_s),
        Command::Stats => {}
    }
}

/// The owner's end.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// The control of the server that listens here.
    pub fn new(socket: PathBuf) -> Self {
        Control { socket }
    }

    /// Sends one command; it is in force when this returns. The counts come
    /// back with every answer.
    pub fn send(&self, command: &Command) -> anyhow::Result<Stats> {
        let what = || format!("control {}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).with_context(what)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        writeln!(stream, "{}", serde_json::to_string(command)?).with_context(what)?;
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .with_context(what)?;
        let answer: Answer = serde_json::from_str(&line).with_context(what)?;
        match answer.error {
            Some(error) => anyhow::bail!("control {}: {error}", self.socket.display()),
            None => Ok(answer.stats),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::RuleOp;
    use super::*;

    #[test]
    fn commands_have_the_documented_form() {
        let set = Command::Set {
            rules: vec![Rule::on(RuleOp::Flush).delay_ms(1500)],
        };
        let text = r#"{"cmd":"set","rules":[{"op":"flush","delay_ms":1500}]}"#;
        assert_eq!(serde_json::from_str::<Command>(text).unwrap(), set);
    }
}
