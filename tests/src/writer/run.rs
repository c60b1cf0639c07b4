//! The writer's own process: request handlers that append and flush, a
//! scheduler that writes checkpoints, and a main thread that obeys its owner.
//! It ends with its input or by SIGTERM; when its work is over, the counts go
//! to standard output as one line of JSON.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::applog::AppLog;
use super::config::{SyncCall, WriterConfig};
use super::files::{
    CHECKPOINTS, Failure, Partition, directory_id, open_partitions, write_checkpoint,
};
use super::sync::{Progress, Syncer};

/// How long the end waits for a call that hangs.
const HUNG_LIMIT: Duration = Duration::from_secs(20);

struct Shared {
    config: WriterConfig,
    syncer: Syncer,
    log: AppLog,
    progress: Progress,
    offline: Mutex<BTreeSet<usize>>,
    next_flush: AtomicU64,
    is_stopping: AtomicBool,
}

impl Shared {
    fn offline(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.offline.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Takes a log.dir offline, once; with the last one all work stops.
    fn take_offline(&self, log_dir: usize) {
        let config = &self.config;
        let is_last = {
            let mut offline = self.offline();
            if !offline.insert(log_dir) {
                return;
            }
            offline.len() == config.log_dirs.len()
        };
        let dealt = config.deal_partitions();
        let there = dealt.iter().filter(|(dir, _)| *dir == log_dir);
        let names: Vec<&str> = there.map(|(_, name)| name.as_str()).collect();
        let dir = &config.log_dirs[log_dir];
        let uuid = directory_id(log_dir);
        self.log.dir_offline(config.node_id, dir, &uuid, &names);
        if is_last {
            let dirs = config.log_dirs.iter().map(|dir| dir.display().to_string());
            self.log.all_dirs_failed(&dirs.collect::<Vec<_>>());
            self.stop();
        }
    }

    fn print_counts(&self) -> anyhow::Result<()> {
        let counts = self.syncer.counts(self.progress.flushes());
        println!("{}", serde_json::to_string(&counts)?);
        Ok(())
    }
}

enum Event {
    /// The owner, or a signal, wants it to end.
    End,
    HandlerDone,
    SchedulerDone,
}

/// Runs a writer; the arguments are those of a broker and tell it nothing.
pub fn serve_main(_args: &[OsString]) -> anyhow::Result<u8> {
    set_comm("java");
    let (sender, events) = mpsc::channel();
    watch_for_the_end(&sender)?;
    let config = super::config_of_environment().context("no configuration given")??;
    let partitions = open_partitions(&config).context("make the partitions")?;
    let log = AppLog::open(&config.app_log_dir.join("server.log")).context("open server.log")?;
    log.started(config.node_id);
    let progress = Progress::create(&config.progress_path()).context("make the progress file")?;
    let hold = Duration::from_millis(config.hold_before_first_sync_ms);
    let shared = Arc::new(Shared {
        config,
        syncer: Syncer::default(),
        log,
        progress,
        offline: Mutex::default(),
        next_flush: AtomicU64::new(0),
        is_stopping: AtomicBool::new(false),
    });
    println!("ready");
    if !matches!(events.recv_timeout(hold), Err(RecvTimeoutError::Timeout)) {
        shared.print_counts()?;
        return Ok(0);
    }
    make_extra_syncs(&shared, &partitions);
    let handlers = spawn_handlers(&shared, partitions, &sender)?;
    spawn_scheduler(&shared, sender)?;
    let is_told = wait_for_work_done(&shared, &events, handlers);
    shared.print_counts()?;
    // Idle until told: the counts can be compared with what others know of a
    // live process.
    while !is_told && !matches!(events.recv(), Ok(Event::End) | Err(_)) {}
    Ok(0)
}

/// Returns whether it was told to end meanwhile.
fn wait_for_work_done(shared: &Shared, events: &Receiver<Event>, handlers: usize) -> bool {
    let mut left = handlers;
    let mut has_scheduler = true;
    let mut told: Option<Instant> = None;
    while left > 0 || has_scheduler {
        let event = match told {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => events.recv_timeout(HUNG_LIMIT.saturating_sub(at.elapsed())),
        };
        match event {
            Ok(Event::End) => {
                told = told.or(Some(Instant::now()));
                shared.stop();
            }
            Ok(Event::HandlerDone) => left -= 1,
            Ok(Event::SchedulerDone) => has_scheduler = false,
            // A thread hangs in a sync: its call is in no count.
            Err(_) => break,
        }
        if left == 0 {
            shared.stop();
        }
    }
    told.is_some()
}

fn set_comm(name: &str) {
    let mut text = [0_u8; 16];
    text[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the text is 16 bytes and ends in a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) };
}

