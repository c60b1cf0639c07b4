//! The inside of a virtual machine of `cargo xtask kernels`: the init that runs
//! the cells, and what it says to the host and hears from it.
//!
//! `fault` lists what is done to a disk, `protocol` are the lines both ways,
//! `base64` carries files in them, `host` is the guest's end of the line.
//! `init` is process 1, `system` what it owes the machine, `cells` runs the plan,
//! `watch` is the agent over a writer, `said` reads its lines, `broker` a real broker in its place, `make`
//! makes the faults, `effect` proves them, `journal` finds where one goes, `stack` builds what is between
//! file system and disk, `blocked` shows what waits
//! where one did not end as wanted. `expect` says what must be told of them, `gaps` what cannot,
//! `hooks` what `check` must say, which `check` runs.
//! The host's side is in xtask.

pub mod base64;
pub mod blocked;
pub mod broker;
pub mod cells;
pub mod check;
pub mod effect;
pub mod expect;
pub mod fault;
pub mod gaps;
pub mod hooks;
pub mod host;
pub mod init;
pub mod journal;
pub mod make;
pub mod protocol;
pub mod said;
pub mod stack;
pub mod system;
pub mod watch;
