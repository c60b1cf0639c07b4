//! Claims about data and journals that are lost before a sync says so.

use super::*;

#[test]
fn failed_writeback_is_a_finding_at_once_and_the_later_sync_joins_it() {
    let mut run = Run::new();
    run.at(10).push(Event::Request(failed("IOERR", 5)));
    assert_eq!(
        judged(run.last()),
        (
            Verdict::Confirmed,
            Some(Cause::DeviceError),
            "W1".to_owned()
        )
    );
    assert!(run.last().reasons[0].contains("not yet told"));
    assert!(run.last().operations[0].told.is_empty());
    run.at(40_000).push(Event::Sync(sync(40_000, 40_001, -5)));
    let last = run.last();
    assert_eq!(run.core.findings(), 1);
    assert_eq!(last.syncs[0].told_late_by_ns, Some(39_994 * MS));
    assert_eq!(last.operations[0].told[0].op.as_deref(), Some("fsync"));
    assert!(
        last.reasons
            .iter()
            .all(|reason| !reason.contains("not yet told"))
    );
}

#[test]
fn failure_that_a_sync_waits_for_is_told_by_the_sync_alone() {
    let waited_for = RequestEvent {
        flags: vec!["sync".to_owned()],
        ..failed("IOERR", 5)
    };
    let mut run = Run::new();
    run.at(10).push(Event::Request(waited_for.clone()));
    run.at(12).push(Event::Sync(sync(4, 12, -5)));
    run.at(500).push(Event::Tick);
    assert_eq!(run.incidents.len(), 1);
    assert!(run.last().operations.is_empty());
    // Where the sync does not come, the failure is said at the next tick.
    let mut run = Run::new();
    run.at(10).push(Event::Request(waited_for));
    assert!(run.incidents.is_empty());
    run.at(261).push(Event::Tick);
    assert_eq!(judged(run.last()).2, "W1");
}

#[test]
fn who_else_was_told_is_named_and_a_later_success_is_no_comfort() {
    let mut run = Run::new();
    run.at(10).push(Event::Request(failed("IOERR", 5)));
    run.at(20).push(Event::WbTell(crate::event::WbTellEvent {
        time_ns: BEGIN_NS + 20 * MS,
        file: FILE,
        pid: 77,
        tid: 77,
        comm: "rsync".to_owned(),
        errseq: 0x3005,
        errno: 5,
        in_sync: false,
    }));
    run.at(2_000).push(Event::Tick);
    assert!(run.last().reasons[0].contains("rsync (pid 77), which is not the broker's sync"));
    assert!(run.last().reasons[0].contains("opened from now on will not be told"));
    run.at(3_000).push(Event::Sync(sync(2_800, 3_000, 0)));
    run.at(4_000).push(Event::Sync(sync(3_800, 4_000, 0)));
    assert!(run.last().reasons.iter().any(|reason| {
        reason.contains("fsync of orders-0/0.log succeeded, although") && reason.ends_with("(E16)")
    }));
    assert_eq!((run.core.findings(), run.last().totals.syncs), (1, 1));
    // It was slow, too.
    let parts = run.last().syncs[0].breakdown.unwrap();
    assert_eq!(parts.other_ns, 200 * MS);
}

#[test]
fn what_was_lost_of_a_numbers_last_owner_is_nothing_to_the_next() {
    let mut run = Run::new();
    let names = |name: &str| vec![name.to_owned(), "orders-0".to_owned()];
    run.at(10).push(Event::Request(RequestEvent {
        names: names("0.log"),
        ..failed("IOERR", 5)
    }));
    run.at(2_000).push(Event::Tick);
    assert_eq!(run.last().operations.len(), 1);
    let next = |enter_ms, exit_ms, ret| SyncEvent {
        names: names("1.log"),
        ..sync(enter_ms, exit_ms, ret)
    };
    run.at(3_000).push(Event::Sync(next(2_900, 3_000, 0)));
    assert!(run.last().syncs.is_empty());
    // Its own loss is told, and a failed sync of it is of that.
    let lost = RequestEvent {
        names: names("1.log"),
        complete_ns: BEGIN_NS + 3_100 * MS,
        ..failed("IOERR", 5)
    };
    run.at(3_100).push(Event::Request(lost));
    run.at(5_000).push(Event::Tick);
    assert_eq!(run.last().operations.len(), 2);
    run.at(6_000).push(Event::Sync(next(5_999, 6_000, -5)));
    let last = run.last();
    let of_next = "fsync of orders-0/1.log failed with EIO, but the failure is older by 2.90 s";
    let is_told = |reason: &String| reason.contains(of_next);
    assert!(last.reasons.iter().any(is_told), "{last:?}");
    assert!(last.operations[0].told.is_empty(), "{last:?}");
    assert_eq!(last.operations[1].told.len(), 1, "{last:?}");
}

#[test]
fn writeback_error_without_a_request_is_said_and_no_room_is_no_room() {
    let wb_err = |errno| {
        Event::WbErr(WbErrEvent {
            time_ns: BEGIN_NS + 9 * MS,
            file: FILE,
            errseq: 0x2000 + u32::try_from(errno).unwrap(),
            errno,
            root: 0,
            ..WbErrEvent::default()
        })
    };
    for (errno, cause, rule) in [(5, None, "W2"), (28, Some(Cause::NoSpace), "W3")] {
        let mut run = Run::new();
        run.at(10).push(wb_err(errno)).at(300).push(Event::Tick);
        assert_eq!(
            judged(run.last()),
            (Verdict::Confirmed, cause, rule.to_owned())
        );
        run.at(400)
            .push(Event::Sync(sync(390, 400, -i64::from(errno))));
        assert_eq!(run.core.findings(), 1);
    }
}

