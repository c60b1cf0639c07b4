//! Streams of events made by hand, one per story that a capture must tell
//! right. In: nothing. Out: events in order. How they are made is `streams`'.

use std::collections::BTreeMap;

use fsyncscope::enrich::{ChainKind, DeviceInfo, DeviceLink, Leaf, NvmePath};
use fsyncscope::event::{
    Counters, Event, FileId, NvmeStatus, RequestEvent, Stamped, SyncEvent, WbErrEvent,
};

use super::streams::{
    BEGIN_NS, MS, NO_ROOT, SDB, SDB1, SERVER_LOG, Stream, failed_write, fsync, names,
};

/// Every story by name.
pub fn all() -> Vec<(&'static str, Vec<Stamped>)> {
    let mut all = vec![
        ("partition", partition()),
        ("late_error", late_error()),
        ("untrue_lines", untrue_lines()),
        ("blind", blind()),
        ("rotated", rotated()),
        ("out_of_order", out_of_order()),
        ("journal", journal()),
        ("line_first", line_first()),
        ("deleted_topic", deleted_topic()),
        ("full_disk", full_disk()),
        ("nvme", nvme()),
    ];
    all.extend(super::recorder::all());
    all
}

const FLUSH_LINE: &str = "ERROR Error while flushing log for orders-0 in dir /var/lib/kafka/d1 with offset 100 (exclusive) and recovery point 100 (org.apache.kafka.storage.internals.log.LogDirFailureChannel)";
const EIO_STACK: [&str; 3] = [
    "java.io.IOException: Input/output error",
    "\tat java.base/sun.nio.ch.FileDispatcherImpl.force0(Native Method)",
    "\tat java.base/sun.nio.ch.FileDispatcherImpl.force(FileDispatcherImpl.java:82)",
];
const STOPPING_LINE: &str = "WARN [ReplicaManager broker=1] Stopping serving replicas in dir /var/lib/kafka/d1 (kafka.server.ReplicaManager)";

/// A log directory on a partition of a disk with a serial.
fn partition() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    stream
        .at(1_012)
        .push(Event::Request(failed_write(1_004, 1_012)));
    stream.at(1_014).push(Event::Sync(fsync(1_003, 1_014, -5)));
    stream.at(1_030).line(1_016, FLUSH_LINE, &EIO_STACK, false);
    stream.at(1_040).line(1_020, STOPPING_LINE, &[], false);
    stream.ticks_until(4_000).stop()
}

/// An NVMe disk with two paths: one of them gives up, and half a second later the
/// controller behind the other refuses a write for good.
fn nvme() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.push(Event::Device {
        dev: SDB1,
        info: Box::new(nvme_disk()),
    });
    stream.ticks_until(500);
    stream.push(Event::Request(RequestEvent {
        status: "OK".to_owned(),
        errno: 0,
        file_source: "unknown".to_owned(),
        file: FileId::default(),
        names: Vec::new(),
        root: NO_ROOT,
        nr_errors: 0,
        nvme: Some(NvmeStatus {
            sct: 3,
            sc: 0x71,
            text: "Command Aborted By Host (Path Related Status, SCT 3h, SC 71h)".to_owned(),
            ..NvmeStatus::default()
        }),
        disk: "nvme0c0n1".to_owned(),
        is_failover: true,
        ..failed_write(480, 500)
    }));
    stream.ticks_until(1_000);
    stream.at(1_012).push(Event::Request(RequestEvent {
        status: "MEDIUM".to_owned(),
        errno: 61,
        nr_requeue: 5,
        nvme: Some(NvmeStatus {
            sct: 2,
            sc: 0x80,
            dnr: false,
            retries: 5,
            text: "Write Fault (Media and Data Integrity Errors, SCT 2h, SC 80h)".to_owned(),
            ..NvmeStatus::default()
        }),
        disk: "nvme0c1n1".to_owned(),
        ..failed_write(1_004, 1_012)
    }));
    stream.at(1_014).push(Event::Sync(fsync(1_003, 1_014, -61)));
    stream.ticks_until(4_000).stop()
}

fn nvme_disk() -> DeviceInfo {
    let path = |nr: u32, state: &str| NvmePath {
        name: format!("nvme0c{nr}n1"),
        controller: format!("nvme{nr}"),
        transport: Some("pcie".to_owned()),
        address: Some(format!("0000:0{}:00.0", nr + 1)),
        state: Some(state.to_owned()),
        ana_state: None,
    };
    let link = |name: &str, dev, kind| DeviceLink {
        name: name.to_owned(),
        dev,
        kind,
        label: None,
        is_shared: false,
    };
    DeviceInfo {
        name: "nvme0n1".to_owned(),
        dev: SDB1,
        chain: vec![
            link("nvme0n1p1", SDB1, ChainKind::Partition),
            link("nvme0n1", SDB, ChainKind::Disk),
        ],
        leaves: vec![Leaf {
            name: "nvme0n1".to_owned(),
            dev: SDB,
            model: Some("QEMU NVMe Ctrl".to_owned()),
            serial: Some("deadbeef".to_owned()),
            firmware: Some("10.0.2".to_owned()),
            address: Some("0000:01:00.0, 0000:02:00.0".to_owned()),
            paths: vec![path(0, "resetting"), path(1, "live")],
            write_cache: Some("write back".to_owned()),
            ..Leaf::default()
        }],
        notes: Vec::new(),
    }
}

