//! Learns the kernel, loads and attaches the programs. In: the running
//! kernel; out: facts and attached hooks. Reading their records is `ring`'s.

mod elf;
pub mod facts;
mod forecast;
pub mod hooks;
mod late;
pub mod load;
pub mod maps;
mod object;
mod prepare;
mod usage;

pub use forecast::forecast;
pub use late::{Arrived, Late};
pub use load::{LoadOptions, Probe, RefutedForm, attach};
pub use usage::{recursion_misses, usage};
