//! Storage lines of brokers' logs. In: lines, ticks. Out: lines attached to
//! the case that explains them, else, after a wait for the kernel side, cases
//! of their own that are UNKNOWN. A line that cannot be true makes no case.

use super::Core;
use super::case::{Case, Class, Key, NO_SLOT, Origin};
use super::line::{LineFact, Tie};
use super::output::Output;
use crate::brokerlog::{EventRole, StorageEventKind, check_plausible};
use crate::event::BrokerLogEvent;

/// The kernel side of a line may arrive this much later than the line.
const HOLD_NS: u64 = 2_000_000_000;
/// Consequences follow their error within this time.
const CONSEQUENCE_NS: u64 = 60_000_000_000;
/// Lines held back; beyond it the oldest is judged at once.
const MAX_PENDING: usize = 256;

impl Core {
    pub(super) fn on_broker_log(
        &mut self,
        event: &BrokerLogEvent,
        arrival_ns: u64,
        out: &mut Vec<Output>,
    ) {
        let log_dirs = self.world.log_dirs_of(event.broker);
        if let Err(why) = check_plausible(&event.storage, &log_dirs) {
            let text = format!(
                "{}:{} is not believed: {why}",
                event.file, event.line_number
            );
            self.notice(out, "debug", text);
            return;
        }
        let printed_ns = event
            .storage
            .time
            .map(|time| self.world.mono_of_realtime(time));
        let line = LineFact::new(event.clone(), printed_ns, arrival_ns);
        if line.role() == EventRole::Info {
            self.on_info_line(line, out);
        } else if event.history || line.mono_ns < self.world.start.attached_ns {
            self.judge_alone(line, Origin::History, out);
        } else if !line.is_io_exception() {
            self.judge_alone(line, Origin::OtherException, out);
        } else if let Some(line) = self.attach(line, out) {
            self.pending.push_back(line);
            if self.pending.len() > MAX_PENDING
                && let Some(oldest) = self.pending.pop_front()
            {
                self.judge_alone(oldest, Origin::Lines, out);
            }
        }
    }

    /// Recovery, heartbeats: they colour a case and never make one.
    fn on_info_line(&mut self, line: LineFact, out: &mut Vec<Output>) {
        let is_live = !line.event.history && line.mono_ns >= self.world.start.attached_ns;
        let mut stalls = self.cases.values_mut().filter(|case| {
            case.key.class == Class::Stall
                && case.is_open
                && case.brokers.contains(&line.event.broker)
        });
        if is_live && let Some(case) = stalls.next() {
            case.add_line(line);
            case.is_dirty = true;
            return;
        }
        let text = format!(
            "{}: {}",
            self.world.broker_name(line.event.broker),
            line.event.storage.message
        );
        self.notice(out, "debug", text);
    }

    /// Attaches a line to the case that it ties to best; gives it back if none.
    fn attach(&mut self, mut line: LineFact, out: &mut Vec<Output>) -> Option<LineFact> {
        let Some((tie, key)) = self.best_case(&line) else {
            return Some(line);
        };
        line.tie = tie;
        if let Some(case) = self.cases.get_mut(&key) {
            case.last_ns = case.last_ns.max(line.mono_ns);
            case.add_line(line);
        }
        self.emit_or_mark(&key, out);
        None
    }

    fn best_case(&self, line: &LineFact) -> Option<(Tie, Key)> {
        let failures = || self.cases.iter().filter(|(key, _)| is_failure(key));
        let is_only = failures()
            .filter(|(_, case)| case.brokers.contains(&line.event.broker))
            .count()
            == 1;
        failures()
            .filter_map(|(key, case)| {
                let tie = line.tie_to(case, is_only)?;
                Some((tie, case.last_ns, key))
            })
            .max_by_key(|(tie, last_ns, _)| (*tie, *last_ns))
            .map(|(tie, _, key)| (tie, key.clone()))
    }

