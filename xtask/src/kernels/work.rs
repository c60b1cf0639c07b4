//! Deals boots to a few machines at a time, tells of progress with the time that
//! is left, keeps the evidence of what failed and the results by agent, so that an
//! interrupted run goes on. In: boots. Out: an [`Outcome`].

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::guest::fault::Fault;
use fsyncscope_tests::guest::protocol::{CellResult, Outcome as CellOutcome};
use fsyncscope_tests::lab::Lab;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::boot::{self, Job, Programs, Record};
use super::image::Image;
use super::table::{Outcome, Row};
use crate::arch::Arch;
use crate::cli::KernelsArgs;
use crate::process::say;

/// A boot to do.
#[derive(Debug)]
pub struct Boot {
    /// The kernel.
    pub image: Arc<Image>,
    /// Index of its programs.
    pub programs: usize,
    /// The cells.
    pub job: Job,
}

impl Boot {
    fn name(&self) -> String {
        let fs = self.job.fs.name();
        format!("{} {} {fs}", self.image.version, self.image.arch.name())
    }

    /// About how long it takes, in seconds: a boot, the start of the agent, cells.
    fn weight(&self) -> u64 {
        30 + self
            .job
            .faults
            .iter()
            .map(|fault| fault.limit_s() / 6)
            .sum::<u64>()
    }
}

struct Shared<'a> {
    lab: &'a Lab,
    queue: Mutex<VecDeque<(usize, Boot)>>,
    rows: Mutex<Vec<(usize, Row)>>,
    done: Mutex<u64>,
    total: u64,
    begin: Instant,
    evidence: PathBuf,
    programs: &'a [(Programs, Store)],
    is_kept: bool,
}

