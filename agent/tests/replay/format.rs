//! The capture as a file: compressed, cut off, not one at all, of a later
//! version. In: the stories. What they tell is the ring's other tests'.

use std::io;

use fsyncscope::capture::{CaptureEncoder, CaptureItem, CaptureReader};
use fsyncscope::event::Stamped;

use super::{outputs, render, stories};

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
        .find(|(name, _)| *name == "late_error")
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
