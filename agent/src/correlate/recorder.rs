//! What the kernel's flight recorder told of the last seconds: requests and
//! waits that took long, whoever they belong to. In: [`SpansEvent`]s. Out: those
//! of a time, and whether some are missing. Bounded; what was forgotten here, or
//! overwritten by the kernel, is a loss once a slow sync missed it.

use std::collections::VecDeque;

use super::bounded::{Lru, push_bounded};
use super::case::is_same;
use crate::event::{FileId, RequestEvent, RequestSpan, SpansEvent, WaitSpan};

/// Requests kept, all disks together: a busy disk's last seconds at some 1 MB.
const MAX_REQUESTS: usize = 4096;
/// Commits, checkpoints, locks kept.
const MAX_WAITS: usize = 1024;
/// Files whose names are kept.
const MAX_NAMES: usize = 512;
/// Gaps kept.
const MAX_GAPS: usize = 16;
/// Older ones could only explain a call that hung as long; they go uncounted.
const KEPT_NS: u64 = 120_000_000_000;

/// Spans that were overwritten between two reads of the recorder.
#[derive(Clone, Copy, Debug)]
struct Gap {
    from_ns: u64,
    to_ns: u64,
    count: u64,
    is_missed: bool,
}

impl Gap {
    fn overlaps(&self, from_ns: u64, to_ns: u64) -> bool {
        self.from_ns < to_ns && from_ns < self.to_ns
    }
}

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct Recorder {
    requests: VecDeque<RequestSpan>,
    waits: VecDeque<WaitSpan>,
    /// Waits that still went on when last looked at.
    open: Vec<WaitSpan>,
    names: Lru<FileId, Vec<String>>,
    gaps: VecDeque<Gap>,
    read_ns: u64,
    overwritten: u64,
    missed: u64,
    /// Requests and waits forgotten before their time: how many not missed yet,
    /// the end of the newest, how many a slow sync missed.
    unmissed: u64,
    forgotten_until_ns: u64,
    forgotten: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            requests: VecDeque::new(),
            waits: VecDeque::new(),
            open: Vec::new(),
            names: Lru::new(MAX_NAMES),
            gaps: VecDeque::new(),
            read_ns: 0,
            overwritten: 0,
            missed: 0,
            unmissed: 0,
            forgotten_until_ns: 0,
            forgotten: 0,
        }
    }
}

impl Recorder {
    pub(crate) fn remember(&mut self, event: &SpansEvent, now_ns: u64) {
        let oldest_ns = now_ns.saturating_sub(KEPT_NS);
        while (self.requests.front()).is_some_and(|request| request.complete_ns < oldest_ns) {
            self.requests.pop_front();
        }
        while (self.waits.front()).is_some_and(|wait| wait.end_ns < oldest_ns) {
            self.waits.pop_front();
        }
        self.note_gap(event, now_ns);
        self.open.clone_from(&event.open);
        self.open.truncate(MAX_WAITS);
        for file in &event.files {
            self.names.touch(&file.file).clone_from(&file.names);
        }
        for request in &event.requests {
            if self.requests.len() >= MAX_REQUESTS
                && let Some(oldest) = self.requests.front()
            {
                self.forgotten_until_ns = self.forgotten_until_ns.max(oldest.complete_ns);
                self.unmissed += 1;
            }
            let mut request = request.clone();
            if is_kernel_thread(&request.comm) {
                (request.pid, request.tid) = (0, 0);
                request.comm.clear();
            }
            push_bounded(&mut self.requests, request, MAX_REQUESTS);
        }
        for wait in &event.waits {
            if self.waits.len() >= MAX_WAITS
                && let Some(oldest) = self.waits.front()
            {
                self.forgotten_until_ns = self.forgotten_until_ns.max(oldest.end_ns);
                self.unmissed += 1;
            }
            push_bounded(&mut self.waits, wait.clone(), MAX_WAITS);
        }
    }

    /// What was overwritten ended after the last read and before the time since
    /// which the record is whole.
    fn note_gap(&mut self, event: &SpansEvent, now_ns: u64) {
        let from_ns = std::mem::replace(&mut self.read_ns, now_ns);
        let count = event.overwritten.saturating_sub(self.overwritten);
        self.overwritten = self.overwritten.max(event.overwritten);
        if count > 0 && event.whole_since_ns > from_ns {
            let gap = Gap {
                from_ns,
                to_ns: event.whole_since_ns,
                count,
                is_missed: false,
            };
            push_bounded(&mut self.gaps, gap, MAX_GAPS);
        }
    }

