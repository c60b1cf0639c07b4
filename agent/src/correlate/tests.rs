//! Claims about the core that no capture of the replay ring makes.

use super::*;
use crate::event::{
    Counters, FileId, InFlightEvent, InFlightRequest, InFlightSync, RequestEvent, Start, WbErrEvent,
};
use crate::incident::{Cause, Incident, Verdict};

#[path = "failover_tests.rs"]
mod failover;
#[path = "in_flight_tests.rs"]
mod in_flight;
#[path = "lost_tests.rs"]
mod lost;
#[path = "space_tests.rs"]
mod space;

const MS: u64 = 1_000_000;
const BEGIN_NS: u64 = 1_000_000 * MS;
const FS: u32 = 7;
const FILE: FileId = FileId { s_dev: FS, ino: 12 };

struct Run {
    core: Core,
    now_ns: u64,
    incidents: Vec<Incident>,
    outputs: Vec<Output>,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            core: Core::new(),
            now_ns: BEGIN_NS,
            incidents: Vec::new(),
            outputs: Vec::new(),
        };
        run.push(Event::Start(Box::new(Start {
            slow_ns: 100 * MS,
            stall_ns: 1_000 * MS,
            attached_ns: BEGIN_NS,
            timezone: "UTC".to_owned(),
            ..Start::default()
        })));
        run.push(Event::Root {
            slot: 0,
            broker: 0,
            path: "/d1/".to_owned(),
            s_dev: FS,
        });
        run
    }

    fn push(&mut self, event: Event) -> &mut Self {
        let outputs = self.core.handle(&Stamped {
            mono_ns: self.now_ns,
            event,
        });
        for output in &outputs {
            if let Output::Incident(incident) = output {
                self.incidents.push((**incident).clone());
            }
        }
        self.outputs.extend(outputs);
        self
    }

    fn at(&mut self, ms: u64) -> &mut Self {
        self.now_ns = BEGIN_NS + ms * MS;
        self
    }

    fn last(&self) -> &Incident {
        self.incidents.last().expect("an incident")
    }
}

fn sync(enter_ms: u64, exit_ms: u64, ret: i64) -> SyncEvent {
    SyncEvent {
        op: "fsync".to_owned(),
        tid: 40,
        enter_ns: BEGIN_NS + enter_ms * MS,
        exit_ns: BEGIN_NS + exit_ms * MS,
        ret,
        file: FILE,
        names: ["0.log", "orders-0", "d1"].map(str::to_owned).to_vec(),
        ..SyncEvent::default()
    }
}

fn failed(status: &str, errno: i32) -> RequestEvent {
    RequestEvent {
        dev: FS,
        op: "write".to_owned(),
        status: status.to_owned(),
        errno,
        file_source: "page".to_owned(),
        file: FILE,
        issue_ns: BEGIN_NS + 5 * MS,
        complete_ns: BEGIN_NS + 6 * MS,
        ..RequestEvent::default()
    }
}

/// Syncs that hang, and what is outstanding meanwhile; `confirmed` is /proc's word.
fn hanging(syncs: &[SyncEvent], confirmed: Option<bool>, requests: Vec<InFlightRequest>) -> Event {
    let hung = |sync: &SyncEvent| InFlightSync {
        sync: sync.clone(),
        confirmed,
        stack: Vec::new(),
    };
    Event::InFlight(InFlightEvent {
        syncs: syncs.iter().map(hung).collect(),
        requests,
    })
}

/// Verdict, cause and the rule of the first reason.
fn judged(incident: &Incident) -> (Verdict, Option<Cause>, String) {
    let rule = incident.reasons[0]
        .rsplit('(')
        .next()
        .unwrap_or("")
        .trim_end_matches(')');
    (incident.verdict, incident.cause, rule.to_owned())
}

#[test]
fn each_failure_meets_its_rule() {
    let flush = RequestEvent {
        op: "flush".to_owned(),
        file_source: "flush".to_owned(),
        file: FileId::default(),
        ..failed("IOERR", 5)
    };
    let journal = RequestEvent {
        file_source: "blockdev".to_owned(),
        rdev: FS,
        ..failed("IOERR", 5)
    };
    let cases: Vec<(Vec<RequestEvent>, i64, Option<Cause>, &str)> = vec![
        (vec![failed("IOERR", 5)], -5, Some(Cause::DeviceError), "E1"),
        (vec![flush], -5, Some(Cause::DeviceError), "E4"),
        (vec![journal.clone()], -5, Some(Cause::Journal), "E5"),
        (vec![journal], -30, Some(Cause::Journal), "E17"),
        (
            vec![failed("OFFLINE", 19)],
            -5,
            Some(Cause::DeviceGone),
            "E7",
        ),
        (
            vec![failed("TIMEOUT", 110)],
            -5,
            Some(Cause::DeviceTimeout),
            "E8",
        ),
        (vec![], -28, Some(Cause::NoSpace), "E9"),
        (vec![failed("NOSPC", 28)], -28, Some(Cause::NoSpace), "E9"),
        (vec![], -122, Some(Cause::Quota), "E10"),
        (vec![], -30, Some(Cause::ReadOnly), "E11"),
        (vec![], -117, Some(Cause::FilesystemError), "E12"),
        (vec![], -5, None, "E14"),
    ];
    for (requests, ret, cause, rule) in cases {
        let mut run = Run::new();
        run.at(10);
        for request in requests {
            run.push(Event::Request(request));
        }
        run.push(Event::Sync(sync(4, 8, ret)));
        assert_eq!(
            judged(run.last()),
            (Verdict::Confirmed, cause, rule.to_owned())
        );
    }
}

