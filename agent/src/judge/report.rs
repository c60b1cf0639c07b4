//! A case as an incident: numbers become names, monotonic times become RFC
//! 3339. In: case, host. Out: [`Incident`]. The verdict itself is `verdict`'s,
//! the steps are `steps`'.

use std::cmp::Reverse;

use super::errno::errno_name;
use super::lost::show_operations;
use super::neighbours::show_neighbours;
use super::steps::next_steps;
use super::verdict::judge;
use crate::correlate::breakdown::is_own;
use crate::correlate::case::{Case, MAX_LISTED, SyncFact};
use crate::correlate::commit::Commit;
use crate::correlate::join::How;
use crate::correlate::line::LineFact;
use crate::correlate::stall::span_until;
use crate::correlate::world::{World, show_dev};
use crate::enrich::is_nvme_path;
use crate::event::{InFlightRequest, RequestEvent};
use crate::incident::{
    BlastRadius, FirstVictim, Incident, IncidentBroker, IncidentCommit, IncidentLogEvent,
    IncidentRequest, IncidentSync, SCHEMA, Submitter,
};
use crate::sink::units::rfc3339;

/// `case` as it stands now.
pub(crate) fn report(case: &Case, world: &World, state: &str) -> Incident {
    let judgement = judge(case, world);
    let disk = disk_of(case, world);
    let device = disk.and_then(|disk| world.device(disk, fs_dev_of(case, world)));
    let next_steps = next_steps(case, &judgement, device.as_ref(), world);
    Incident {
        schema: SCHEMA,
        id: case.id.clone(),
        time: begin_of(case, world),
        updated: world.rfc3339(world.now_ns),
        state: state.to_owned(),
        verdict: judgement.verdict,
        cause: judgement.cause,
        confidence: judgement.confidence,
        reasons: judgement.reasons,
        broker: broker_of(case, world),
        log_events: case.lines.iter().map(show_line).collect(),
        first_victim: case
            .first_victim
            .as_ref()
            .map(|(time_ns, path, op)| FirstVictim {
                path: path.clone(),
                op: op.clone(),
                time: world.rfc3339(*time_ns),
            }),
        operations: show_operations(case, world),
        syncs: case
            .syncs
            .iter()
            .map(|fact| {
                let mut shown = show_sync(fact, world);
                if let (Some(shown), Some(commit)) = (&mut shown.commit, fact.commit()) {
                    shown.nr_syncs = case.nr_syncs_of(commit);
                }
                shown
            })
            .collect(),
        requests: show_requests(case, world),
        blast_radius: BlastRadius {
            topic_partitions: case.partitions.iter().cloned().collect(),
            log_dirs: world.log_dirs_on(fs_dev_of(case, world)),
            brokers: case
                .brokers
                .iter()
                .map(|&slot| world.broker_name(slot))
                .collect(),
        },
        device,
        neighbours: show_neighbours(case, world),
        lost: case.lost.clone(),
        next_steps,
        totals: case.totals.clone(),
    }
}

/// A line may be from before boot, which the monotonic clock cannot tell.
fn begin_of(case: &Case, world: &World) -> String {
    match case.lines.first() {
        Some(line) if case.syncs.is_empty() && case.writebacks.is_empty() => {
            rfc3339(line.realtime_ns)
        }
        _ => world.rfc3339(case.first_ns),
    }
}

/// The file system that a case is about.
fn fs_dev_of(case: &Case, world: &World) -> u32 {
    let of_sync = case.syncs.first().map(|fact| world.dev_of(&fact.sync));
    let of_lost = || {
        let of_file = case.writebacks.front().map(|lost| lost.file.s_dev);
        of_file.or_else(|| case.journal.first().map(|request| request.rdev))
    };
    of_sync
        .filter(|&dev| dev != 0)
        .or_else(of_lost)
        .unwrap_or_else(|| world.dev_of_root(case.root))
}

/// The leaf disk: that of a failed request, else the one under the file system
/// if there is exactly one.
fn disk_of(case: &Case, world: &World) -> Option<u32> {
    let failed = case
        .requests()
        .into_iter()
        .find(|request| request.errno != 0)
        .map(|request| request.dev);
    failed.or_else(|| {
        let disks = world.leaf_disks(fs_dev_of(case, world));
        let held = case
            .syncs
            .iter()
            .filter_map(|fact| fact.stall.as_ref())
            .find_map(|stall| {
                let outstanding = stall.outstanding.first().map(|request| request.dev);
                outstanding.or_else(|| stall.requests.first().map(|request| request.dev))
            });
        held.or_else(|| (disks.len() == 1).then(|| disks[0]))
    })
}

