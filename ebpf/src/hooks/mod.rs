//! The hooks, one file a group. Each file's head gives the kernel prototypes.

mod block;
mod files;
mod flush;
mod report;
mod sync;
mod wb;
