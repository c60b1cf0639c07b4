//! The campaign itself: fault after fault, a fresh file system after each that
//! took one down, a folder with the evidence of each miss. In: what was typed.
//! Out: [`Outcome`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::lab::Lab;

use super::compare::compare;
use super::draw::Fault;
use super::group::{Group, group};
use super::healthy;
use super::play::{Played, play, tell_touched};
use super::row::Row;
use super::stage::Stage;
use super::table::Table;
use crate::cli::TruthArgs;
use crate::process::say;

/// Between two windows in which nothing is done.
const HEALTHY_EVERY: u64 = 25;
/// Pause of the workload's threads after each round: leaves two cores some air.
const PACE_MS: (u64, u64) = (5, 40);

/// A fault of which something wrong was said.
#[derive(Clone, Debug)]
pub struct Miss {
    seed: u64,
    nth: u64,
    what: String,
    wrong: Vec<String>,
    folder: PathBuf,
}

impl fmt::Display for Miss {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        let capture = self.folder.join("capture.ndjson.zst");
        let (seed, nth, what) = (self.seed, self.nth, &self.what);
        let wrong = self.wrong.join("; ");
        write!(
            to,
            "seed {seed} fault {nth}: {what}: {wrong}: {}",
            capture.display()
        )
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    rows: Vec<(Row, bool)>,
    /// What was wrong, fault by fault.
    pub misses: Vec<Miss>,
    /// Mounts, loop devices and processes that resisted.
    pub left: Vec<String>,
    /// Healthy syncs under the agent as it is shipped, and its findings.
    pub healthy: Option<(u64, usize)>,
    /// From the first window to the last.
    pub took: Duration,
}

impl Outcome {
    /// Added up.
    pub fn table(&self) -> Table<'_> {
        Table::new(&self.rows)
    }

    /// What was wrong, and in which faults.
    pub fn groups(&self) -> Vec<Group> {
        let texts = self.misses.iter().flat_map(|miss| {
            let wrong = miss.wrong.iter();
            wrong.map(|text| (miss.nth, text.as_str()))
        });
        group(texts)
    }

    /// How many faults had an effect.
    pub fn applied(&self) -> usize {
        self.rows
            .iter()
            .filter(|(_, is_applied)| *is_applied)
            .count()
    }
}

/// See the module's comment.
pub struct Campaign<'a> {
    args: &'a TruthArgs,
    on: &'a [FsKind],
    binary: &'a Path,
    folder: PathBuf,
}

impl<'a> Campaign<'a> {
    /// Makes the folder for the evidence.
    pub fn new(args: &'a TruthArgs, on: &'a [FsKind], binary: &'a Path) -> anyhow::Result<Self> {
        let name = format!("fsyncscope-truth-{}-{}", args.seed, std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Campaign {
            args,
            on,
            binary,
            folder,
        })
    }