fn broker_of(case: &Case, world: &World) -> Option<IncidentBroker> {
    let mut broker = world.incident_broker(case.broker)?;
    broker.log_dir = world.root_path(case.root).map(str::to_owned);
    if broker.log_dir.is_none() {
        broker.log_dir = case
            .lines
            .iter()
            .find_map(|line| line.event.storage.dir.clone());
    }
    Some(broker)
}

fn show_line(line: &LineFact) -> IncidentLogEvent {
    let storage = &line.event.storage;
    let exception = match (&storage.root_exception, &storage.root_message) {
        (Some(class), Some(message)) if !message.is_empty() => Some(format!("{class}: {message}")),
        (Some(class), _) => Some(class.clone()),
        (None, _) => storage.exception.clone(),
    };
    IncidentLogEvent {
        time: rfc3339(line.realtime_ns),
        file: line.event.file.clone(),
        line_number: line.event.line_number,
        kind: storage.kind.as_str().to_owned(),
        text: line.event.record.line.clone(),
        topic_partition: storage.topic_partition.clone(),
        dir: storage.dir.clone(),
        offset: storage.offset.and_then(|offset| u64::try_from(offset).ok()),
        recovery_point: storage
            .recovery_point
            .and_then(|point| u64::try_from(point).ok()),
        exception,
        errno_text: storage.errno_text.clone(),
    }
}

/// A sync with its names.
pub(crate) fn show_sync(fact: &SyncFact, world: &World) -> IncidentSync {
    let sync = &fact.sync;
    let file = world.kafka_file(&sync.names, sync.root);
    let errno = i32::try_from(-sync.ret).unwrap_or(0);
    let told_late_by_ns = match fact.join.as_ref().map(|join| &join.how) {
        Some(
            How::Late { by_ns, .. }
            | How::WbErr {
                by_ns: by_ns @ 1.., ..
            },
        ) => Some(*by_ns),
        _ => None,
    };
    IncidentSync {
        op: sync.op.clone(),
        topic_partition: file.as_ref().and_then(|file| file.topic_partition.clone()),
        file_kind: file
            .as_ref()
            .map(|file| file.kind.clone())
            .filter(|kind| !kind.is_empty()),
        path: file.map(|file| file.path),
        dev: (sync.file.s_dev != 0).then(|| show_dev(sync.file.s_dev)),
        ino: (sync.file.s_dev != 0).then_some(sync.file.ino),
        pid: sync.pid,
        tid: sync.tid,
        comm: sync.comm.clone(),
        time: world.rfc3339(sync.enter_ns),
        duration_ns: fact.duration_ns(),
        errno: (errno > 0).then(|| errno_name(errno)),
        in_flight: fact.in_flight,
        unseen_end: fact.unseen_end,
        told_late_by_ns,
        breakdown: fact
            .breakdown
            .or_else(|| fact.stall.as_ref().map(|stall| stall.breakdown)),
        commit: fact.commit().map(|commit| show_commit(commit, world)),
        stack: fact.stack.clone(),
    }
}

/// A phase that did not begin has no end; the present one is as long as so far.
fn show_commit(commit: &Commit, world: &World) -> IncidentCommit {
    let span = &commit.span;
    let duration_ns = span.end_ns.saturating_sub(span.start_ns);
    let begun = |after_ns: u64| (after_ns != 0).then_some(after_ns);
    let (flushing, logging) = (begun(span.flushing_ns), begun(span.logging_ns));
    IncidentCommit {
        dev: show_dev(span.s_dev),
        transaction: span.seq,
        time: world.rfc3339(span.start_ns),
        duration_ns,
        locked_ns: flushing,
        flushing_ns: flushing.map(|from| logging.unwrap_or(duration_ns).saturating_sub(from)),
        logging_ns: logging.map(|from| duration_ns.saturating_sub(from)),
        nr_requests: commit.nr_requests,
        nr_syncs: 0,
        in_flight: commit.in_flight,
    }
}

