//! `watch --from`: a capture through the same core and the same sinks. Needs no
//! rights and no kernel.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{Context as _, bail};

use crate::{
    capture::{CaptureItem, CaptureReader},
    cli::Watch,
    correlate::Core,
    judge::exit_code,
    messages::say,
    run::{stdout::stdout_emit, watch::wants_colour},
    sink::TextOptions,
};

/// Replays; returns the exit code.
///
/// # Errors
/// When the file cannot be read, is no capture, or is one of another version.
pub fn replay(options: &Watch, path: &Path) -> anyhow::Result<u8> {
    let file = File::open(path).with_context(|| format!("open capture {}", path.display()))?;
    let reader = CaptureReader::new(BufReader::new(file))
        .with_context(|| format!("read capture {}", path.display()))?;
    let text = TextOptions {
        colour: wants_colour(),
        utc: options.utc,
        verbose: options.verbose,
    };
    let (mut emit, printed) = stdout_emit(options.json, text);
    let mut core = Core::new();
    for item in reader {
        if printed.is_reader_gone() {
            break;
        }
        match item {
            CaptureItem::Event(stamped) => {
                for output in core.handle(&stamped) {
                    emit(&output);
                }
            }
            CaptureItem::Truncated(why) => {
                say(&format!(
                    "error: capture {} is cut off: {why}; what came before it was replayed",
                    path.display()
                ));
            }
        }
    }
    if let Some(why) = printed.failure()
        && core.findings() == 0
    {
        bail!(why);
    }
    Ok(exit_code(core.findings(), core.is_required_hook_missing()))
}
