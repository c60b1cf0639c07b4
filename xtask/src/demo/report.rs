//! The demo's last lines: the chain from the broker's line to the request and
//! the verdict, one line each. Pure.

use crate::incident::{Incident, LogEvent, Neighbour, Operation, Request, Sync};

/// All lines.
pub fn render(incident: &Incident) -> String {
    let mut lines: Vec<String> = incident
        .log_events
        .iter()
        .take(1)
        .map(render_log_event)
        .collect();
    lines.extend(incident.operations.iter().take(1).map(render_lost));
    // The sync and the request that say most: failed before slow.
    let sync = incident.syncs.iter().find(|sync| sync.errno.is_some());
    // Of slow ones the longest: neighbours are those of its time.
    let longest = incident
        .syncs
        .iter()
        .rev()
        .max_by_key(|sync| sync.duration_ns);
    lines.extend(sync.or(longest).map(render_sync));
    let request = incident
        .requests
        .iter()
        .find(|request| request.errno.is_some());
    lines.extend(request.or(incident.requests.first()).map(render_request));
    lines.extend(incident.neighbours.iter().take(1).map(render_neighbour));
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

fn render_lost(lost: &Operation) -> String {
    let told: Vec<&str> = lost.told.iter().map(|who| who.comm.as_str()).collect();
    let told = match told.is_empty() {
        true => "nobody yet".into(),
        false => told.join(", "),
    };
    format!(
        "lost:    {} {} ({}): {}, told: {told}",
        lost.op,
        lost.path.as_deref().unwrap_or("unknown file"),
        lost.topic_partition
            .as_deref()
            .unwrap_or("no topic-partition"),
        lost.errno.as_deref().unwrap_or("no errno")
    )
}

fn render_neighbour(who: &Neighbour) -> String {
    format!(
        "beside:  {} (pid {}), {}: {:.1} MB in {} requests, longest {:.1} ms",
        who.comm.as_deref().unwrap_or("the kernel"),
        who.pid,
        who.path.as_deref().unwrap_or("unknown file"),
        who.nr_bytes as f64 / 1e6,
        who.nr_requests,
        who.longest_ns as f64 / 1e6
    )
}

fn render_sync(sync: &Sync) -> String {
    let late = sync.told_late_by_ns.map_or(String::new(), |ns| {
        format!(", told {:.1} s late", ns as f64 / 1e9)
    });
    format!(
        "sync:    {} {} ({}) by {} (tid {}): {} after {}{late}",
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
        render_ns(sync.duration_ns)
    )
}

fn render_ns(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
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
        format!(" after {} in the device", render_ns(ns))
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
    fn lost_data_and_a_neighbour_have_lines_of_their_own() {
        let json = r#"{"id":"i","verdict":"CONFIRMED","cause":"device-error","confidence":0.97,
            "operations":[{"op":"writeback","path":"/d/t-0/0.log","topic_partition":"t-0","errno":"EIO"}],
            "syncs":[{"op":"fsync","path":"/d/t-0/0.log","comm":"kafka-scheduler","errno":"EIO",
                "duration_ns":500000,"told_late_by_ns":37000000000}],
            "neighbours":[{"pid":7,"comm":"fio","nr_bytes":2000000,"nr_requests":4,"longest_ns":1500000}]}"#;
        let incident = crate::incident::parse_line(json).unwrap();
        assert_eq!(
            render(&incident),
            "lost:    writeback /d/t-0/0.log (t-0): EIO, told: nobody yet\n\
             sync:    fsync /d/t-0/0.log (no topic-partition) by kafka-scheduler (tid 0): EIO after 500 µs, told 37.0 s late\n\
             beside:  fio (pid 7), unknown file: 2.0 MB in 4 requests, longest 1.5 ms\n\
             verdict: CONFIRMED device-error (confidence 0.97)"
        );
    }

    #[test]
    fn the_chain_is_told_in_four_lines() {
        let json = r#"{"id":"i","verdict":"CONFIRMED","cause":"device-error","confidence":0.99,
            "log_events":[{"file":"/l/server.log","line_number":9,"text":"Error while flushing log"}],
            "syncs":[{"op":"msync","path":"/d/a"},
                {"op":"fsync","path":"/d/t-0/0.log","topic_partition":"t-0","tid":5,"comm":"kafka-scheduler","errno":"EIO","duration_ns":2500000}],
            "requests":[{"disk":"loop3","dev":"7:3","sector":808,"nr_bytes":4096,"op":"write","status":"IOERR","errno":"EIO"}]}"#;
        let incident = crate::incident::parse_line(json).unwrap();
        assert_eq!(
            render(&incident),
            "log:     /l/server.log:9 Error while flushing log\n\
             sync:    fsync /d/t-0/0.log (t-0) by kafka-scheduler (tid 5): EIO after 2.5 ms\n\
             request: write on loop3 (7:3) sector 808, 4096 bytes: IOERR (EIO)\n\
             verdict: CONFIRMED device-error (confidence 0.99)"
        );
    }
}
