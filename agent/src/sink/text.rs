//! Text for `watch`, made for reading at three in the morning. In: outputs.
//! Out: lines. An incident is printed whole once; its updates only say what is
//! new. Remembers what it printed, boundedly; knows no terminal and no clock.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::block::{
    body, clean, commit_text, headline, log_event, operation_line, request_lines, row, sync_lines,
    sync_target, tree, verdict_word,
};
use super::breakdown::show_breakdown;
use super::units::{parse_zone, show_clock, show_ns, show_time};
use crate::correlate::{BrokerSeen, Output, SlowSync, Started, Stopped, SummaryOutput};
use crate::event::HookState;
use crate::incident::{Incident, Verdict};

/// Incidents remembered for their updates.
const MAX_SHOWN: usize = 256;

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions {
    /// ANSI colours.
    pub colour: bool,
    /// Times in UTC instead of the zone of the host (or of the capture).
    pub utc: bool,
    /// Also notices of level debug, and hooks that are well.
    pub verbose: bool,
}

/// Renders outputs as text. See the module's comment.
#[derive(Debug)]
pub struct TextSink {
    style: Style,
    options: TextOptions,
    shown: BTreeMap<String, Incident>,
}

/// Colours and zone.
#[derive(Debug)]
pub(crate) struct Style {
    colour: bool,
    zone: TimeZone,
}

impl Style {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn verdict(&self, verdict: Verdict, text: &str) -> String {
        let code = match verdict {
            Verdict::Confirmed => "1;31",
            Verdict::Stalled => "1;33",
            Verdict::NotTheDisk => "1;32",
            Verdict::Unknown => "1;35",
        };
        self.paint(code, text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn clock(&self, time: &str) -> String {
        show_clock(time, &self.zone)
    }

    fn time(&self, time: &str) -> String {
        show_time(time, &self.zone)
    }
}

impl TextSink {
    /// A sink that has printed nothing.
    #[must_use]
    pub fn new(options: TextOptions) -> Self {
        Self {
            style: Style {
                colour: options.colour,
                zone: TimeZone::UTC,
            },
            options,
            shown: BTreeMap::new(),
        }
    }

