//! Brokers' logs: one follower process a broker, joined into records, parsed,
//! and reduced to what is about storage. In: follow events; out: events for the
//! core. Touches no log itself.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::tz::TimeZone;
use tokio::sync::mpsc;

use crate::{
    brokerlog::{FollowEvent, FollowOptions, LineJoiner, RawRecord, classify, parse_record},
    discover::Broker,
    event::{BrokerLogEvent, Event},
    helper::{Follower, HelperCommand},
};

/// History read when a log is opened; what is older than [`HISTORY_NS`] in it
/// is passed over.
const HISTORY_BYTES: u64 = 256 * 1024;
/// Ten minutes: an operator starts the tool because something just happened.
const HISTORY_NS: i64 = 600 * 1_000_000_000;

struct Log {
    file: String,
    zone: TimeZone,
    joiner: LineJoiner,
    pending_line: u64,
    task: tokio::task::JoinHandle<()>,
    pid: u32,
}

/// All followed logs by broker slot.
pub struct Logs {
    logs: BTreeMap<u16, Log>,
    tx: mpsc::Sender<(u16, FollowEvent)>,
    forced: Option<PathBuf>,
    started_realtime_ns: i64,
}

impl Logs {
    /// Nothing followed yet; follow events go to `tx`.
    pub fn new(
        tx: mpsc::Sender<(u16, FollowEvent)>,
        forced: Option<PathBuf>,
        started_realtime_ns: i64,
    ) -> Self {
        Logs {
            logs: BTreeMap::new(),
            tx,
            forced,
            started_realtime_ns,
        }
    }

    /// Follows the log of a broker, if that is not done yet.
    pub fn follow(&mut self, slot: u16, broker: &Broker) -> Option<Event> {
        let (file, root) = match (&self.forced, &broker.server_log) {
            (Some(forced), _) => (forced.clone(), None),
            (None, Some(file)) => (
                file.clone(),
                Some(PathBuf::from(format!("/proc/{}/root", broker.pid))),
            ),
            (None, None) => return None,
        };
        let name = file.to_string_lossy().into_owned();
        let history_bytes = match self.logs.get(&slot) {
            Some(log) if log.file == name && log.pid == broker.pid => return None,
            // The same file under another process: its history was seen.
            Some(log) if log.file == name => 0,
            _ => HISTORY_BYTES,
        };
        if let Some(old) = self.logs.remove(&slot) {
            old.task.abort();
        }
        let options = FollowOptions {
            file,
            root,
            history_bytes,
            resume: None,
        };
        let mut follower = match Follower::start(HelperCommand::default(), options) {
            Ok(follower) => follower,
            Err(error) => {
                return Some(Event::LogFile {
                    broker: slot,
                    file: name,
                    state: "unreadable".to_owned(),
                    why: format!("start follower: {error}"),
                });
            }
        };
        let tx = self.tx.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = follower.recv().await {
                if tx.send((slot, event)).await.is_err() {
                    return;
                }
            }
        });
        let zone = broker
            .timezone
            .as_deref()
            .and_then(|name| TimeZone::get(name).ok());
        let log = Log {
            file: name,
            zone: zone.unwrap_or_else(TimeZone::system),
            joiner: LineJoiner::new(),
            pending_line: 0,
            task,
            pid: broker.pid,
        };
        self.logs.insert(slot, log);
        None
    }

    /// Takes a follow event.
    pub fn on_event(&mut self, slot: u16, event: FollowEvent) -> Vec<Event> {
        let Some(log) = self.logs.get_mut(&slot) else {
            return Vec::new();
        };
        let state = |state: &str, why: String| {
            vec![Event::LogFile {
                broker: slot,
                file: log.file.clone(),
                state: state.to_owned(),
                why,
            }]
        };
        match event {
            FollowEvent::Line {
                text,
                truncated,
                stamp,
                line_number,
                ..
            } => {
                let done = log.joiner.push_line(&text, truncated, stamp);
                let number = std::mem::replace(&mut log.pending_line, line_number);
                // A continuation keeps the number of its first line.
                if done.is_none() && number != 0 && log.joiner.is_pending() {
                    log.pending_line = number;
                }
                let started = self.started_realtime_ns;
                done.and_then(|raw| storage_event(slot, log, raw, number, started))
                    .into_iter()
                    .collect()
            }
            FollowEvent::Opened { .. } => state("opened", String::new()),
            FollowEvent::Rotated => state("rotated", String::new()),
            FollowEvent::Truncated => state("truncated", String::new()),
            // The way to the file goes through its process.
            FollowEvent::Missing { .. }
                if !std::path::Path::new(&format!("/proc/{}", log.pid)).exists() =>
            {
                Vec::new()
            }
            FollowEvent::Missing { why } => state("missing", crate::messages::plain(&why)),
            FollowEvent::Silent { for_ms } => state(
                "stalled",
                format!(
                    "nothing was heard of its follower for {for_ms} ms: the disk of the log hangs"
                ),
            ),
            FollowEvent::Resumed => state("opened", "it answers again".to_owned()),
            FollowEvent::Ended {
                why,
                restarted: false,
            } => state("unreadable", why),
            FollowEvent::Alive { .. } | FollowEvent::Ended { .. } => Vec::new(),
        }
    }

    /// Gives out records that wait for no further line.
    pub fn flush(&mut self, now_ns: u64) -> Vec<Event> {
        let started = self.started_realtime_ns;
        let mut events = Vec::new();
        for (slot, log) in &mut self.logs {
            if let Some(raw) = log.joiner.flush(now_ns) {
                let number = std::mem::take(&mut log.pending_line);
                events.extend(storage_event(*slot, log, raw, number, started));
            }
        }
        events
    }
}

/// What a record says about storage, if anything.
fn storage_event(
    slot: u16,
    log: &Log,
    raw: RawRecord,
    line_number: u64,
    started_realtime_ns: i64,
) -> Option<Event> {
    let record = parse_record(&raw, &log.zone)?;
    let storage = classify(&record)?;
    if record.stamp.history
        && record
            .time
            .is_none_or(|time| time < started_realtime_ns - HISTORY_NS)
    {
        return None;
    }
    Some(Event::BrokerLog(BrokerLogEvent {
        broker: slot,
        file: log.file.clone(),
        line_number,
        arrival_realtime_ns: record.stamp.realtime_ns,
        history: record.stamp.history,
        record,
        storage,
    }))
}
