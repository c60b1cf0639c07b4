//! Disposable helper processes: what could block on a sick disk runs in a
//! child of this same binary (`fsyncscope __helper KIND …`), with a deadline,
//! and is killed and left behind if it does not answer. In: requests. Out:
//! answers, log lines, a written capture. The parent never touches the files.

pub mod clock;
pub mod rootfs;
#[cfg(test)]
pub(crate) mod testdir;
