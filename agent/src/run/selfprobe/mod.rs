//! Proof that the hooks fire and read what they should: a helper process syncs and
//! reads its own binary, opened read-only, so nothing is written; each call must come
//! back through the ring with the file, argument and result that the helper saw, and
//! each read must have been noted with its size, on its disk, and counted for its
//! file. In: an attached probe; out: proven states, and what is refuted.
//!
//! `helper` is the process, `judge` compares.

mod helper;
mod judge;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fsyncscope_abi::{
    block::{InodeState, RqState},
    keys::{InodeKey, SLOT_NONE, Target, target_flags},
};

use crate::{
    decode::{FlagMasks, decode_record},
    enrich::parse_mountinfo,
    event::{Event, HookState, SyncEvent},
    probe::{Probe, facts::ResolvedFacts},
    ring::drain,
};
pub use helper::probe_main;
use helper::{CACHED, DIRECT, ReadBack, SYNC, Synced};
pub use judge::Refuted;
use judge::{Reads, Seen, judge};

/// The hidden subcommand of the helper.
pub const PROBE_COMMAND: &str = "__probe";
/// A sync of a clean file takes microseconds; a root disk that hangs must not
/// hold up the start for long.
const DEADLINE: Duration = Duration::from_secs(2);
/// For records that the hooks have sent to become visible.
const SETTLE: Duration = Duration::from_millis(200);
/// Request objects that are looked at: the map of them was empty a moment ago.
const MAX_REQUESTS: usize = 16_384;

/// Runs the probe and marks the hooks that are proven. What it refutes, it has seen
/// refuted twice: other tracers that come and go may take an event away.
///
/// # Errors
/// When the helper cannot be run; the hooks then stay unproven.
pub fn run(
    probe: &mut Probe,
    resolved: &ResolvedFacts,
    sys_root: &Path,
    proc_root: &Path,
) -> anyhow::Result<Vec<Refuted>> {
    let mut once = || -> anyhow::Result<(Vec<HookState>, Vec<Refuted>)> {
        let seen = look(probe, resolved, sys_root, proc_root)?;
        let mut states = probe.states.clone();
        let refuted = judge(&mut states, &seen);
        Ok((states, refuted))
    };
    let (mut states, mut refuted) = once()?;
    if !refuted.is_empty() {
        let (again_states, again) = once()?;
        states = again_states;
        refuted.retain(|first| again.iter().any(|second| first.is_same(second)));
    }
    probe.states = states;
    Ok(refuted)
}

/// Runs the helper once.
fn look(
    probe: &mut Probe,
    resolved: &ResolvedFacts,
    sys_root: &Path,
    proc_root: &Path,
) -> anyhow::Result<Seen> {
    let mut helper = Helper::start()?;
    let target = Target {
        broker: SLOT_NONE,
        flags: target_flags::EMIT_ALL,
    };
    let pid = helper.child.id();
    probe
        .maps
        .1
        .targets
        .insert(&pid, &target, 0)
        .context("watch the self-probe")?;
    let outcome = converse(probe, &mut helper, sys_root, proc_root);
    let _ = probe.maps.1.targets.remove(&pid);
    outcome.map(|seen| Seen {
        pid,
        is_direct_known: resolved.facts.iomap_dio_bio_end_io != 0
            && resolved.get("iomap_dio_iocb").is_some(),
        ..seen
    })
}

fn converse(
    probe: &mut Probe,
    helper: &mut Helper,
    sys_root: &Path,
    proc_root: &Path,
) -> anyhow::Result<Seen> {
    let synced: Synced = helper.step(SYNC)?;
    let syncs = collect(probe, helper.child.id(), synced.calls.len());
    let fs = file_system(proc_root, &synced);
    let mut seen = Seen {
        synced,
        syncs,
        ..Seen::default()
    };
    let Some((kind, s_dev)) = fs else {
        return Ok(seen);
    };
    seen.disk = disk_of(sys_root, s_dev);
    let key = InodeKey {
        ino: seen.synced.ino,
        s_dev,
        pad: 0,
    };
    seen.fs = Some((kind, s_dev));
    if let Some(disk) = seen.disk {
        let maps = &mut probe.maps.1;
        let fresh = InodeState {
            root: SLOT_NONE,
            ..InodeState::default()
        };
        // The right one, which hooks that read a wrong one will not make.
        let _ = maps.inodes.insert(&key, &fresh, 0);
        maps.devs
            .insert(&disk, &1, 0)
            .context("watch the self-probe's disk")?;
        let reads = read_back(probe, helper, &key, &mut seen);
        let maps = &mut probe.maps.1;
        let _ = maps.devs.remove(&disk);
        let _ = maps.inodes.remove(&key);
        // What was concluded of this disk is concluded again.
        crate::run::tables::raise_epoch(maps)?;
        reads?;
    }
    Ok(seen)
}

