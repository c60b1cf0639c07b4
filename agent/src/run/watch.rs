//! `fsyncscope watch`, live: the loop with text or JSON on stdout, and a capture
//! where one is asked for.

use std::{cell::RefCell, io::Write as _, path::Path, rc::Rc, time::Duration};

use anyhow::Context as _;

use crate::{
    capture::CaptureEncoder,
    cli::Watch,
    config::Config,
    correlate::Output,
    helper::{HelperCommand, Sink},
    judge::exit_code,
    run::{
        live::{Emit, Live, Record},
        start,
    },
    sink::{JsonSink, TextOptions, TextSink},
};

/// A helper that opens the capture answers at once, or its disk hangs.
const OPEN_DEADLINE: Duration = Duration::from_secs(2);
/// How long the end waits for the capture to be written out.
const FINISH_DEADLINE: Duration = Duration::from_secs(3);

/// Renders outputs as `options` ask for, on stdout.
pub fn stdout_emit(json: bool, text: TextOptions) -> Emit {
    let mut render: Box<dyn FnMut(&Output) -> String> = if json {
        let mut sink = JsonSink;
        Box::new(move |output| sink.render(output))
    } else {
        let mut sink = TextSink::new(text);
        Box::new(move |output| sink.render(output))
    };
    Box::new(move |output| {
        let text = render(output);
        if !text.is_empty() {
            let mut out = std::io::stdout().lock();
            // A reader that went away ends the run at its next write by SIGPIPE
            // semantics of the shell; a full disk must not end the watch.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    })
}

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
    eprintln!("fsyncscope: attached");
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
    let (live, _shared) = Live::new(config, attached, stdout_emit(options.json, text), record);
    let outcome = live.run(shutdown(options.duration)).await?;
    if let Some(recorder) = recorder {
        finish_recorder(recorder, options.record.as_deref().unwrap_or(Path::new(""))).await;
    }
    Ok(exit_code(outcome.findings, outcome.is_hook_missing))
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
        eprintln!("error: write capture {}: {why}", path.display());
    }
    if report.dropped_bytes > 0 {
        eprintln!(
            "error: write capture {}: {} bytes were dropped, it has gaps",
            path.display(),
            report.dropped_bytes
        );
    }
}

/// Ready at Ctrl-C, SIGTERM, or after `duration`; says which.
pub async fn shutdown(duration: Option<Duration>) -> &'static str {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "interrupted",
        () = terminated => "terminated",
        () = over => "duration is over",
    }
}
