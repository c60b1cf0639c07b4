//! How much is looked at: `--detail`. A level says which hooks are attached
//! (`probe::hooks`) and what the kernel programs do; what is lost by it is told as a
//! setting, never as a loss.

use clap::ValueEnum;
use fsyncscope_abi::facts::detail;
use serde::{Deserialize, Serialize};

/// See the module's comment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// Syncs, their files, failed requests and writeback; not why a sync was slow
    Low,
    /// Also requests that took long, by their completion; queue and device in one
    Normal,
    /// Also requests in flight, queue and device apart, who asked for a flush, locks
    #[default]
    Full,
}

impl Detail {
    /// As the kernel programs know it.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Detail::Low => detail::LOW,
            Detail::Normal => detail::NORMAL,
            Detail::Full => detail::FULL,
        }
    }

    /// As it is typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Detail::Low => "low",
            Detail::Normal => "normal",
            Detail::Full => "full",
        }
    }

    /// Nothing is left out.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Detail::Full)
    }
}
