//! Follows a broker's log file across rename and create, copy and truncate,
//! disappearance and late appearance. Runs in a helper process: every call
//! here may block on a sick disk. In: a path, perhaps below /proc/PID/root.
//! Out: [`FollowEvent`]s as NDJSON. Not here: what the lines mean.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::joiner::{MAX_RECORD_BYTES, Stamp};
use crate::helper::clock::{monotonic_ns, realtime_ns};
use crate::helper::rootfs::Root;

/// How often the file is looked at.
pub const POLL: Duration = Duration::from_millis(100);
/// Sign of life to the parent: with none of them the file system hangs.
const ALIVE_EVERY_NS: u64 = 1_000_000_000;
/// Bytes before the offset that must not change; an unnoticed truncation
/// followed by growth beyond the old size shows in them.
const TAIL_BYTES: usize = 64;

/// What to follow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FollowOptions {
    /// Path as the broker names it.
    pub file: PathBuf,
    /// Root to resolve it in, `/proc/PID/root`; None for the host's.
    pub root: Option<PathBuf>,
    /// Bytes of history to read, flagged as such.
    pub history_bytes: u64,
    /// Go on where an earlier helper stopped: inode and offset.
    pub resume: Option<(u64, u64)>,
}

/// What the follower says, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "snake_case")]
pub enum FollowEvent {
    /// The file was opened.
    Opened {
        /// Path as asked for.
        file: String,
        /// Inode.
        ino: u64,
        /// Size at opening.
        size_bytes: u64,
        /// Where reading begins.
        offset_bytes: u64,
    },
    /// One line.
    Line {
        /// Without its line end; invalid UTF-8 is replaced.
        text: String,
        /// Longer than 64 KiB, the rest is missing.
        truncated: bool,
        /// When and how it was read.
        stamp: Stamp,
        /// Counted from 1 since the follower opened this file.
        line_number: u64,
        /// Offset behind the line.
        end_bytes: u64,
    },
    /// The path names another file now.
    Rotated,
    /// The file became shorter, or its contents were replaced.
    Truncated,
    /// The file is not there, or cannot be read.
    Missing {
        /// Why.
        why: String,
    },
    /// The helper lives and reached this offset.
    Alive {
        /// Inode, 0 if not open.
        ino: u64,
        /// Offset read so far.
        offset_bytes: u64,
    },
    /// By the parent: nothing was heard; the file system hangs.
    Silent {
        /// For so long.
        for_ms: u64,
    },
    /// By the parent: it speaks again.
    Resumed,
    /// By the parent: the helper ended.
    Ended {
        /// Why.
        why: String,
        /// Another one was started.
        restarted: bool,
    },
}

struct Open {
    file: File,
    dev: u64,
    ino: u64,
    offset_bytes: u64,
    history_until: u64,
    line: Vec<u8>,
    line_cut: bool,
    skip_to_newline: bool,
    line_number: u64,
    tail: Vec<u8>,
}

/// The follower; [`Follower::poll`] is one look at the file.
pub struct Follower<W> {
    options: FollowOptions,
    out: W,
    open: Option<Open>,
    missing: Option<String>,
    first: bool,
    last_alive_ns: u64,
}

impl<W: Write> Follower<W> {
    /// A follower that has not looked yet.
    pub fn new(options: FollowOptions, out: W) -> Self {
        Self {
            options,
            out,
            open: None,
            missing: None,
            first: true,
            last_alive_ns: 0,
        }
    }

    /// Looks once: reads what is new, notices rotation and truncation.
    ///
    /// # Errors
    /// Only if the parent can no longer be written to.
    pub fn poll(&mut self) -> io::Result<()> {
        if self.open.is_none() {
            self.try_open()?;
        }
        self.drain()?;
        self.check_path()?;
        self.first = false;
        let now = monotonic_ns();
        if now.saturating_sub(self.last_alive_ns) >= ALIVE_EVERY_NS {
            self.last_alive_ns = now;
            let (ino, offset_bytes) = self
                .open
                .as_ref()
                .map_or((0, 0), |open| (open.ino, open.offset_bytes));
            self.emit(&FollowEvent::Alive { ino, offset_bytes })?;
        }
        self.out.flush()
    }

