//! Claims about what is told beyond one failed sync: where the time went, who
//! else used the disk, who was told when, one incident a cause. In: the stories
//! of `recorder` and `stories`. Out: nothing but failures.

use fsyncscope::correlate::Output;
use fsyncscope::incident::{Cause, Incident, Verdict};

use super::{only_incident, story, streams};

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
fn who_took_the_disk_is_named_by_process_else_by_file() {
    let incident = only_incident("neighbour");
    assert_eq!(
        (incident.verdict, incident.cause, incident.confidence),
        (Verdict::Stalled, Some(Cause::Neighbour), 0.85)
    );
    let first = &incident.neighbours[0];
    assert_eq!((first.pid, first.comm.as_deref()), (Some(77), Some("fio")));
    assert_eq!(first.nr_bytes, 250 * 1_048_576);
    assert_eq!(first.longest_ns, 200 * streams::MS);
    assert!(incident.reasons[0].contains("meanwhile fio (pid 77) moved 250 MiB, 99 %"));

    let incident = only_incident("backup");
    assert_eq!(incident.cause, Some(Cause::Neighbour));
    let first = &incident.neighbours[0];
    assert_eq!(
        (first.pid, first.path.as_deref()),
        (None, Some("home/backup.tar"))
    );
}

#[test]
fn aborted_journal_is_told_once_however_late_its_consequences() {
    let incident = only_incident("aborted");
    assert_eq!(
        (incident.verdict, incident.cause),
        (Verdict::Confirmed, Some(Cause::Journal))
    );
    assert!((incident.confidence - 0.86).abs() < 1e-9);
    assert!(incident.reasons[0].ends_with("(E17)"));
    assert!(
        incident
            .reasons
            .iter()
            .any(|reason| reason.ends_with("(A6)"))
    );
    assert_eq!((incident.totals.syncs, incident.log_events.len()), (1, 2));
    let first = story("aborted")
        .into_iter()
        .find_map(|output| match output {
            Output::Incident(incident) => Some(incident),
            _ => None,
        });
    let first = first.unwrap();
    assert!(first.syncs.is_empty() && first.reasons[0].ends_with("(J1)"));
}

#[test]
fn one_bad_disk_below_two_log_dirs_is_one_incident() {
    let incident = only_incident("two_dirs");
    assert_eq!((incident.totals.syncs, incident.totals.log_events), (2, 2));
    assert_eq!(
        incident.blast_radius.log_dirs,
        ["/var/lib/kafka/d1", "/var/lib/kafka/d3"]
    );
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
