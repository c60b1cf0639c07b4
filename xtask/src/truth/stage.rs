//! The stage: one disk with a file system, the workload on it, and the notes of
//! both. It lasts until a fault has taken the file system down. In: lab, kind of
//! file system, seed. Out: requests and calls as they happen.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use fsyncscope_tests::campaign::{CallRecord, Record, Workload, WorkloadConfig};
use fsyncscope_tests::faultdisk::{FaultDisk, FsKind, Rule, RuleOp, Stamp, TruthEntry};
use fsyncscope_tests::lab::Lab;

use super::draw::Fault;
use super::known::{self, Files, Known, Layout, Span};
use super::layout::read_layout;

const DISK_BYTES: u64 = 512 << 20;
/// For calls that wait for a held request beyond its time.
const REST_LIMIT: Duration = Duration::from_secs(60);

/// See the module's comment. Fields are dropped in this order: who uses the disk
/// goes before it.
pub struct Stage {
    workload: Workload,
    disk: FaultDisk,
    truth_offset: u64,
    /// Of the window.
    entries: Vec<TruthEntry>,
    /// Of the window.
    calls: Vec<CallRecord>,
    /// Where it keeps what is no file.
    pub layout: Layout,
    /// Names and places.
    pub files: Files,
}

impl Stage {
    /// A fresh disk and a workload that has begun.
    pub fn set_up(
        lab: &Lab,
        fs: FsKind,
        name: &str,
        seed: u64,
        pace_ms: (u64, u64),
    ) -> anyhow::Result<Stage> {
        let disk = FaultDisk::create(lab, name, DISK_BYTES, fs)?;
        let layout = read_layout(&disk, fs)?;
        let mut config = WorkloadConfig::new(&disk.mountpoint().join("data"), seed);
        config.pace_ms = pace_ms;
        let workload = Workload::start(lab, &config)?;
        let mut stage = Stage {
            workload,
            disk,
            truth_offset: 0,
            entries: Vec::new(),
            calls: Vec::new(),
            layout,
            files: Files::default(),
        };
        stage.workload.map(REST_LIMIT)?;
        stage.take()?;
        Ok(stage)
    }

    /// The directory that the workload fills.
    pub fn log_dir(&self) -> PathBuf {
        self.disk.mountpoint().join("data")
    }

    /// What is known of a window that was watched, in which no fault was in force:
    /// the requests and calls taken since [`Self::forget`].
    pub fn known(&self, fault: Fault, watched: Span) -> Known {
        Known {
            fault,
            disk: self.disk_name(),
            pid: self.pid(),
            layout: self.layout.clone(),
            files: self.files.clone(),
            requests: known::requests(self.entries()),
            calls: self.calls().to_vec(),
            watched,
            armed: (watched.1, watched.1),
            is_aborted: false,
            slow_ns: 0,
            stall_ns: 0,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.workload.pid()
    }

    /// Its disk.
    pub fn disk(&self) -> &FaultDisk {
        &self.disk
    }

    /// Its disk, to be killed.
    pub fn disk_mut(&mut self) -> &mut FaultDisk {
        &mut self.disk
    }

    /// The disk's name, like loop0.
    pub fn disk_name(&self) -> String {
        let name = self.disk.loop_dev().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Rules in force; all other requests are noted.
    pub fn arm(&self, rules: &[Rule]) -> anyhow::Result<()> {
        let mut rules = rules.to_vec();
        rules.push(Rule::on(RuleOp::Any));
        self.disk.set_rules(&rules)
    }

    /// All that happened since the window was opened.
    pub fn take(&mut self) -> anyhow::Result<()> {
        for record in self.workload.take() {
            self.files.learn(&record);
            if let Record::Call(call) = record {
                self.calls.push(call);
            }
        }
        let path = self.disk.truth_path();
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        file.seek(SeekFrom::Start(self.truth_offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A last line that is still being written is left for the next time.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        for line in text[..whole].lines() {
            let entry = serde_json::from_str(line).context("read the disk's log")?;
            self.entries.push(entry);
        }
        self.truth_offset += whole as u64;
        Ok(())
    }

    /// Entries of the disk's log in the window.
    pub fn entries(&self) -> &[TruthEntry] {
        &self.entries
    }

    /// Calls of the window.
    pub fn calls(&self) -> &[CallRecord] {
        &self.calls
    }

    /// Forgets what happened, and leaves who had which name.
    pub fn forget_calls(&mut self) {
        self.entries.clear();
        self.calls.clear();
    }

    /// Closes a window; the next one begins.
    pub fn forget(&mut self) {
        self.forget_calls();
        // Names of what is under way just now are still wanted.
        let before_ns = Stamp::now().monotonic_ns.saturating_sub(1_000_000_000);
        self.files.forget_before(before_ns);
    }

    /// Makes the workload say where its files lie.
    pub fn map(&mut self) -> anyhow::Result<()> {
        self.workload.map(REST_LIMIT)?;
        self.take()
    }

    /// Makes it rest, with no error owed to anyone.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.workload.pause(REST_LIMIT)?;
        self.take()
    }

    /// Makes it work again.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.workload.resume()
    }
}
