//! Whether a program of the kernel's may be interrupted by another task in mid-run:
//! fexit's may wherever the kernel may be, raw tracepoints' too on 7.3 (measured). While
//! one waits so, its next run on that CPU is left out. In: the version line, debugfs, the
//! command line, the build's configuration, in that order.

use std::{fs, path::Path};

/// How the running kernel preempts its own code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// Only where it sleeps or says so ("none", "voluntary").
    Never,
    /// Anywhere ("full", "lazy"), by this model.
    Anywhere(String),
    /// Either, chosen at boot; nothing that could be read says which.
    Unknown,
}

impl Preemption {
    fn of_model(model: &str) -> Self {
        match model {
            "none" | "voluntary" => Self::Never,
            _ => Self::Anywhere(model.to_owned()),
        }
    }
}

/// Reads it under these roots, of which `root` holds `boot`.
pub fn read_preemption(sys: &Path, proc: &Path, root: &Path) -> Preemption {
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let version = text(&proc.join("version"));
    let mut words = version
        .split_whitespace()
        .filter(|word| word.starts_with("PREEMPT"));
    match words.next() {
        None if version.is_empty() => return Preemption::Unknown,
        None => return Preemption::Never,
        Some("PREEMPT_DYNAMIC") => {}
        Some("PREEMPT") => return Preemption::of_model("full"),
        Some(word) => return Preemption::Anywhere(word.to_owned()),
    }
    let release = text(&proc.join("sys/kernel/osrelease"));
    let config = format!("boot/config-{}", release.trim());
    let chosen = text(&sys.join("kernel/debug/sched/preempt"));
    let command_line = text(&proc.join("cmdline"));
    chosen_model(&chosen)
        .or_else(|| asked_model(&command_line))
        .or_else(|| built_model(&text(&root.join(config))))
        .map_or(Preemption::Unknown, Preemption::of_model)
}

/// `none (voluntary) full`
fn chosen_model(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace();
    words.find_map(|word| word.strip_prefix('(')?.strip_suffix(')'))
}

/// `preempt=full`; the last one holds.
fn asked_model(command_line: &str) -> Option<&str> {
    let words = command_line.split_whitespace();
    words
        .filter_map(|word| word.strip_prefix("preempt="))
        .next_back()
}

/// `CONFIG_PREEMPT_VOLUNTARY=y`
fn built_model(config: &str) -> Option<&'static str> {
    config.lines().find_map(|line| match line {
        "CONFIG_PREEMPT_NONE=y" => Some("none"),
        "CONFIG_PREEMPT_VOLUNTARY=y" => Some("voluntary"),
        "CONFIG_PREEMPT=y" => Some("full"),
        "CONFIG_PREEMPT_LAZY=y" => Some("lazy"),
        _ => None,
    })
}
