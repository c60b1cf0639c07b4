//! What the flight recorder says of slow syncs: read when one came out of the
//! ring or is in flight, told before it. In: maps, names of threads from /proc
//! (comm takes no lock that a hanging thread holds); out: [`SpansEvent`]s, each
//! span once. What no slow sync can have waited for is read and dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use aya::maps::{MapData, PerCpuArray};
use fsyncscope_abi::{
    keys::InodeKey,
    span::{RequestSpan, SPANS_PER_PAGE, WaitSpan},
};

use crate::{
    decode::{FlagMasks, decode_names, decode_request_span, decode_wait_span},
    event::{self, Event, FileId, InFlightEvent, InFlightSync, SpanFile, SpansEvent, SyncEvent},
    probe::maps::Maps,
    ring::spans::{Pages, Span, SpanReader},
};

/// Spans that ended this long before the oldest slow sync began are told still:
/// another sync may have begun then, which the next tick sees in flight.
const MARGIN_NS: u64 = 1_000_000_000;
/// Requests told at once, the last ones: a busy disk's seconds at some 1 MB.
const MAX_REQUESTS: usize = 4096;
/// Threads whose names are read at once.
const MAX_COMMS: usize = 128;
/// Files whose names are told at once.
const MAX_FILES: usize = 128;

/// A recorder's maps.
struct Recorder<'a, S: Span>
where
    [S; SPANS_PER_PAGE]: aya::Pod,
{
    pages: &'a PerCpuArray<MapData, [S; SPANS_PER_PAGE]>,
    head: &'a PerCpuArray<MapData, u64>,
}

impl<S: Span> Pages for Recorder<'_, S>
where
    [S; SPANS_PER_PAGE]: aya::Pod,
{
    type Span = S;

    fn nr_pages(&self) -> u32 {
        self.pages.len()
    }

    fn heads(&self) -> Vec<u64> {
        self.head
            .get(&0, 0)
            .map(|values| values.to_vec())
            .unwrap_or_default()
    }

    fn page(&self, index: u32) -> Vec<[S; SPANS_PER_PAGE]> {
        self.pages
            .get(&index, 0)
            .map(|values| values.to_vec())
            .unwrap_or_default()
    }
}

/// See the module's comment.
pub struct Spans {
    proc_root: PathBuf,
    masks: FlagMasks,
    requests: SpanReader,
    waits: SpanReader,
    told_overwritten: u64,
}

impl Spans {
    /// Nothing read yet.
    pub fn new(proc_root: PathBuf, masks: FlagMasks) -> Self {
        Spans {
            proc_root,
            masks,
            requests: SpanReader::default(),
            waits: SpanReader::default(),
            told_overwritten: 0,
        }
    }

    /// What is new, for the syncs among these events, if there are any.
    pub fn for_returned(&mut self, maps: &Maps, events: &[Event]) -> Option<Event> {
        let mut since_ns = u64::MAX;
        let mut forced = Vec::new();
        for event in events {
            if let Event::Sync(sync) = event {
                since_ns = since_ns.min(sync.enter_ns);
                forced.extend(log_force(sync));
            }
        }
        if since_ns == u64::MAX {
            return None;
        }
        let mut event = self.read(maps, since_ns);
        event.waits.append(&mut forced);
        self.unless_empty(event)
    }

    /// What is new, and what goes on, for syncs in flight.
    pub fn for_in_flight(&mut self, maps: &Maps, in_flight: &InFlightEvent) -> Option<Event> {
        let mut since_ns = u64::MAX;
        let mut now_ns = 0;
        let mut open = Vec::new();
        for InFlightSync { sync, .. } in &in_flight.syncs {
            since_ns = since_ns.min(sync.enter_ns);
            now_ns = now_ns.max(sync.exit_ns);
            open.extend(log_force(sync));
            open.extend(lock(sync));
        }
        let mut event = self.read(maps, since_ns);
        event.open = open;
        let journals = maps.filesystems.iter().filter_map(Result::ok);
        let threads = maps.fast_commits.iter().filter_map(Result::ok);
        let waits = journals
            .flat_map(|(_, fs)| [fs.commit, fs.checkpoint])
            .chain(threads.map(|(_, wait)| wait));
        for wait in waits.filter(|wait| (1..now_ns).contains(&wait.start_ns)) {
            event.open.push(event::WaitSpan {
                end_ns: now_ns,
                ..decode_wait_span(&wait)
            });
        }
        event.open.sort_by_key(|wait| wait.start_ns);
        self.unless_empty(event)
    }

    fn unless_empty(&mut self, event: SpansEvent) -> Option<Event> {
        let is_news = event.overwritten != self.told_overwritten
            || !(event.requests.is_empty() && event.waits.is_empty() && event.open.is_empty());
        self.told_overwritten = event.overwritten;
        is_news.then_some(Event::Spans(event))
    }

