//! Captures: what `--record` keeps and `--from` reads. NDJSON, a header line
//! and then one [`Stamped`](crate::event::Stamped) a line, in zstd frames that
//! stand alone: a file cut off anywhere reads up to its last whole frame, and
//! `zstdcat | jq` reads it without this program. Not here: files, sockets,
//! modes; bytes come from and go to the caller.

mod encode;
mod read;

use serde::{Deserialize, Serialize};

pub use encode::CaptureEncoder;
pub use read::{CaptureError, CaptureItem, CaptureReader};

/// Version of the capture's shape; another one is refused, not guessed at.
pub const CAPTURE_VERSION: u32 = 1;

/// First line of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureHeader {
    /// [`CAPTURE_VERSION`].
    pub fsyncscope_capture: u32,
    /// Version of the agent that wrote it.
    pub version: String,
}
