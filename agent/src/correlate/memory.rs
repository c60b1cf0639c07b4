//! What happened lately below the syncs: failed and slow requests, writeback
//! errors. In: kernel events. Out: candidates for a join. Bounded everywhere;
//! what is forgotten is counted. Failed requests are kept by file and long,
//! since a caller may be told of one minutes later; slow ones shortly.

use std::collections::VecDeque;

use super::bounded::{Lru, push_bounded};
use super::recorder::Recorder;
use crate::enrich::may_be_same_file;
use crate::event::{FileId, RequestEvent, WbErrEvent};

/// Files with failures that are remembered.
const MAX_FILES: usize = 4096;
/// Failed requests and writeback errors kept per file.
const MAX_PER_FILE: usize = 4;
/// Failed requests kept that belong to no file (flush, journal, unknown).
const MAX_FILELESS: usize = 256;
/// Slow requests kept, all disks together.
const MAX_SLOW: usize = 1024;

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct Memory {
    failed: Lru<FileId, VecDeque<RequestEvent>>,
    wb_errs: Lru<FileId, VecDeque<WbErrEvent>>,
    fileless: VecDeque<RequestEvent>,
    slow: VecDeque<RequestEvent>,
    pub recorder: Recorder,
    dropped: u64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            failed: Lru::new(MAX_FILES),
            wb_errs: Lru::new(MAX_FILES),
            fileless: VecDeque::new(),
            slow: VecDeque::new(),
            recorder: Recorder::default(),
            dropped: 0,
        }
    }

    pub(crate) fn remember_request(&mut self, request: &RequestEvent) {
        if request.errno == 0 {
            push_bounded(&mut self.slow, request.clone(), MAX_SLOW);
        } else if request.file.s_dev == 0 || request.file_source == "blockdev" {
            self.dropped += u64::from(push_bounded(
                &mut self.fileless,
                request.clone(),
                MAX_FILELESS,
            ));
        } else {
            self.forget_others(&request.file, &request.names);
            let kept = self.failed.touch(&request.file);
            // The first failure of a file is the one that explains the rest.
            if kept.len() >= MAX_PER_FILE {
                kept.remove(1);
                self.dropped += 1;
            }
            kept.push_back(request.clone());
        }
    }

    pub(crate) fn remember_wb_err(&mut self, wb_err: &WbErrEvent) {
        self.forget_others(&wb_err.file, &wb_err.names);
        let kept = self.wb_errs.touch(&wb_err.file);
        self.dropped += u64::from(push_bounded(kept, wb_err.clone(), MAX_PER_FILE));
    }

    /// Another file may have had the number of this one: what failed of that explains
    /// nothing here.
    pub(crate) fn forget_others(&mut self, file: &FileId, names: &[String]) {
        if let Some(kept) = self.failed.get_mut(file) {
            kept.retain(|request| may_be_same_file(&request.names, names));
        }
        if let Some(kept) = self.wb_errs.get_mut(file) {
            kept.retain(|wb_err| may_be_same_file(&wb_err.names, names));
        }
    }

    /// Failed data requests of a file, oldest first.
    pub(crate) fn failed_of(&self, file: &FileId) -> impl Iterator<Item = &RequestEvent> {
        self.failed.get(file).into_iter().flatten()
    }

    /// Writeback errors of a file, oldest first.
    pub(crate) fn wb_errs_of(&self, file: &FileId) -> impl DoubleEndedIterator<Item = &WbErrEvent> {
        self.wb_errs.get(file).into_iter().flatten()
    }

    /// Failed requests without a file: flushes, journal and metadata, unknown.
    pub(crate) fn failed_fileless(&self) -> impl Iterator<Item = &RequestEvent> {
        self.fileless.iter()
    }

    /// Failed flushes of which `request` died before it was issued: a write with
    /// PREFLUSH is answered with its flush's error.
    pub(crate) fn flushes_below(
        &self,
        request: &RequestEvent,
    ) -> impl Iterator<Item = &RequestEvent> {
        const AT_ONCE_NS: u64 = 5_000_000;
        let (dev, end_ns) = (request.dev, request.complete_ns);
        let was_issued = request.issue_ns != 0;
        self.fileless.iter().filter(move |flush| {
            !was_issued
                && flush.op == "flush"
                && flush.dev == dev
                && flush.complete_ns <= end_ns
                && flush.complete_ns + AT_ONCE_NS >= end_ns
        })
    }

    /// Slow requests that succeeded, oldest first.
    pub(crate) fn slow(&self) -> impl Iterator<Item = &RequestEvent> {
        self.slow.iter()
    }

    /// Pieces of evidence forgotten for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + self.failed.forgotten() + self.wb_errs.forgotten()
    }
}