    fn read(&mut self, maps: &Maps, since_ns: u64) -> SpansEvent {
        let since_ns = since_ns.saturating_sub(MARGIN_NS);
        let mut requests: Vec<RequestSpan> = self.requests.read(&Recorder {
            pages: &maps.rq_spans,
            head: &maps.rq_span_head,
        });
        let mut waits: Vec<WaitSpan> = self.waits.read(&Recorder {
            pages: &maps.wait_spans,
            head: &maps.wait_span_head,
        });
        requests.retain(|span| span.complete_ns >= since_ns);
        waits.retain(|span| span.end_ns >= since_ns);
        self.requests.cut(&mut requests, MAX_REQUESTS);
        let comms = self.comms(&requests);
        SpansEvent {
            files: files(maps, &requests),
            requests: requests
                .iter()
                .map(|span| {
                    let comm = comms.get(&span.submitter).cloned().unwrap_or_default();
                    decode_request_span(span, self.masks, comm)
                })
                .collect(),
            waits: waits.iter().map(decode_wait_span).collect(),
            overwritten: self.requests.overwritten + self.waits.overwritten,
            whole_since_ns: self.requests.whole_since_ns.max(self.waits.whole_since_ns),
            ..SpansEvent::default()
        }
    }

    /// Names of the threads that issued the requests; of one that is gone, none.
    fn comms(&self, requests: &[RequestSpan]) -> BTreeMap<u64, String> {
        let threads: BTreeSet<u64> = requests
            .iter()
            .map(|span| span.submitter)
            .filter(|submitter| *submitter != 0)
            .collect();
        let read = |submitter: u64| {
            let (pid, tid) = (submitter >> 32, submitter & 0xffff_ffff);
            let path = self.proc_root.join(format!("{pid}/task/{tid}/comm"));
            Some((
                submitter,
                fs::read_to_string(path).ok()?.trim_end().to_owned(),
            ))
        };
        threads
            .into_iter()
            .take(MAX_COMMS)
            .filter_map(read)
            .collect()
    }
}

/// Names of the requests' files, as far as the kernel side has kept them.
fn files(maps: &Maps, requests: &[RequestSpan]) -> Vec<SpanFile> {
    let keys: BTreeSet<(u32, u64)> = requests
        .iter()
        .filter(|span| span.inode.s_dev != 0)
        .map(|span| (span.inode.s_dev, span.inode.ino))
        .collect();
    keys.into_iter()
        .take(MAX_FILES)
        .filter_map(|(s_dev, ino)| {
            let key = InodeKey { ino, s_dev, pad: 0 };
            let names = maps.names.get(&key, 0);
            let names = names.or_else(|_| maps.span_names.get(&key, 0));
            let names = decode_names(&names.ok()?);
            (!names.is_empty()).then_some(SpanFile {
                file: FileId { s_dev, ino },
                names,
            })
        })
        .collect()
}

/// xfs: the sync forced its log until it returned, or still does; a flush in
/// between has spans of its own.
fn log_force(sync: &SyncEvent) -> Option<event::WaitSpan> {
    (sync.log_force_ns != 0).then(|| event::WaitSpan {
        kind: "log_force".to_owned(),
        s_dev: sync.file.s_dev,
        tid: sync.tid,
        start_ns: sync.log_force_ns,
        end_ns: sync.exit_ns,
        ..event::WaitSpan::default()
    })
}

/// The lock that a sync in flight waits for.
fn lock(sync: &SyncEvent) -> Option<event::WaitSpan> {
    (sync.lock_ns != 0).then(|| event::WaitSpan {
        kind: "lock".to_owned(),
        tid: sync.tid,
        start_ns: sync.lock_ns,
        end_ns: sync.exit_ns,
        ..event::WaitSpan::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_log_lasts_until_the_sync_returns() {
        let sync = SyncEvent {
            tid: 9,
            enter_ns: 10,
            log_force_ns: 15,
            exit_ns: 40,
            file: FileId { s_dev: 3, ino: 4 },
            ..SyncEvent::default()
        };
        let wait = log_force(&sync).unwrap();
        assert_eq!((wait.start_ns, wait.end_ns, wait.s_dev), (15, 40, 3));
        assert_eq!(lock(&sync), None);
    }

    #[test]
    fn threads_that_are_gone_have_no_name() {
        let dir = std::env::temp_dir().join(format!("fsyncscope-comms-{}", std::process::id()));
        fs::create_dir_all(dir.join("7/task/8")).unwrap();
        fs::write(dir.join("7/task/8/comm"), "fio\n").unwrap();
        let spans = Spans::new(dir.clone(), FlagMasks::default());
        let by = |submitter| RequestSpan {
            submitter,
            ..RequestSpan::default()
        };
        let comms = spans.comms(&[by(7 << 32 | 8), by(7 << 32 | 9), by(0), by(7 << 32 | 8)]);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(comms, BTreeMap::from([(7 << 32 | 8, "fio".to_owned())]));
    }
}
