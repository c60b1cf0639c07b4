//! The guest's end of the line to the host. In: a [`FromGuest`]. Out: the host's
//! answer, where there is one. A host that does not answer in time is an error
//! of the lab.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::base64;
use super::protocol::{FILE_CHUNK_BYTES, FromGuest, ToGuest};
use crate::faultdisk::{Rule, TruthEntry, TruthRequest};

/// How long the host may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// The line.
#[derive(Debug)]
pub struct Host {
    port: File,
    reader: BufReader<File>,
}

impl Host {
    /// Opens the port.
    pub fn open(device: &Path) -> anyhow::Result<Self> {
        let what = || format!("open {}", device.display());
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(device)
            .with_context(what)?;
        let reader = BufReader::new(port.try_clone().with_context(what)?);
        Ok(Host { port, reader })
    }

    /// Says something that wants no answer.
    pub fn say(&mut self, line: &FromGuest) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.port.write_all(&text).context("write to the host")
    }

    /// Tells the person who waits.
    pub fn progress(&mut self, text: &str) -> anyhow::Result<()> {
        self.say(&FromGuest::Progress {
            text: text.to_owned(),
        })
    }

    /// Puts these rules in force on the disk.
    pub fn inject(&mut self, rules: &[Rule]) -> anyhow::Result<()> {
        let rules = rules.to_vec();
        self.ask_ok(&FromGuest::Inject { rules })
    }

    /// Takes all rules away.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        self.ask_ok(&FromGuest::Clear)
    }

    /// Unplugs a device.
    pub fn unplug(&mut self, id: &str) -> anyhow::Result<()> {
        let id = id.to_owned();
        self.ask_ok(&FromGuest::DeviceDel { id })
    }

    /// The requests that rules have touched, those still held as well.
    pub fn disk_log(&mut self) -> anyhow::Result<Vec<TruthRequest>> {
        match self.ask(&FromGuest::DiskLog)? {
            ToGuest::DiskLog { entries } => Ok(requests_of(entries)),
            other => bail!("ask the host for the disk's log: got {other:?}"),
        }
    }

    /// Sends a file, if it is there.
    pub fn send_file(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        let Ok(bytes) = std::fs::read(path) else {
            return Ok(());
        };
        for chunk in bytes.chunks(FILE_CHUNK_BYTES) {
            self.say(&FromGuest::File {
                name: name.to_owned(),
                data: base64::encode(chunk),
            })?;
        }
        Ok(())
    }

    fn ask_ok(&mut self, line: &FromGuest) -> anyhow::Result<()> {
        match self.ask(line)? {
            ToGuest::Ok => Ok(()),
            other => bail!("ask the host for {line:?}: got {other:?}"),
        }
    }

    fn ask(&mut self, line: &FromGuest) -> anyhow::Result<ToGuest> {
        self.say(line)?;
        let mut poll = libc::pollfd {
            fd: self.port.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&mut poll, 1, LIMIT.as_millis() as libc::c_int) };
        anyhow::ensure!(ready > 0, "ask the host for {line:?}: no answer");
        let mut text = String::new();
        self.reader
            .read_line(&mut text)
            .context("read from the host")?;
        match serde_json::from_str(&text).context("parse the host's answer")? {
            ToGuest::Error { text } => bail!("the host: {text}"),
            answer => Ok(answer),
        }
    }
}

/// A request that is held and then answered counts once.
fn requests_of(entries: Vec<TruthEntry>) -> Vec<TruthRequest> {
    let mut requests: Vec<TruthRequest> = Vec::new();
    for entry in entries {
        match entry {
            TruthEntry::Rules { .. } => {}
            TruthEntry::Held(request) => requests.push(request),
            TruthEntry::Request(request) => {
                match requests.iter_mut().find(|known| known.seq == request.seq) {
                    Some(known) => *known = request,
                    None => requests.push(request),
                }
            }
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faultdisk::{Op, Stamp};

    fn request(seq: u64, reply: Option<Stamp>) -> TruthRequest {
        let arrival = Stamp {
            realtime_ns: 1,
            monotonic_ns: 1,
        };
        TruthRequest {
            seq,
            op: Op::Write,
            sector: 8,
            bytes: 4096,
            errno: 5,
            delay_ms: 9,
            rule: 0,
            arrival,
            reply,
        }
    }

    #[test]
    fn a_held_request_and_its_answer_are_one() {
        let answered = request(
            1,
            Some(Stamp {
                realtime_ns: 2,
                monotonic_ns: 2,
            }),
        );
        let entries = vec![
            TruthEntry::Held(request(1, None)),
            TruthEntry::Held(request(2, None)),
            TruthEntry::Request(answered.clone()),
        ];
        assert_eq!(requests_of(entries), [answered, request(2, None)]);
    }
}