    /// The text of `output`.
    #[must_use]
    pub fn render(&mut self, output: &Output) -> String {
        let lines = match output {
            Output::Started(started) => self.started(started),
            Output::BrokerSeen(broker) => broker_lines(broker),
            Output::Hook(hook) => self.hook(hook),
            Output::Incident(incident) => self.incident(incident),
            Output::SlowSync(slow) => vec![self.slow(slow)],
            Output::Notice { time, level, text } => self.notice(time, level, text),
            Output::Summary(summary) => summary_lines(summary),
            Output::Stopped(stopped) => self.stopped(stopped),
        };
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn started(&mut self, started: &Started) -> Vec<String> {
        let start = &started.start;
        if !self.options.utc {
            self.style.zone = parse_zone(&start.timezone);
        }
        let attached = u128::from(start.attached_ns) as i128 + i128::from(start.clock_offset_ns);
        let attached = super::units::rfc3339(i64::try_from(attached).unwrap_or(0));
        vec![format!(
            "fsyncscope {} on {}, kernel {}, watching since {}; slow from {}, stalled from {} beyond what the bytes need",
            clean(&start.version),
            clean(&start.host),
            clean(&start.kernel),
            self.style.time(&attached),
            show_ns(start.slow_ns),
            show_ns(start.stall_ns),
        )]
    }

    fn hook(&self, hook: &HookState) -> Vec<String> {
        let is_missing = matches!(hook.state.as_str(), "failed" | "absent");
        if !is_missing && !self.options.verbose {
            return Vec::new();
        }
        let weight = if hook.required {
            "required"
        } else {
            "optional"
        };
        let mut line = format!("hook {} ({weight}): {}", hook.name, hook.state);
        if !hook.form.is_empty() {
            line += &format!(" as {}", hook.form);
        }
        if !hook.reason.is_empty() {
            line += &format!(", {}", clean(&hook.reason));
        }
        if is_missing && !hook.lost.is_empty() {
            line += &format!("; lost: {}", clean(&hook.lost));
        }
        vec![line]
    }

    fn notice(&self, time: &str, level: &str, text: &str) -> Vec<String> {
        if level == "debug" && !self.options.verbose {
            return Vec::new();
        }
        vec![format!(
            "{} {level}: {}",
            self.style.clock(time),
            clean(text)
        )]
    }

    fn slow(&self, slow: &SlowSync) -> String {
        let sync = &slow.sync;
        let disk = slow
            .disk
            .as_ref()
            .map_or(String::new(), |disk| format!(" on {}", clean(disk)));
        let why = if slow.why.is_empty() {
            String::new()
        } else {
            format!("; {}", clean(&slow.why))
        };
        format!(
            "{} slow: {} {} took {}{disk}, {}, thread {}{why}",
            self.style.clock(&sync.time),
            sync.op,
            sync_target(sync),
            show_ns(sync.duration_ns),
            clean(&slow.broker),
            clean(&sync.comm),
        )
    }

    fn incident(&mut self, incident: &Incident) -> Vec<String> {
        let lines = match self.shown.get(&incident.id) {
            Some(before) => self.update(before, incident),
            None => {
                let mut lines = vec![
                    String::new(),
                    format!(
                        "{} {}  {}",
                        self.style.time(&incident.time),
                        headline(incident, &self.style),
                        incident.id
                    ),
                ];
                lines.extend(body(incident, &self.style));
                lines.push(String::new());
                lines
            }
        };
        if self.shown.len() >= MAX_SHOWN && !self.shown.contains_key(&incident.id) {
            // The closed and the oldest are the least likely to be updated.
            let oldest = self
                .shown
                .iter()
                .min_by_key(|(_, shown)| (shown.state != "closed", shown.time.clone()))
                .map(|(id, _)| id.clone());
            self.shown.remove(&oldest.unwrap_or_default());
        }
        self.shown.insert(incident.id.clone(), incident.clone());
        lines
    }

    fn update(&self, before: &Incident, now: &Incident) -> Vec<String> {
        let counts = [
            ("sync", before.totals.syncs, now.totals.syncs),
            ("request", before.totals.requests, now.totals.requests),
            ("line", before.totals.log_events, now.totals.log_events),
            ("lost file", before.totals.writebacks, now.totals.writebacks),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(_, _, now)| *now > 0)
            .map(|(what, before, now)| {
                let plural = if *now == 1 { "" } else { "s" };
                let more = if now > before {
                    format!(" (+{})", now - before)
                } else {
                    String::new()
                };
                format!("{now} {what}{plural}{more}")
            })
            .collect();
        let is_turned = before.verdict != now.verdict
            || before.cause != now.cause
            || before.syncs.is_empty() != now.syncs.is_empty();
        let was = if before.verdict == now.verdict {
            String::new()
        } else {
            format!(", was {}", verdict_word(before.verdict))
        };
        let mut lines = vec![format!(
            "{} {} {}: {}{was}: {}",
            self.style.clock(&now.updated),
            now.id,
            now.state,
            headline(now, &self.style),
            counts.join(", ")
        )];
        if is_turned {
            lines.extend(tree(now, &self.style));
            for (at, reason) in now.reasons.iter().enumerate() {
                lines.push(row(if at == 0 { "why" } else { "" }, &clean(reason)));
            }
            return lines;
        }
        for event in now.log_events.iter().skip(before.log_events.len()) {
            lines.extend(log_event(event, &self.style));
        }
        for operation in now.operations.iter().skip(before.operations.len()) {
            lines.push(operation_line(operation, &self.style));
        }
        for sync in &now.syncs {
            let known = before
                .syncs
                .iter()
                .find(|known| known.tid == sync.tid && known.time == sync.time);
            match known {
                Some(known) if known == sync => {}
                Some(known) if known.in_flight && sync.in_flight => lines.push(row(
                    "└ sync",
                    &format!(
                        "{} {} still in flight, {}",
                        sync.op,
                        sync_target(sync),
                        show_ns(sync.duration_ns)
                    ),
                )),
                Some(known) if known.in_flight => {
                    let how = match &sync.errno {
                        Some(errno) => format!("failed with {errno} after"),
                        None if sync.unseen_end => "ended unseen, after at least".to_owned(),
                        None => "returned after".to_owned(),
                    };
                    let took = show_ns(sync.duration_ns);
                    let text = format!("{} {} {how} {took}", sync.op, sync_target(sync));
                    lines.push(row("└ sync", &text));
                    let parts = sync.breakdown.as_ref();
                    lines.extend(parts.map(|parts| row("", &show_breakdown(parts))));
                    let commit = sync.commit.as_ref();
                    lines.extend(commit.map(|commit| row("", &commit_text(commit))));
                }
                Some(_) => {}
                None => lines.extend(sync_lines(sync, &self.style)),
            }
        }
        for request in &now.requests {
            let is_known = before.requests.iter().any(|known| {
                known.time == request.time
                    && known.sector == request.sector
                    && known.in_flight == request.in_flight
            });
            if !is_known {
                lines.extend(request_lines(request, &self.style));
            }
        }
        lines
    }

    fn stopped(&self, stopped: &Stopped) -> Vec<String> {
        let mut text = format!(
            "{} stopped ({}): {} finding{}",
            self.style.time(&stopped.time),
            clean(&stopped.why),
            stopped.findings,
            if stopped.findings == 1 { "" } else { "s" }
        );
        if stopped.open > 0 {
            text += &format!(", {} open", stopped.open);
        }
        let mut lines = vec![text];
        if stopped.required_hook_missing {
            lines.push("a required hook was missing: silence proves nothing".to_owned());
        }
        if stopped.lost.is_empty() {
            lines.push("nothing was lost".to_owned());
        } else {
            let lost: Vec<String> = stopped
                .lost
                .iter()
                .map(|(class, count)| format!("{class} {count}"))
                .collect();
            lines.push(format!("lost: {}", lost.join(", ")));
        }
        lines
    }
}

fn broker_lines(broker: &BrokerSeen) -> Vec<String> {
    let name = broker
        .node_id
        .map_or(format!("slot {}", broker.slot), |node| node.to_string());
    let log = broker
        .log_file
        .as_ref()
        .map_or("no log followed".to_owned(), |file| {
            format!("log {}", clean(file))
        });
    let dirs = if broker.log_dirs.is_empty() {
        "no log.dir known".to_owned()
    } else {
        format!("log.dirs {}", clean(&broker.log_dirs.join(", ")))
    };
    let mut lines = vec![format!("broker {name}, pid {}, {dirs}, {log}", broker.pid)];
    lines.extend(broker.notes.iter().map(|note| format!("  {}", clean(note))));
    lines
}

fn summary_lines(summary: &SummaryOutput) -> Vec<String> {
    if summary.rows.is_empty() {
        return vec!["no sync was seen".to_owned()];
    }
    let header = [
        "broker", "log.dir", "device", "op", "count", "failed", "p50", "p99", "max",
    ]
    .map(str::to_owned);
    let mut table = vec![header];
    table.extend(summary.rows.iter().map(|row| {
        [
            clean(&row.broker),
            clean(&row.log_dir),
            clean(&row.device),
            row.op.clone(),
            row.count.to_string(),
            row.errors.to_string(),
            show_ns(row.p50_ns),
            show_ns(row.p99_ns),
            show_ns(row.max_ns),
        ]
    }));
    let width = |column: usize| {
        table
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..9).map(width).collect();
    table
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(at, (cell, width))| {
                    if at < 4 {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                })
                .collect();
            cells.join("  ")
        })
        .collect()
}