#[test]
fn a_log_write_by_a_path_of_a_multipath_disk_is_its_file_systems() {
    let mut run = Run::new();
    run.at(10).push(Event::Request(RequestEvent {
        file: FileId::default(),
        file_source: "meta".to_owned(),
        dev: FS,
        rdev: 6,
        ..failed("MEDIUM", 61)
    }));
    run.push(Event::Sync(sync(4, 8, -5)));
    assert_eq!(
        judged(run.last()),
        (Verdict::Confirmed, Some(Cause::Journal), "E5".to_owned())
    );
}

#[test]
fn a_log_write_below_a_stack_is_its_only_file_systems() {
    // xfs on a logical volume on a partition: the bio's device is the partition.
    const DISK: u32 = 70;
    const PARTITION: u32 = 71;
    let link = |dev, is_shared| crate::enrich::device::DeviceLink {
        dev,
        is_shared,
        ..crate::enrich::device::DeviceLink::default()
    };
    let device = |dev, is_shared| Event::Device {
        dev,
        info: Box::new(crate::enrich::device::DeviceInfo {
            dev,
            chain: vec![
                link(dev, false),
                link(PARTITION, is_shared),
                link(DISK, false),
            ],
            leaves: vec![crate::enrich::device::Leaf {
                dev: DISK,
                ..crate::enrich::device::Leaf::default()
            }],
            ..crate::enrich::device::DeviceInfo::default()
        }),
    };
    let log = RequestEvent {
        file: FileId::default(),
        file_source: "meta".to_owned(),
        dev: DISK,
        rdev: PARTITION,
        ..failed("MEDIUM", 61)
    };
    let mut run = Run::new();
    run.push(device(FS, false));
    run.at(10).push(Event::Request(log.clone()));
    run.push(Event::Sync(sync(4, 8, -5)));
    assert_eq!(
        judged(run.last()),
        (Verdict::Confirmed, Some(Cause::Journal), "E5".to_owned())
    );
    // And where no sync fails.
    let mut run = Run::new();
    run.push(device(FS, false));
    run.at(10).push(Event::Request(log.clone()));
    run.at(2_000).push(Event::Tick);
    assert_eq!(run.last().cause, Some(Cause::Journal));
    // Two volumes on that partition: it may be the other's.
    let mut run = Run::new();
    run.push(device(FS, true));
    run.at(10).push(Event::Request(log));
    run.push(Event::Sync(sync(4, 8, -5)));
    assert_ne!(run.last().cause, Some(Cause::Journal));
}

#[test]
fn a_wrong_call_is_not_the_disk_and_an_interrupted_one_is_nothing() {
    let mut run = Run::new();
    run.at(10).push(Event::Sync(sync(4, 8, -9)));
    assert_eq!(
        judged(run.last()),
        (
            Verdict::NotTheDisk,
            Some(Cause::Application),
            "E15".to_owned()
        )
    );
    let mut run = Run::new();
    run.at(10).push(Event::Sync(sync(4, 8, -512)));
    assert!(run.incidents.is_empty());
}

#[test]
fn wb_err_and_counters_stand_in_for_a_missing_request() {
    let mut run = Run::new();
    run.at(10).push(Event::WbErr(WbErrEvent {
        time_ns: BEGIN_NS,
        file: FILE,
        errseq: 0x2005,
        errno: 5,
        ..WbErrEvent::default()
    }));
    run.push(Event::Sync(SyncEvent {
        told_errseq: 0x3005,
        ..sync(4, 8, -5)
    }));
    assert_eq!(
        judged(run.last()),
        (Verdict::Confirmed, None, "E13".to_owned())
    );
    assert_eq!(run.last().syncs[0].told_late_by_ns, Some(4 * MS));
    let mut run = Run::new();
    let delta = Counters {
        nr_errors: 1,
        ..Counters::default()
    };
    run.at(10).push(Event::Sync(SyncEvent {
        delta,
        ..sync(4, 8, -5)
    }));
    assert_eq!(
        judged(run.last()),
        (
            Verdict::Confirmed,
            Some(Cause::DeviceError),
            "E6".to_owned()
        )
    );
}

