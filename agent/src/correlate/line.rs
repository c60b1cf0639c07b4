//! A storage line of a broker's log against the failures that were seen. In:
//! the line and an open case. Out: whether they belong together and how surely.
//! A line that speaks of another exception, errno, directory or time does not.

use super::case::{Case, Seen};
use crate::brokerlog::{EventRole, StorageEventKind};
use crate::event::BrokerLogEvent;

/// log4j cuts the time to milliseconds and stamps before it writes.
const BEFORE_NS: u64 = 50_000_000;
/// A line comes within milliseconds; a stuck logger may take longer.
const AFTER_NS: u64 = 60_000_000_000;
/// A printed time further than this from its arrival is not trusted.
const MAX_SKEW_NS: u64 = 10_000_000_000;

/// A line and when it happened.
#[derive(Clone, Debug)]
pub(crate) struct LineFact {
    pub event: BrokerLogEvent,
    /// CLOCK_MONOTONIC of the printed time, else of the arrival; 0 = before boot.
    pub mono_ns: u64,
    /// CLOCK_MONOTONIC of the arrival.
    pub arrival_ns: u64,
    /// Realtime shown.
    pub realtime_ns: i64,
    /// How it was tied to the case it is in.
    pub tie: Tie,
}

/// How a line is tied to a case, the surest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tie {
    /// It made the case.
    Alone,
    /// Same broker and time, and it names neither directory nor partition.
    Broker,
    /// Same broker, directory and time.
    Dir,
    /// Also the same partition or file as a failed sync.
    Exact,
}

impl LineFact {
    pub(crate) fn new(event: BrokerLogEvent, printed_ns: Option<u64>, arrival_ns: u64) -> Self {
        let trusted = printed_ns
            .filter(|printed| event.history || printed.abs_diff(arrival_ns) <= MAX_SKEW_NS);
        let realtime_ns = event.storage.time.unwrap_or(event.arrival_realtime_ns);
        Self {
            mono_ns: trusted.unwrap_or(arrival_ns),
            arrival_ns,
            realtime_ns,
            event,
            tie: Tie::Alone,
        }
    }

    pub(crate) fn role(&self) -> EventRole {
        self.event.storage.role
    }

    /// The exception is one that a failing operation raises. Others come from
    /// a file that was renamed or a channel that was closed under the flush.
    pub(crate) fn is_io_exception(&self) -> bool {
        let storage = &self.event.storage;
        let class = storage
            .root_exception
            .as_deref()
            .or(storage.exception.as_deref());
        class.is_none_or(|class| {
            let name = class.rsplit('.').next().unwrap_or(class);
            matches!(
                name,
                "IOException"
                    | "SyncFailedException"
                    | "UncheckedIOException"
                    | "FileSystemException"
                    | "KafkaStorageException"
                    | "InternalError"
            )
        })
    }

    /// Whether, and how surely, this line tells of `case`. `is_only` says that
    /// no other case concerns the broker.
    pub(crate) fn tie_to(&self, case: &Case, is_only: bool) -> Option<Tie> {
        let storage = &self.event.storage;
        if !case.brokers.contains(&self.event.broker) || !self.is_io_exception() {
            return None;
        }
        let dir = storage.dir.as_deref().map(|dir| dir.trim_end_matches('/'));
        let named = dir.or(storage.file.as_deref().filter(|file| file.starts_with('/')));
        // Of the directory that the line names, or of one of a list: "all log
        // dirs in D1, D2 have failed".
        let is_named = |seen: &Seen| {
            let inside = |path: &str| is_inside(path, seen.root_path.as_deref());
            named.is_none_or(inside) || dir.is_some_and(|dir| dir.split(", ").any(inside))
        };
        let is_near = |seen: &&Seen| {
            seen.broker == self.event.broker
                && is_named(seen)
                && self.mono_ns + BEFORE_NS >= seen.exit_ns
                && self.mono_ns <= seen.exit_ns + AFTER_NS
                && self.arrival_ns + BEFORE_NS >= seen.exit_ns
                && storage.errno.is_none_or(|errno| errno == seen.errno)
        };
        let mut near = case.seen.iter().filter(is_near).peekable();
        if near.peek().is_none() {
            return if self.tells_of_lost_data(case) {
                Some(Tie::Exact)
            } else {
                self.tells_of_aborted(case).then_some(Tie::Dir)
            };
        }
        let is_exact = |seen: &Seen| match (&storage.topic_partition, &storage.file) {
            _ if storage.kind == StorageEventKind::ProcessAppendError && !seen.is_index() => false,
            (Some(partition), _) => seen.topic_partition.as_ref() == Some(partition),
            (None, Some(file)) => seen.path.as_ref() == Some(file),
            (None, None) => false,
        };
        if near.any(is_exact) {
            return Some(Tie::Exact);
        }
        if named.is_some() {
            return Some(Tie::Dir);
        }
        let may_guess = self.role() != EventRole::Primary || storage.topic_partition.is_none();
        (may_guess && is_only).then_some(Tie::Broker)
    }
    /// It names a partition or file whose writeback failed earlier, however
    /// much: the sync between the two was not seen.
    fn tells_of_lost_data(&self, case: &Case) -> bool {
        let storage = &self.event.storage;
        self.role() == EventRole::Primary
            && case.writebacks.iter().any(|lost| {
                let is_named = match (&storage.topic_partition, &storage.file) {
                    (Some(partition), _) => lost.topic_partition.as_ref() == Some(partition),
                    (None, Some(file)) => lost.path.as_ref() == Some(file),
                    (None, None) => false,
                };
                is_named
                    && lost.broker == self.event.broker
                    && lost.first_ns <= self.mono_ns + BEFORE_NS
                    && storage.errno.is_none_or(|errno| errno == lost.errno)
            })
    }
}

impl LineFact {
    /// It names a directory whose file system aborted its journal before: what
    /// fails there afterwards, a write too, fails because of that.
    fn tells_of_aborted(&self, case: &Case) -> bool {
        let storage = &self.event.storage;
        let named = storage.dir.as_deref().or(storage.file.as_deref());
        let is_told = [
            None,
            Some(libc::EIO),
            Some(libc::EROFS),
            Some(libc::ESHUTDOWN),
        ];
        is_told.contains(&storage.errno)
            && self.mono_ns + BEFORE_NS >= case.first_ns
            && named.is_some_and(|path| {
                let dirs = &case.aborted_dirs;
                dirs.iter().any(|dir| is_inside(path, Some(dir)))
            })
    }
}

fn is_inside(path: &str, root: Option<&str>) -> bool {
    root.is_some_and(|root| {
        path.trim_end_matches('/')
            .strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}
