//! The block of one incident, and the lines of its parts. In: an [`Incident`],
//! for an update also what was shown before. Out: lines. Text from outside
//! (names, log lines) is stripped of control characters.

use super::breakdown::show_breakdown;
use super::text::Style;
use super::units::{show_bytes, show_ns};
use crate::incident::{
    Incident, IncidentCommit, IncidentDevice, IncidentLogEvent, IncidentNeighbour,
    IncidentOperation, IncidentRequest, IncidentSync, NvmeStatus, Verdict,
};

/// Parts of one kind printed in full; the rest is counted.
const MAX_SHOWN: usize = 5;

/// Control characters would let a log line repaint the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

pub(super) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Confirmed => "CONFIRMED",
        Verdict::Stalled => "STALLED",
        Verdict::NotTheDisk => "NOT_THE_DISK",
        Verdict::Unknown => "UNKNOWN",
    }
}

/// `CONFIRMED device-error on sdb · broker 1 · /var/lib/kafka/d1`
pub(super) fn headline(incident: &Incident, style: &Style) -> String {
    let mut line = style.verdict(incident.verdict, verdict_word(incident.verdict));
    if let Some(cause) = incident
        .cause
        .and_then(|cause| serde_json::to_value(cause).ok())
    {
        line += &format!(" {}", cause.as_str().unwrap_or_default());
    }
    if let Some(device) = &incident.device {
        line += &format!(" on {}", clean(&device.disk));
    }
    if let Some(broker) = &incident.broker {
        match broker.node_id {
            Some(node) => line += &format!(" · broker {node}"),
            None => line += &format!(" · pid {}", broker.pid),
        }
        if let Some(dir) = &broker.log_dir {
            line += &format!(" · {}", clean(dir));
        }
    }
    line
}

/// The whole block below the headline.
pub(super) fn body(incident: &Incident, style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(device) = &incident.device {
        lines.extend(device_line(device).map(|text| row("device", &text)));
    }
    lines.extend(tree(incident, style));
    for (at, one) in incident.neighbours.iter().take(MAX_SHOWN).enumerate() {
        let label = if at == 0 { "beside" } else { "" };
        lines.push(row(label, &neighbour_text(one)));
    }
    for (at, reason) in incident.reasons.iter().enumerate() {
        lines.push(row(if at == 0 { "why" } else { "" }, &clean(reason)));
    }
    if incident.verdict != Verdict::Unknown {
        lines.push(row("sure", &format!("{:.2} of 1", incident.confidence)));
    }
    if let Some(first) = incident.first_victim.as_ref().filter(|first| {
        incident
            .syncs
            .iter()
            .all(|sync| sync.path.as_ref() != Some(&first.path))
            && incident
                .operations
                .iter()
                .all(|lost| lost.path.as_ref() != Some(&first.path))
    }) {
        lines.push(row(
            "first",
            &format!(
                "{} {} of {}",
                style.clock(&first.time),
                first.op,
                clean(&first.path)
            ),
        ));
    }
    lines.extend(radius(incident).map(|text| row("hit", &text)));
    for (at, step) in incident.next_steps.iter().enumerate() {
        lines.push(row(
            if at == 0 { "next" } else { "" },
            &format!("{}. {}", at + 1, clean(&step.text)),
        ));
        if let Some(command) = &step.command {
            lines.push(row("", &format!("   $ {}", clean(command))));
        }
    }
    lines
}