/// Failed ones first, then those in flight, the oldest first, then the longest: what holds
/// a sync must not be hidden by what completed meanwhile.
fn show_requests(case: &Case, world: &World) -> Vec<IncidentRequest> {
    let is_failed = |request: &&RequestEvent| request.errno != 0;
    let (failed, mut completed): (Vec<_>, Vec<_>) =
        case.requests().into_iter().partition(is_failed);
    completed.sort_by_key(|request| Reverse(request.complete_ns.saturating_sub(request.issue_ns)));
    let in_flight = in_flight(case)
        .into_iter()
        .map(|(request, now_ns)| show_outstanding(case, request, now_ns, world));
    let show = |request| show_request(case, request, world);
    let failed = failed.into_iter().map(show);
    let completed = completed.into_iter().map(show);
    let all = failed.chain(in_flight).chain(completed);
    all.take(MAX_LISTED).collect()
}

/// Requests that its syncs in flight wait for, each once, the oldest first; with the time
/// at which they were seen so. What was seen with a sync before may have completed since.
fn in_flight(case: &Case) -> Vec<(&InFlightRequest, u64)> {
    let hung = || case.syncs.iter().filter(|fact| fact.in_flight);
    let Some(now_ns) = hung().map(|fact| fact.sync.exit_ns).max() else {
        return Vec::new();
    };
    let seen_now = hung().filter(|fact| fact.sync.exit_ns == now_ns);
    let mut requests: Vec<_> = seen_now
        .flat_map(|fact| &fact.stall)
        .flat_map(|stall| &stall.outstanding)
        .map(|request| (request, now_ns))
        .collect();
    requests.sort_by_key(|(request, _)| (request.issue_ns, request.rq));
    requests.dedup_by_key(|(request, _)| (request.issue_ns, request.rq));
    requests
}

fn show_request(case: &Case, request: &RequestEvent, world: &World) -> IncidentRequest {
    let path = match request.file_source.as_str() {
        "blockdev" | "meta" if request.rdev != 0 => Some(format!(
            "journal or metadata of {}",
            world.disk_name(request.rdev)
        )),
        _ if request.file.s_dev == 0 => None,
        _ => world
            .kafka_file(&request.names, request.root)
            .map(|file| file.path),
    };
    let known = |from: u64, to: u64| (from != 0 && to >= from).then(|| to - from);
    let is_flush = request.op == "flush";
    IncidentRequest {
        disk: world.disk_name(request.dev),
        dev: show_dev(request.dev),
        sector: request.sector,
        nr_bytes: u64::from(request.nr_bytes),
        op: request.op.clone(),
        flags: request.flags.clone(),
        time: world.rfc3339(if request.issue_ns != 0 {
            request.issue_ns
        } else {
            request.complete_ns
        }),
        // A flush waits in the block layer's own queue; start is not its begin.
        queue_ns: if is_flush {
            None
        } else {
            known(request.start_ns, request.issue_ns)
        },
        device_ns: known(request.issue_ns, request.complete_ns),
        status: Some(match request.errno {
            0 if request.is_failover => "FAILED_OVER".to_owned(),
            0 => "OK".to_owned(),
            _ => request.status.clone(),
        }),
        status_derived: request.errno != 0 && request.status_derived,
        errno: (request.errno != 0).then(|| errno_name(request.errno)),
        path,
        submitter: case
            .submitter_of(request)
            .map(|(pid, tid, comm)| Submitter { pid, tid, comm }),
        nvme: request.nvme.clone(),
        path_disk: is_nvme_path(&request.disk).then(|| request.disk.clone()),
        in_flight: false,
    }
}

fn show_outstanding(
    case: &Case,
    request: &InFlightRequest,
    now_ns: u64,
    world: &World,
) -> IncidentRequest {
    let span = span_until(request, now_ns);
    let mut syncs = case.syncs.iter().map(|fact| &fact.sync);
    let by = syncs.find(|sync| is_own(&span, sync));
    IncidentRequest {
        disk: world.disk_name(request.dev),
        dev: show_dev(request.dev),
        sector: request.sector,
        nr_bytes: u64::from(request.nr_bytes),
        op: request.op.clone(),
        time: world.rfc3339(request.issue_ns),
        device_ns: Some(now_ns.saturating_sub(request.issue_ns)),
        path: by
            .and_then(|sync| world.kafka_file(&sync.names, sync.root))
            .map(|file| file.path),
        submitter: by.map(|sync| Submitter {
            pid: sync.pid,
            tid: sync.tid,
            comm: sync.comm.clone(),
        }),
        in_flight: true,
        ..IncidentRequest::default()
    }
}
