//! The inside of a virtual machine of `cargo xtask kernels`: the init that runs
//! the cells, and what it says to the host and hears from it.
//!
//! `fault` lists what is done to a disk, `protocol` are the lines both ways,
//! `base64` carries files in them. The host's side is in xtask.

pub mod base64;
pub mod fault;
pub mod protocol;