#[test]
fn lost_files_are_bounded_and_what_is_forgotten_is_counted() {
    let mut run = Run::new();
    run.at(10);
    for ino in 0..1_000 {
        run.push(Event::Request(RequestEvent {
            file: FileId { s_dev: FS, ino },
            ..failed("IOERR", 5)
        }));
    }
    run.at(2_000).push(Event::Tick);
    assert_eq!(run.core.findings(), 1);
    assert_eq!(run.last().totals.writebacks, 1_000);
    assert_eq!(run.last().operations.len(), 10);
    run.push(Event::Stop {
        why: "test".to_owned(),
    });
    let Some(Output::Stopped(stopped)) = run.outputs.last() else {
        panic!("no end")
    };
    assert_eq!(stopped.lost["evidence_forgotten"], 1_000 - 64);
}

#[test]
fn failed_flush_that_nobody_was_told_of_is_a_finding() {
    let flush = RequestEvent {
        op: "flush".to_owned(),
        file_source: "flush".to_owned(),
        file: FileId::default(),
        sector: None,
        ..failed("IOERR", 5)
    };
    let mut run = Run::new();
    run.at(7).push(Event::Request(flush.clone()));
    assert!(run.incidents.is_empty());
    run.at(300).push(Event::Tick);
    assert_eq!(
        judged(run.last()),
        (
            Verdict::Confirmed,
            Some(Cause::DeviceError),
            "W7".to_owned()
        )
    );
    assert_eq!(run.last().requests.len(), 1);
    assert!(run.last().reasons[0].contains("no sync of a broker waited for it"));
    // Where a sync was told, the story is the sync's.
    let mut run = Run::new();
    run.at(7).push(Event::Request(flush.clone()));
    run.at(10).push(Event::Sync(sync(4, 9, -5)));
    run.at(300).push(Event::Tick);
    assert_eq!(judged(run.last()).2, "E4");
    assert!(
        run.last()
            .reasons
            .iter()
            .all(|reason| !reason.contains("W7"))
    );
    assert_eq!(run.core.findings(), 1);
    // A disk that no log directory lies on is none of ours.
    let foreign = RequestEvent {
        dev: flush.dev + 1,
        ..flush
    };
    let mut run = Run::new();
    run.at(7).push(Event::Request(foreign));
    run.at(300).push(Event::Tick);
    assert!(run.incidents.is_empty());
}

#[test]
fn failed_flush_below_a_journal_write_is_part_of_the_one_story() {
    let flush = RequestEvent {
        op: "flush".to_owned(),
        file_source: "flush".to_owned(),
        file: FileId::default(),
        ..failed("IOERR", 5)
    };
    let journal = RequestEvent {
        file_source: "blockdev".to_owned(),
        rdev: FS,
        issue_ns: 0,
        sector: Some(8),
        ..failed("IOERR", 5)
    };
    let mut run = Run::new();
    run.at(7).push(Event::Request(flush));
    run.push(Event::Request(journal));
    // Told within the time for which the journal's failure is held back.
    run.at(10).push(Event::Sync(sync(8, 9, -30)));
    run.at(1_000).push(Event::Tick);
    assert_eq!(judged(run.last()).2, "E17");
    assert!(run.last().reasons[0].contains("because a flush to"));
    assert_eq!((run.core.findings(), run.last().requests.len()), (1, 2));
}

#[test]
fn a_file_system_that_turns_read_only_is_told_with_its_journal() {
    let found = |read_only: &str| {
        let dir = crate::discover::LogDir {
            path: "/d1".into(),
            read_only: read_only.to_owned(),
            ..crate::discover::LogDir::default()
        };
        Event::Broker {
            slot: 0,
            broker: Box::new(crate::discover::Broker {
                log_dirs: vec![dir],
                ..crate::discover::Broker::default()
            }),
        }
    };
    let journal = RequestEvent {
        file_source: "blockdev".to_owned(),
        rdev: FS,
        ..failed("IOERR", 5)
    };
    let says = |run: &Run| {
        let mut reasons = run.last().reasons.iter();
        reasons.any(|reason| reason.contains("turned read-only (emergency_ro)"))
    };
    let mut run = Run::new();
    run.at(1).push(found(""));
    run.at(6).push(Event::Request(journal));
    run.at(10).push(Event::Sync(sync(4, 10, -5)));
    assert!(!says(&run));
    run.at(900).push(found("emergency_ro"));
    run.at(2_000).push(Event::Tick);
    assert!(says(&run));
    assert_eq!(
        (run.last().cause, run.core.findings()),
        (Some(Cause::Journal), 1)
    );
    // Of a failure that is not the journal's, it is not said.
    let mut run = Run::new();
    run.at(1).push(found("emergency_ro"));
    run.at(6).push(Event::Request(failed("IOERR", 5)));
    run.at(2_000).push(Event::Tick);
    assert!(!says(&run));
}

#[test]
fn a_sync_that_fails_without_a_request_is_explained_by_its_gone_disk() {
    let present = |is_there| Event::Present { dev: FS, is_there };
    let mut run = Run::new();
    run.at(10).push(Event::Sync(sync(4, 8, -5)));
    assert_eq!(judged(run.last()).2, "E14");
    run.at(900).push(present(false));
    assert_eq!(
        judged(run.last()),
        (
            Verdict::Confirmed,
            Some(Cause::DeviceGone),
            "E18".to_owned()
        )
    );
    assert!(run.last().reasons[0].contains("is gone"));
    assert_eq!(run.core.findings(), 1);
    // One that came back explains nothing that fails later.
    let mut run = Run::new();
    run.at(1).push(present(false));
    run.at(2).push(present(true));
    run.at(10).push(Event::Sync(sync(4, 8, -5)));
    assert_eq!(judged(run.last()).2, "E14");
}
