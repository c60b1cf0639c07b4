//! The commit of a journal that a slow sync waited for. In: the sync, the waits and
//! requests that overlap it. Out: [`Commit`]. What it shares with others is the
//! case's to count.

use super::breakdown::{is_journal, is_journal_wait};
use crate::event::{RequestSpan, SyncEvent, WaitSpan};

/// A commit that took less than this part of the call is not worth a word.
const MIN_SHARE: u64 = 20;

/// What makes two commits one: file system, transaction, start.
pub(crate) type CommitId = (u32, u32, u64);

/// See the module's comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Commit {
    pub span: WaitSpan,
    /// It has not ended.
    pub in_flight: bool,
    /// Requests of journal and metadata that overlap it.
    pub nr_requests: u64,
}

impl Commit {
    pub(crate) fn id(&self) -> CommitId {
        (self.span.s_dev, self.span.seq, self.span.start_ns)
    }
}

/// The commit of the file system `s_dev` that covers most of the call, if that is a
/// twentieth of it or more. An open one is among `waits` with the call's end.
pub(crate) fn longest_commit(
    sync: &SyncEvent,
    s_dev: u32,
    waits: &[WaitSpan],
    requests: &[RequestSpan],
    is_in_flight: bool,
) -> Option<Commit> {
    let inside = |wait: &WaitSpan| {
        let end_ns = wait.end_ns.min(sync.exit_ns);
        end_ns.saturating_sub(wait.start_ns.max(sync.enter_ns))
    };
    let span = (waits.iter())
        .filter(|wait| wait.kind == "commit" && is_journal_wait(wait, s_dev))
        .max_by_key(|wait| inside(wait))?;
    let duration_ns = sync.exit_ns.saturating_sub(sync.enter_ns);
    if inside(span).saturating_mul(MIN_SHARE) < duration_ns {
        return None;
    }
    let of_it = requests.iter().filter(|request| {
        is_journal(request, s_dev)
            && request.complete_ns > span.start_ns
            && request.issue_ns < span.end_ns
    });
    Some(Commit {
        in_flight: is_in_flight && span.end_ns == sync.exit_ns,
        nr_requests: of_it.count() as u64,
        span: span.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FS: u32 = 7 << 20;

    fn commit(seq: u32, start_ns: u64, end_ns: u64) -> WaitSpan {
        WaitSpan {
            kind: "commit".to_owned(),
            s_dev: FS,
            seq,
            start_ns,
            end_ns,
            ..WaitSpan::default()
        }
    }

    fn log_write(issue_ns: u64, complete_ns: u64) -> RequestSpan {
        RequestSpan {
            op: "write".to_owned(),
            file_source: "blockdev".to_owned(),
            rdev: FS,
            issue_ns,
            complete_ns,
            ..RequestSpan::default()
        }
    }

    /// A call from 100 to 200.
    fn longest(waits: &[WaitSpan], requests: &[RequestSpan], open: bool) -> Option<Commit> {
        let sync = SyncEvent {
            enter_ns: 100,
            exit_ns: 200,
            ..SyncEvent::default()
        };
        longest_commit(&sync, FS, waits, requests, open)
    }

    #[test]
    fn the_commit_that_covers_most_of_the_call() {
        let other_fs = WaitSpan {
            s_dev: FS + 1,
            ..commit(8, 100, 200)
        };
        let lock = WaitSpan {
            kind: "lock".to_owned(),
            ..commit(9, 100, 200)
        };
        // The first is longer, but not within the call.
        let waits = [
            commit(1, 0, 120),
            commit(2, 130, 190),
            other_fs,
            lock,
            commit(3, 190, 200),
        ];
        let requests = [
            log_write(120, 131),
            log_write(150, 160),
            log_write(190, 195),
            RequestSpan {
                rdev: FS + 1,
                ..log_write(150, 160)
            },
        ];
        let found = longest(&waits, &requests, false).unwrap();
        assert_eq!((found.span.seq, found.nr_requests), (2, 2));
        assert!(!found.in_flight);
    }

    #[test]
    fn a_commit_that_hardly_matters_is_none() {
        assert_eq!(longest(&[commit(1, 90, 104)], &[], false), None);
        assert_eq!(longest(&[], &[], false), None);
        let found = longest(&[commit(1, 90, 105)], &[], false).unwrap();
        assert_eq!(found.id(), (FS, 1, 90));
    }

    #[test]
    fn a_commit_in_flight_ends_where_the_call_was_looked_at() {
        let waits = [commit(1, 100, 130), commit(2, 140, 200)];
        assert!(longest(&waits, &[], true).unwrap().in_flight);
        assert!(!longest(&waits, &[], false).unwrap().in_flight);
        assert!(!longest(&waits[..1], &[], true).unwrap().in_flight);
    }
}