    /// Plays all of it.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let lab = Lab::open()?;
        let base = lab.dir().to_path_buf();
        let mut outcome = Outcome::default();
        let begin = Instant::now();
        let played = self.play_all(&lab, begin, &mut outcome);
        outcome.took = begin.elapsed();
        let played = played.and_then(|()| self.play_healthy(&lab, &mut outcome));
        outcome.left = leftovers(&lab);
        drop(lab);
        if base.exists() {
            outcome.left.push(format!("directory {}", base.display()));
        }
        // Only an empty one goes.
        if fs::remove_dir(&self.folder).is_err() {
            say(format!("evidence is in {}", self.folder.display()));
        }
        played.map(|()| outcome)
    }

    fn faults(&self) -> Vec<Fault> {
        let numbers: Vec<u64> = if self.args.only.is_empty() {
            (1..=self.args.faults).collect()
        } else {
            self.args.only.clone()
        };
        numbers
            .into_iter()
            .map(|nth| Fault::draw(self.args.seed, nth, self.on))
            .collect()
    }

    fn play_all(&self, lab: &Lab, begin: Instant, outcome: &mut Outcome) -> anyhow::Result<()> {
        let mut stages: BTreeMap<&str, Stage> = BTreeMap::new();
        let faults = self.faults();
        let total = faults.len();
        for (done, fault) in faults.iter().enumerate() {
            let mut windows = vec![fault.clone()];
            if self.args.only.is_empty() && (done as u64).is_multiple_of(HEALTHY_EVERY) {
                windows.insert(0, Fault::none(fault.is_xfs));
            }
            for window in windows {
                let fs = if window.is_xfs {
                    FsKind::Xfs
                } else {
                    FsKind::Ext4
                };
                if !stages.contains_key(fs.name()) {
                    // A name of its own: the disk of before may take its time.
                    let name = format!("{}-{done}", fs.name());
                    let seed = self.args.seed ^ (done as u64) << 32;
                    stages.insert(fs.name(), Stage::set_up(lab, fs, &name, seed, PACE_MS)?);
                }
                let stage = stages.get_mut(fs.name()).context("it was set up above")?;
                let is_over = self.play_one(lab, stage, &window, outcome)?;
                if is_over {
                    stages.remove(fs.name());
                } else {
                    stage.resume()?;
                }
            }
            let each = begin.elapsed() / (done as u32 + 1);
            let left = each * (total - done - 1) as u32;
            let wrong = outcome.misses.last().filter(|miss| miss.nth == fault.nth);
            let is_applied = outcome.rows.last().is_some_and(|row| row.1);
            let good = if is_applied { "right" } else { "not applied" };
            say(format!(
                "{}/{total} {}: {}; {} min left",
                done + 1,
                fault.name(),
                wrong.map_or(good.into(), |miss| miss.wrong.join("; ")),
                left.as_secs().div_ceil(60)
            ));
        }
        Ok(())
    }

    /// The healthy syncs that were asked for.
    fn play_healthy(&self, lab: &Lab, outcome: &mut Outcome) -> anyhow::Result<()> {
        let (Some(fs), true) = (self.on.first(), self.args.healthy > 0) else {
            return Ok(());
        };
        let folder = self.folder.join("healthy");
        fs::create_dir_all(&folder)?;
        let (played, syncs) = healthy::play(lab, *fs, self.binary, &folder, self.args.healthy)?;
        let row = compare(&played.known, &played.said);
        outcome.healthy = Some((syncs, played.said.told.len()));
        self.keep(&folder, row, &played, outcome)
    }

    /// One window; whether the file system is of no more use.
    fn play_one(
        &self,
        lab: &Lab,
        stage: &mut Stage,
        fault: &Fault,
        outcome: &mut Outcome,
    ) -> anyhow::Result<bool> {
        let nth = outcome.rows.len();
        let folder = self.folder.join(format!("{:03}-window-{nth}", fault.nth));
        fs::create_dir_all(&folder)?;
        let played = play(lab, stage, fault, self.binary, &folder)
            .with_context(|| format!("fault {}, {}", fault.nth, fault.name()))?;
        let row = compare(&played.known, &played.said);
        self.keep(&folder, row, &played, outcome)?;
        Ok(played.known.is_aborted)
    }

    /// Adds a window to the outcome; of a miss the evidence is kept.
    fn keep(
        &self,
        folder: &Path,
        row: Row,
        played: &Played,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let fault = &played.known.fault;
        let wrong: Vec<String> = row
            .answers
            .iter()
            .flat_map(|(check, answer)| {
                answer
                    .wrong
                    .iter()
                    .map(|text| format!("{}: {}", check.name(), without_lab(text)))
            })
            .collect();
        if wrong.is_empty() && !self.args.keep {
            fs::remove_dir_all(folder)?;
        } else {
            write_evidence(folder, &row, played)?;
        }
        if !wrong.is_empty() {
            let touched = tell_touched(&played.known);
            outcome.misses.push(Miss {
                seed: self.args.seed,
                nth: fault.nth,
                what: format!("{} [{touched}]", fault.name()),
                wrong,
                folder: folder.to_owned(),
            });
        }
        outcome.rows.push((row, played.is_applied));
        Ok(())
    }
}

/// What is left of the lab once the kernel has had its time: a file system that
/// went down lets its disk go a while after its unmount.
fn leftovers(lab: &Lab) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let left = lab.leftovers();
        if left.is_empty() || Instant::now() > until {
            return left;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The lab's directory says nothing to a reader: paths begin with the disk.
fn without_lab(text: &str) -> String {
    let base = format!("{}/", Lab::base().display());
    let mut parts = text.split(&base);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean += part.split_once("/mnt/").map_or(part, |(_, rest)| rest);
    }
    clean
}

/// What a person wants to see beside the capture.
fn write_evidence(folder: &Path, row: &Row, played: &Played) -> anyhow::Result<()> {
    fs::write(folder.join("row.json"), serde_json::to_vec_pretty(row)?)?;
    let mut text = String::new();
    let touched = played.known.failed().chain(played.known.held());
    for request in touched {
        text += &format!("{}\n", serde_json::to_string(request)?);
    }
    fs::write(folder.join("disk.ndjson"), text)?;
    let mut text = String::new();
    for call in &played.known.calls {
        text += &format!("{}\n", serde_json::to_string(call)?);
    }
    fs::write(folder.join("calls.ndjson"), text)?;
    Ok(())
}
