//! Joins the lines of a broker's log into logical records: a first line and
//! the continuation lines (Java stack, `Caused by`, multi-line messages) that
//! follow it. In: bytes in any chunks, or whole lines. Out: [`RawRecord`]s.
//! Memory is bounded whatever comes in; there is no clock, the caller brings
//! the time and asks for a flush.

use serde::{Deserialize, Serialize};

use super::timestamp::starts_record;

/// Bytes kept of one record, stack included; also of one line.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;
/// Continuation lines kept of one record.
pub const MAX_STACK_LINES: usize = 64;
/// A record with no further line for this long is complete: log4j writes a
/// stack in one go, so 150 ms is ample and keeps reports prompt.
pub const FLUSH_AFTER_NS: u64 = 150_000_000;

/// When and how a line arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Host real time, nanoseconds since 1970.
    pub realtime_ns: i64,
    /// Host monotonic time, the clock of the kernel's events.
    pub mono_ns: u64,
    /// Read from what was in the file before following began: the arrival
    /// time then says nothing about the time of the event.
    pub history: bool,
}

/// A first line with its continuation lines, not yet interpreted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRecord {
    /// First line, without its line end.
    pub first: String,
    /// The lines that belong to it.
    pub stack: Vec<String>,
    /// Something of this record was cut off.
    pub truncated: bool,
    /// Continuation lines beyond the limits.
    pub dropped_lines: u64,
    /// Arrival of the first line.
    pub stamp: Stamp,
}

impl RawRecord {
    fn bytes(&self) -> usize {
        self.first.len() + self.stack.iter().map(String::len).sum::<usize>()
    }
}

/// Joins lines into records. See the module's comment.
#[derive(Debug, Default)]
pub struct LineJoiner {
    line: Vec<u8>,
    line_cut: bool,
    pending: Option<RawRecord>,
    last_mono_ns: u64,
}

impl LineJoiner {
    /// An empty joiner.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a chunk of the file; returns the records that it completed.
    pub fn push(&mut self, bytes: &[u8], stamp: Stamp) -> Vec<RawRecord> {
        let mut done = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let complete = piece.last() == Some(&b'\n');
            let content = if complete {
                &piece[..piece.len() - 1]
            } else {
                piece
            };
            let room = MAX_RECORD_BYTES - self.line.len();
            self.line_cut |= content.len() > room;
            self.line
                .extend_from_slice(&content[..content.len().min(room)]);
            if complete {
                let line = std::mem::take(&mut self.line);
                let cut = std::mem::take(&mut self.line_cut);
                done.extend(self.push_line(&String::from_utf8_lossy(&line), cut, stamp));
            }
        }
        self.last_mono_ns = stamp.mono_ns;
        done
    }

    /// Takes one line without its line end; `cut` says that its tail is
    /// missing. Returns the record that this line completed.
    pub fn push_line(&mut self, line: &str, cut: bool, stamp: Stamp) -> Option<RawRecord> {
        self.last_mono_ns = stamp.mono_ns;
        let line = line.trim_end_matches('\r');
        match &mut self.pending {
            Some(record) if !starts_record(line) => {
                append(record, line, cut);
                None
            }
            _ => {
                let mut kept = line;
                let too_long = line.len() > MAX_RECORD_BYTES;
                if too_long {
                    kept = prefix(line, MAX_RECORD_BYTES);
                }
                self.pending.replace(RawRecord {
                    first: kept.to_owned(),
                    truncated: cut || too_long,
                    stamp,
                    ..RawRecord::default()
                })
            }
        }
    }

    /// Gives the pending record out if nothing came for [`FLUSH_AFTER_NS`].
    pub fn flush(&mut self, now_mono_ns: u64) -> Option<RawRecord> {
        if now_mono_ns.saturating_sub(self.last_mono_ns) < FLUSH_AFTER_NS {
            return None;
        }
        self.pending.take()
    }

    /// Gives out what is left, an unfinished last line included: at the end
    /// of a file, after a rotation, at shutdown.
    pub fn finish(&mut self) -> Vec<RawRecord> {
        let mut done = Vec::new();
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            let cut = std::mem::take(&mut self.line_cut);
            let stamp = Stamp {
                mono_ns: self.last_mono_ns,
                ..self
                    .pending
                    .as_ref()
                    .map(|record| record.stamp)
                    .unwrap_or_default()
            };
            done.extend(self.push_line(&String::from_utf8_lossy(&line), cut, stamp));
        }
        done.extend(self.pending.take());
        done
    }

    /// Whether a record waits for its end.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }
}

