//! What is true: options with defaults applied, as the loop needs them.

use std::path::PathBuf;

use anyhow::bail;

use crate::{
    cli::{Common, Targets},
    detail::Detail,
    probe::LoadOptions,
};

/// Settings of a live run.
#[derive(Clone, Debug)]
pub struct Config {
    /// A sync's own record from here on, and what watch prints.
    pub slow_ns: u64,
    /// Finding from here on.
    pub stall_ns: u64,
    /// Only these processes; empty = every broker.
    pub pids: Vec<u32>,
    /// Every process and disk, not only Kafka's.
    pub is_all: bool,
    /// Directories given by hand.
    pub log_dirs: Vec<PathBuf>,
    /// Broker log given by hand.
    pub follow_log: Option<PathBuf>,
    /// Level of messages (`log` crate names).
    pub log_level: String,
    /// Forms of hooks that are not tried.
    pub avoid_forms: Vec<String>,
    /// For tests: BTF that is believed in place of the kernel's.
    pub test_btf: Option<PathBuf>,
    /// How much is looked at.
    pub detail: Detail,
}

impl Config {
    /// Applies defaults and checks what contradicts itself.
    ///
    /// # Errors
    /// When `--stall` is below `--slow`, or a time is zero.
    pub fn new(targets: &Targets, common: &Common) -> anyhow::Result<Self> {
        let slow_ns = u64::try_from(targets.slow.as_nanos()).unwrap_or(u64::MAX);
        let stall_ns = u64::try_from(targets.stall.as_nanos()).unwrap_or(u64::MAX);
        if slow_ns == 0 {
            bail!("--slow 0 would print every sync; the least is 1us");
        }
        if stall_ns < slow_ns {
            bail!(
                "--stall {:?} is below --slow {:?}: a finding must be slow first",
                targets.stall,
                targets.slow
            );
        }
        Ok(Config {
            slow_ns,
            stall_ns,
            pids: targets.pid.clone(),
            is_all: targets.all,
            log_dirs: targets.log_dir.clone(),
            follow_log: targets.follow_log.clone(),
            log_level: common.log_level.clone(),
            avoid_forms: common.avoid_form.clone(),
            test_btf: common.test_btf.clone(),
            detail: targets.detail,
        })
    }

    /// For a check: the defaults, nothing to watch.
    pub fn for_check(common: &Common, detail: Detail) -> Self {
        Config {
            slow_ns: 100_000_000,
            stall_ns: 1_000_000_000,
            pids: Vec::new(),
            is_all: false,
            log_dirs: Vec::new(),
            follow_log: None,
            log_level: common.log_level.clone(),
            avoid_forms: common.avoid_form.clone(),
            test_btf: common.test_btf.clone(),
            detail,
        }
    }

    /// What the kernel programs are loaded with. A request counts as slow from a
    /// quarter of a slow sync on: a sync waits for several.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            slow_ns: self.slow_ns,
            request_slow_ns: (self.slow_ns / 4).max(1),
            log_level: aya_level(&self.log_level),
            is_all: self.is_all,
            avoid: self.avoid_forms.clone(),
            refuted: Vec::new(),
            btf: self.test_btf.clone(),
            detail: self.detail,
        }
    }
}

/// Level of aya-log for the kernel side: its own messages are for developers,
/// so they start at debug.
fn aya_level(level: &str) -> u8 {
    match level {
        "debug" => 4,
        "trace" => 5,
        _ => 0,
    }
}
