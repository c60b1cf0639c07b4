//! A capture back to its events, line by line in bounded memory. In: any
//! `Read`, compressed or plain NDJSON. Out: events, then, if the file breaks
//! off, one [`CaptureItem::Truncated`]. Fields and event kinds of later
//! versions are passed over, another capture version is refused.

use std::collections::VecDeque;
use std::io::{self, Read};

use ruzstd::decoding::StreamingDecoder;
use serde::Deserialize;
use thiserror::Error;

use super::{CAPTURE_VERSION, CaptureHeader};
use crate::event::Stamped;

/// No event is longer: a log record is cut at 64 KiB before it becomes one.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why a capture cannot be read at all.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// No header, or not even text.
    #[error("not a capture: {0}")]
    NotACapture(String),
    /// Written by another version.
    #[error("capture has version {found}, this program reads version {CAPTURE_VERSION}")]
    OtherVersion {
        /// Its version.
        found: u32,
    },
    /// The source failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a capture yields.
#[derive(Clone, Debug, PartialEq)]
pub enum CaptureItem {
    /// An event.
    Event(Box<Stamped>),
    /// The capture breaks off here, and why; nothing follows.
    Truncated(String),
}

/// Reads a capture. An iterator over its items.
pub struct CaptureReader<R: Read> {
    source: Source<R>,
    header: CaptureHeader,
    buffer: VecDeque<u8>,
    line: u64,
    skipped: u64,
    done: bool,
}

impl<R: Read> CaptureReader<R> {
    /// Reads the header of `source`.
    ///
    /// # Errors
    /// If it is no capture, or one of another version, or cannot be read.
    pub fn new(source: R) -> Result<Self, CaptureError> {
        let mut reader = Self {
            source: Source::new(source)?,
            header: CaptureHeader {
                fsyncscope_capture: 0,
                version: String::new(),
            },
            buffer: VecDeque::new(),
            line: 0,
            skipped: 0,
            done: false,
        };
        let not = |why: &str| CaptureError::NotACapture(why.to_owned());
        let line = match reader.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => return Err(not("it is empty or has no whole line")),
            Err(Broken::TooLong) => return Err(not("its first line is not a header")),
            Err(Broken::Cut(why)) => return Err(CaptureError::NotACapture(why)),
        };
        #[derive(Deserialize)]
        struct AnyHeader {
            fsyncscope_capture: u32,
            #[serde(default)]
            version: String,
        }
        let any: AnyHeader = serde_json::from_slice(&line)
            .map_err(|_| not("its first line is not the header of a capture"))?;
        if any.fsyncscope_capture != CAPTURE_VERSION {
            return Err(CaptureError::OtherVersion {
                found: any.fsyncscope_capture,
            });
        }
        reader.header = CaptureHeader {
            fsyncscope_capture: any.fsyncscope_capture,
            version: any.version,
        };
        Ok(reader)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &CaptureHeader {
        &self.header
    }

    /// Events of kinds that this version does not know.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let mut searched = 0;
        loop {
            if let Some(at) = self
                .buffer
                .range(searched..)
                .position(|byte| *byte == b'\n')
            {
                let mut line: Vec<u8> = self.buffer.drain(..=searched + at).collect();
                line.pop();
                self.line += 1;
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE_BYTES {
                return Err(Broken::TooLong);
            }
            let mut chunk = vec![0; CHUNK_BYTES];
            match self.source.read(&mut chunk) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(Broken::Cut("its last line is not whole".to_owned())),
                Ok(count) => self.buffer.extend(&chunk[..count]),
                Err(error) => return Err(Broken::Cut(explain(&error))),
            }
        }
    }

    fn truncated(&mut self, why: &str) -> CaptureItem {
        self.done = true;
        CaptureItem::Truncated(format!(
            "capture is truncated after line {}: {why}",
            self.line
        ))
    }
}

impl<R: Read> Iterator for CaptureReader<R> {
    type Item = CaptureItem;

    fn next(&mut self) -> Option<CaptureItem> {
        while !self.done {
            let line = match self.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(Broken::TooLong) => return Some(self.truncated("a line is too long")),
                Err(Broken::Cut(why)) => return Some(self.truncated(&why)),
            };
            match serde_json::from_slice::<Stamped>(&line) {
                Ok(stamped) => return Some(CaptureItem::Event(Box::new(stamped))),
                // A kind of event that a later version knows.
                Err(error)
                    if error.to_string().starts_with("unknown variant") && is_some_event(&line) =>
                {
                    self.skipped += 1;
                }
                Err(error) => {
                    let why = format!("the next line is no event: {error}");
                    return Some(self.truncated(&why));
                }
            }
        }
        None
    }
}

fn is_some_event(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct AnyEvent {
        #[serde(rename = "mono_ns")]
        _mono_ns: u64,
        ev: String,
    }
    serde_json::from_slice::<AnyEvent>(line).is_ok_and(|any| !any.ev.is_empty())
}

/// The decoder's own words are for its developers.
fn explain(error: &io::Error) -> String {
    let text = error.to_string();
    if error.raw_os_error().is_some() {
        text
    } else if text.contains("UnexpectedEof") || text.contains("failed to fill whole buffer") {
        "it breaks off within a zstd frame".to_owned()
    } else {
        "a zstd frame is damaged".to_owned()
    }
}

enum Broken {
    TooLong,
    Cut(String),
}

/// The source with what was read ahead, as plain text or as frames.
enum Source<R: Read> {
    Plain(Ahead<R>),
    Frames(Option<Frame<R>>),
}

enum Frame<R: Read> {
    Between(Ahead<R>),
    Inside(Box<StreamingDecoder<Ahead<R>, ruzstd::decoding::FrameDecoder>>),
}

impl<R: Read> Source<R> {
    fn new(source: R) -> io::Result<Self> {
        let mut source = Ahead {
            first: Vec::new(),
            source,
        };
        source.fill(ZSTD_MAGIC.len())?;
        Ok(if source.first == ZSTD_MAGIC {
            Self::Frames(Some(Frame::Between(source)))
        } else {
            Self::Plain(source)
        })
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let frames = match self {
            Self::Plain(source) => return source.read(out),
            Self::Frames(frames) => frames,
        };
        loop {
            match frames.take() {
                None => return Ok(0),
                Some(Frame::Between(mut source)) => {
                    source.fill(1)?;
                    if source.first.is_empty() {
                        return Ok(0);
                    }
                    let decoder = StreamingDecoder::new(source)
                        .map_err(|error| io::Error::other(format!("frame header: {error:?}")))?;
                    *frames = Some(Frame::Inside(Box::new(decoder)));
                }
                Some(Frame::Inside(mut decoder)) => match decoder.read(out)? {
                    0 => *frames = Some(Frame::Between(decoder.into_inner())),
                    count => {
                        *frames = Some(Frame::Inside(decoder));
                        return Ok(count);
                    }
                },
            }
        }
    }
}

struct Ahead<R: Read> {
    first: Vec<u8>,
    source: R,
}

impl<R: Read> Ahead<R> {
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let missing = wanted.saturating_sub(self.first.len());
        (&mut self.source)
            .take(missing as u64)
            .read_to_end(&mut self.first)
            .map(|_| ())
    }
}

impl<R: Read> Read for Ahead<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.first.is_empty() {
            return self.source.read(out);
        }
        let count = self.first.len().min(out.len());
        out[..count].copy_from_slice(&self.first[..count]);
        self.first.drain(..count);
        Ok(count)
    }
}
