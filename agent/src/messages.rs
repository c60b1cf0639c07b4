//! The tool's own messages (crate `log`), and those of its kernel programs when
//! asked for, on stderr, one line each.

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Crates below us are chatty at debug; only ours are asked for.
        if self.enabled(record.metadata()) && record.target().starts_with("fsyncscope") {
            eprintln!(
                "{}: {}",
                record.level().as_str().to_ascii_lowercase(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}

/// Sends messages of `level` and above to stderr.
pub fn init(level: &str) {
    let level = level.parse().unwrap_or(LevelFilter::Warn);
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
