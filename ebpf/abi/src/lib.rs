//! What crosses between the kernel programs and the agent.
//!
//! Comes in: nothing. Goes out: `#[repr(C)]` types of fixed width with explicit
//! padding, each with a `const` block that asserts its size. Every ring record
//! starts with a [`RecordHeader`]. Not here: decoding (the agent's `decode`),
//! and any Kafka word.
#![no_std]

pub mod block;
pub mod facts;
pub mod hist;
pub mod keys;
pub mod loss;
pub mod span;
pub mod sync;
pub mod wb;

/// Version of every record and map value in this crate. The agent refuses
/// records of another version.
pub const ABI_VERSION: u16 = 1;

/// Kinds of ring records ([`RecordHeader::kind`]).
pub mod kind {
    /// [`crate::sync::SyncRecord`]
    pub const SYNC: u16 = 1;
    /// [`crate::block::RequestRecord`]
    pub const REQUEST: u16 = 2;
    /// [`crate::wb::WbErrRecord`]
    pub const WB_ERR: u16 = 3;
    /// [`crate::wb::WbTellRecord`]
    pub const WB_TELL: u16 = 4;
}

/// First bytes of every ring record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// One of [`kind`].
    pub kind: u16,
    /// [`ABI_VERSION`] of the programs that wrote the record.
    pub version: u16,
    /// Size of the whole record in bytes, header included.
    pub size: u32,
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) when the record was written.
    pub ktime_ns: u64,
}

const _: () = assert!(size_of::<RecordHeader>() == 16);

#[cfg(feature = "user")]
mod user {
    use super::{block, facts, hist, keys, span, sync};

    macro_rules! plain {
        ($($t:ty),+ $(,)?) => {
            $(
                // SAFETY: #[repr(C)], integers only, no hidden padding.
                unsafe impl aya::Pod for $t {}
            )+
        };
    }
    plain!(
        keys::InodeKey,
        keys::Names,
        keys::Target,
        sync::SyncState,
        block::RqState,
        block::InodeState,
        block::FlushState,
        block::BlockHist,
        hist::HistKey,
        hist::Hist,
        span::RequestSpan,
        span::WaitSpan,
        span::FsState,
        facts::Facts,
    );
}
