//! The workload's own process: threads that work until told to rest, and a main
//! thread that obeys its owner, a word a line: `pause`, `resume`, `map`. It ends
//! with its input.

use std::ffi::OsString;
use std::io::BufRead;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use anyhow::Context;

use super::config::WorkloadConfig;
use super::files::{Style, SyncedFile};
use super::output::Output;
use super::record::Record;
use super::worker::Worker;

#[derive(Debug, Default)]
struct Turn {
    is_paused: bool,
    /// Threads that rest.
    at_rest: u64,
    /// How often it was asked where the files lie,
    map: u64,
    /// and how many threads have answered the last time.
    answers: u64,
}

#[derive(Debug, Default)]
struct Shared {
    turn: Mutex<Turn>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn change(&self, change: impl FnOnce(&mut Turn)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait_while(&self, is_so: impl Fn(&Turn) -> bool) {
        let waited = self.changed.wait_while(self.lock(), |turn| is_so(turn));
        drop(waited.unwrap_or_else(|e| e.into_inner()));
    }
}

/// Runs a workload; its one argument is the configuration.
pub fn workload_main(args: &[OsString]) -> anyhow::Result<u8> {
    let text = args.first().and_then(|arg| arg.to_str());
    let config: WorkloadConfig =
        serde_json::from_str(text.context("no configuration given")?).context("parse it")?;
    let out = Arc::new(Output::default());
    std::fs::create_dir_all(&config.dir).context("make the workload's directory")?;
    let shared_dir = config.dir.join("shared-0");
    std::fs::create_dir_all(&shared_dir)?;
    let path = shared_dir.join(format!("{:020}.log", 0));
    let common = SyncedFile::create(&out, &path, 128 << 10, Style::Plain)?;
    let common = Arc::new(common);
    let mut workers = Vec::new();
    for nth in 0..config.threads {
        workers.push(Worker::create(&out, &config, nth, &common).context("make the files")?);
    }
    // What was written until here is on the disk before anything is watched.
    workers.iter_mut().for_each(Worker::settle);
    common.settle(&out);
    let shared = Arc::new(Shared::default());
    for (nth, worker) in workers.into_iter().enumerate() {
        let (shared, pace_ms) = (Arc::clone(&shared), config.pace_ms);
        thread::Builder::new()
            .name(format!("load-{nth}"))
            .spawn(move || work(worker, &shared, pace_ms))?;
    }
    super::stacks::start().context("start the thread that reads stacks")?;
    out.say(&Record::Ready);
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "pause" => {
                shared.change(|turn| turn.is_paused = true);
                shared.wait_while(|turn| turn.at_rest < config.threads);
                common.settle(&out);
                out.say(&Record::Paused);
            }
            "resume" => {
                shared.change(|turn| turn.is_paused = false);
                shared.wait_while(|turn| turn.at_rest > 0);
            }
            "map" => {
                shared.change(|turn| (turn.map, turn.answers) = (turn.map + 1, 0));
                shared.wait_while(|turn| turn.answers < config.threads);
                common.say_place(&out);
                out.say(&Record::Mapped);
            }
            other => anyhow::bail!("the workload knows no `{other}`"),
        }
    }
    // A thread that hangs in a call must not keep the process.
    std::process::exit(0);
}

fn work(mut worker: Worker, shared: &Shared, pace_ms: (u64, u64)) {
    let mut mapped = 0;
    loop {
        let (is_paused, map) = {
            let turn = shared.lock();
            (turn.is_paused, turn.map)
        };
        if map > mapped {
            mapped = map;
            worker.say_places();
            shared.change(|turn| turn.answers += 1);
        }
        if is_paused {
            worker.settle();
            shared.change(|turn| turn.at_rest += 1);
            shared.wait_while(|turn| turn.is_paused);
            shared.change(|turn| turn.at_rest -= 1);
            continue;
        }
        worker.round(pace_ms);
    }
}
