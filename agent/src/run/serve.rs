//! `fsyncscope export`: the loop without printing, and /metrics beside it.

use std::path::Path;

use crate::{
    cli::Export,
    config::Config,
    correlate::Output,
    export::{Exporter, bind, serve},
    judge::exit_code,
    messages::say,
    run::{live::Live, source::LiveSource, start, watch::Ending},
};

/// Runs; returns the exit code.
///
/// # Errors
/// When the address is taken, or nothing can be attached.
pub async fn export(options: &Export, config: Config) -> anyhow::Result<u8> {
    // First what fails for the plainest reason.
    let listener = bind(options.listen).await?;
    let attached = start::attach(&config)?;
    let ending = Ending::listen()?;
    say("fsyncscope: attached");
    let emit = Box::new(|output: &Output| {
        if let Output::Incident(incident) = output {
            log::info!(
                "incident {} {} {:?}",
                incident.id,
                incident.state,
                incident.verdict
            );
        }
    });
    let detail = config.detail;
    let (mut live, shared) = Live::new(config, attached, emit, None);
    let exporter = Exporter::new(LiveSource { shared, detail }, Path::new("/proc"))?;
    let collector = exporter.collector().clone();
    live.on_new_broker(Box::new(move || {
        if let Err(error) = collector.refresh() {
            log::warn!("read metrics: {error:#}");
        }
    }));
    say(&format!(
        "fsyncscope: serving http://{}/metrics",
        listener.local_addr()?
    ));
    let (stop_tx, stop_rx) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, exporter, async {
        let _ = stop_rx.await;
    }));
    let outcome = live.run(ending.wait(None)).await;
    let _ = stop_tx.send(());
    let _ = server.await;
    let outcome = outcome?;
    Ok(exit_code(outcome.findings, outcome.is_hook_missing))
}