/// All boots, at most so many at a time.
pub fn all(
    lab: &Lab,
    boots: Vec<Boot>,
    programs: &[(Programs, Store)],
    args: &KernelsArgs,
) -> anyhow::Result<Outcome> {
    let evidence = std::env::temp_dir()
        .join("fsyncscope-kernels")
        .join(std::process::id().to_string());
    let shared = Shared {
        lab,
        total: boots.iter().map(Boot::weight).sum(),
        queue: Mutex::new(boots.into_iter().enumerate().collect()),
        rows: Mutex::new(Vec::new()),
        done: Mutex::new(0),
        begin: Instant::now(),
        evidence: evidence.clone(),
        programs,
        is_kept: args.keep,
    };
    thread::scope(|scope| {
        for _ in 0..args.vms {
            scope.spawn(|| work(&shared));
        }
    });
    let left = shared.queue.into_inner();
    let left = left.unwrap_or_else(PoisonError::into_inner);
    // Gone if nothing in it was worth keeping.
    let _ = fs::remove_dir(&evidence);
    let mut rows = shared
        .rows
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(nth, _)| *nth);
    Ok(Outcome {
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        evidence: evidence.is_dir().then_some(evidence),
        took: shared.begin.elapsed(),
        nr_left: left
            .iter()
            .map(|(_, boot)| boot.job.faults.len().max(1))
            .sum(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Shared<'_>) {
    while let Some((nth, boot)) = next(shared) {
        let name = boot.name();
        let tell = |text: &str| say(format!("{name}: {text}"));
        tell(&format!("boot {}", boot.image.release));
        let evidence = shared
            .evidence
            .join(format!("{}-{nth}", name.replace(' ', "-")));
        let (programs, store) = &shared.programs[boot.programs];
        let play = |evidence: &Path| {
            boot::run(
                shared.lab,
                nth,
                &boot.image,
                programs,
                &boot.job,
                evidence,
                &tell,
            )
            .unwrap_or_else(|err| broken(&boot.job, &format!("{err:#}")))
        };
        let record = twice_if_unborn(&evidence, tell, play);
        let is_good = record.failure.is_none()
            && record.bad_check.is_none()
            && record.cells.iter().all(|cell| is_as_expected(cell.outcome));
        if is_good && !shared.is_kept {
            let _ = fs::remove_dir_all(&evidence);
        }
        if let Err(err) = store.put(&boot.image, boot.job.fs, &record) {
            tell(&format!("{err:#}"));
        }
        let mut done = lock(&shared.done);
        *done += boot.weight();
        tell(&format!(
            "{} in {} s; {}",
            summary(&record),
            record.took.as_secs(),
            left(shared.begin.elapsed(), *done, shared.total)
        ));
        drop(done);
        let row = Row {
            version: boot.image.version.clone(),
            release: boot.image.release.clone(),
            arch: boot.image.arch,
            fs: boot.job.fs,
            record,
        };
        lock(&shared.rows).push((nth, row));
    }
}

/// A machine that hung before the agent was there has said nothing of the agent: it is
/// booted once more, and both are told of. Its console stays beside the evidence.
fn twice_if_unborn(evidence: &Path, tell: impl Fn(&str), play: impl Fn(&Path) -> Record) -> Record {
    let first = play(evidence);
    let given_up = match &first.failure {
        Some(why) if first.is_unborn => why.clone(),
        _ => return first,
    };
    tell(&format!(
        "{given_up}; the agent was not there yet: booted once more"
    ));
    let mut aside = evidence.as_os_str().to_owned();
    aside.push("-given-up");
    let aside = PathBuf::from(aside);
    if let Err(err) = fs::rename(evidence, &aside) {
        tell(&format!("keep {}: {err}", aside.display()));
    }
    Record {
        given_up: Some(given_up),
        ..play(evidence)
    }
}

fn next(shared: &Shared<'_>) -> Option<(usize, Boot)> {
    match super::is_stopped() {
        true => None,
        false => lock(&shared.queue).pop_front(),
    }
}

/// As it should be, for what such a kernel can tell.
pub fn is_as_expected(outcome: CellOutcome) -> bool {
    matches!(outcome, CellOutcome::Passed | CellOutcome::ExpectedGap)
}

fn broken(job: &Job, why: &str) -> Record {
    let cells = job.faults.iter().map(|fault| CellResult {
        id: *fault,
        outcome: CellOutcome::Harness,
        asserts: Vec::new(),
        why: why.to_owned(),
        took_ms: 0,
        said: Vec::new(),
    });
    Record {
        cells: cells.collect(),
        failure: Some(why.to_owned()),
        ..Record::default()
    }
}

fn summary(record: &Record) -> String {
    let good = record
        .cells
        .iter()
        .filter(|cell| is_as_expected(cell.outcome));
    let cells = format!(
        "{} of {} cells as expected",
        good.count(),
        record.cells.len()
    );
    match record.bad_check.as_ref().or(record.failure.as_ref()) {
        Some(why) => format!("{cells}, {why}"),
        None => cells,
    }
}

fn left(elapsed: Duration, done: u64, total: u64) -> String {
    if done >= total {
        return "all done".to_owned();
    }
    let seconds = elapsed.as_secs() * (total - done) / done.max(1);
    format!("about {} min left", seconds.div_ceil(60))
}

/// Results by agent and init, in the cache.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    arch: Arch,
}

/// A stored boot: its last `check` and the last result of each cell.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Stored {
    /// `uname -r`.
    pub release: String,
    /// What `check` said.
    pub check: Option<Value>,
    /// The cells.
    pub cells: Vec<CellResult>,
    /// The archive has no module of that file system for that kernel: there are none.
    #[serde(default)]
    pub is_absent: bool,
    /// How long boots took, by the last of their cells.
    #[serde(default)]
    pub boot_s: BTreeMap<String, u64>,
}