/// Log line ← sync ← request.
pub(super) fn tree(incident: &Incident, style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    for event in incident.log_events.iter().take(MAX_SHOWN) {
        lines.extend(log_event(event, style));
    }
    more(
        &mut lines,
        incident.totals.log_events,
        incident.log_events.len().min(MAX_SHOWN),
        "line",
    );
    if incident.log_events.is_empty()
        && !(incident.syncs.is_empty() && incident.operations.is_empty())
    {
        lines.push(row(
            "line",
            "none: the broker printed nothing about this so far",
        ));
    }
    for operation in incident.operations.iter().take(MAX_SHOWN) {
        lines.push(operation_line(operation, style));
    }
    more(
        &mut lines,
        incident.totals.writebacks,
        incident.operations.len().min(MAX_SHOWN),
        "file",
    );
    for sync in incident.syncs.iter().take(MAX_SHOWN) {
        lines.extend(sync_lines(sync, style));
    }
    more(
        &mut lines,
        incident.totals.syncs,
        incident.syncs.len().min(MAX_SHOWN),
        "sync",
    );
    for request in incident.requests.iter().take(MAX_SHOWN) {
        lines.extend(request_lines(request, style));
    }
    // Totals count what completed.
    let shown = incident.requests.iter().take(MAX_SHOWN);
    more(
        &mut lines,
        incident.totals.requests,
        shown.filter(|request| !request.in_flight).count(),
        "request",
    );
    if incident.requests.is_empty()
        && !(incident.syncs.is_empty() && incident.operations.is_empty())
    {
        lines.push(row("  └ request", "none seen"));
    }
    lines
}

fn more(lines: &mut Vec<String>, total: u64, shown: usize, what: &str) {
    let rest = total.saturating_sub(shown as u64);
    if rest > 0 && shown > 0 {
        lines.push(row(
            "",
            &format!(
                "… and {rest} more {what}{}",
                if rest == 1 { "" } else { "s" }
            ),
        ));
    }
}

pub(super) fn row(label: &str, text: &str) -> String {
    format!("  {label:<11} {text}").trim_end().to_owned()
}

pub(super) fn log_event(event: &IncidentLogEvent, style: &Style) -> Vec<String> {
    let place = format!("{}:{}", clean(&event.file), event.line_number);
    let mut lines = vec![
        row("line", &format!("{} {place}", style.clock(&event.time))),
        row("", &clean(&event.text)),
    ];
    if let Some(exception) = &event.exception {
        lines.push(row("", &clean(exception)));
    }
    lines
}

pub(super) fn sync_lines(sync: &IncidentSync, style: &Style) -> Vec<String> {
    let mut text = format!(
        "{} {} {}",
        style.clock(&sync.time),
        sync.op,
        sync_target(sync)
    );
    let took = show_ns(sync.duration_ns);
    text += &match (&sync.errno, sync.in_flight) {
        (Some(errno), _) => format!(" = {} after {took}", style.bad(errno)),
        (None, true) => format!(" {}", style.bad(&format!("IN FLIGHT for {took}"))),
        (None, false) if sync.unseen_end => format!(" ended unseen, after at least {took}"),
        (None, false) => format!(" took {took}"),
    };
    let mut lines = vec![row("└ sync", &text)];
    let mut of = Vec::new();
    if let Some(partition) = &sync.topic_partition {
        of.push(format!("partition {}", clean(partition)));
    }
    // What a kernel thread syncs it syncs for somebody whom nothing names.
    let whose = if sync.op == "aio" {
        "caller unknown, kernel thread"
    } else {
        "thread"
    };
    of.push(format!(
        "{whose} {} (tid {}, pid {})",
        clean(&sync.comm),
        sync.tid,
        sync.pid
    ));
    if let (Some(dev), Some(ino)) = (&sync.dev, sync.ino) {
        of.push(format!("inode {ino} on {dev}"));
    }
    lines.push(row("", &of.join(", ")));
    if let Some(late) = sync.told_late_by_ns {
        lines.push(row(
            "",
            &format!(
                "told of a failure that was {} old when the call began",
                show_ns(late)
            ),
        ));
    }
    if let Some(parts) = &sync.breakdown {
        let so_far = if sync.in_flight { "so far: " } else { "" };
        lines.push(row("", &format!("{so_far}{}", show_breakdown(parts))));
    }
    lines.extend(
        sync.commit
            .as_ref()
            .map(|commit| row("", &commit_text(commit))),
    );
    if !sync.stack.is_empty() {
        let stack: Vec<String> = sync
            .stack
            .iter()
            .take(6)
            .map(|frame| clean(frame))
            .collect();
        lines.push(row("", &format!("waits in {}", stack.join(" ← "))));
    }
    lines
}

