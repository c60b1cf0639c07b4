//! Plays one fault: agent on, a healthy moment, rules in force, hit, healed,
//! rest, agent off. In: stage, fault. Out: [`Known`] and [`Said`], and whether
//! the file system survived it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use fsyncscope_tests::campaign::Call;
use fsyncscope_tests::faultdisk::{Stamp, TruthRequest};
use fsyncscope_tests::lab::Lab;

use super::agent::{Agent, Watch};
use super::aim::aim;
use super::draw::{Fault, Kind};
use super::known::{self, Known, Owner};
use super::said::Said;
use super::stage::Stage;

/// `--slow` and `--stall` of the agent: the shortest delay drawn is to be seen,
/// and findings are to be had without waiting for seconds.
pub const SLOW: (&str, u64) = ("5ms", 5_000_000);
/// See [`SLOW`].
pub const STALL: (&str, u64) = ("200ms", 200_000_000);

/// Before each fault nothing happens for so long.
const HEALTHY: Duration = Duration::from_millis(500);
/// A fault whose place is not asked for within this was not applied.
const HIT_LIMIT: Duration = Duration::from_secs(9);
/// More than one request is waited for so long after the first.
const MORE_LIMIT: Duration = Duration::from_secs(3);
/// After errors, for the callers to be told.
const TOLD: Duration = Duration::from_millis(700);
/// The same where nobody waits: beyond the workload's longest pause.
const TOLD_LATE: Duration = Duration::from_secs(6);
/// After the last call, for the agent to say what it has to say.
const SETTLE: Duration = Duration::from_millis(500);

/// A window, played.
pub struct Played {
    /// The truth.
    pub known: Known,
    /// What was said.
    pub said: Said,
    /// The fault touched a request, or killed the disk.
    pub is_applied: bool,
}

/// See the module's comment.
pub fn play(
    lab: &Lab,
    stage: &mut Stage,
    fault: &Fault,
    binary: &Path,
    folder: &Path,
) -> anyhow::Result<Played> {
    stage.map()?;
    stage.forget();
    let log_dir = stage.log_dir();
    let watch = Watch {
        binary,
        pid: stage.pid(),
        log_dir: &log_dir,
        slow: SLOW.0,
        stall: STALL.0,
        folder,
    };
    let agent = Agent::start(lab, &watch)?;
    let watched_ns = Stamp::now().monotonic_ns;
    thread::sleep(HEALTHY);
    let armed_ns = Stamp::now().monotonic_ns;
    let is_applied = apply(stage, fault)?;
    let healed_ns = Stamp::now().monotonic_ns;
    stage.pause().context("let the workload rest")?;
    thread::sleep(SETTLE);
    let ended_ns = Stamp::now().monotonic_ns;
    let said = agent.stop()?;
    if fault.kind != Kind::Gone {
        stage.disk().clear()?;
    }
    stage.take()?;
    let known = Known {
        armed: (armed_ns, healed_ns),
        is_aborted: is_aborted(stage),
        slow_ns: SLOW.1,
        stall_ns: STALL.1,
        ..stage.known(fault.clone(), (watched_ns, ended_ns))
    };
    Ok(Played {
        known,
        said,
        is_applied,
    })
}

/// Puts the fault in force, waits for its effect and heals it. Out: whether it
/// had one.
fn apply(stage: &mut Stage, fault: &Fault) -> anyhow::Result<bool> {
    if fault.kind == Kind::Gone {
        stage.disk_mut().kill_server()?;
        thread::sleep(TOLD);
        return Ok(true);
    }
    let last = stage.disk().size_bytes() / 512 - 1;
    let rules = aim(fault, &stage.files, &stage.layout, last);
    stage.arm(&rules)?;
    if fault.kind == Kind::Healthy {
        thread::sleep(HIT_LIMIT);
    }
    let is_hit = !rules.is_empty() && wait_for_hit(stage, fault)?;
    if is_hit {
        wait_for_effect(stage, fault)?;
    }
    stage.arm(&[])?;
    Ok(is_hit)
}

fn touched(stage: &Stage) -> Vec<TruthRequest> {
    let mut requests = known::requests(stage.entries());
    requests.retain(|request| request.errno != 0 || request.delay_ms > 0);
    requests
}

