//! The replay ring: a capture gives exactly the expected text and JSON, without
//! root. In: tests/fixtures/captures. `UPDATE=1` rewrites what is expected and
//! the captures that were made by hand; the rest of the captures are recorded.

#[path = "replay/recorder.rs"]
mod recorder;
#[path = "replay/stories.rs"]
mod stories;
#[path = "replay/streams.rs"]
mod streams;

use std::path::{Path, PathBuf};
use std::{fs, io};

use fsyncscope::capture::{CAPTURE_VERSION, CaptureEncoder, CaptureItem, CaptureReader};
use fsyncscope::correlate::{Core, Output};
use fsyncscope::event::{Event, FileId, Stamped, SyncEvent};
use fsyncscope::incident::{Cause, Incident, Verdict};
use fsyncscope::sink::{JsonSink, TextOptions, TextSink};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/captures")
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

fn only_incident(name: &str) -> Incident {
    let mut found = incidents(&story(name));
    assert_eq!(found.len(), 1, "{name}");
    found.remove(0)
}

#[test]
fn captures_made_by_hand_are_current() {
    for (name, events) in stories::all() {
        expect_file(
            &fixtures().join(format!("{name}.ndjson")),
            &to_capture(&events),
        );
    }
}

#[test]
fn every_capture_gives_the_expected_report() {
    if is_update() {
        captures_made_by_hand_are_current();
    }
    let mut paths: Vec<PathBuf> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.to_string_lossy().ends_with(".ndjson")
                || path.to_string_lossy().ends_with(".ndjson.zst")
        })
        .collect();
    paths.sort();
    assert!(paths.len() >= stories::all().len());
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
fn compressed_capture_replays_to_the_same_report() {
    for (name, events) in stories::all() {
        let mut encoder = CaptureEncoder::new("0.1.0");
        let mut bytes: Vec<u8> = events
            .iter()
            .filter_map(|event| encoder.push(event))
            .flatten()
            .collect();
        bytes.extend(encoder.finish().unwrap_or_default());
        assert_eq!(encoder.failed(), 0);
        let read: Vec<Stamped> = CaptureReader::new(bytes.as_slice())
            .unwrap()
            .map(|item| match item {
                CaptureItem::Event(event) => *event,
                CaptureItem::Truncated(why) => panic!("{name}: {why}"),
            })
            .collect();
        assert!(read == events, "{name}: events differ after a round trip");
        assert_eq!(render(&outputs(&read)), render(&outputs(&events)), "{name}");
    }
}

#[test]
fn truncated_capture_reads_up_to_its_last_whole_frame() {
    let (_, events) = stories::all()
        .into_iter()
        .find(|(name, _)| *name == "hang")
        .unwrap();
    let mut encoder = CaptureEncoder::new("0.1.0");
    let frames: Vec<Vec<u8>> = events
        .iter()
        .filter_map(|event| encoder.push(event))
        .collect();
    assert!(frames.len() > 10);
    let mut bytes = frames[..5].concat();
    let whole = CaptureReader::new(bytes.as_slice()).unwrap().count();
    bytes.extend(&frames[5][..frames[5].len() / 2]);
    let items: Vec<CaptureItem> = CaptureReader::new(bytes.as_slice()).unwrap().collect();
    let (last, before) = items.split_last().unwrap();
    assert_eq!(before.len(), whole);
    assert!(
        matches!(last, CaptureItem::Truncated(why) if why.starts_with("capture is truncated after line"))
    );
}

#[test]
fn what_is_no_capture_is_refused_with_a_reason() {
    let refuse = |bytes: &[u8]| CaptureReader::new(bytes).err().unwrap().to_string();
    assert_eq!(
        refuse(b""),
        "not a capture: it is empty or has no whole line"
    );
    assert_eq!(
        refuse(b"hello\nworld\n"),
        "not a capture: its first line is not the header of a capture"
    );
    assert_eq!(
        refuse(b"{\"fsyncscope_capture\":2}\n"),
        "capture has version 2, this program reads version 1"
    );
    assert!(refuse(&[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3]).starts_with("not a capture: "));
    let endless = io::Read::take(io::repeat(b'x'), 1 << 24);
    assert_eq!(
        CaptureReader::new(endless).err().unwrap().to_string(),
        "not a capture: its first line is not a header"
    );
}