/// `commit 42 of the journal on 7:0 took 1.5 s (locked 1 ms, flushing 9 ms, logging
/// 1.4 s), 3 slow requests, 5 syncs waited for it`
pub(super) fn commit_text(commit: &IncidentCommit) -> String {
    let mut text = format!(
        "commit {} of the journal on {} {} {}",
        commit.transaction,
        commit.dev,
        if commit.in_flight { "for" } else { "took" },
        show_ns(commit.duration_ns)
    );
    let phases: Vec<String> = [
        ("locked", commit.locked_ns),
        ("flushing", commit.flushing_ns),
        ("logging", commit.logging_ns),
    ]
    .into_iter()
    .filter_map(|(name, ns)| Some(format!("{name} {}", show_ns(ns?))))
    .collect();
    if !phases.is_empty() {
        text += &format!(" ({})", phases.join(", "));
    }
    if commit.nr_requests > 0 {
        let count = usize::try_from(commit.nr_requests).unwrap_or(usize::MAX);
        text += &format!(", {count} slow request{}", plural(count));
    }
    if commit.nr_syncs > 1 {
        text += &format!(", {} syncs waited for it", commit.nr_syncs);
    }
    text
}

/// `fio (pid 77): 400 MiB in 800 requests, 3 flushes, longest 80 ms`
fn neighbour_text(one: &IncidentNeighbour) -> String {
    let path = one.path.as_deref().map(clean);
    let who = match (&one.comm, one.pid, &path) {
        (Some(comm), Some(pid), Some(path)) => format!("{} (pid {pid}), {path}", clean(comm)),
        (Some(comm), Some(pid), None) => format!("{} (pid {pid})", clean(comm)),
        (None, Some(pid), _) => format!("pid {pid}"),
        (_, None, Some(path)) => path.clone(),
        (_, None, None) => "unknown".to_owned(),
    };
    let flushes = match one.nr_flushes {
        0 => String::new(),
        count => format!(", {count} flush{}", if count == 1 { "" } else { "es" }),
    };
    format!(
        "{who}: {} in {} request{}{flushes}, longest {}",
        show_bytes(one.nr_bytes),
        one.nr_requests,
        plural(usize::try_from(one.nr_requests).unwrap_or(usize::MAX)),
        show_ns(one.longest_ns)
    )
}

pub(super) fn operation_line(operation: &IncidentOperation, style: &Style) -> String {
    let target = operation.path.as_deref().unwrap_or("of an unknown file");
    let mut text = format!(
        "{} {} {} = {}",
        style.clock(&operation.time),
        operation.op,
        clean(target),
        style.bad(&operation.errno)
    );
    if let Some(partition) = &operation.topic_partition {
        text += &format!(", partition {}", clean(partition));
    }
    let told: Vec<String> = operation
        .told
        .iter()
        .map(|told| format!("{} (pid {})", clean(&told.comm), told.pid))
        .collect();
    if operation.op == "writeback" {
        text += &if told.is_empty() {
            format!(", {}", style.bad("nobody told yet"))
        } else {
            format!(", told: {}", told.join(", "))
        };
    }
    row("└ lost", &text)
}

pub(super) fn sync_target(sync: &IncidentSync) -> String {
    match (&sync.path, sync.ino) {
        (Some(path), _) => clean(path),
        (None, Some(ino)) => format!("inode {ino}"),
        (None, None) => "of an unknown file".to_owned(),
    }
}

