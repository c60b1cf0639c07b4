//! The tool's own words on stderr, one line each: messages (crate `log`), those
//! of its kernel programs when asked for, errors, and what a bug made it panic
//! of. Nothing here fails: a stderr that is full or closed is no reason to end.

use std::{error::Error, io::Write as _, panic::PanicHookInfo};

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Crates below us are chatty at debug; only ours are asked for.
        if self.enabled(record.metadata()) && record.target().starts_with("fsyncscope") {
            let level = record.level().as_str().to_ascii_lowercase();
            say(&format!("{level}: {}", plain(&record.args().to_string())));
        }
    }

    fn flush(&self) {}
}

/// Sends messages of `level` and above to stderr, and panics as one line.
pub fn init(level: &str) {
    let level = level.parse().unwrap_or(LevelFilter::Warn);
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value == "0") {
        std::panic::set_hook(Box::new(|info| say(&panic_line(info))));
    }
}

/// Writes a line to stderr. (`eprintln!` panics where that fails.)
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// An error with its causes, said once each.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        add_cause(&mut text, &plain(&cause.to_string()));
    }
    text
}

/// As [`one_line`], for errors that are no `anyhow` ones.
pub fn one_line_of(error: &dyn Error) -> String {
    let mut text = plain(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        add_cause(&mut text, &plain(&cause.to_string()));
        source = cause.source();
    }
    text
}

/// Libraries often repeat the cause in their own text.
fn add_cause(text: &mut String, cause: &str) {
    if text.is_empty() {
        text.push_str(cause);
    } else if !text.contains(cause) {
        text.push_str(": ");
        text.push_str(cause);
    }
}

/// `No such file or directory (os error 2)` as `no such file or directory`; in
/// one line.
pub fn plain(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARK) {
        let Some((_, tail)) = after.split_once(')') else {
            break;
        };
        let start = before.rfind([':', '(', ',', ';']).map_or(0, |at| at + 1);
        let (head, why) = before.split_at(start);
        out.push_str(head);
        let mut is_first = true;
        for letter in why.chars() {
            if is_first && letter != ' ' {
                out.extend(letter.to_lowercase());
                is_first = false;
            } else {
                out.push(letter);
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out.lines().map(str::trim_end).collect::<Vec<_>>().join(" ")
}

fn panic_line(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("of no stated reason");
    let place = info.location().map_or(String::new(), |place| {
        format!(" at {}:{}", place.file(), place.line())
    });
    plain(&format!(
        "error: this is a bug of fsyncscope{place}: {what}; please report this line (RUST_BACKTRACE=1 tells more)"
    ))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn system_errors_are_said_in_lower_case_without_their_number() {
        assert_eq!(
            plain("open /x: No such file or directory (os error 2)"),
            "open /x: no such file or directory"
        );
        assert_eq!(
            plain(
                "fexit: load: Operation not permitted (os error 1); (Is a directory (os error 21))"
            ),
            "fexit: load: operation not permitted; (is a directory)"
        );
        assert_eq!(plain("two\n lines (os error"), "two  lines (os error");
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let cause = std::io::Error::from_raw_os_error(libc::EISDIR);
        let error = Err::<(), _>(cause)
            .context("read capture: Is a directory (os error 21)")
            .context("replay /x");
        assert_eq!(
            one_line(&error.unwrap_err()),
            "replay /x: read capture: is a directory"
        );
    }
}