/// Called before any other thread is there, since threads inherit the mask.
fn watch_for_the_end(sender: &Sender<Event>) -> std::io::Result<()> {
    // SAFETY: the set is a plain C struct, initialised by sigemptyset.
    let signals = unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        signals
    };
    let by_signal = sender.clone();
    thread::Builder::new()
        .name("SIGTERM handler".into())
        .spawn(move || {
            let mut signal = 0;
            // SAFETY: both pointers are valid.
            unsafe { libc::sigwait(&signals, &mut signal) };
            let _ = by_signal.send(Event::End);
        })?;
    let by_input = sender.clone();
    thread::Builder::new().name("owner".into()).spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = by_input.send(Event::End);
    })?;
    Ok(())
}

/// The calls that Kafka never makes. A failure is counted and changes nothing.
fn make_extra_syncs(shared: &Shared, partitions: &[Partition]) {
    let extra = shared.config.extra;
    let Some(first) = partitions.first() else {
        return;
    };
    for (call, times) in [
        (SyncCall::Fdatasync, extra.fdatasync),
        (SyncCall::SyncFileRange, extra.sync_file_range),
        (SyncCall::Syncfs, extra.syncfs),
    ] {
        for _ in 0..times {
            let _ = first.sync(call, &shared.syncer);
        }
    }
}

/// Returns how many there are.
fn spawn_handlers(
    shared: &Arc<Shared>,
    partitions: Vec<Partition>,
    done: &Sender<Event>,
) -> std::io::Result<usize> {
    let count = shared.config.handlers.max(1) as usize;
    let mut hands: Vec<Vec<Partition>> = (0..count).map(|_| Vec::new()).collect();
    for (nth, partition) in partitions.into_iter().enumerate() {
        hands[nth % count].push(partition);
    }
    let start = Instant::now();
    for (nth, mut partitions) in hands.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        let done = done.clone();
        thread::Builder::new()
            .name(format!("data-plane-kafka-request-handler-{nth}"))
            .spawn(move || {
                handle_requests(&shared, &mut partitions, start);
                let _ = done.send(Event::HandlerDone);
            })?;
    }
    Ok(count)
}

fn handle_requests(shared: &Shared, partitions: &mut Vec<Partition>, start: Instant) {
    let config = &shared.config;
    let mut turn = 0;
    while !shared.is_stopping() {
        {
            let offline = shared.offline();
            if !offline.is_empty() {
                partitions.retain(|partition| !offline.contains(&partition.log_dir));
            }
        }
        if partitions.is_empty() {
            return;
        }
        let nth = shared.next_flush.fetch_add(1, Ordering::Relaxed);
        if config.flushes > 0 && nth >= config.flushes {
            return;
        }
        if config.flushes_per_s > 0.0 {
            let due = start + Duration::from_secs_f64(nth as f64 / config.flushes_per_s);
            if !sleep_until(due, shared) {
                return;
            }
        }
        let count = partitions.len();
        flush_one(shared, &mut partitions[turn % count]);
        turn += 1;
        shared.progress.add_one();
    }
}

/// Sleeps in pieces, so that a slow writer ends in time; `false` at the end.
fn sleep_until(due: Instant, shared: &Shared) -> bool {
    while !shared.is_stopping() {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
    false
}

fn flush_one(shared: &Shared, partition: &mut Partition) {
    let config = &shared.config;
    let between = || {
        if let Some(pause) = &config.pause
            && std::fs::remove_file(&pause.when).is_ok()
        {
            sleep_until(Instant::now() + Duration::from_millis(pause.ms), shared);
        }
    };
    let outcome = partition.append_and_flush(config, &shared.syncer, between);
    let name = &partition.name;
    let dir = &config.log_dirs[partition.log_dir];
    match outcome {
        Ok(()) => {}
        // As in Kafka: an index that fails does not take the directory off.
        Err(Failure::FlushIndex(err)) => shared.log.index_failed(config.node_id, name, &err),
        Err(Failure::FlushLog(err)) => {
            shared.log.flush_failed(name, dir, partition.offset, &err);
            shared.take_offline(partition.log_dir);
        }
        Err(Failure::Append(err)) => {
            shared.log.append_failed(name, dir, &err);
            shared.take_offline(partition.log_dir);
        }
    }
}

fn spawn_scheduler(shared: &Arc<Shared>, done: Sender<Event>) -> std::io::Result<()> {
    let shared = Arc::clone(shared);
    let pause = Duration::from_millis(shared.config.checkpoint_ms);
    thread::Builder::new()
        .name("kafka-scheduler-0".into())
        .spawn(move || {
            while !pause.is_zero() && sleep_until(Instant::now() + pause, &shared) {
                write_checkpoints(&shared);
            }
            let _ = done.send(Event::SchedulerDone);
        })?;
    Ok(())
}

fn write_checkpoints(shared: &Shared) {
    for (log_dir, dir) in shared.config.log_dirs.iter().enumerate() {
        if shared.offline().contains(&log_dir) {
            continue;
        }
        for name in CHECKPOINTS {
            let path = dir.join(name);
            if write_checkpoint(&path, "0\n0\n", &shared.syncer).is_err() {
                shared.log.checkpoint_failed(&path);
                shared.take_offline(log_dir);
                break;
            }
        }
    }
}