fn wait_for_hit(stage: &mut Stage, fault: &Fault) -> anyhow::Result<bool> {
    let mut next_sync = Instant::now();
    wait_until(stage, HIT_LIMIT, |stage| {
        if fault.kind == Kind::TableError && Instant::now() >= next_sync {
            // Inode tables are written half a minute after the commit, or when
            // somebody syncs the device.
            sync_device(stage.disk().loop_dev());
            next_sync = Instant::now() + Duration::from_secs(1);
        }
        touched_by_first_rule(stage) > 0
    })
}

/// What the fault itself touched, without the flush held beside it.
fn touched_by_first_rule(stage: &Stage) -> usize {
    let all = touched(stage);
    all.iter().filter(|request| request.rule == 0).count()
}

fn wait_for_effect(stage: &mut Stage, fault: &Fault) -> anyhow::Result<()> {
    if let Some(count) = fault.count.filter(|count| *count > 1) {
        let limit = MORE_LIMIT + Duration::from_millis(fault.delay_ms * count);
        wait_until(stage, limit, |stage| {
            touched_by_first_rule(stage) as u64 >= count
        })?;
    }
    if fault.kind.is_delay() || fault.flush_ms > 0 {
        let limit = Duration::from_millis(fault.delay_ms.max(fault.flush_ms)) + MORE_LIMIT;
        wait_until(stage, limit, |stage| {
            touched(stage).iter().all(|request| request.reply.is_some())
        })?;
    }
    if fault.kind.is_delay() {
        return Ok(());
    }
    if fault.kind == Kind::BackgroundError {
        wait_until(stage, TOLD_LATE, is_told)?;
    }
    thread::sleep(TOLD);
    Ok(())
}

/// Whether a fsync of each file that was hit began after it was hit.
fn is_told(stage: &Stage) -> bool {
    let hit = touched(stage);
    let files: BTreeSet<(u64, u64)> = hit
        .iter()
        .filter_map(|request| {
            let at_ns = request.arrival.monotonic_ns;
            Some((stage.files.at(request.sector, at_ns)?, at_ns))
        })
        .collect();
    files.iter().all(|(ino, at_ns)| {
        stage
            .calls()
            .iter()
            .any(|call| call.call == Call::Fsync && call.ino == *ino && call.enter_ns > *at_ns)
    })
}

fn wait_until(
    stage: &mut Stage,
    limit: Duration,
    mut is_so: impl FnMut(&Stage) -> bool,
) -> anyhow::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        stage.take()?;
        if is_so(stage) {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(15));
    }
}

/// Writes back the device's metadata, without waiting for it here.
fn sync_device(device: &Path) {
    let device = device.to_owned();
    thread::spawn(move || {
        if let Ok(file) = File::open(device) {
            // SAFETY: plain syscall on an open descriptor. That it fails is what
            // is wanted.
            unsafe { libc::fsync(file.as_raw_fd()) };
        }
    });
}

/// Whether the file system is of no more use: it says so, or all that was called
/// at the end failed.
fn is_aborted(stage: &Stage) -> bool {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mountpoint = stage.disk().mountpoint().display().to_string();
    let options = mountinfo
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(&mountpoint))
        .map(|line| line.rsplit(' ').next().unwrap_or_default());
    let is_down = options.is_some_and(|options| {
        options
            .split(',')
            .any(|option| matches!(option, "ro" | "emergency_ro" | "shutdown"))
    });
    let last: Vec<i32> = stage
        .calls()
        .iter()
        .rev()
        .filter(|call| call.call.is_sync())
        .take(6)
        .map(|call| call.errno)
        .collect();
    let is_refused = |errno: &i32| matches!(*errno, libc::EROFS | libc::ESHUTDOWN | libc::EUCLEAN);
    is_down || last.iter().all(|errno| *errno != 0) || last.iter().any(is_refused)
}

/// Who owned what was touched, in words, for the list of misses.
pub fn tell_touched(known: &Known) -> String {
    let all = known.failed().chain(known.held());
    let texts: Vec<String> = all
        .take(3)
        .map(|request| {
            let owner = match known.owner_of(request) {
                Owner::File(ino) => {
                    let name = known.files.last_name(ino);
                    let name = name.and_then(|name| name.rsplit("/data/").next());
                    name.unwrap_or("a file without name").to_owned()
                }
                owner => format!("{owner:?}").to_lowercase(),
            };
            match request.bytes {
                0 => format!("{:?}", request.op).to_lowercase(),
                _ => format!("{:?} of sector {} ({owner})", request.op, request.sector)
                    .replace("Write", "write")
                    .replace("Read", "read"),
            }
        })
        .collect();
    texts.join(", ")
}
