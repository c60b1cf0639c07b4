//! `fsyncscope export` beside the writer: what two scrapers read at once is held
//! against what the writer counted itself, over restarts of the writer.
//! `FSYNCSCOPE_BIN` names the agent's binary; nothing of it is linked in here.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind};
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::metrics::{self, Scrape};
use fsyncscope_tests::proc;
use fsyncscope_tests::writer::{ExtraSyncs, Writer, WriterConfig};

const LIMIT: Duration = Duration::from_secs(30);
const BINARY_VARIABLE: &str = "FSYNCSCOPE_BIN";
/// Where export says its address.
const SERVING: &str = "serving http://";

const COUNT: &str = "fsyncscope_sync_duration_seconds_count";
const FAILURES: &str = "fsyncscope_sync_failures_total";
const ERRORS: &str = "fsyncscope_sync_errors_total";
const BLOCK_ERRORS: &str = "fsyncscope_block_errors_total";

/// A running `fsyncscope export` on a port of the kernel's choice.
struct Export {
    process: Child,
    stderr: PathBuf,
    addr: SocketAddr,
}

impl Export {
    fn start(lab: &Lab) -> Export {
        let binary = PathBuf::from(env::var_os(BINARY_VARIABLE).unwrap_or_default());
        assert!(
            binary.is_file(),
            "set {BINARY_VARIABLE} to a built fsyncscope: {binary:?} is no file"
        );
        let stderr = lab.dir().join("export.err");
        let mut command = lab.command(binary);
        command
            .args(["export", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&stderr).unwrap());
        let process = proc::spawn(command).unwrap();
        let addr = wait_for(
            "address",
            || fs::read_to_string(&stderr).unwrap_or_default(),
            |said| {
                let (_, rest) = said.split_once(SERVING)?;
                rest.split_once('/')?.0.parse().ok()
            },
        );
        Export {
            process,
            stderr,
            addr,
        }
    }

    fn scrape(&self) -> Scrape {
        metrics::scrape(self.addr, LIMIT).unwrap()
    }

    /// Waits until a scrape says what is wanted.
    fn wait_for<T>(&self, what: &str, wanted: impl Fn(&Scrape) -> Option<T>) -> T {
        wait_for(what, || self.scrape(), wanted)
    }

    /// Ends it as a service manager does; its exit code.
    fn finish(mut self) -> Option<i32> {
        let status = proc::end(&mut self.process, libc::SIGTERM, LIMIT).unwrap();
        let said = fs::read_to_string(&self.stderr).unwrap_or_default();
        assert!(status.is_some(), "still there: {said}");
        status.and_then(|status| status.code())
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.process, libc::SIGTERM, Duration::from_secs(10));
    }
}

