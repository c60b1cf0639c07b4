//! One measurement: one contender under one load. Out: what both did and what
//! it cost, by the kernel's account.

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::bpf::{self, Program};
use super::contender::Contender;
use super::disturbance::Completed;
use super::load::{Done, Load};
use super::scene::{Scene, check_interrupt};

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The load's result.
    pub done: Done,
    /// The contender's programs, with what they ran during the load.
    pub programs: Vec<Program>,
    /// Requests on other disks for each on the load's disk.
    pub others_share: f64,
    /// A getppid of a process that has nothing to do with it.
    pub bystander_ns: f64,
    /// Of the contender's process; `None` for nobody.
    pub process: Option<ProcessCost>,
}

/// What the contender's process took.
#[derive(Clone, Debug, Default)]
pub struct ProcessCost {
    /// From exec to attached.
    pub attach_time: Duration,
    /// VmRSS at the end of the load.
    pub rss_bytes: u64,
    /// RssAnon at the end of the load.
    pub rss_anon_bytes: u64,
    /// Share of one CPU during the load.
    pub cpu_share: f64,
    /// What it says it lost, where it says so.
    pub lost: Option<u64>,
}

impl Measured {
    /// All its programs' time for one sync of the load.
    pub fn kernel_ns_per_sync(&self) -> f64 {
        let total: u64 = self
            .programs
            .iter()
            .map(|program| program.run_time_ns)
            .sum();
        total as f64 / self.done.syncs as f64
    }
}

/// Measures.
pub fn measure(
    scene: &Scene,
    load: Load,
    contender: &Contender,
    duration: Duration,
) -> anyhow::Result<Measured> {
    check_interrupt()?;
    let load = load.start_held(scene, duration)?;
    let empty = match contender {
        Contender::Empty => Some(super::empty::attach()?),
        _ => None,
    };
    let running = contender.start(scene, load.pid())?;
    let bystander_ns = time_getppid();
    let held = match (&running, &empty) {
        (Some(running), _) => bpf::read_held_by(Path::new("/proc"), running.pid())?,
        (None, Some(_)) => bpf::read_held_by(Path::new("/proc"), std::process::id())?,
        (None, None) => BTreeSet::new(),
    };
    let start = bpf::read_programs()?;
    let cpu_before = running.as_ref().map(|r| read_cpu_seconds(r.pid()));
    let disks_before = Completed::read(Path::new("/proc"), &scene.device)?;
    load.release()?;
    let begin = Instant::now();
    let done = load.finish()?;
    let elapsed = begin.elapsed();
    let end = bpf::read_programs()?;
    let disks = Completed::read(Path::new("/proc"), &scene.device)?;
    let mut process = None;
    if let Some(running) = running {
        let pid = running.pid();
        let (rss_bytes, rss_anon_bytes) = read_rss(pid)?;
        let cpu = read_cpu_seconds(pid)? - cpu_before.transpose()?.unwrap_or(0.0);
        let attach_time = running.attach_time;
        let said = running.stop()?;
        process = Some(ProcessCost {
            attach_time,
            rss_bytes,
            rss_anon_bytes,
            cpu_share: cpu / elapsed.as_secs_f64(),
            lost: parse_lost(&said),
        });
    }
    drop(empty);
    // Programs are freed a grace period after their last reference.
    thread::sleep(Duration::from_millis(200));
    Ok(Measured {
        done,
        programs: bpf::ran(&held, &start, &end),
        others_share: disks.others_share_since(disks_before),
        bystander_ns,
        process,
    })
}

/// A tracepoint on any syscall's entry sends all syscalls of all processes down
/// the kernel's slow path: this shows it.
fn time_getppid() -> f64 {
    const CALLS: u32 = 1_000_000;
    let begin = Instant::now();
    for _ in 0..CALLS {
        // SAFETY: getppid has no arguments and cannot fail.
        black_box(unsafe { libc::syscall(libc::SYS_getppid) });
    }
    begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

fn read_rss(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let field =
        |name| parse_status_bytes(&status, name).with_context(|| format!("no {name} in {path}"));
    Ok((field("VmRSS:")?, field("RssAnon:")?))
}

fn parse_status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn read_cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = parse_stat_ticks(&stat).with_context(|| format!("no times in {path}"))?;
    // SAFETY: sysconf has no memory effects.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks as f64 / per_second as f64)
}

/// utime + stime, fields 14 and 15.
fn parse_stat_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

/// All losses in the last line of the agent's JSON; `None` for the peers, which
/// say nothing of theirs.
fn parse_lost(said: &str) -> Option<u64> {
    let last: serde_json::Value = serde_json::from_str(said.lines().last()?).ok()?;
    if last.get("type")? != "stopped" {
        return None;
    }
    let lost = last.get("lost").and_then(|lost| lost.as_object());
    Some(lost.map_or(0, |lost| lost.values().filter_map(|n| n.as_u64()).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_times_are_read_from_proc() {
        let status = "Name:\tx\nVmRSS:\t  5120 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(parse_status_bytes(status, "VmRSS:"), Some(5_242_880));
        assert_eq!(parse_status_bytes(status, "VmSwap:"), None);
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0";
        assert_eq!(parse_stat_ticks(stat), Some(42));
    }

    #[test]
    fn losses_are_added_up() {
        let line = r#"{"type":"stopped","lost":{"a":3,"b":1}}"#;
        assert_eq!(parse_lost(&format!("{{}}\n{line}\n")), Some(4));
        assert_eq!(parse_lost(r#"{"type":"stopped"}"#), Some(0));
        assert_eq!(parse_lost("@device_ns: 3"), None);
    }
}
