//! Many healthy syncs under the agent as it is shipped: whatever it finds then is
//! false. In: how many. Out: a window like any other, in which nothing was done.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::campaign::CallRecord;
use fsyncscope_tests::faultdisk::{FsKind, Stamp};
use fsyncscope_tests::lab::Lab;

use super::agent::{Agent, Watch};
use super::draw::Fault;
use super::known::Known;
use super::play::Played;
use super::stage::Stage;
use crate::process::say;

/// The shipped defaults.
const SLOW: (&str, u64) = ("100ms", 100_000_000);
const STALL: (&str, u64) = ("1s", 1_000_000_000);
/// Calls shorter than this cannot be what a finding is about.
const KEPT_NS: u64 = 20_000_000;

/// Plays it. Out: the window, and how many syncs there were.
pub fn play(
    lab: &Lab,
    fs: FsKind,
    binary: &Path,
    folder: &Path,
    syncs: u64,
) -> anyhow::Result<(Played, u64)> {
    let mut stage = Stage::set_up(lab, fs, "healthy", 0, (0, 1))?;
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
    stage.forget();
    let mut done = 0;
    let mut kept: Vec<CallRecord> = Vec::new();
    let mut said_at = Instant::now();
    while done < syncs {
        thread::sleep(Duration::from_millis(200));
        stage.take()?;
        let calls = stage.calls();
        done += calls.iter().filter(|call| call.call.is_sync()).count() as u64;
        let is_kept = |call: &&CallRecord| call.errno != 0 || call.duration_ns() >= KEPT_NS;
        kept.extend(calls.iter().filter(is_kept).cloned());
        stage.forget_calls();
        if said_at.elapsed() > Duration::from_secs(20) {
            said_at = Instant::now();
            say(format!("{done} of {syncs} healthy syncs"));
        }
    }
    stage.pause()?;
    let ended_ns = Stamp::now().monotonic_ns;
    let said = agent.stop()?;
    let fault = Fault::none(fs == FsKind::Xfs);
    let known = Known {
        requests: Vec::new(),
        calls: kept,
        slow_ns: SLOW.1,
        stall_ns: STALL.1,
        ..stage.known(fault, (watched_ns, ended_ns))
    };
    let played = Played {
        known,
        said,
        is_applied: false,
    };
    Ok((played, done))
}