fn wait_for<S: std::fmt::Debug, T>(
    what: &str,
    mut look: impl FnMut() -> S,
    wanted: impl Fn(&S) -> Option<T>,
) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        let seen = look();
        if let Some(found) = wanted(&seen) {
            return found;
        }
        assert!(Instant::now() < until, "no {what} in {LIMIT:?}: {seen:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Scrapes without end until told; holds that no count goes down and
/// returns how often it scraped.
fn start_scraper(addr: SocketAddr, is_over: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let is_over = Arc::clone(is_over);
    thread::spawn(move || {
        let mut times = 0;
        let mut last: BTreeMap<_, f64> = BTreeMap::new();
        while !is_over.load(Ordering::SeqCst) {
            let scrape = metrics::scrape(addr, LIMIT).unwrap();
            for sample in scrape.series(COUNT, &[]) {
                let before = last.insert(sample.labels.clone(), sample.value);
                assert!(before <= Some(sample.value), "{before:?}, then {sample:?}");
            }
            times += 1;
            // Leaves the writer some of a small machine.
            thread::sleep(Duration::from_millis(20));
        }
        times
    })
}

/// The writer's in all runs, and no other broker's on this host.
fn node_id() -> u32 {
    std::process::id()
}

/// The writer of one run; each run makes other numbers of calls.
fn writer_config(lab: &Lab, disks: &[FaultDisk], run: u64) -> WriterConfig {
    let log_dirs = disks.iter().map(|disk| disk.mountpoint().join("kafka"));
    let mut config = WriterConfig::new(lab.dir().join("writer"), log_dirs.collect());
    config.node_id = node_id();
    config.flushes_per_s = 200.0;
    config.flushes = 300 + 10 * run;
    config.checkpoint_ms = 200;
    config.extra = ExtraSyncs {
        fdatasync: 2 + run,
        sync_file_range: 3,
        syncfs: 1,
    };
    config
}

/// The sum over the writer's series: other brokers on this host have some, too.
fn sum(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let broker = node_id().to_string();
    let labels = [labels, &[("broker", &*broker)]].concat();
    scrape.sum(name, &labels).map(|sum| sum as u64)
}

/// The failure counters of a directory are there, and nothing has failed.
fn assert_nothing_failed(scrape: &Scrape, log_dir: &str) {
    for op in ["fsync", "fdatasync", "msync", "sync_file_range", "syncfs"] {
        let labels = [("log_dir", log_dir), ("op", op)];
        assert_eq!(scrape.sum(FAILURES, &labels), Some(0.0), "{op}");
        assert_eq!(scrape.series(FAILURES, &labels).len(), 1, "{op}");
        let eio = [("log_dir", log_dir), ("op", op), ("errno", "EIO")];
        assert_eq!(scrape.sum(ERRORS, &eio), Some(0.0), "{op}");
    }
}

#[test]
fn the_histogram_counts_every_sync_over_two_restarts_and_two_scrapers() {
    let lab = Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap();
    let disks = ["a", "b"].map(|name| FaultDisk::create(&lab, name, 128 << 20, FsKind::Ext4));
    let disks = disks.map(Result::unwrap);
    let export = Export::start(&lab);
    let is_over = Arc::new(AtomicBool::new(false));
    let scrapers = [(); 2].map(|()| start_scraper(export.addr, &is_over));
    let mut made: BTreeMap<String, u64> = BTreeMap::new();
    for run in 0..3 {
        let mut writer = Writer::start(&lab, writer_config(&lab, &disks, run)).unwrap();
        let pid = writer.pid().to_string();
        let found = export.wait_for("broker", |scrape| {
            let info = [("pid", pid.as_str())];
            scrape.sum("fsyncscope_broker_info", &info)?;
            let mut dirs = writer.config().log_dirs.iter();
            let has_series = |dir: &PathBuf| {
                let labels = [("log_dir", dir.to_str().unwrap())];
                scrape.sum(FAILURES, &labels).is_some()
            };
            dirs.all(has_series).then(|| scrape.clone())
        });
        assert_eq!(writer.flushes().unwrap(), 0, "the hold was too short");
        for (dir, disk) in writer.config().log_dirs.iter().zip(&disks) {
            assert_nothing_failed(&found, dir.to_str().unwrap());
            let device = disk.loop_dev().file_name().unwrap().to_str().unwrap();
            let labels = [("device", device), ("op", "write"), ("status", "IOERR")];
            assert_eq!(found.sum(BLOCK_ERRORS, &labels), Some(0.0), "{device}");
        }
        writer.wait(LIMIT).unwrap();
        // The process ends, too: what is counted must outlive it.
        for (op, calls) in writer.finish().unwrap().ops {
            assert_eq!(calls.failed, 0, "{op}");
            *made.entry(op).or_default() += calls.total();
        }
        let scrape = export.scrape();
        for (op, calls) in &made {
            let count = sum(&scrape, COUNT, &[("op", op)]);
            assert_eq!(count, Some(*calls), "{op} after run {run}");
        }
    }
    // Each flush is an fsync and two msync; checkpoints come on top.
    assert!(made["fsync"] > 930 && made["msync"] == 1860, "{made:?}");
    assert_eq!(made.len(), 5, "{made:?}");
    is_over.store(true, Ordering::SeqCst);
    for scraper in scrapers {
        assert!(scraper.join().unwrap() > 10);
    }
    let last = export.scrape();
    for (op, calls) in &made {
        let bucket = "fsyncscope_sync_duration_seconds_bucket";
        let infinite = sum(&last, bucket, &[("op", op), ("le", "+Inf")]);
        assert_eq!(infinite, Some(*calls), "{op}");
    }
    // Calls on a file of a directory are that directory's.
    for op in ["fsync", "fdatasync", "msync"] {
        let elsewhere = sum(&last, COUNT, &[("op", op), ("log_dir", "none")]);
        assert_eq!(elsewhere.unwrap_or(0), 0, "{op}");
    }
    for disk in &disks {
        let log_dir = disk.mountpoint().join("kafka");
        let log_dir = log_dir.to_str().unwrap();
        assert_nothing_failed(&last, log_dir);
        let open = sum(&last, "fsyncscope_incident_open", &[("log_dir", log_dir)]);
        assert_eq!(open.unwrap_or(0), 0, "{log_dir}");
    }
    metrics::check_with_promtool(&last.text).unwrap();
    // Other brokers of the host are watched as well, and may have had incidents.
    let incidents = last.sum("fsyncscope_incidents_total", &[]).unwrap();
    assert_eq!(export.finish(), Some(i32::from(incidents > 0.0)));
}
