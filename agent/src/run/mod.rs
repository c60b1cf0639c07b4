//! The commands. `live` is the loop that drives all stages; `watch`, `export`
//! and `check` set it up, `replay` feeds a capture through the same core.

mod asks;
pub mod check;
mod drivers;
mod hists;
pub mod live;
mod logs;
mod namer;
mod preflight;
pub mod replay;
mod scan;
pub mod selfprobe;
pub mod serve;
mod shared;
mod source;
mod spans;
mod start;
pub mod stdout;
mod tables;
pub mod watch;
