//! The kernel object inside the binary.

#[cfg(feature = "embed-ebpf")]
use aya::include_bytes_aligned;

/// ELF of `fsyncscope-ebpf`; None in a build without the feature `embed-ebpf`.
#[cfg(feature = "embed-ebpf")]
pub static OBJECT: Option<&[u8]> = Some(include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/fsyncscope-ebpf"
)));

/// ELF of `fsyncscope-ebpf`; None in a build without the feature `embed-ebpf`.
#[cfg(not(feature = "embed-ebpf"))]
pub static OBJECT: Option<&[u8]> = None;