    fn emit(&mut self, event: &FollowEvent) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, event)?;
        self.out.write_all(b"\n")
    }

    fn missing(&mut self, why: String) -> io::Result<()> {
        if self.missing.as_ref() != Some(&why) {
            self.emit(&FollowEvent::Missing { why: why.clone() })?;
            self.missing = Some(why);
        }
        Ok(())
    }

    fn try_open(&mut self) -> io::Result<()> {
        let opened = Root::open(self.options.root.as_deref())
            .and_then(|root| root.open_file(&self.options.file))
            .and_then(|file| Ok((file.metadata()?, file)));
        let (meta, file) = match opened {
            Ok((meta, file)) if meta.is_file() => (meta, file),
            Ok(_) => return self.missing("not a regular file".into()),
            Err(error) => return self.missing(error.to_string()),
        };
        let size = meta.len();
        // Only the first look skips what is there: a file that appears later
        // is new from its first byte.
        let mut start = if self.first {
            size.saturating_sub(self.options.history_bytes)
        } else {
            0
        };
        let mut history_until = if self.first { size } else { 0 };
        if let Some((ino, offset)) = self.options.resume.take()
            && ino == meta.ino()
            && offset <= size
        {
            (start, history_until) = (offset, offset);
        }
        let skip = start > 0 && !is_line_start(&file, start);
        self.missing = None;
        self.emit(&FollowEvent::Opened {
            file: self.options.file.display().to_string(),
            ino: meta.ino(),
            size_bytes: size,
            offset_bytes: start,
        })?;
        self.open = Some(Open {
            file,
            dev: meta.dev(),
            ino: meta.ino(),
            offset_bytes: start,
            history_until,
            line: Vec::new(),
            line_cut: false,
            skip_to_newline: skip,
            line_number: 0,
            tail: Vec::new(),
        });
        Ok(())
    }

    /// Reads up to the end of the open file.
    fn drain(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let outcome = self.drain_open(&mut open);
        self.open = Some(open);
        match outcome {
            Ok(()) => Ok(()),
            Err(Drain::Parent(error)) => Err(error),
            Err(Drain::File(error)) => {
                // Keep it open: the error may pass, and its offset counts.
                self.missing(format!("read: {error}"))
            }
        }
    }

    fn drain_open(&mut self, open: &mut Open) -> Result<(), Drain> {
        let size = open.file.metadata().map_err(Drain::File)?.len();
        if size < open.offset_bytes || (size > open.offset_bytes && !tail_matches(open)) {
            self.emit(&FollowEvent::Truncated).map_err(Drain::Parent)?;
            open.offset_bytes = 0;
            open.history_until = 0;
            open.line.clear();
            open.line_cut = false;
            open.skip_to_newline = false;
            open.line_number = 0;
            open.tail.clear();
        }
        if size == open.offset_bytes {
            return Ok(());
        }
        open.file
            .seek(SeekFrom::Start(open.offset_bytes))
            .map_err(Drain::File)?;
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let read = open.file.read(&mut buffer).map_err(Drain::File)?;
            if read == 0 {
                return Ok(());
            }
            let chunk = &buffer[..read];
            remember_tail(&mut open.tail, chunk);
            self.take_chunk(open, chunk).map_err(Drain::Parent)?;
        }
    }

    fn take_chunk(&mut self, open: &mut Open, chunk: &[u8]) -> io::Result<()> {
        let (realtime_ns, mono_ns) = (realtime_ns(), monotonic_ns());
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            open.offset_bytes += piece.len() as u64;
            let complete = piece.last() == Some(&b'\n');
            if open.skip_to_newline {
                open.skip_to_newline = !complete;
                continue;
            }
            let content = if complete {
                &piece[..piece.len() - 1]
            } else {
                piece
            };
            let room = MAX_RECORD_BYTES - open.line.len();
            open.line_cut |= content.len() > room;
            open.line
                .extend_from_slice(&content[..content.len().min(room)]);
            if complete {
                let history = open.offset_bytes <= open.history_until;
                self.emit_line(
                    open,
                    Stamp {
                        realtime_ns,
                        mono_ns,
                        history,
                    },
                )?;
            }
        }
        Ok(())
    }

    fn emit_line(&mut self, open: &mut Open, stamp: Stamp) -> io::Result<()> {
        open.line_number += 1;
        let event = FollowEvent::Line {
            text: String::from_utf8_lossy(&open.line)
                .trim_end_matches('\r')
                .to_owned(),
            truncated: std::mem::take(&mut open.line_cut),
            stamp,
            line_number: open.line_number,
            end_bytes: open.offset_bytes,
        };
        open.line.clear();
        self.emit(&event)
    }

    /// Compares the path with the open file.
    fn check_path(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let (dev, ino) = (open.dev, open.ino);
        match Root::open(self.options.root.as_deref())
            .and_then(|root| root.stat(&self.options.file))
        {
            Ok(meta) if meta.dev() == dev && meta.ino() == ino => {
                self.missing = None;
                Ok(())
            }
            Ok(_) => {
                // The writer may have added to the old file after the last read.
                self.drain()?;
                if let Some(mut open) = self.open.take()
                    && !open.line.is_empty()
                {
                    let stamp = Stamp {
                        realtime_ns: realtime_ns(),
                        mono_ns: monotonic_ns(),
                        history: false,
                    };
                    self.emit_line(&mut open, stamp)?;
                }
                self.emit(&FollowEvent::Rotated)?;
                self.first = false;
                self.try_open()?;
                self.drain()
            }
            // The old file stays open: it is written to until the new one exists.
            Err(error) => self.missing(error.to_string()),
        }
    }
}

enum Drain {
    File(io::Error),
    Parent(io::Error),
}

fn is_line_start(file: &File, offset: u64) -> bool {
    let mut before = [0u8; 1];
    file.read_exact_at(&mut before, offset - 1).is_ok() && before[0] == b'\n'
}

fn tail_matches(open: &Open) -> bool {
    let mut now = vec![0u8; open.tail.len()];
    let Some(at) = open.offset_bytes.checked_sub(now.len() as u64) else {
        return true;
    };
    open.file.read_exact_at(&mut now, at).is_err() || now == open.tail
}

fn remember_tail(tail: &mut Vec<u8>, chunk: &[u8]) {
    tail.extend_from_slice(&chunk[chunk.len().saturating_sub(TAIL_BYTES)..]);
    let excess = tail.len().saturating_sub(TAIL_BYTES);
    tail.drain(..excess);
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