fn append(record: &mut RawRecord, line: &str, cut: bool) {
    let room = MAX_RECORD_BYTES.saturating_sub(record.bytes());
    if record.stack.len() >= MAX_STACK_LINES || room == 0 {
        // The root cause stands below the frames of its wrapper, so it may
        // take the place of the last frame kept.
        if line.starts_with("Caused by: ") && line.len() < 1024 {
            record.stack.pop();
            record.stack.push(line.to_owned());
        }
        record.dropped_lines += 1;
        record.truncated = true;
        return;
    }
    let kept = prefix(line, room);
    record.truncated |= cut || kept.len() < line.len();
    record.stack.push(kept.to_owned());
}

/// The longest prefix of at most `max` bytes that ends between characters.
pub(crate) fn prefix(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "[2026-11-23 22:37:30,827] ERROR a (kafka.log.X)";

    fn at(mono_ns: u64) -> Stamp {
        Stamp {
            realtime_ns: 5,
            mono_ns,
            history: false,
        }
    }

    #[test]
    fn stack_lines_join_whatever_the_chunks() {
        let text = format!("{FIRST}\njava.io.IOException: x\n\tat a.b(C.java:1)\n{FIRST}\n");
        for size in [1, 3, 7, 1000] {
            let mut joiner = LineJoiner::new();
            let mut done = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                done.extend(joiner.push(chunk, at(1)));
            }
            done.extend(joiner.finish());
            assert_eq!(done.len(), 2, "chunks of {size}");
            assert_eq!(
                done[0].stack,
                ["java.io.IOException: x", "\tat a.b(C.java:1)"]
            );
            assert_eq!(done[1].first, FIRST);
        }
    }

    #[test]
    fn flush_waits_for_the_timeout() {
        let mut joiner = LineJoiner::new();
        joiner.push(format!("{FIRST}\n").as_bytes(), at(1_000));
        assert_eq!(joiner.flush(1_000 + FLUSH_AFTER_NS - 1), None);
        assert_eq!(
            joiner
                .flush(1_000 + FLUSH_AFTER_NS)
                .map(|record| record.first)
                .as_deref(),
            Some(FIRST)
        );
        assert!(!joiner.is_pending());
    }

    #[test]
    fn ten_megabyte_line_is_cut_and_the_next_is_whole() {
        let mut joiner = LineJoiner::new();
        for _ in 0..160 {
            assert!(joiner.push(&[b'x'; 65_536], at(1)).is_empty());
            assert!(joiner.line.capacity() <= 4 * MAX_RECORD_BYTES);
        }
        let mut done = joiner.push(format!("\n{FIRST}\n").as_bytes(), at(2));
        done.extend(joiner.finish());
        assert_eq!(done[0].first.len(), MAX_RECORD_BYTES);
        assert!(done[0].truncated);
        assert_eq!(done[1].first, FIRST);
        assert!(!done[1].truncated);
    }

    #[test]
    fn record_keeps_bounded_stack_and_its_root_cause() {
        let mut joiner = LineJoiner::new();
        joiner.push_line(FIRST, false, at(1));
        for _ in 0..500 {
            joiner.push_line(&"y".repeat(300), false, at(1));
        }
        joiner.push_line(
            "Caused by: java.io.IOException: Input/output error",
            false,
            at(1),
        );
        let record = joiner.finish().remove(0);
        assert_eq!(record.stack.len(), MAX_STACK_LINES);
        assert_eq!(record.dropped_lines, 437);
        assert!(record.stack.last().unwrap().ends_with("Input/output error"));
    }

    #[test]
    fn binary_garbage_and_nul_are_survived() {
        let mut joiner = LineJoiner::new();
        let garbage: Vec<u8> = (0..200_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let mut done = joiner.push(&garbage, at(1));
        done.extend(joiner.push(b"\n\0\0\xff\xfe\n", at(1)));
        done.extend(joiner.push(format!("{FIRST}\n").as_bytes(), at(1)));
        done.extend(joiner.finish());
        assert_eq!(done.last().unwrap().first, FIRST);
        assert!(
            done.iter()
                .all(|record| record.bytes() <= 3 * MAX_RECORD_BYTES + 1024)
        );
    }
}
