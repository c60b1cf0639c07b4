//! The demo's last lines: the chain from the broker's line to the request and
//! the verdict, one line each. Pure.

use super::incident::{Incident, LogEvent, Request, Sync};

/// All lines.
pub fn render(incident: &Incident) -> String {
    let mut lines: Vec<String> = incident
        .log_events
        .iter()
        .take(1)
        .map(render_log_event)
        .collect();
    // The sync and the request that say most: failed before slow.
    let sync = incident.syncs.iter().find(|sync| sync.errno.is_some());
    lines.extend(sync.or(incident.syncs.first()).map(render_sync));
    let request = incident
        .requests
        .iter()
        .find(|request| request.errno.is_some());
    lines.extend(request.or(incident.requests.first()).map(render_request));
    let cause = incident.cause.as_deref().unwrap_or("cause unknown");
    lines.push(format!(
        "verdict: {} {cause} (confidence {:.2})",
        incident.verdict, incident.confidence
    ));
    lines.join("\n")
}

fn render_log_event(event: &LogEvent) -> String {
    format!(
        "log:     {}:{} {}",
        event.file, event.line_number, event.text
    )
}

fn render_sync(sync: &Sync) -> String {
    format!(
        "sync:    {} {} ({}) by {} (tid {}): {} after {:.1} ms",
        sync.op,
        sync.path.as_deref().unwrap_or("unknown file"),
        sync.topic_partition
            .as_deref()
            .unwrap_or("no topic-partition"),
        sync.comm,
        sync.tid,
        match (&sync.errno, sync.in_flight) {
            (Some(errno), _) => errno,
            (None, true) => "still in flight",
            (None, false) => "ok",
        },
        sync.duration_ns as f64 / 1e6
    )
}

fn render_request(request: &Request) -> String {
    let sector = request.sector.map_or(String::new(), |sector| {
        format!(" sector {sector}, {} bytes", request.nr_bytes)
    });
    let status = match (&request.status, &request.errno) {
        (Some(status), Some(errno)) => format!("{status} ({errno})"),
        (Some(status), None) => status.clone(),
        (None, Some(errno)) => errno.clone(),
        (None, None) if request.in_flight => "still in flight".into(),
        (None, None) => "no status".into(),
    };
    let time = request.device_ns.map_or(String::new(), |ns| {
        format!(" after {:.1} ms in the device", ns as f64 / 1e6)
    });
    format!(
        "request: {} on {} ({}){sector}: {status}{time}",
        request.op, request.disk, request.dev
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_told_in_four_lines() {
        let json = r#"{"id":"i","verdict":"CONFIRMED","cause":"device-error","confidence":0.99,
            "log_events":[{"file":"/l/server.log","line_number":9,"text":"Error while flushing log"}],
            "syncs":[{"op":"msync","path":"/d/a"},
                {"op":"fsync","path":"/d/t-0/0.log","topic_partition":"t-0","tid":5,"comm":"kafka-scheduler","errno":"EIO","duration_ns":2500000}],
            "requests":[{"disk":"loop3","dev":"7:3","sector":808,"nr_bytes":4096,"op":"write","status":"IOERR","errno":"EIO"}]}"#;
        let incident = super::super::incident::parse_line(json).unwrap();
        assert_eq!(
            render(&incident),
            "log:     /l/server.log:9 Error while flushing log\n\
             sync:    fsync /d/t-0/0.log (t-0) by kafka-scheduler (tid 5): EIO after 2.5 ms\n\
             request: write on loop3 (7:3) sector 808, 4096 bytes: IOERR (EIO)\n\
             verdict: CONFIRMED device-error (confidence 0.99)"
        );
    }
}