    /// Waits that went on when last looked at, which was at the last tick.
    pub(crate) fn open_waits(&self) -> impl Iterator<Item = &WaitSpan> {
        self.open.iter()
    }

    /// What is known of `requests` that have a submitter.
    pub(crate) fn submitted(&self, requests: &[RequestEvent]) -> Vec<RequestSpan> {
        let known = self.requests.iter().filter(|span| span.pid != 0);
        known
            .filter(|span| requests.iter().any(|request| is_same(span, request)))
            .cloned()
            .collect()
    }

    /// Names of a file, its own first.
    pub(crate) fn names_of(&self, file: &FileId) -> Option<&[String]> {
        self.names.get(file).map(Vec::as_slice)
    }

    /// Requests, about in order of completion.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &RequestSpan> {
        self.requests.iter()
    }

    /// Waits that overlap a time.
    pub(crate) fn waits(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = &WaitSpan> {
        self.waits
            .iter()
            .filter(move |wait| wait.start_ns < to_ns && wait.end_ns > from_ns)
    }

    /// Whether something of a time was overwritten.
    pub(crate) fn has_gap(&self, from_ns: u64, to_ns: u64) -> bool {
        from_ns < self.forgotten_until_ns
            || self.gaps.iter().any(|gap| gap.overlaps(from_ns, to_ns))
    }

    /// A slow sync of that time misses what was overwritten: now it is a loss.
    /// Nobody misses the requests of a time without slow syncs.
    pub(crate) fn miss(&mut self, from_ns: u64, to_ns: u64) {
        if from_ns < self.forgotten_until_ns {
            self.forgotten += std::mem::take(&mut self.unmissed);
        }
        for gap in &mut self.gaps {
            if !gap.is_missed && gap.overlaps(from_ns, to_ns) {
                gap.is_missed = true;
                self.missed += gap.count;
            }
        }
    }

    /// Spans overwritten in the kernel that a slow sync missed.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    /// Spans forgotten here that a slow sync missed.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Threads that issue what others asked for: they are nobody's neighbour. A
/// process could call itself so and would then be known by its files only.
fn is_kernel_thread(comm: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "kworker/",
        "jbd2/",
        "xfsaild/",
        "btrfs-",
        "ksoftirqd/",
        "kswapd",
        "kcompactd",
        "swapper/",
    ];
    PREFIXES.iter().any(|prefix| comm.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(complete_ns: &[u64], overwritten: u64, whole_since_ns: u64) -> SpansEvent {
        let requests = complete_ns.iter().map(|&complete_ns| RequestSpan {
            complete_ns,
            ..RequestSpan::default()
        });
        SpansEvent {
            requests: requests.collect(),
            overwritten,
            whole_since_ns,
            ..SpansEvent::default()
        }
    }

    #[test]
    fn overwritten_spans_are_a_loss_only_to_a_sync_of_their_time() {
        let mut recorder = Recorder::default();
        recorder.remember(&spans(&[100], 0, 0), 100);
        recorder.remember(&spans(&[500, 600], 7, 450), 600);
        assert!(recorder.has_gap(50, 400) && !recorder.has_gap(500, 600));
        recorder.miss(550, 600);
        assert_eq!(recorder.missed(), 0);
        recorder.miss(200, 300);
        recorder.miss(200, 300);
        assert_eq!(recorder.missed(), 7);
    }

    #[test]
    fn what_a_kernel_thread_issues_has_no_submitter() {
        let mut recorder = Recorder::default();
        let mut event = spans(&[100, 200], 0, 0);
        for (request, comm) in event
            .requests
            .iter_mut()
            .zip(["kworker/0:2H-kblockd", "fio"])
        {
            (request.pid, request.comm) = (77, comm.to_owned());
        }
        recorder.remember(&event, 300);
        let pids: Vec<u32> = recorder.requests().map(|request| request.pid).collect();
        assert_eq!(pids, [0, 77]);
    }

    #[test]
    fn memory_is_bounded_and_what_a_slow_sync_misses_is_counted() {
        let mut recorder = Recorder::default();
        let many: Vec<u64> = (1..=5_000).collect();
        recorder.remember(&spans(&many, 0, 0), 5_000);
        assert_eq!(recorder.requests().count(), MAX_REQUESTS);
        recorder.miss(904, 5_000);
        assert_eq!(recorder.forgotten(), 0);
        recorder.miss(903, 5_000);
        assert_eq!(recorder.forgotten(), 904);
        recorder.remember(&spans(&[], 0, 0), 2 * KEPT_NS);
        assert_eq!(recorder.requests().count(), 0);
        assert_eq!(recorder.forgotten(), 904);
    }
}
