//! Makes streams of events by hand. In: calls with times in ms from the begin.
//! Out: events in order, as the live agent would have recorded them. Lines of
//! brokers' logs pass the real parser. The stories are in `stories`.

use fsyncscope::brokerlog::{RawRecord, Stamp, classify, parse_record};
use fsyncscope::discover::{Broker, LogDir};
use fsyncscope::enrich::{ChainKind, DeviceInfo, DeviceLink, Leaf};
use fsyncscope::event::{
    BrokerLogEvent, Counters, Event, FileId, HookState, RequestEvent, Stamped, Start, Summary,
    SummaryRow, SyncEvent,
};
use fsyncscope::sink::units::parse_zone;

pub const MS: u64 = 1_000_000;
/// Start of every stream, CLOCK_MONOTONIC.
pub const BEGIN_NS: u64 = 1_000_000 * MS;
/// Realtime then: 2026-11-23 23:37:30 in Berlin.
const BEGIN_REALTIME_NS: i64 = 1_795_473_450_000_000_000;
pub const SDB: u32 = 8 << 20 | 16;
pub const SDB1: u32 = 8 << 20 | 17;
const SDC: u32 = 8 << 20 | 32;
pub const SERVER_LOG: &str = "/opt/kafka/logs/server.log";
pub const NO_ROOT: u16 = 0xffff;

/// A stream being made; `ms` counts from its begin.
pub struct Stream {
    now_ns: u64,
    line_number: u64,
    pub events: Vec<Stamped>,
}

impl Stream {
    pub fn new() -> Self {
        let mut stream = Self {
            now_ns: BEGIN_NS,
            line_number: 100,
            events: Vec::new(),
        };
        stream.push(Event::Start(Box::new(Start {
            version: "0.1.0".to_owned(),
            host: "kafka-1".to_owned(),
            kernel: "6.18.0".to_owned(),
            boot_id: "6a1f".to_owned(),
            timezone: "Europe/Berlin".to_owned(),
            slow_ns: 100 * MS,
            stall_ns: 1_000 * MS,
            clock_offset_ns: BEGIN_REALTIME_NS - BEGIN_NS as i64,
            attached_ns: BEGIN_NS,
            ..Start::default()
        })));
        for name in ["block_rq_complete", "sync_exit"] {
            stream.push(Event::Hook(HookState {
                name: name.to_owned(),
                state: "attached".to_owned(),
                form: "raw_tracepoint".to_owned(),
                required: true,
                ..HookState::default()
            }));
        }
        stream.push(Event::Broker {
            slot: 0,
            broker: Box::new(broker()),
        });
        stream.root(0, "/var/lib/kafka/d1", SDB1, "sdb1", SDB, "sdb");
        stream.root(1, "/var/lib/kafka/d2", SDC, "sdc", SDC, "sdc");
        stream
    }

    fn root(&mut self, slot: u16, path: &str, s_dev: u32, name: &str, disk: u32, disk_name: &str) {
        let link = |name: &str, dev, kind| DeviceLink {
            name: name.to_owned(),
            dev,
            kind,
            label: None,
            is_shared: false,
        };
        let mut chain = vec![link(disk_name, disk, ChainKind::Disk)];
        if s_dev != disk {
            chain.insert(0, link(name, s_dev, ChainKind::Partition));
        }
        let leaf = Leaf {
            name: disk_name.to_owned(),
            dev: disk,
            model: Some("ST4000NM".to_owned()),
            serial: Some(format!("Z1Z{disk}")),
            firmware: Some("SN05".to_owned()),
            write_cache: Some("write back".to_owned()),
            ..Leaf::default()
        };
        let info = DeviceInfo {
            name: disk_name.to_owned(),
            dev: s_dev,
            chain,
            leaves: vec![leaf],
            notes: Vec::new(),
        };
        self.push(Event::Device {
            dev: s_dev,
            info: Box::new(info),
        });
        self.push(Event::Root {
            slot,
            broker: 0,
            path: path.to_owned(),
            s_dev,
        });
    }

    pub fn at(&mut self, ms: u64) -> &mut Self {
        self.now_ns = BEGIN_NS + ms * MS;
        self
    }

    pub fn push(&mut self, event: Event) -> &mut Self {
        self.events.push(Stamped {
            mono_ns: self.now_ns,
            event,
        });
        self
    }