impl Store {
    /// The store of results with these programs.
    pub fn open(cache: &Path, arch: Arch, programs: u64) -> anyhow::Result<Self> {
        let dir = cache
            .join("results")
            .join(format!("{}-{programs:016x}", arch.name()));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Store { dir, arch })
    }

    /// Of which architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    fn path(&self, version: &str, fs: FsKind) -> PathBuf {
        self.dir.join(format!("{version}-{}.json", fs.name()))
    }

    /// What is known of that kernel.
    pub fn get(&self, version: &str, fs: FsKind) -> Stored {
        let text = fs::read(self.path(version, fs)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn put(&self, image: &Image, fs: FsKind, record: &Record) -> anyhow::Result<()> {
        // Two boots of one kernel and file system may end at the same time.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = lock(&ONE);
        let mut stored = self.get(&image.version, fs);
        if stored.release != image.release {
            stored = Stored::default();
        }
        stored.release.clone_from(&image.release);
        stored.check = record.check.clone().or(stored.check);
        if let (Some(last), None) = (record.cells.last(), &record.failure) {
            let took_s = record.took.as_secs();
            stored.boot_s.insert(last.id.name().to_owned(), took_s);
        }
        for cell in &record.cells {
            stored.cells.retain(|known| known.id != cell.id);
            stored.cells.push(cell.clone());
        }
        self.write(&image.version, fs, &stored)
    }

    /// Notes that a kernel comes without a file system.
    pub fn put_absent(&self, image: &Image, fs: FsKind) -> anyhow::Result<()> {
        let stored = Stored {
            release: image.release.clone(),
            is_absent: true,
            ..Stored::default()
        };
        self.write(&image.version, fs, &stored)
    }

    fn write(&self, version: &str, fs: FsKind, stored: &Stored) -> anyhow::Result<()> {
        let path = self.path(version, fs);
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec(stored)?)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Those of the faults that have not passed yet.
    pub fn not_passed(&self, image: &Image, fs: FsKind, faults: &[Fault]) -> Vec<Fault> {
        let stored = self.get(&image.version, fs);
        let has_passed = |fault: &Fault| {
            stored.release == image.release
                && stored
                    .cells
                    .iter()
                    .any(|cell| cell.id == *fault && is_as_expected(cell.outcome))
        };
        faults
            .iter()
            .filter(|fault| !has_passed(fault))
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_from_what_is_done() {
        assert_eq!(left(Duration::from_secs(60), 50, 200), "about 3 min left");
        assert_eq!(left(Duration::from_secs(60), 200, 200), "all done");
    }

    fn hung_at(is_unborn: bool) -> Record {
        Record {
            failure: Some("hung in boot".to_owned()),
            is_unborn,
            ..Record::default()
        }
    }

    #[test]
    fn only_a_machine_that_hung_before_the_agent_boots_twice() {
        let boots = |first: fn() -> Record| {
            let (told, nr) = (std::cell::RefCell::new(Vec::new()), std::cell::Cell::new(0));
            let tell = |text: &str| told.borrow_mut().push(text.to_owned());
            let record = twice_if_unborn(Path::new("/nonexistent/6.1-0"), tell, |_| {
                nr.set(nr.get() + 1);
                first()
            });
            (nr.get(), record, told.into_inner())
        };
        let (nr, record, told) = boots(|| hung_at(true));
        // And no third time: it is not played, and says so.
        assert_eq!((nr, record.given_up.as_deref()), (2, Some("hung in boot")));
        assert_eq!(record.failure.as_deref(), Some("hung in boot"));
        assert!(told[0].contains("booted once more"));
        let (nr, record, told) = boots(|| hung_at(false));
        assert_eq!((nr, record.given_up, told), (1, None, Vec::new()));
        let (nr, ..) = boots(Record::default);
        assert_eq!(nr, 1);
    }

    #[test]
    fn only_what_has_not_passed_is_run_again() {
        let base = std::env::temp_dir().join(format!("fsyncscope-store-{}", std::process::id()));
        let store = Store::open(&base, Arch::X86_64, 7).unwrap();
        let image = Image {
            version: "6.12".into(),
            release: "6.12.1".into(),
            arch: Arch::X86_64,
            vmlinuz: "/k".into(),
            modules: Vec::new(),
        };
        let job = Job {
            fs: FsKind::Ext4,
            faults: vec![Fault::Healthy, Fault::Stall],
            broker_disk: None,
            agent_args: Vec::new(),
            keep_all: false,
        };
        let mut record = broken(&job, "x");
        record.cells[0].outcome = CellOutcome::Passed;
        store.put(&image, FsKind::Ext4, &record).unwrap();
        let left = store.not_passed(&image, FsKind::Ext4, &job.faults);
        assert_eq!(left, [Fault::Stall]);
        // A newer release of the version has passed nothing yet.
        let newer = Image {
            release: "6.12.2".into(),
            ..image
        };
        let left = store.not_passed(&newer, FsKind::Ext4, &job.faults);
        assert_eq!(left, job.faults);
        fs::remove_dir_all(base).unwrap();
    }
}