    /// Lines that waited for `key`'s failure.
    pub(super) fn attach_pending(&mut self, key: &Key) {
        let pending = std::mem::take(&mut self.pending);
        for mut line in pending {
            match self.best_case(&line) {
                Some((tie, best)) if best == *key => {
                    line.tie = tie;
                    if let Some(case) = self.cases.get_mut(key) {
                        case.add_line(line);
                    }
                }
                _ => self.pending.push_back(line),
            }
        }
    }

    pub(super) fn expire_lines(&mut self, out: &mut Vec<Output>) {
        let now_ns = self.world.now_ns;
        while self
            .pending
            .front()
            .is_some_and(|line| now_ns >= line.arrival_ns + HOLD_NS)
        {
            if let Some(line) = self.pending.pop_front() {
                self.judge_alone(line, Origin::Lines, out);
            }
        }
    }

    /// At the end nothing more can come.
    pub(super) fn flush_lines(&mut self, out: &mut Vec<Output>) {
        while let Some(line) = self.pending.pop_front() {
            self.judge_alone(line, Origin::Lines, out);
        }
    }

    /// A line without its kernel side.
    fn judge_alone(&mut self, line: LineFact, origin: Origin, out: &mut Vec<Output>) {
        let storage = &line.event.storage;
        if line.role() == EventRole::Consequence {
            let followed = self
                .cases
                .iter()
                .filter(|(_, case)| self.is_followed_by(case, &line, origin))
                .max_by_key(|(_, case)| case.last_ns)
                .map(|(key, _)| key.clone());
            if let Some(key) = followed {
                if let Some(case) = self.cases.get_mut(&key) {
                    case.add_line(line);
                }
                self.emit_or_mark(&key, out);
                return;
            }
            if !takes_dir_offline(storage.kind) {
                let text = format!(
                    "{}: {}",
                    self.world.broker_name(line.event.broker),
                    storage.message
                );
                self.notice(
                    out,
                    if origin == Origin::History {
                        "debug"
                    } else {
                        "info"
                    },
                    text,
                );
                return;
            }
        }
        let named = storage.dir.as_deref().or(storage.file.as_deref());
        let root = named
            .and_then(|path| self.world.root_of_path(line.event.broker, path))
            .unwrap_or(NO_SLOT);
        let class = storage.errno.map_or(Class::Io, Class::of_errno);
        let key = Key {
            class,
            broker: line.event.broker,
            root,
            dev: self.world.dev_of_root(root),
            origin,
        };
        let (case, _) = self.open_case(&key, line.mono_ns.max(1));
        (case.broker, case.root) = (line.event.broker, root);
        case.add_place(line.event.broker, root);
        case.last_ns = case.last_ns.max(line.mono_ns);
        case.add_line(line);
        self.set_space(&key);
        self.emit_or_mark(&key, out);
    }

    fn is_followed_by(&self, case: &Case, line: &LineFact, origin: Origin) -> bool {
        let storage = &line.event.storage;
        let is_same_time = (case.key.origin == Origin::History) == (origin == Origin::History);
        let roots: Vec<&str> = case
            .roots
            .iter()
            .filter_map(|&root| self.world.root_path(root))
            .collect();
        let is_same_dir = match &storage.dir {
            Some(dirs) if !roots.is_empty() => dirs
                .split(", ")
                .any(|dir| roots.contains(&dir.trim_end_matches('/'))),
            _ => true,
        };
        case.key.class != Class::Stall
            && case.brokers.contains(&line.event.broker)
            && is_same_time
            && is_same_dir
            && line.mono_ns.abs_diff(case.last_ns) <= CONSEQUENCE_NS
    }
}

fn is_failure(key: &Key) -> bool {
    key.class != Class::Stall && key.origin == Origin::Syncs
}

fn takes_dir_offline(kind: StorageEventKind) -> bool {
    use StorageEventKind as Kind;
    matches!(
        kind,
        Kind::StoppingReplicas
            | Kind::StoppingLogs
            | Kind::AllDirsFailed
            | Kind::LogDirLoadError
            | Kind::UncaughtTaskError
    )
}