#[test]
fn losses_and_a_missing_hook_lower_the_confidence() {
    let mut run = Run::new();
    run.push(Event::Losses {
        total: BTreeMap::from([("reserve_failed".to_owned(), 2)]),
    });
    run.push(Event::Hook(crate::event::HookState {
        name: "block_rq_issue".to_owned(),
        state: "failed".to_owned(),
        required: true,
        ..crate::event::HookState::default()
    }));
    run.at(10)
        .push(Event::Request(failed("IOERR", 5)))
        .push(Event::Sync(sync(4, 8, -5)));
    assert!((run.last().confidence - 0.80).abs() < 1e-9);
    assert_eq!(run.last().lost["reserve_failed"], 2);
    assert!(run.core.is_required_hook_missing());
}

#[test]
fn losses_that_cannot_touch_the_evidence_are_told_but_take_no_confidence() {
    let mut run = Run::new();
    run.push(Event::Losses {
        total: BTreeMap::from([
            ("unmatched_exit".to_owned(), 1),
            ("missed_complete".to_owned(), 1),
            ("hist_full".to_owned(), 1),
        ]),
    });
    run.at(10)
        .push(Event::Request(failed("IOERR", 5)))
        .push(Event::Sync(sync(4, 8, -5)));
    assert!((run.last().confidence - 0.99).abs() < 1e-9);
    assert_eq!(run.last().lost["unmatched_exit"], 1);
}

#[test]
fn a_hang_that_its_bytes_explain_in_the_end_is_saturation() {
    let mut run = Run::new();
    for (at_ms, mega) in [(0, 0), (1_000, 100), (2_000, 100), (8_000, 700)] {
        let written = BTreeMap::from([(FS, mega * 1_000_000)]);
        run.at(at_ms).push(Event::DiskBytes { written });
        if at_ms == 2_000 {
            let hung = sync(2_000, 4_000, 0);
            run.at(4_000).push(hanging(&[hung], Some(true), Vec::new()));
            assert_eq!(run.last().verdict, Verdict::Stalled);
        }
    }
    run.push(Event::Sync(sync(2_000, 8_000, 0)));
    assert_eq!(
        judged(run.last()),
        (
            Verdict::Stalled,
            Some(Cause::DeviceSaturated),
            "S4".to_owned()
        )
    );
}

#[test]
fn a_sync_named_while_it_hung_keeps_its_name() {
    let mut run = Run::new();
    let nameless = |exit_ms| SyncEvent {
        file: FileId::default(),
        names: Vec::new(),
        root: u16::MAX,
        ..sync(0, exit_ms, 0)
    };
    let hanging = |sync: SyncEvent| hanging(&[sync], Some(true), Vec::new());
    run.at(5_000).push(hanging(SyncEvent {
        names: sync(0, 5_000, 0).names,
        root: 0,
        ..nameless(5_000)
    }));
    let path = run.last().syncs[0].path.clone();
    assert!(path.is_some());
    run.at(5_500).push(hanging(nameless(5_500)));
    run.at(6_000).push(Event::Sync(nameless(6_000)));
    assert_eq!((run.core.findings(), &run.last().syncs[0].path), (1, &path));
    assert!(!run.last().syncs[0].in_flight);
}

#[test]
fn a_later_stall_reopens_its_incident_and_a_much_later_one_is_new() {
    let mut run = Run::new();
    run.at(3_000)
        .push(Event::Sync(sync(0, 3_000, 0)))
        .at(14_000)
        .push(Event::Tick);
    run.at(60_000)
        .push(Event::Sync(sync(57_000, 60_000, 0)))
        .at(72_000)
        .push(Event::Tick);
    assert_eq!(run.core.findings(), 1);
    assert_eq!(
        (run.last().totals.syncs, run.last().state.as_str()),
        (2, "closed")
    );
    run.at(600_000).push(Event::Sync(sync(590_000, 600_000, 0)));
    assert_eq!(run.core.findings(), 2);
    assert_ne!(run.incidents[0].id, run.last().id);
}

#[test]
fn a_hang_that_ends_in_an_error_is_both() {
    let mut run = Run::new();
    let hung = sync(0, 5_000, 0);
    run.at(5_000).push(hanging(&[hung], Some(true), Vec::new()));
    run.at(6_001).push(Event::Request(RequestEvent {
        complete_ns: BEGIN_NS + 6_000 * MS,
        ..failed("TIMEOUT", 110)
    }));
    run.push(Event::Sync(sync(0, 6_001, -5)));
    let verdicts: Vec<Verdict> = run
        .core
        .incidents()
        .iter()
        .map(|incident| incident.verdict)
        .collect();
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.contains(&Verdict::Confirmed) && verdicts.contains(&Verdict::Stalled));
    assert!(
        run.core
            .incidents()
            .iter()
            .all(|incident| incident.syncs.iter().all(|sync| !sync.in_flight))
    );
}
