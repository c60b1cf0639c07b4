//! Events to the bytes of a capture. In: events in order. Out: whole zstd
//! frames, for the caller to append to a file. No I/O: the file may lie on the
//! disk that hangs, so the caller hands the bytes to a process of its own.

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::{CAPTURE_VERSION, CaptureHeader};
use crate::event::Stamped;

/// A frame is closed at this size…
const FRAME_BYTES: usize = 64 * 1024;
/// …or at this age, so that a kill -9 costs at most a second of evidence.
const FRAME_AGE_NS: u64 = 1_000_000_000;

/// Turns events into zstd frames. See the module's comment.
#[derive(Debug)]
pub struct CaptureEncoder {
    lines: Vec<u8>,
    first_ns: Option<u64>,
    failed: u64,
}

impl CaptureEncoder {
    /// A new capture; its header goes out with the first frame.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let header = CaptureHeader {
            fsyncscope_capture: CAPTURE_VERSION,
            version: version.to_owned(),
        };
        let mut encoder = Self {
            lines: Vec::new(),
            first_ns: None,
            failed: 0,
        };
        encoder.append(&header);
        encoder
    }

    /// Takes an event; returns a frame when one is due.
    pub fn push(&mut self, stamped: &Stamped) -> Option<Vec<u8>> {
        self.append(stamped);
        let first_ns = *self.first_ns.get_or_insert(stamped.mono_ns);
        let due = self.lines.len() >= FRAME_BYTES
            || stamped.mono_ns.saturating_sub(first_ns) >= FRAME_AGE_NS;
        if due { self.finish() } else { None }
    }

    /// What is left, as a frame: at the end, or when a finding must not wait.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        self.first_ns = None;
        if self.lines.is_empty() {
            return None;
        }
        let frame = compress_to_vec(self.lines.as_slice(), CompressionLevel::Fastest);
        self.lines.clear();
        Some(frame)
    }

    /// Events that could not be written as JSON: a loss, to be counted as one.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    fn append(&mut self, value: &impl serde::Serialize) {
        let start = self.lines.len();
        if serde_json::to_writer(&mut self.lines, value).is_err() {
            self.lines.truncate(start);
            self.failed += 1;
            return;
        }
        self.lines.push(b'\n');
    }
}
