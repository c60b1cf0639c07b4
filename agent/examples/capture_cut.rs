//! Cuts out of a capture what belongs to the machine that it was recorded on
//! and not to the story: host name, boot id, kernel flavour, the number in the
//! lab's folder, serials, names of files of others. In: a capture; out: one to
//! be kept as a fixture. Times, numbers and the order of events stay.
//!
//! `cargo run --example capture_cut -- capture.ndjson.zst recorded/eio.ndjson.zst`

use std::fs::{self, File};
use std::io::BufReader;

use anyhow::{Context, Result, bail};
use fsyncscope::capture::{CaptureEncoder, CaptureItem, CaptureReader};
use fsyncscope::event::{Event, Stamped};

/// The folder of all labs; what follows is the number of one.
const LAB: &str = "fsyncscope-lab/";
/// Root slot of files under no log directory.
const NO_ROOT: u16 = 0xffff;
/// Major number of loop devices, on which the lab's disks are.
const LOOP_MAJOR: u32 = 7;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = args.as_slice() else {
        bail!("usage: capture_cut CAPTURE FIXTURE");
    };
    let file = File::open(input).with_context(|| format!("open {input}"))?;
    let reader =
        CaptureReader::new(BufReader::new(file)).with_context(|| format!("read {input}"))?;
    let mut encoder = CaptureEncoder::new(&reader.header().version);
    let mut bytes = Vec::new();
    let mut count = 0;
    for item in reader {
        let stamped = match item {
            CaptureItem::Event(stamped) => *stamped,
            CaptureItem::Truncated(why) => bail!("read {input}: {why}"),
        };
        bytes.extend(encoder.push(&cut(stamped)?).unwrap_or_default());
        count += 1;
    }
    bytes.extend(encoder.finish().unwrap_or_default());
    fs::write(output, &bytes).with_context(|| format!("write {output}"))?;
    println!("{output}: {count} events, {} bytes", bytes.len());
    Ok(())
}

fn cut(mut stamped: Stamped) -> Result<Stamped> {
    match &mut stamped.event {
        Event::Start(start) => {
            start.host = "kafka-1".to_owned();
            start.boot_id = "00000000-0000-0000-0000-000000000000".to_owned();
            start
                .kernel
                .truncate(start.kernel.find('-').unwrap_or(start.kernel.len()));
        }
        Event::Device { info, .. } => {
            for leaf in &mut info.leaves {
                leaf.serial = None;
            }
        }
        Event::Request(request) if request.root == NO_ROOT && !is_lab(request.file.s_dev) => {
            request.names.clear();
        }
        Event::WbErr(error) if error.root == NO_ROOT && !is_lab(error.file.s_dev) => {
            error.names.clear();
        }
        _ => {}
    }
    let text = serde_json::to_string(&stamped).context("write an event as JSON")?;
    serde_json::from_str(&without_number(&text)).context("read an event back")
}

fn is_lab(s_dev: u32) -> bool {
    s_dev >> 20 == LOOP_MAJOR
}

/// `fsyncscope-lab/1349-1100772-0/mnt` to `fsyncscope-lab/demo/mnt`.
fn without_number(text: &str) -> String {
    let mut parts = text.split(LAB);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = part
            .find(|c: char| !c.is_ascii_digit() && c != '-')
            .unwrap_or(part.len());
        out.push_str(LAB);
        out.push_str("demo");
        out.push_str(&part[number..]);
    }
    out
}
