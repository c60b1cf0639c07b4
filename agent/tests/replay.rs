//! The replay ring: a capture gives exactly the expected text and JSON, without
//! root. In: tests/fixtures/captures, whose README says how each came about.
//! `UPDATE=1` rewrites what is expected and the captures made by hand, never
//! those that were recorded.

#[path = "replay/format.rs"]
mod format;
#[path = "replay/attribution.rs"]
mod attribution;
#[path = "replay/recorder.rs"]
mod recorder;
#[path = "replay/stories.rs"]
mod stories;
#[path = "replay/streams.rs"]
mod streams;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use fsyncscope::capture::{CAPTURE_VERSION, CaptureItem, CaptureReader};
use fsyncscope::correlate::{Core, Output};
use fsyncscope::event::{Event, FileId, Stamped, SyncEvent};
use fsyncscope::incident::{Cause, Incident, Verdict};
use fsyncscope::sink::{JsonSink, TextOptions, TextSink};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/captures")
}

/// The captures of a folder, in order.
fn captures(folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(fixtures().join(folder))
        .expect("list the fixtures")
        .map(|entry| entry.expect("list the fixtures").path())
        .filter(|path| {
            let name = path.to_string_lossy();
            name.ends_with(".ndjson") || name.ends_with(".ndjson.zst")
        })
        .collect();
    paths.sort();
    paths
}

fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some_and(|value| value == "1")
}

/// Compares with the file, or writes it.
fn expect_file(path: &Path, actual: &str) {
    if is_update() {
        fs::write(path, actual).expect("write the fixture");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; UPDATE=1 rewrites it\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}

fn to_capture(events: &[Stamped]) -> String {
    let mut text = format!("{{\"fsyncscope_capture\":{CAPTURE_VERSION},\"version\":\"0.1.0\"}}\n");
    for event in events {
        text += &serde_json::to_string(event).expect("events are JSON");
        text.push('\n');
    }
    text
}

fn outputs(events: &[Stamped]) -> Vec<Output> {
    let mut core = Core::new();
    events.iter().flat_map(|event| core.handle(event)).collect()
}

fn render(outputs: &[Output]) -> (String, String) {
    let mut text = TextSink::new(TextOptions {
        verbose: true,
        ..TextOptions::default()
    });
    let mut json = JsonSink;
    outputs
        .iter()
        .map(|output| (text.render(output), json.render(output)))
        .unzip()
}

fn read_capture(path: &Path) -> Vec<Stamped> {
    let reader =
        CaptureReader::new(fs::File::open(path).expect("open the capture")).expect("a capture");
    reader
        .map(|item| match item {
            CaptureItem::Event(event) => *event,
            CaptureItem::Truncated(why) => panic!("{}: {why}", path.display()),
        })
        .collect()
}

/// The last state of each incident, in order of appearance.
fn incidents(outputs: &[Output]) -> Vec<Incident> {
    let mut last: Vec<Incident> = Vec::new();
    for output in outputs {
        if let Output::Incident(incident) = output {
            match last.iter_mut().find(|known| known.id == incident.id) {
                Some(known) => *known = (**incident).clone(),
                None => last.push((**incident).clone()),
            }
        }
    }
    last
}

fn story(name: &str) -> Vec<Output> {
    let (_, events) = stories::all()
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("a story of that name");
    outputs(&events)
}

/// What the core says of a run that was recorded.
fn recorded(name: &str) -> Vec<Output> {
    let path = fixtures().join(format!("recorded/{name}.ndjson.zst"));
    outputs(&read_capture(&path))
}

fn only_incident(name: &str) -> Incident {
    let outputs = match stories::all().iter().any(|(known, _)| *known == name) {
        true => story(name),
        false => recorded(name),
    };
    let mut found = incidents(&outputs);
    assert_eq!(found.len(), 1, "{name}");
    found.remove(0)
}

/// Once for all tests: in an update they would read what another one writes.
fn check_made() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for (name, events) in stories::all() {
            expect_file(
                &fixtures().join(format!("made/{name}.ndjson")),
                &to_capture(&events),
            );
        }
    });
}

#[test]
fn captures_made_by_hand_are_current() {
    check_made();
}

