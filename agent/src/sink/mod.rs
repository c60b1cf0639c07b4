//! Outputs to text: for people (`text`) and for programs (`json`). In:
//! [`Output`](crate::correlate::Output)s in order. Out: strings, newline
//! included, empty if there is nothing to print. Pure: live and replay print
//! the same bytes. Not here: files, terminals, the decision about colour.

mod block;
pub(crate) mod breakdown;
pub mod json;
pub mod text;
pub mod units;

pub use json::JsonSink;
pub use text::{TextOptions, TextSink};
