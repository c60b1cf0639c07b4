//! Planted answers: the right one passes, and each wrong one is caught by the
//! question that is about it.

use fsyncscope_tests::faultdisk::Op;

use super::super::planted::{MS, PATH, call, failed, held, request, sync, time, told_late};
use super::*;
use crate::incident::Breakdown;

fn wrong(known: &Known, said: &Said) -> Vec<Check> {
    let row = compare(known, said);
    let wrong = row.answers.iter().filter(|(_, a)| !a.wrong.is_empty());
    wrong.map(|(check, _)| *check).collect()
}

/// What is caught when this is planted in the right answer.
fn planted(right: (Known, Said), plant: impl FnOnce(&mut Known, &mut Incident)) -> Vec<Check> {
    let (mut known, mut said) = right;
    plant(&mut known, &mut said.told[0].last);
    wrong(&known, &said)
}

#[test]
fn the_right_answer_to_a_failed_write_is_right_in_every_point() {
    let (known, said) = failed();
    let row = compare(&known, &said);
    assert!(row.is_right(), "{:?}", row.answers);
    for check in [
        Check::Found,
        Check::File,
        Check::Sector,
        Check::Errno,
        Check::Caller,
        Check::Cause,
        Check::Once,
        Check::NoFalse,
    ] {
        assert!(row.answers.contains_key(&check), "{check:?} was not asked");
    }
    assert!(row.verdicts[0].is_right && row.verdicts[0].rule == "E1");
}

#[test]
fn silence_is_a_miss() {
    let (known, _) = failed();
    assert_eq!(
        wrong(&known, &Said::default()),
        [Check::Found, Check::Caller]
    );
    let (known, _) = held();
    assert_eq!(wrong(&known, &Said::default()), [Check::Found]);
}

