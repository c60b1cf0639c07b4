//! Disposable helper processes: what could block on a sick disk runs in a
//! child of this same binary (`fsyncscope __helper KIND …`), with a deadline,
//! and is killed and left behind if it does not answer. In: requests. Out:
//! answers, log lines, a written capture. The parent never touches the files.

mod child;
pub mod clock;
pub mod follower;
mod mapped;
pub mod protocol;
pub mod rootfs;
mod serve;
pub mod sink;
pub mod spawn;
#[cfg(test)]
pub(crate) mod testdir;
mod thread;
pub mod worker;

pub use child::{HELPER_COMMAND, helper_main};
pub use follower::Follower;
pub use protocol::{Answer, MappedFile, PathStat, Request, ThreadState};
pub use sink::{Sink, SinkError, SinkReport};
pub use spawn::HelperCommand;
pub use worker::{Worker, WorkerError, WorkerHandle, WorkerStats};
