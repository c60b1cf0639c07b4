//! What the loop asks helpers, each with its deadline. In: a worker's handle and
//! the question; out: the answer, which the loop takes up as one of its inputs.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use crate::{
    discover::{Broker, DiscoverRequest},
    enrich::{DeviceInfo, device::decode_dev},
    event::{InFlightSync, Space},
    helper::{Answer, MappedFile, Request, WorkerError, WorkerHandle},
    run::{namer::name_hanging, scan, tables::RootSlot},
};

/// Reading /proc of a healthy host takes milliseconds.
const DISCOVER_DEADLINE: Duration = Duration::from_secs(5);
/// /proc/PID/task/TID needs no lock of the process.
const THREAD_DEADLINE: Duration = Duration::from_millis(200);
/// /proc/PID/maps may wait for a lock of the process.
const MAPPED_DEADLINE: Duration = Duration::from_millis(300);
/// statfs(2) of a file system that works needs no disk.
const SPACE_DEADLINE: Duration = Duration::from_secs(1);
/// Threads looked at in one tick.
const MAX_THREADS: usize = 16;

/// Brokers, and the disks of their directories: to be watched before a broker is, or
/// its first syncs would be told without their requests.
pub(super) struct Found {
    pub brokers: Vec<Broker>,
    /// Of file systems that were not known; what could not be resolved is left out.
    pub devices: Vec<(u32, DeviceInfo)>,
}

/// Which brokers run. `known` are file systems whose disks are watched already.
pub(super) async fn brokers(
    finder: &WorkerHandle,
    request: DiscoverRequest,
    known: &BTreeSet<u32>,
) -> Result<Found, WorkerError> {
    let brokers = match finder
        .ask(Request::Discover(request), DISCOVER_DEADLINE)
        .await
    {
        Ok(Answer::Discovered(found)) => found.brokers,
        Ok(_) => return Err(WorkerError::Died),
        Err(error) => return Err(error),
    };
    let dirs = brokers
        .iter()
        .flat_map(|broker| broker.log_dirs.iter().chain(&broker.metadata_log_dir));
    let new: BTreeSet<u32> = dirs
        .map(|dir| dir.s_dev)
        .filter(|dev| *dev != 0 && !known.contains(dev))
        .collect();
    let mut devices = Vec::new();
    for dev in new {
        if let Ok(info) = device(finder, dev).await {
            devices.push((dev, info));
        }
    }
    Ok(Found { brokers, devices })
}

/// What sysfs says of a device.
pub(super) async fn device(finder: &WorkerHandle, dev: u32) -> Result<DeviceInfo, String> {
    let (major, minor) = decode_dev(dev);
    let request = Request::ResolveDevice {
        sys_root: PathBuf::from("/sys"),
        proc_root: PathBuf::from("/proc"),
        major,
        minor,
    };
    match finder.ask(request, DISCOVER_DEADLINE).await {
        Ok(Answer::Device(info)) => Ok(info),
        Ok(Answer::Failed { why }) => Err(why),
        Ok(_) => Err("helper answered something else".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// How full the file system of a process's directory is; None where that hangs.
pub(super) async fn space(finder: &WorkerHandle, pid: u32, path: PathBuf) -> Option<Space> {
    let root = Some(PathBuf::from(format!("/proc/{pid}/root")));
    match finder
        .ask(Request::Space { root, path }, SPACE_DEADLINE)
        .await
    {
        Ok(Answer::Space(space)) => Some(space),
        Ok(Answer::Failed { why }) => {
            log::debug!("{why}");
            None
        }
        Ok(_) => None,
        Err(error) => {
            log::debug!("ask for the room of a file system: {error}");
            None
        }
    }
}

/// Whether the threads of these syncs are still in them, and where; of which file, where
/// that is not known.
pub(super) async fn threads(
    watcher: &WorkerHandle,
    syncs: &mut [InFlightSync],
    roots: &[RootSlot],
) {
    for sync in syncs.iter_mut().take(MAX_THREADS) {
        let request = Request::ThreadState {
            proc_root: PathBuf::from("/proc"),
            pid: sync.sync.pid,
            tid: sync.sync.tid,
        };
        let Ok(Answer::Thread(thread)) = watcher.ask(request, THREAD_DEADLINE).await else {
            continue;
        };
        sync.confirmed = if thread.gone {
            Some(false)
        } else {
            scan::is_in_op(&sync.sync.op, &thread)
        };
        if let Some(path) = &thread.file {
            name_hanging(&mut sync.sync, path, roots);
        }
        sync.sync.comm = thread.comm;
        sync.stack = thread.stack;
    }
}

/// The file that a process has mapped at an address.
pub(super) async fn mapped(namer: &WorkerHandle, pid: u32, address: u64) -> Option<MappedFile> {
    let request = Request::MappedFile {
        proc_root: PathBuf::from("/proc"),
        pid,
        address,
    };
    match namer.ask(request, MAPPED_DEADLINE).await {
        Ok(Answer::Mapped { file }) => file,
        Ok(Answer::Failed { why }) => {
            log::debug!("name the file of a msync: {why}");
            None
        }
        Ok(_) => None,
        Err(error) => {
            log::debug!("name the file of a msync: {error}");
            None
        }
    }
}