#[test]
fn a_request_whose_end_no_program_saw_is_a_gap_if_the_agent_says_so() {
    let with = |lost: Option<&str>, cause: Option<&str>, confidence: f64| {
        let (known, mut said) = failed();
        said.lost = lost.map(str::to_owned);
        let told = &mut said.told[0].last;
        told.requests.clear();
        (told.cause, told.confidence) = (cause.map(str::to_owned), confidence);
        wrong(&known, &said)
    };
    let lost = Some(r#"{"missed_complete":2}"#);
    assert_eq!(with(lost, None, 0.6), []);
    let both = [Check::Found, Check::Cause];
    assert_eq!(with(None, None, 0.6), both);
    assert_eq!(with(Some(r#"{"unmatched_exit":2}"#), None, 0.6), both);
    assert_eq!(with(lost, None, 0.95), both);
    assert_eq!(with(lost, Some("journal"), 0.6), both);
}

#[test]
fn a_notice_is_no_report() {
    let (known, _) = failed();
    let mut said = Said::default();
    said.notices.push((1, format!("a write of {PATH} failed")));
    let row = compare(&known, &said);
    let text = &row.answers[&Check::Found].wrong[0];
    assert!(text.starts_with("only a notice"), "{text}");
}

#[test]
fn a_wrong_file_is_caught_in_request_and_sync() {
    let other = || Some("/mnt/data/other".to_owned());
    let caught = planted(failed(), |_, said| said.requests[0].path = other());
    assert_eq!(caught, [Check::File]);
    let caught = planted(failed(), |_, said| said.requests[0].path = None);
    assert_eq!(caught, [Check::Named]);
    let caught = planted(failed(), |_, said| said.syncs[0].path = other());
    assert_eq!(caught, [Check::File]);
    let caught = planted(failed(), |_, said| said.syncs[0].ino = Some(13));
    assert_eq!(caught, [Check::File]);
    let caught = planted(failed(), |_, said| said.syncs[0].ino = None);
    assert_eq!(caught, [Check::Named]);
}

#[test]
fn a_wrong_sector_or_disk_is_caught() {
    let caught = planted(failed(), |_, said| {
        let mut more = said.requests[0].clone();
        more.sector = Some(9500);
        said.requests.push(more);
    });
    assert_eq!(caught, [Check::Sector]);
    let caught = planted(failed(), |_, said| said.requests[0].disk = "loop1".into());
    assert_eq!(caught, [Check::Sector]);
}

#[test]
fn a_wrong_errno_is_caught_in_request_and_sync() {
    let nodata = || Some("ENODATA".to_owned());
    let caught = planted(failed(), |_, said| said.requests[0].errno = nodata());
    assert_eq!(caught, [Check::Errno]);
    let caught = planted(failed(), |_, said| said.syncs[0].errno = nodata());
    assert_eq!(caught, [Check::Errno]);
    let caught = planted(failed(), |_, said| said.syncs[0].errno = None);
    assert_eq!(caught, [Check::Errno]);
}

#[test]
fn a_flush_always_fails_with_eio() {
    let (mut known, mut said) = failed();
    known.fault.kind = Kind::FlushError;
    known.requests[0] = request(Op::Flush, 0, 1000, 1);
    known.requests[0].errno = libc::ENOSPC;
    let flush = &mut said.told[0].last.requests[0];
    (flush.op, flush.sector, flush.nr_bytes) = ("flush".into(), None, 0);
    assert_eq!(wrong(&known, &said), []);
    said.told[0].last.requests[0].errno = Some("ENOSPC".into());
    assert_eq!(wrong(&known, &said), [Check::Errno]);
}

#[test]
fn a_failed_flush_fails_the_commit_that_asked_for_it_and_no_data() {
    let with = |sector: u64, at_ms: u64| {
        planted(failed(), |known, said| {
            known.fault.kind = Kind::FlushError;
            known.requests[0] = request(Op::Flush, 0, 1000, 1);
            known.requests[0].errno = libc::EIO;
            known.is_aborted = true;
            let mut flush = said.requests[0].clone();
            (flush.op, flush.sector) = ("flush".into(), None);
            let request = &mut said.requests[0];
            (request.sector, request.time) = (Some(sector), time(at_ms));
            request.path = Some("journal or metadata of loop0".into());
            said.requests.push(flush);
        })
    };
    assert_eq!(with(1000, 1001), []);
    assert_eq!(with(1000, 3001), [Check::Sector]);
    assert_eq!(with(9000, 1001), [Check::Sector]);
}

#[test]
fn a_wrong_caller_is_caught() {
    let caught = planted(failed(), |_, said| said.syncs[0].tid = 71);
    assert_eq!(caught, [Check::Caller]);
    let caught = planted(failed(), |_, said| said.syncs[0].pid = 8);
    assert_eq!(caught, [Check::Caller]);
    let caught = planted(failed(), |_, said| said.syncs[0].op = "msync".into());
    assert_eq!(caught, [Check::Caller]);
    let caught = planted(failed(), |_, said| said.syncs[0].duration_ns = 90 * MS);
    assert_eq!(caught, [Check::Caller]);
}

#[test]
fn a_failed_sync_that_is_not_listed_is_caught_unless_the_list_is_cut() {
    let more = CallRecord {
        tid: 72,
        ..call(1100, 1, libc::EIO)
    };
    let caught = planted(failed(), |known, _| known.calls.push(more.clone()));
    assert_eq!(caught, [Check::Caller]);
    let caught = planted(failed(), |known, said| {
        known.calls.push(more.clone());
        said.totals.syncs = 2;
    });
    assert_eq!(caught, []);
}

#[test]
fn what_xfs_cannot_show_is_a_gap_and_on_ext4_a_miss() {
    let by_write = CallRecord {
        call: Call::DsyncWrite,
        tid: 72,
        ..call(1100, 1, libc::EIO)
    };
    let (mut known, said) = failed();
    known.calls.push(by_write);
    assert_eq!(wrong(&known, &said), [Check::Caller]);
    known.fault.is_xfs = true;
    assert_eq!(wrong(&known, &said), []);
    let row = compare(&known, &said);
    assert_eq!(row.answers[&Check::Caller].gaps.len(), 1);
}

#[test]
fn a_wrong_cause_or_verdict_is_caught() {
    let caught = planted(failed(), |_, said| said.cause = Some("journal".into()));
    assert_eq!(caught, [Check::Cause]);
    let caught = planted(failed(), |_, said| said.cause = None);
    assert_eq!(caught, [Check::Cause]);
    let caught = planted(failed(), |_, said| said.verdict = "UNKNOWN".into());
    assert_eq!(caught, [Check::Cause]);
    let caught = planted(failed(), |_, said| said.device = None);
    assert_eq!(caught, [Check::Cause]);
    let caught = planted(held(), |_, said| said.cause = None);
    assert_eq!(caught, [Check::Cause]);
}

#[test]
fn errno_of_the_device_decides_which_cause_is_right() {
    let with = |errno: i32, name: &str, cause: &str| {
        planted(failed(), |known, said| {
            known.requests[0].errno = errno;
            known.calls[0].errno = errno;
            said.requests[0].errno = Some(name.into());
            said.syncs[0].errno = Some(name.into());
            said.cause = Some(cause.into());
        })
    };
    assert_eq!(with(libc::ENOSPC, "ENOSPC", "no-space"), []);
    assert_eq!(with(libc::ENOSPC, "ENOSPC", "device-error"), [Check::Cause]);
    assert_eq!(with(libc::ETIMEDOUT, "ETIMEDOUT", "device-timeout"), []);
}

#[test]
fn the_journal_is_told_from_files() {
    let at_journal = |cause: &str, path: &str| {
        planted(failed(), |known, said| {
            known.fault.kind = Kind::JournalError;
            known.requests[0].sector = 1000;
            known.is_aborted = true;
            said.requests[0].sector = Some(1000);
            said.requests[0].path = Some(path.into());
            said.cause = Some(cause.into());
        })
    };
    assert_eq!(at_journal("journal", "journal or metadata of loop0"), []);
    assert_eq!(
        at_journal("device-error", "journal or metadata of loop0"),
        [Check::Cause]
    );
    assert_eq!(at_journal("journal", PATH), [Check::File]);
}

#[test]
fn a_verdict_is_judged_by_what_it_says_itself() {
    let (known, mut said) = failed();
    let mut other = said.told[0].clone();
    other.last.id = "f-2".into();
    other.last.cause = Some("journal".into());
    said.told.push(other);
    let row = compare(&known, &said);
    let right: Vec<bool> = row
        .verdicts
        .iter()
        .map(|verdict| verdict.is_right)
        .collect();
    assert_eq!(right, [true, false]);
}

#[test]
fn of_two_faults_at_once_each_is_asked_for() {
    let (mut known, mut said) = failed();
    let (other, stalled) = held();
    known.requests.extend(other.requests);
    known.calls.push(CallRecord {
        tid: 71,
        ..other.calls[0].clone()
    });
    let caught = wrong(&known, &said);
    assert_eq!(caught, [Check::Found]);
    let mut stall = stalled.told[0].clone();
    stall.last.syncs[0].tid = 71;
    said.told.push(stall);
    assert_eq!(wrong(&known, &said), []);
    said.told.remove(0);
    assert_eq!(wrong(&known, &said), [Check::Found, Check::Caller]);
}

#[test]
fn a_double_report_is_caught() {
    for (known, mut said) in [failed(), held()] {
        let mut again = said.told[0].clone();
        again.last.id = "x-2".into();
        said.told.push(again);
        assert_eq!(wrong(&known, &said), [Check::Once]);
    }
}

#[test]
fn a_finding_of_nothing_is_false() {
    let (known, mut said) = failed();
    let mut made_up = said.told[0].clone();
    made_up.last.id = "f-2".into();
    made_up.last.syncs = vec![sync(5000, 3, Some("EIO"))];
    made_up.last.requests.clear();
    made_up.last.first_victim = None;
    said.told.push(made_up);
    // Nor was it called.
    assert_eq!(wrong(&known, &said), [Check::Caller, Check::NoFalse]);
}

#[test]
fn a_stall_of_its_own_is_no_false_finding() {
    let (mut known, said) = held();
    known.fault.kind = Kind::Healthy;
    known.requests.clear();
    assert_eq!(wrong(&known, &said), []);
    known.calls[0].exit_ns = known.calls[0].enter_ns + 20 * MS;
    assert!(wrong(&known, &said).contains(&Check::NoFalse));
}

#[test]
fn failed_writeback_is_to_be_told_before_the_sync_and_tied_to_it() {
    let (known, said) = told_late();
    assert!(compare(&known, &said).answers.contains_key(&Check::Early));
    assert_eq!(wrong(&known, &said), []);
    let (known, mut said) = told_late();
    said.told[0].first_at_ns = 4001 * MS;
    assert_eq!(wrong(&known, &said), [Check::Early]);
    for age in [None, Some(100 * MS)] {
        let caught = planted(told_late(), |_, said| said.syncs[0].told_late_by_ns = age);
        assert_eq!(caught, [Check::Early]);
    }
}

#[test]
fn the_right_answer_to_a_held_flush_is_right_in_every_point() {
    let (known, said) = held();
    let row = compare(&known, &said);
    assert!(row.is_right(), "{:?}", row.answers);
    for check in [
        Check::Found,
        Check::Sector,
        Check::Cause,
        Check::Once,
        Check::Delay,
    ] {
        assert!(row.answers.contains_key(&check), "{check:?} was not asked");
    }
    assert_eq!(row.slow.len(), 1);
    assert!(row.slow[0].explained.is_some_and(|share| share > 0.99));
}

#[test]
fn a_time_line_that_is_not_the_disks_is_caught() {
    let caught = planted(held(), |_, said| {
        let parts = said.syncs[0].breakdown.as_mut().unwrap();
        (parts.flush_ns, parts.other_ns) = (900 * MS, 103 * MS);
        parts.flush_device_ns = Some(900 * MS);
    });
    assert_eq!(caught, [Check::Delay]);
    // Tied to the disk, and the disk did nothing in that time.
    let caught = planted(held(), |known, said| {
        known.calls[0].exit_ns += 500 * MS;
        said.syncs[0].duration_ns += 500 * MS;
        let parts = said.syncs[0].breakdown.as_mut().unwrap();
        (parts.flush_ns, parts.flush_device_ns) = (1501 * MS, Some(1501 * MS));
    });
    assert_eq!(caught, [Check::Delay]);
    let caught = planted(held(), |_, said| {
        said.syncs[0].breakdown.as_mut().unwrap().other_ns = 9 * MS;
    });
    assert_eq!(caught, [Check::Delay]);
    let caught = planted(held(), |_, said| {
        said.syncs[0].breakdown.as_mut().unwrap().lock_ns = None;
    });
    assert_eq!(caught, [Check::Delay]);
    let caught = planted(held(), |_, said| {
        said.requests[0].device_ns = Some(300 * MS);
    });
    assert_eq!(caught, [Check::Delay]);
}

#[test]
fn a_write_that_was_seen_to_wait_before_its_sync_is_a_gap() {
    let with = |before_sync_ns| {
        planted(held(), |known, _| {
            known.calls.push(CallRecord {
                tid: 71,
                call: Call::DsyncWrite,
                before_sync_ns,
                ..known.calls[0].clone()
            });
        })
    };
    let (known, _) = held();
    let all_ns = known.calls[0].duration_ns();
    assert_eq!(with(all_ns - known.slow_ns), []);
    assert_eq!(with(all_ns - 2 * known.slow_ns), [Check::Found]);
    assert_eq!(with(0), [Check::Found]);
}

#[test]
fn of_a_write_only_its_sync_is_held_against_the_disk() {
    let with = |call: Call| {
        planted(held(), |known, said| {
            known.calls[0].call = call;
            let late = &mut said.syncs[0];
            (late.time, late.duration_ns) = (time(1700), 301 * MS);
            let parts = late.breakdown.as_mut().unwrap();
            (parts.flush_ns, parts.other_ns) = (300 * MS, MS);
            parts.flush_device_ns = Some(300 * MS);
        })
    };
    assert_eq!(with(Call::DsyncWrite), []);
    assert_eq!(with(Call::Fsync), [Check::Delay]);
}

#[test]
fn a_held_request_that_is_not_named_is_caught() {
    let caught = planted(held(), |_, said| said.requests.clear());
    assert_eq!(caught, [Check::Sector]);
}

#[test]
fn who_returned_before_the_held_request_did_not_wait_for_it() {
    let (mut known, mut said) = held();
    known.calls.push(CallRecord {
        tid: 71,
        ..call(1100, 30, 0)
    });
    let mut slow = sync(1100, 30, None);
    slow.tid = 71;
    slow.breakdown = Some(Breakdown {
        flush_ns: 0,
        other_ns: 30 * MS,
        flush_device_ns: None,
        ..said.told[0].last.syncs[0].breakdown.clone().unwrap()
    });
    said.slow.push(slow);
    assert_eq!(wrong(&known, &said), []);
}

#[test]
fn a_held_request_that_concerned_nobody_asks_for_nothing() {
    let (mut known, _) = held();
    known.calls.clear();
    let row = compare(&known, &Said::default());
    assert!(row.is_right());
    assert!(!row.answers.contains_key(&Check::Found));
}
