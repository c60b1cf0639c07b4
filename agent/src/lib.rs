//! fsyncscope: which fsync failed or hung, on which file, because of which
//! block request, and which line of the broker's log that explains.
//!
//! An event meets the modules in this order; each knows only its neighbours:
//!
//! ```text
//! discover → probe → ring → decode → enrich → correlate → judge → sink
//!                                      ↑
//!                 brokerlog ───────────┘
//! ```
//!
//! `event` is what the stages from `correlate` on see, `incident` what they
//! say. `run` is the loop that drives them; `helper` does, in processes of its
//! own, what could block on a sick disk. `correlate`, `judge` and the rendering
//! in `sink` are pure: no I/O and no clock, so that a capture replays to the
//! same report.

pub mod discover;
pub mod probe;
pub mod ring;
pub mod decode;
pub mod histogram;
pub mod brokerlog;
pub mod enrich;
pub mod event;
pub mod correlate;
pub mod judge;
pub mod incident;
pub mod sink;
pub mod capture;
pub mod export;
pub mod helper;
pub mod run;
pub mod cli;
pub mod detail;
pub mod config;
pub mod messages;