#[test]
fn every_capture_gives_the_expected_report() {
    if is_update() {
        check_made();
    }
    let mut paths = captures("made");
    assert_eq!(paths.len(), stories::all().len());
    let recorded = captures("recorded");
    assert_eq!(
        recorded.len(),
        13,
        "one for each scenario of the demo that is short, and two of virtual machines"
    );
    paths.extend(recorded);
    for path in paths {
        let (text, json) = render(&outputs(&read_capture(&path)));
        let stem = path
            .to_string_lossy()
            .replace(".ndjson.zst", "")
            .replace(".ndjson", "");
        expect_file(Path::new(&format!("{stem}.expected.txt")), &text);
        expect_file(Path::new(&format!("{stem}.expected.json")), &json);
    }
}

#[test]
fn failed_fsync_names_line_sync_request_and_device() {
    let incident = only_incident("partition");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Confirmed, Some(Cause::DeviceError))
    );
    assert_eq!(incident.log_events.len(), 2);
    let (sync, request) = (&incident.syncs[0], &incident.requests[0]);
    assert_eq!(sync.errno.as_deref(), Some("EIO"));
    assert_eq!(sync.topic_partition.as_deref(), Some("orders-0"));
    assert_eq!(
        sync.path.as_deref(),
        Some("/var/lib/kafka/d1/orders-0/00000000000000000000.log")
    );
    assert_eq!(
        (request.sector, request.nr_bytes, request.disk.as_str()),
        (Some(1_234_560), 16_384, "sdb")
    );
    assert_eq!(incident.device.unwrap().path, ["sdb1", "sdb"]);
}

#[test]
fn order_of_arrival_does_not_change_the_verdict() {
    let (straight, turned) = (only_incident("partition"), only_incident("out_of_order"));
    assert_eq!(
        (
            straight.verdict,
            straight.cause,
            straight.confidence,
            straight.totals,
            straight.requests
        ),
        (
            turned.verdict,
            turned.cause,
            turned.confidence,
            turned.totals,
            turned.requests
        )
    );
    assert_eq!(straight.reasons, turned.reasons);
}

#[test]
fn late_error_says_how_late() {
    let incident = only_incident("late_error");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Confirmed, Some(Cause::DeviceError))
    );
    assert_eq!(
        incident.syncs[0].told_late_by_ns,
        Some(36_988 * streams::MS)
    );
    assert_eq!(incident.first_victim.unwrap().op, "writeback");
}

#[test]
fn stalls_of_one_device_are_one_incident_that_closes() {
    let incident = only_incident("stall");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Stalled, Some(Cause::DeviceStall))
    );
    assert_eq!(
        (incident.totals.syncs, incident.state.as_str()),
        (6, "closed")
    );
    let parts = incident.syncs[0].breakdown.unwrap();
    assert!(parts.flush_ns > 1_400 * streams::MS);
    assert_eq!(
        parts.flush_ns
            + parts.journal_ns
            + parts.own_data_ns
            + parts.others_data_ns
            + parts.lock_ns
            + parts.other_ns,
        incident.syncs[0].duration_ns
    );
}

#[test]
fn hang_is_reported_while_it_hangs() {
    let outputs = recorded("hang");
    let Some(Output::Incident(first)) = outputs
        .iter()
        .find(|output| matches!(output, Output::Incident(_)))
    else {
        panic!("no incident");
    };
    assert!(first.syncs[0].in_flight && first.syncs[0].duration_ns <= 2_000 * streams::MS);
    assert_eq!(
        (first.verdict, first.cause),
        (Verdict::Stalled, Some(Cause::DeviceStall))
    );
    assert!(first.requests[0].in_flight && !first.syncs[0].stack.is_empty());
    let last = only_incident("hang");
    assert_eq!(
        (last.state.as_str(), last.syncs[0].in_flight),
        ("closed", false)
    );
    assert_eq!(last.syncs[0].duration_ns / streams::MS, 20_001);
    assert!(last.requests.iter().all(|request| !request.in_flight));
}

#[test]
fn index_error_says_that_the_directory_stays_online() {
    let incident = only_incident("index");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Confirmed, Some(Cause::DeviceError))
    );
    assert!(incident.syncs.iter().all(|sync| sync.op == "msync"));
    assert!(!incident.log_events.is_empty());
    assert!(
        incident
            .next_steps
            .iter()
            .any(|step| step.text.contains("keeps the directory online"))
    );
}

#[test]
fn recorded_failure_names_line_sync_and_request() {
    let incident = only_incident("eio");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Confirmed, Some(Cause::DeviceError))
    );
    let (sync, request) = (&incident.syncs[0], &incident.requests[0]);
    assert_eq!(
        (sync.op.as_str(), sync.errno.as_deref()),
        ("fsync", Some("EIO"))
    );
    assert_eq!(sync.topic_partition.as_deref(), Some("orders-0"));
    assert_eq!(
        (request.sector, request.disk.as_str()),
        (Some(263_472), "loop0")
    );
    assert_eq!(incident.log_events[0].line_number, 505);
}

