//! The lab: everything that the tests and `xtask demo` need to make a storage
//! failure on purpose and to know what really happened.
//!
//! `lab` owns the directory and cleans up; `faultdisk` is a disk that fails on
//! demand and keeps the known truth; `broker` is a real Kafka; `writer` is a
//! stand-in with the same files, syscalls and log lines; `campaign` is a load of
//! every kind of sync that records what its callers saw; `guest` is the inside of
//! a virtual machine with another kernel; `incident` and `metrics` read what the
//! agent prints and serves; `btf` makes a kernel's description of itself wrong.
//! Nothing of the agent is in here, and the agent knows nothing of this crate.

pub mod broker;
pub mod btf;
pub mod campaign;
pub mod faultdisk;
pub mod guest;
pub mod incident;
pub mod lab;
pub mod metrics;
pub mod proc;
pub mod writer;

use std::ffi::OsString;

/// Runs a helper process if these are the arguments of one, and returns its
/// exit code; `None` means "go on with your own main".
///
/// Every binary that opens a [`lab::Lab`] calls this first in `main`: the lab
/// starts its disk servers and writers by executing the running binary again.
pub fn dispatch(args: &[OsString]) -> Option<u8> {
    let first = args.get(1).and_then(|a| a.to_str());
    let outcome = match first {
        Some(faultdisk::SUBCOMMAND) => faultdisk::serve_main(&args[2..]),
        Some(writer::BYSTANDER_SUBCOMMAND) => writer::bystander_main(&args[2..]),
        Some(campaign::WORKLOAD_SUBCOMMAND) => campaign::workload_main(&args[2..]),
        _ if writer::is_writer_command(args) => writer::serve_main(&args[1..]),
        _ => return None,
    };
    Some(match outcome {
        Ok(code) => code,
        Err(err) => {
            eprintln!("error: {err:#}");
            2
        }
    })
}
