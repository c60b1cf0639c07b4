//! The broker's log: bytes become logical records, records become storage
//! events. In: bytes or lines with the time of their arrival. Out:
//! [`StorageEvent`]s. Pure but for [`follow`], which reads the file and runs
//! only in a helper process. What an event means is decided in `judge`.

pub mod classify;
mod exception;
pub mod follow;
pub mod joiner;
pub mod parse;
mod phrases;
mod timestamp;

pub use classify::{
    EventRole, Implausible, StorageEvent, StorageEventKind, check_plausible, classify, is_plausible,
};
pub use follow::{FollowEvent, FollowOptions};
pub use joiner::{LineJoiner, RawRecord, Stamp};
pub use parse::{Level, LogRecord, parse_line, parse_record};