    /// Ticks, four a second, until `ms`.
    pub fn ticks_until(&mut self, ms: u64) -> &mut Self {
        while self.now_ns + 250 * MS <= BEGIN_NS + ms * MS {
            self.now_ns += 250 * MS;
            self.push(Event::Tick);
        }
        self.at(ms)
    }

    /// A storage line; `text` follows the time.
    pub fn line(
        &mut self,
        printed_ms: i64,
        text: &str,
        stack: &[&str],
        history: bool,
    ) -> &mut Self {
        let millis = 30_000 + printed_ms;
        let first = format!(
            "[2026-11-23 23:{:02}:{:02},{:03}] {text}",
            37 + millis / 60_000,
            millis / 1000 % 60,
            millis % 1000
        );
        let arrival_realtime_ns = BEGIN_REALTIME_NS + (self.now_ns - BEGIN_NS) as i64;
        let raw = RawRecord {
            first,
            stack: stack.iter().map(|line| (*line).to_owned()).collect(),
            stamp: Stamp {
                realtime_ns: arrival_realtime_ns,
                mono_ns: self.now_ns,
                history,
            },
            ..RawRecord::default()
        };
        let record =
            parse_record(&raw, &parse_zone("Europe/Berlin")).expect("Kafka's default layout");
        let storage = classify(&record).expect("a storage event");
        self.line_number += 1;
        self.push(Event::BrokerLog(BrokerLogEvent {
            broker: 0,
            file: SERVER_LOG.to_owned(),
            line_number: self.line_number,
            arrival_realtime_ns,
            history,
            record,
            storage,
        }))
    }

    pub fn stop(&mut self) -> Vec<Stamped> {
        self.push(Event::Summary(Box::new(Summary {
            rows: vec![SummaryRow {
                broker: 0,
                root: 0,
                dev: SDB1,
                op: "fsync".to_owned(),
                count: 120,
                errors: 0,
                p50_ns: 2_100_000,
                p99_ns: 24_000_000,
                max_ns: 61_000_000,
            }],
        })));
        self.push(Event::Stop {
            why: "interrupted".to_owned(),
        });
        std::mem::take(&mut self.events)
    }
}

fn broker() -> Broker {
    let dir = |path: &str| LogDir {
        path: path.into(),
        ..LogDir::default()
    };
    Broker {
        pid: 4242,
        node_id: Some("1".to_owned()),
        cluster_id: Some("Mk3Q".to_owned()),
        log_dirs: vec![dir("/var/lib/kafka/d1"), dir("/var/lib/kafka/d2")],
        server_log: Some(SERVER_LOG.into()),
        ..Broker::default()
    }
}

pub fn names(file: &str) -> Vec<String> {
    [file, "orders-0", "d1", "kafka", "lib"]
        .map(str::to_owned)
        .to_vec()
}

/// An fsync of orders-0's segment on sdb1.
pub fn fsync(enter_ms: u64, exit_ms: u64, ret: i64) -> SyncEvent {
    SyncEvent {
        op: "fsync".to_owned(),
        pid: 4242,
        tid: 4301,
        comm: "data-plane-kafk".to_owned(),
        enter_ns: BEGIN_NS + enter_ms * MS,
        exit_ns: BEGIN_NS + exit_ms * MS,
        ret,
        arg0: 77,
        broker: 0,
        root: 0,
        file: FileId {
            s_dev: SDB1,
            ino: 131,
        },
        names: names("00000000000000000000.log"),
        nr_files: 1,
        delta: Counters {
            nr_requests: 1,
            nr_bytes: 16_384,
            ..Counters::default()
        },
        ..SyncEvent::default()
    }
}

/// A write to sdb that failed.
pub fn failed_write(issue_ms: u64, complete_ms: u64) -> RequestEvent {
    RequestEvent {
        rq: 0xffff_8880_0000_1000,
        dev: SDB,
        op: "write".to_owned(),
        flags: vec!["sync".to_owned()],
        sector: Some(1_234_560),
        nr_bytes: 16_384,
        start_ns: BEGIN_NS + issue_ms * MS - 200_000,
        issue_ns: BEGIN_NS + issue_ms * MS,
        complete_ns: BEGIN_NS + complete_ms * MS,
        status: "IOERR".to_owned(),
        errno: 5,
        file_source: "page".to_owned(),
        file: FileId {
            s_dev: SDB1,
            ino: 131,
        },
        names: names("00000000000000000000.log"),
        root: 0,
        nr_errors: 1,
        ..RequestEvent::default()
    }
}