/// The steps that read, and what was counted of each.
fn read_back(
    probe: &mut Probe,
    helper: &mut Helper,
    key: &InodeKey,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    crate::run::tables::raise_epoch(&mut probe.maps.1)?;
    let counted = |probe: &Probe| {
        let state = probe.maps.1.inodes.get(key, 0);
        state.map_or(0, |state| state.counters.nr_bytes)
    };
    let before = counted(probe);
    let said: ReadBack = helper.step(CACHED)?;
    let between = counted(probe);
    seen.cached = Reads {
        said,
        seen_bytes: between.saturating_sub(before),
    };
    let said: ReadBack = helper.step(DIRECT)?;
    seen.direct = Reads {
        said,
        seen_bytes: counted(probe).saturating_sub(between),
    };
    let requests = probe.maps.1.rqs.iter().take(MAX_REQUESTS);
    seen.requests = requests
        .flatten()
        .map(|(_, rq): (u64, RqState)| rq)
        .collect();
    Ok(())
}

/// Records of the helper's syncs.
fn collect(probe: &mut Probe, pid: u32, wanted: usize) -> Vec<SyncEvent> {
    let mut seen = Vec::new();
    let until = Instant::now() + SETTLE;
    loop {
        drain(&mut probe.maps.0, usize::MAX, |bytes| {
            if let Ok(Event::Sync(sync)) = decode_record(bytes, FlagMasks::default())
                && sync.pid == pid
            {
                seen.push(sync);
            }
        });
        if seen.len() >= wanted || Instant::now() >= until {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Type and s_dev of the helper's file system, if its inode numbers are those that
/// hooks see; overlayfs has its own.
fn file_system(proc_root: &Path, synced: &Synced) -> Option<(String, u32)> {
    let text = fs::read_to_string(proc_root.join("self/mountinfo")).ok()?;
    let mounts = parse_mountinfo(&text);
    let mount = mounts.iter().find(|mount| mount.id == synced.mount_id)?;
    let kind = match mount.fs_type.as_str() {
        kind @ ("ext4" | "ext3" | "ext2" | "xfs" | "btrfs") => kind.to_owned(),
        _ => return None,
    };
    // btrfs has several devices, and a made-up s_dev.
    Some((kind, mount.major << 20 | mount.minor & 0xf_ffff))
}

/// The disk of a file system, if it or the partition lies right on one that has
/// requests of its own: not on dm, md, or the head of NVMe multipath.
fn disk_of(sys_root: &Path, s_dev: u32) -> Option<u32> {
    let mut dir = sys_root.join(format!("dev/block/{}:{}", s_dev >> 20, s_dev & 0xf_ffff));
    if dir.join("partition").exists() {
        dir = fs::canonicalize(&dir).ok()?.parent()?.to_owned();
    }
    if !dir.join("mq").is_dir() {
        return None;
    }
    let text = fs::read_to_string(dir.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    Some(major << 20 | minor & 0xf_ffff)
}

/// The helper's process, killed in the end.
struct Helper {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<std::io::Result<String>>,
}

impl Helper {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(PROBE_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start self-probe")?;
        let stdin = child.stdin.take().context("self-probe has no stdin")?;
        let stdout = child.stdout.take().context("self-probe has no stdout")?;
        let (tx, lines) = channel();
        // A thread, since a hung root disk must not hang the start with it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Helper {
            child,
            stdin,
            lines,
        })
    }

    /// Has one step done.
    fn step<T: serde::de::DeserializeOwned>(&mut self, step: u8) -> anyhow::Result<T> {
        self.stdin
            .write_all(&[step])
            .context("ask the self-probe")?;
        let line = self
            .lines
            .recv_timeout(DEADLINE)
            .with_context(|| {
                format!(
                    "the self-probe did not answer within {} s: does the disk of this binary hang?",
                    DEADLINE.as_secs()
                )
            })?
            .context("read from the self-probe")?;
        serde_json::from_str(&line).context("the self-probe failed")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Reaped only if it can be: one in D state is left to init.
        let _ = self.child.try_wait();
    }
}