#[test]
fn unknown_fields_and_events_are_passed_over() {
    let text = "{\"fsyncscope_capture\":1,\"later\":true}\n{\"mono_ns\":5,\"ev\":\"tick\",\"more\":1}\n{\"mono_ns\":6,\"ev\":\"nvme\"}\n{\"mono_ns\":7,\"ev\":\"tick\"}\n";
    let mut reader = CaptureReader::new(text.as_bytes()).unwrap();
    let times: Vec<u64> = reader
        .by_ref()
        .map(|item| match item {
            CaptureItem::Event(event) => event.mono_ns,
            CaptureItem::Truncated(why) => panic!("{why}"),
        })
        .collect();
    assert_eq!((times, reader.skipped()), (vec![5, 7], 1));
}

#[test]
fn eio_names_line_sync_request_and_device() {
    let incident = only_incident("eio");
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
    let (straight, turned) = (only_incident("eio"), only_incident("out_of_order"));
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
fn late_error_is_reported_before_the_broker_knows_and_its_line_joins() {
    let states: Vec<Incident> = story("late_error")
        .into_iter()
        .filter_map(|output| match output {
            Output::Incident(incident) => Some(*incident),
            _ => None,
        })
        .collect();
    let (first, last) = (&states[0], &states[states.len() - 1]);
    assert_eq!(first.updated, "2026-11-23T22:37:31.012000000Z");
    assert!(first.syncs.is_empty() && first.reasons[0].contains("not yet told"));
    assert_eq!(
        first.operations[0].topic_partition.as_deref(),
        Some("orders-0")
    );
    assert_eq!(first.requests[0].sector, Some(1_234_560));
    assert!(states.iter().all(|state| state.id == first.id));
    assert_eq!((last.syncs.len(), last.log_events.len()), (1, 1));
    assert_eq!(last.operations[0].told[0].op.as_deref(), Some("fsync"));
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
        parts.flush_ns + parts.own_data_ns + parts.other_ns,
        incident.syncs[0].duration_ns
    );
}

#[test]
fn every_part_of_a_slow_sync_is_named_and_they_sum() {
    let incident = only_incident("commit");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Stalled, Some(Cause::DeviceStall))
    );
    let parts = incident.syncs[0].breakdown.unwrap();
    let ms = [
        parts.flush_ns,
        parts.journal_ns,
        parts.own_data_ns,
        parts.others_data_ns,
        parts.lock_ns,
        parts.other_ns,
    ]
    .map(|ns| ns / streams::MS);
    assert_eq!(ms, [1_460, 50, 100, 30, 50, 10]);
    assert_eq!(ms.iter().sum::<u64>(), 1_700);
    assert_eq!(parts.flush_device_ns, 1_458 * streams::MS);
    assert!(incident.reasons[0].contains("85 % of it was the device's flush"));
}

#[test]
fn hang_is_reported_while_it_hangs() {
    let outputs = story("hang");
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
    assert_eq!(last.syncs[0].duration_ns, 20_004 * streams::MS);
    assert!(last.requests.iter().all(|request| !request.in_flight));
}

#[test]
fn index_error_says_that_the_directory_stays_online() {
    let incident = only_incident("index");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Confirmed, Some(Cause::DeviceError))
    );
    assert_eq!(incident.syncs[0].op, "msync");
    assert_eq!(incident.log_events.len(), 1);
    assert!(
        incident
            .next_steps
            .iter()
            .any(|step| step.text.contains("keeps the directory online"))
    );
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
    for name in ["bystander", "noise", "big", "rotated"] {
        assert_eq!(incidents(&story(name)), [], "{name}");
    }
    let explained = story("big").iter().any(|output| {
        matches!(output, Output::SlowSync(slow) if slow.why.starts_with("explained by its bytes: 1 GiB at 100 MB/s"))
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