fn request_line(request: &IncidentRequest, style: &Style) -> String {
    let mut text = format!(
        "{} {} {}",
        style.clock(&request.time),
        request.op,
        clean(&request.disk)
    );
    if let Some(sector) = request.sector {
        text += &format!(" sector {sector}, {}", show_bytes(request.nr_bytes));
    }
    if !request.flags.is_empty() {
        text += &format!(" [{}]", request.flags.join(" "));
    }
    if request.in_flight {
        let age = show_ns(request.device_ns.unwrap_or(0));
        return row(
            "  └ request",
            &format!("{text}: {}", style.bad(&format!("not completed for {age}"))),
        );
    }
    if let Some(by) = &request.submitter {
        text += &match by.comm.as_str() {
            "" => format!(" by pid {}", by.pid),
            comm => format!(" by {} (pid {})", clean(comm), by.pid),
        };
    }
    let status = request.status.clone().unwrap_or_default();
    match &request.errno {
        Some(errno) => {
            let by = if request.status_derived { "by " } else { "" };
            text += &format!(
                ": {}",
                style.bad(&format!("{} ({by}{errno})", clean(&status)))
            );
        }
        None => text += &format!(": {}", clean(&status)),
    }
    if let Some(queue_ns) = request.queue_ns {
        text += &format!(", queued {}", show_ns(queue_ns));
    }
    if let Some(device_ns) = request.device_ns {
        text += &format!(", device {}", show_ns(device_ns));
    }
    if let Some(path) = &request.path_disk {
        text += &format!(", by path {}", clean(path));
    }
    row("  └ request", &text)
}

/// The line of a request, and one of what the NVMe controller answered.
pub(super) fn request_lines(request: &IncidentRequest, style: &Style) -> Vec<String> {
    let mut lines = vec![request_line(request, style)];
    lines.extend(request.nvme.as_ref().map(|nvme| row("", &nvme_text(nvme))));
    lines
}

/// `NVMe: Write Fault (Media and Data Integrity Errors, SCT 2h, SC 80h), do not retry`
fn nvme_text(nvme: &NvmeStatus) -> String {
    let mut text = format!("NVMe: {}", clean(&nvme.text));
    if nvme.dnr {
        text += ", do not retry";
    }
    if nvme.crd != 0 {
        text += &format!(", retry delay CRDT{}", nvme.crd);
    }
    match nvme.retries {
        0 => {}
        1 => text += ", sent again once",
        2 => text += ", sent again twice",
        count => text += &format!(", sent again {count} times"),
    }
    text
}

fn device_line(device: &IncidentDevice) -> Option<String> {
    let mut parts = vec![device.path.join(" → ")];
    for (name, value) in [
        ("model", &device.model),
        ("serial", &device.serial),
        ("firmware", &device.firmware),
        ("at", &device.address),
        ("slot", &device.slot),
    ] {
        parts.extend(
            value
                .as_ref()
                .map(|value| format!("{name} {}", clean(value))),
        );
    }
    parts.extend(
        device
            .backing_file
            .as_ref()
            .map(|file| format!("backed by {}", clean(file))),
    );
    parts.extend(
        device
            .write_cache
            .as_ref()
            .map(|cache| format!("cache {}", clean(cache))),
    );
    if !device.paths.is_empty() {
        parts.push(format!("paths {}", clean(&device.paths.join("; "))));
    }
    parts.retain(|part| !part.is_empty());
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn radius(incident: &Incident) -> Option<String> {
    let radius = &incident.blast_radius;
    let mut parts = Vec::new();
    match radius.topic_partitions.len() {
        0 => {}
        count @ 1..=8 => parts.push(format!(
            "partition{} {}",
            plural(count),
            radius.topic_partitions.join(", ")
        )),
        count => parts.push(format!(
            "{count} partitions, {}, …",
            radius.topic_partitions[..5].join(", ")
        )),
    }
    if radius.log_dirs.len() > 1 {
        parts.push(format!(
            "log.dirs on the device: {}",
            radius.log_dirs.join(", ")
        ));
    }
    if radius.brokers.len() > 1 {
        parts.push(format!("brokers {}", radius.brokers.join(", ")));
    }
    (!parts.is_empty()).then(|| clean(&parts.join("; ")))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