#[test]
fn recorded_error_before_the_agent_came_is_unknown() {
    let found = incidents(&recorded("blind"));
    assert!(!found.is_empty());
    for incident in found {
        assert_eq!(
            (incident.verdict, incident.cause, incident.syncs.len()),
            (Verdict::Unknown, None, 0)
        );
    }
}

#[test]
fn journal_error_and_its_read_only_aftermath_are_one_incident() {
    let incident = only_incident("journal");
    assert_eq!(
        (incident.verdict, incident.totals.syncs),
        (Verdict::Confirmed, 2)
    );
    assert!(
        incident
            .reasons
            .iter()
            .any(|reason| reason.ends_with("(E5)"))
    );
}

#[test]
fn stories_without_a_finding_have_none() {
    for name in ["untrue_lines", "rotated"] {
        assert_eq!(incidents(&story(name)), [], "{name}");
    }
    for name in ["bystander", "noise", "big"] {
        assert_eq!(incidents(&recorded(name)), [], "{name}");
    }
    let explained = recorded("big").iter().any(|output| {
        matches!(output, Output::SlowSync(slow) if slow.why.starts_with("explained by its bytes: 692 MiB at 99 MB/s"))
    });
    assert!(explained);
}

#[test]
fn error_before_the_agent_came_is_unknown() {
    let found = incidents(&story("blind"));
    let incident = &found[0];
    assert_eq!(
        (incident.verdict, incident.cause, incident.confidence),
        (Verdict::Unknown, None, 0.0)
    );
    assert!(incident.reasons[0].contains("was not watching at that time"));
    assert_eq!(incident.log_events.len(), 2);
    // A write that fails after that is a finding, but not the lines' explanation.
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].operations[0].op, "writeback");
    assert!(found[1].log_events.is_empty());
}

#[test]
fn line_given_up_on_is_confirmed_under_the_same_id() {
    let states: Vec<(Verdict, String)> = story("line_first")
        .iter()
        .filter_map(|output| match output {
            Output::Incident(incident) => Some((incident.verdict, incident.id.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(states.first().map(|state| state.0), Some(Verdict::Unknown));
    assert_eq!(states.last().map(|state| state.0), Some(Verdict::Confirmed));
    assert!(states.iter().all(|state| state.1 == states[0].1));
}

#[test]
fn renamed_directory_is_not_blamed_on_a_failed_request() {
    let found = incidents(&story("deleted_topic"));
    let verdicts: Vec<Verdict> = found.iter().map(|incident| incident.verdict).collect();
    assert_eq!(verdicts, [Verdict::Confirmed, Verdict::Unknown]);
    assert!(found[0].log_events.is_empty());
    assert!(found[1].reasons[0].contains("NoSuchFileException"));
}

#[test]
fn failed_write_is_unknown_and_says_that_writes_are_not_watched() {
    let incident = only_incident("full_disk");
    assert_eq!(
        (incident.verdict, incident.log_events.len()),
        (Verdict::Unknown, 2)
    );
    assert!(
        incident
            .reasons
            .iter()
            .any(|reason| reason.contains("which are not watched"))
    );
}

#[test]
fn ten_thousand_failing_files_are_one_bounded_incident() {
    let mut stream = streams::Stream::new();
    for ino in 0..10_000u64 {
        let ms = 1_000 + ino;
        let file = FileId {
            s_dev: 8 << 20 | 17,
            ino,
        };
        let mut request = streams::failed_write(ms, ms);
        request.file = file.clone();
        stream.at(ms).push(Event::Request(request));
        stream.push(Event::Sync(SyncEvent {
            file,
            ..streams::fsync(ms, ms + 1, -5)
        }));
        if ino % 250 == 0 {
            stream.push(Event::Tick);
        }
    }
    let outputs = outputs(&stream.stop());
    let found = incidents(&outputs);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].totals.syncs, 10_000);
    assert!(found[0].syncs.len() <= 10 && found[0].requests.len() <= 10);
    let emitted = outputs
        .iter()
        .filter(|output| matches!(output, Output::Incident(_)))
        .count();
    assert!(emitted <= 12, "{emitted} reports in ten seconds");
    let Some(Output::Stopped(stopped)) = outputs.last() else {
        panic!("no end")
    };
    assert!(stopped.lost["evidence_forgotten"] > 0);
}
