//! What the workload is told. Travels as one argument of JSON.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// See the module's comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadConfig {
    /// Where its files go, on the disk under test.
    pub dir: PathBuf,
    /// What it draws from.
    pub seed: u64,
    /// Threads; each has files of its own, and one file is shared by all.
    pub threads: u64,
    /// Pause of a thread after each round, least and most.
    pub pace_ms: (u64, u64),
}

impl WorkloadConfig {
    /// Six threads that make a pause after each round.
    pub fn new(dir: &Path, seed: u64) -> Self {
        WorkloadConfig {
            dir: dir.to_owned(),
            seed,
            threads: 6,
            pace_ms: (5, 40),
        }
    }
}