/// The three sources in the opposite order.
fn out_of_order() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    stream.at(1_020).line(1_016, FLUSH_LINE, &EIO_STACK, false);
    stream.at(1_025).line(1_020, STOPPING_LINE, &[], false);
    stream.at(1_300).push(Event::Sync(fsync(1_003, 1_014, -5)));
    stream
        .at(1_400)
        .push(Event::Request(failed_write(1_004, 1_012)));
    stream.ticks_until(4_000).stop()
}

fn late_error() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    stream.at(1_012).push(Event::Request(RequestEvent {
        flags: Vec::new(),
        ..failed_write(1_004, 1_012)
    }));
    stream.push(Event::WbErr(WbErrEvent {
        time_ns: BEGIN_NS + 1_012 * MS,
        file: FileId {
            s_dev: SDB1,
            ino: 131,
        },
        errseq: 0x2005,
        errno: 5,
        root: 0,
        names: names("00000000000000000000.log"),
    }));
    stream.ticks_until(38_000);
    let delta = Counters::default();
    stream.at(38_001).push(Event::Sync(SyncEvent {
        told_errseq: 0x3005,
        delta,
        ..fsync(38_000, 38_001, -5)
    }));
    stream
        .at(38_040)
        .line(38_002, FLUSH_LINE, &EIO_STACK, false);
    stream.ticks_until(41_000).stop()
}

/// Lines that speak of storage and cannot be true.
fn untrue_lines() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    let foreign_dir = FLUSH_LINE.replace("/var/lib/kafka/d1", "/tmp/elsewhere");
    stream
        .at(1_010)
        .line(1_005, &foreign_dir, &EIO_STACK, false);
    stream.at(1_020).line(1_015, FLUSH_LINE, &[], false);
    stream.ticks_until(4_000).stop()
}

/// The agent came after the error.
fn blind() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.at(5).line(-20_000, FLUSH_LINE, &EIO_STACK, true);
    stream.at(6).line(-19_990, STOPPING_LINE, &[], true);
    stream
        .at(1_012)
        .push(Event::Request(failed_write(1_004, 1_012)));
    stream.ticks_until(4_000).stop()
}

fn rotated() -> Vec<Stamped> {
    let mut stream = Stream::new();
    let mut log_file = |ms, state: &str, why: &str| {
        stream.at(ms).push(Event::LogFile {
            broker: 0,
            file: SERVER_LOG.to_owned(),
            state: state.to_owned(),
            why: why.to_owned(),
        });
    };
    log_file(10, "opened", "");
    log_file(1_010, "rotated", "");
    log_file(2_010, "truncated", "3 MB became 0");
    stream.at(2_500).push(Event::Losses {
        total: BTreeMap::from([("reserve_failed".to_owned(), 3)]),
    });
    stream.ticks_until(4_000).stop()
}

/// A journal write fails; the file system aborts and turns read-only.
fn journal() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    let request = RequestEvent {
        file_source: "blockdev".to_owned(),
        file: FileId { s_dev: 5, ino: 17 },
        rdev: SDB1,
        names: Vec::new(),
        root: NO_ROOT,
        flags: ["sync", "meta", "fua"].map(str::to_owned).to_vec(),
        ..failed_write(1_004, 1_012)
    };
    stream.at(1_012).push(Event::Request(request));
    stream.at(1_014).push(Event::Sync(fsync(1_003, 1_014, -5)));
    stream.at(1_030).line(1_016, FLUSH_LINE, &EIO_STACK, false);
    stream.at(2_001).push(Event::Sync(SyncEvent {
        tid: 4302,
        ..fsync(2_000, 2_001, -30)
    }));
    stream.ticks_until(4_000).stop()
}

/// The kernel side of a line comes after the line was given up on.
fn line_first() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    stream.at(1_020).line(1_016, FLUSH_LINE, &EIO_STACK, false);
    stream.ticks_until(5_000);
    stream
        .at(5_001)
        .push(Event::Request(failed_write(1_004, 1_012)));
    stream.at(5_002).push(Event::Sync(fsync(1_003, 1_014, -5)));
    stream.ticks_until(6_000).stop()
}

/// A flush under which the topic's directory was renamed, while another file's
/// request fails.
fn deleted_topic() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    stream
        .at(1_012)
        .push(Event::Request(failed_write(1_004, 1_012)));
    stream.at(1_014).push(Event::Sync(fsync(1_003, 1_014, -5)));
    let line = FLUSH_LINE.replace("orders-0", "gone-0");
    let stack = [
        "java.nio.file.NoSuchFileException: /var/lib/kafka/d1/gone-0/00000000000000000000.timeindex",
    ];
    stream.at(1_030).line(1_016, &line, &stack, false);
    stream.ticks_until(4_000).stop()
}

/// write() fails with ENOSPC, which no sync sees.
fn full_disk() -> Vec<Stamped> {
    let mut stream = Stream::new();
    stream.ticks_until(1_000);
    let line = "ERROR Error while appending records to orders-0 in dir /var/lib/kafka/d1 (org.apache.kafka.storage.internals.log.LogDirFailureChannel)";
    stream.at(1_030).line(
        1_016,
        line,
        &["java.io.IOException: No space left on device"],
        false,
    );
    stream.at(1_040).line(1_020, STOPPING_LINE, &[], false);
    stream.ticks_until(4_000).stop()
}
