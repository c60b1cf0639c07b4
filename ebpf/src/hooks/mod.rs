//! The hooks, one file a group. Each file's head gives the kernel prototypes.

mod block;
mod done;
mod files;
mod flush;
mod journal;
mod lock;
mod nvme;
mod places;
mod report;
mod spans;
mod sync;
mod wb;
