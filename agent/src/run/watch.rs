//! `fsyncscope watch`, live: the loop with text or JSON on stdout, and a capture
//! where one is asked for.

use std::{cell::RefCell, path::Path, rc::Rc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    capture::CaptureEncoder,
    cli::Watch,
    config::Config,
    helper::{HelperCommand, Sink},
    judge::exit_code,
    messages::{plain, say},
    run::{
        live::{Live, Record},
        start,
        stdout::{Printed, stdout_emit},
    },
    sink::TextOptions,
};

/// A helper that opens the capture answers at once, or its disk hangs.
const OPEN_DEADLINE: Duration = Duration::from_secs(2);
/// How long the end waits for the capture to be written out.
const FINISH_DEADLINE: Duration = Duration::from_secs(3);

/// Whether text goes to a terminal that wants colour (no-color.org).
pub fn wants_colour() -> bool {
    use std::io::IsTerminal as _;
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The capture while it is written.
struct Recorder {
    encoder: CaptureEncoder,
    sink: Sink,
}

/// Runs; returns the exit code.
///
/// # Errors
/// When nothing can be attached, or the capture cannot be opened.
pub async fn watch(options: &Watch, config: Config) -> anyhow::Result<u8> {
    let recorder = match &options.record {
        Some(path) => Some(open_recorder(path).await?),
        None => None,
    };
    let attached = start::attach(&config)?;
    let ending = Ending::listen()?;
    say("fsyncscope: attached");
    let record = recorder.clone().map(|recorder| -> Record {
        Box::new(move |stamped| {
            let mut recorder = recorder.borrow_mut();
            if let Some(bytes) = recorder.encoder.push(stamped) {
                recorder.sink.write(&bytes);
            }
        })
    });
    let text = TextOptions {
        colour: wants_colour(),
        utc: options.utc,
        verbose: options.verbose,
    };
    let (emit, printed) = stdout_emit(options.json, text);
    let is_all = config.is_all;
    let (live, _shared) = Live::new(config, attached, emit, record);
    let ended = async {
        tokio::select! {
            why = ending.wait(options.duration) => why,
            () = printed.reader_gone() => "nobody reads the output",
        }
    };
    let outcome = live.run(ended).await;
    // Also what led to an error is evidence.
    if let Some(recorder) = recorder {
        finish_recorder(recorder, options.record.as_deref().unwrap_or(Path::new(""))).await;
    }
    let outcome = outcome?;
    if outcome.findings == 0 {
        is_of_use(&printed, is_all)?;
    }
    Ok(exit_code(outcome.findings, outcome.is_hook_missing))
}

/// A run without findings says that nothing was found: not if there was nobody
/// to find it with, or nothing to say it on.
fn is_of_use(printed: &Printed, is_all: bool) -> anyhow::Result<()> {
    if let Some(why) = printed.failure() {
        bail!(why);
    }
    if printed.brokers() == 0 && !is_all {
        bail!(
            "look for brokers: no process runs Kafka here that /proc shows, so nothing was watched; start on the broker's host (not in another container), or name its process by --pid"
        );
    }
    Ok(())
}

async fn open_recorder(path: &Path) -> anyhow::Result<Rc<RefCell<Recorder>>> {
    let sink = Sink::open(&HelperCommand::default(), path, OPEN_DEADLINE)
        .await
        .with_context(|| format!("record to {}", path.display()))?;
    Ok(Rc::new(RefCell::new(Recorder {
        encoder: CaptureEncoder::new(env!("CARGO_PKG_VERSION")),
        sink,
    })))
}

async fn finish_recorder(recorder: Rc<RefCell<Recorder>>, path: &Path) {
    let Some(recorder) = Rc::into_inner(recorder) else {
        return;
    };
    let Recorder { mut encoder, sink } = recorder.into_inner();
    if let Some(bytes) = encoder.finish() {
        sink.write(&bytes);
    }
    let report = sink.finish(FINISH_DEADLINE).await;
    if let Some(why) = report.failed {
        say(&format!(
            "error: write capture {}: {}",
            path.display(),
            plain(&why)
        ));
    }
    if report.dropped_bytes > 0 {
        say(&format!(
            "error: write capture {}: {} bytes were dropped, it has gaps",
            path.display(),
            report.dropped_bytes
        ));
    }
}

/// What asks a run to end. Made before anybody is told that it runs: from then on a
/// signal is an end in order.
pub struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

impl Ending {
    /// Listens to SIGINT and SIGTERM.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("listen to signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them, or for so long. Out: why it ends.
    pub async fn wait(mut self, duration: Option<Duration>) -> &'static str {
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
            () = over => "duration is over",
        }
    }
}
