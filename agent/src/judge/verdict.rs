//! Finds the rules that a case meets. In: the case and what is known of the
//! host. Out: [`Judgement`]: verdict, cause, confidence, reasons. Sentences
//! only state what was seen; their rule is cited behind them.

use super::adjust::adjustments;
use super::errno::{errno_name, is_filesystem_damage};
use super::lost::{rule_of_lost, tell_flush, tell_journal, tell_lost, tell_read_only};
use super::neighbours::name_neighbour;
use super::rules::{Rule, find_adjustment, find_rule};
use crate::correlate::case::{Case, Class, Origin, SyncFact};
use crate::correlate::join::{How, Join};
use crate::correlate::line::Tie;
use crate::correlate::stall::Stall;
use crate::correlate::world::World;
use crate::correlate::writeback::Writeback;
use crate::detail::Detail;
use crate::event::{RequestEvent, Space};
use crate::incident::{Cause, Verdict};
use crate::sink::breakdown::tell_breakdown;
use crate::sink::units::{show_bytes, show_ns, show_rate};

/// What the rules say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judgement {
    pub verdict: Verdict,
    pub cause: Option<Cause>,
    pub confidence: f64,
    pub reasons: Vec<String>,
}

/// Judges `case`.
pub(crate) fn judge(case: &Case, world: &World) -> Judgement {
    let mut found = findings(case, world);
    // Stable: of equally sure ones the first sync speaks.
    found.sort_by(|left, right| right.0.confidence.total_cmp(&left.0.confidence));
    let Some((rule, finding)) = found.first() else {
        return judge_lines(case, world);
    };
    let mut reasons = vec![cite(&finding.tell(world), rule.id)];
    let fact = match finding {
        Finding::Sync(fact) => Some(*fact),
        Finding::Lost(_) | Finding::Journal(_) | Finding::Flush(_) => None,
    };
    if let Some((fact, stall)) = fact.and_then(|fact| Some((fact, fact.stall.as_ref()?))) {
        reasons.extend(tell_unexplained(fact, stall));
        reasons.extend(tell_level(fact, world).map(str::to_owned));
    }
    let mut cited = vec![rule.id];
    for (other, finding) in &found[1..] {
        if !cited.contains(&other.id) {
            cited.push(other.id);
            reasons.push(cite(&format!("also, {}", finding.tell(world)), other.id));
        }
    }
    match case.totals.writebacks {
        0 | 1 => {}
        count => reasons.push(format!("data of {count} files was lost in this way")),
    }
    reasons.extend(tell_read_only(case, world));
    reasons.extend(tell_lines(case));
    if case.is_index_only() {
        reasons.push("only index files failed: the broker keeps the directory online and treats this as no disk failure".to_owned());
    }
    let mut confidence = rule.confidence;
    for (id, text) in adjustments(case, fact, world) {
        confidence *= find_adjustment(id).factor;
        reasons.push(cite(&text, id));
    }
    Judgement {
        verdict: rule.verdict,
        cause: rule.cause,
        confidence: (confidence * 100.0).round() / 100.0,
        reasons,
    }
}

/// What a rule holds for.
enum Finding<'a> {
    Sync(&'a SyncFact),
    Lost(&'a Writeback),
    Journal(&'a RequestEvent),
    Flush(&'a RequestEvent),
}

impl Finding<'_> {
    fn tell(&self, world: &World) -> String {
        match self {
            Self::Sync(fact) => tell_sync(fact, world),
            Self::Lost(lost) => tell_lost(lost, world),
            Self::Journal(request) => tell_journal(request, world),
            Self::Flush(request) => tell_flush(request, world),
        }
    }
}

fn findings<'a>(case: &'a Case, world: &World) -> Vec<(&'static Rule, Finding<'a>)> {
    let mut found: Vec<(&'static Rule, Finding<'a>)> = case
        .syncs
        .iter()
        .filter_map(|fact| Some((rule_of(fact, world)?, Finding::Sync(fact))))
        .collect();
    if let Some(request) = case.journal.first().filter(|_| found.is_empty()) {
        found.push((find_rule("J1"), Finding::Journal(request)));
    }
    if let Some(request) = case.flushes.first() {
        found.push((find_rule("W7"), Finding::Flush(request)));
    }
    let longest = (case.syncs.iter()).max_by_key(|fact| fact.duration_ns());
    if found.is_empty() && case.key.class == Class::Stall {
        found.extend(longest.map(|fact| (find_rule("S4"), Finding::Sync(fact))));
    }
    let lost = case.writebacks.iter();
    found.extend(lost.map(|lost| (find_rule(rule_of_lost(lost)), Finding::Lost(lost))));
    found
}

fn cite(text: &str, id: &str) -> String {
    format!("{text} ({id})")
}

fn rule_of(fact: &SyncFact, world: &World) -> Option<&'static Rule> {
    if let Some(join) = &fact.join {
        return Some(find_rule(failed_rule(fact, join, world)));
    }
    let stall = fact.stall.as_ref()?;
    if !stall.is_stalled(fact.duration_ns(), world.start.stall_ns) {
        return None;
    }
    let is_most = |part_ns: u64| part_ns * 2 >= fact.duration_ns();
    // Under a neighbour's load the sync's own requests wait as well: it comes first.
    let id = if stall.is_neighbours(fact.duration_ns()) {
        "N1"
    } else if is_most(stall.tied_ns()) {
        "S1"
    } else if is_most(stall.device_ns()) {
        "S2"
    } else {
        "S3"
    };
    Some(find_rule(id))
}

fn failed_rule(fact: &SyncFact, join: &Join, world: &World) -> &'static str {
    let errno = errno_of(fact);
    if matches!(join.how, How::Silent { .. }) {
        return "E16";
    }
    let is_shut = [libc::EROFS, libc::ESHUTDOWN].contains(&errno);
    match Class::of_errno(errno) {
        Class::Application => return "E15",
        Class::NoSpace => return "E9",
        Class::Quota => return "E10",
        // Read-only is what became of it; the failed journal write is why.
        Class::ReadOnly if join.how != How::Journal => return "E11",
        Class::Io | Class::ReadOnly | Class::Stall => {}
    }
    let is_status = |errno: i32| join.requests.iter().any(|request| request.errno == errno);
    match join.how {
        How::During | How::Late { .. } | How::Flush
            if is_status(libc::ENODEV) || is_status(libc::ENXIO) =>
        {
            "E7"
        }
        How::During | How::Late { .. } if is_status(libc::ETIMEDOUT) => "E8",
        How::During => "E1",
        How::Late {
            by_errseq: true, ..
        } => "E2",
        How::Late {
            by_errseq: false, ..
        } => "E3",
        How::Flush => "E4",
        How::Journal if is_shut => "E17",
        How::Journal => "E5",
        How::Counters => "E6",
        How::WbErr {
            errno: libc::ENOSPC,
            ..
        } => "E9",
        _ if gone_disk(fact, join, world).is_some() => "E18",
        _ if is_filesystem_damage(errno) => "E12",
        How::WbErr { .. } => "E13",
        How::Nothing | How::Silent { .. } => "E14",
    }
}

/// The disk of a sync that failed without a request, if it went away.
fn gone_disk(fact: &SyncFact, join: &Join, world: &World) -> Option<u32> {
    if !matches!(join.how, How::Nothing | How::WbErr { .. }) {
        return None;
    }
    let dev = world.dev_of(&fact.sync);
    let disks = world.leaf_disks(dev);
    let mut known = disks.into_iter().chain([dev]);
    known.find(|disk| world.gone.contains(disk))
}

fn errno_of(fact: &SyncFact) -> i32 {
    i32::try_from(-fact.sync.ret).unwrap_or(0)
}

/// `fsync of orders-0/00000000000000000000.log`
fn name_call(fact: &SyncFact, world: &World) -> String {
    let sync = &fact.sync;
    let name = world
        .short_name(&sync.names, sync.root)
        .unwrap_or_else(|| match sync.file.s_dev {
            0 => "a file that was not named".to_owned(),
            _ => format!("inode {}", sync.file.ino),
        });
    format!("{} of {name}", sync.op)
}

fn tell_sync(fact: &SyncFact, world: &World) -> String {
    let call = name_call(fact, world);
    if let Some(join) = fact.join.as_ref().filter(|_| fact.sync.ret >= 0) {
        return format!("{call} succeeded, {}", tell_join(join, world));
    }
    if let Some(join) = &fact.join {
        let failed = format!("{call} failed with {}", errno_name(errno_of(fact)));
        let gone = gone_disk(fact, join, world);
        let gone = gone.map_or(String::new(), |disk| {
            format!("; its disk {} is gone", world.disk_name(disk))
        });
        return format!("{failed}, {}{gone}", tell_join(join, world));
    }
    let stall = fact.stall.clone().unwrap_or_default();
    let took = show_ns(fact.duration_ns());
    let begin = if fact.in_flight {
        format!("{call} has been in flight for {took}")
    } else if fact.unseen_end {
        format!("{call} was in flight for at least {took}")
    } else {
        format!("{call} took {took}")
    };
    let has_no_bytes = stall.own_bytes == 0 && stall.moved_bytes == 0;
    // On xfs of 5.10 the file of a sync is not counted, its thread's requests are seen.
    let is_uncounted = !fact.in_flight && stall.breakdown.own_data_ns > 0;
    let needed = if has_no_bytes && (is_uncounted || world.start.detail == Detail::Low) {
        "its bytes are not known".to_owned()
    } else if has_no_bytes {
        let so_far = if fact.in_flight { " so far" } else { "" };
        format!("it wrote no data of its own{so_far}")
    } else if stall.moved_bytes > stall.own_bytes {
        format!(
            "what the disk wrote meanwhile, {}, needs {}",
            show_bytes(stall.moved_bytes),
            show_ns(stall.needed_ns)
        )
    } else if stall.needed_ns.saturating_mul(100) < fact.duration_ns() {
        format!(
            "its {} need less than a hundredth of that",
            show_bytes(stall.own_bytes)
        )
    } else {
        let rate = match stall.rate {
            Some(rate) => format!("at the disk's recent {}", show_rate(rate)),
            None => "at an assumed 50 MB/s, the disk's rate being unknown yet".to_owned(),
        };
        format!(
            "its {} need {} {rate}",
            show_bytes(stall.own_bytes),
            show_ns(stall.needed_ns)
        )
    };
    let parts = tell_breakdown(&stall.breakdown, !fact.in_flight);
    let others = if stall.is_neighbours(fact.duration_ns()) {
        tell_others(&stall, world)
    } else {
        String::new()
    };
    format!("{begin}, {needed}; {parts}{others}")
}

/// `; meanwhile fio (pid 77) moved 400 MiB, 96 % of the disk's bytes`
fn tell_others(stall: &Stall, world: &World) -> String {
    let others = &stall.others;
    let percent = u128::from(others.nr_bytes) * 100
        / u128::from(others.all_bytes.max(others.nr_bytes).max(1));
    let who: Vec<String> = others
        .list
        .iter()
        .take(3)
        .map(|one| name_neighbour(one, world))
        .collect();
    format!(
        "; meanwhile {} moved {}, {percent} % of the disk's bytes, and had requests outstanding for {}",
        who.join(", "),
        show_bytes(others.nr_bytes),
        show_ns(others.busy_ns)
    )
}

/// What the level of detail does not show of a stall.
fn tell_level(fact: &SyncFact, world: &World) -> Option<&'static str> {
    match world.start.detail {
        Detail::Low => Some(
            "requests that do not fail, and bytes of files, are not recorded at this level (--detail low): why it took so long is not known",
        ),
        Detail::Normal if fact.in_flight => {
            Some("requests in flight are not recorded at this level (--detail normal)")
        }
        Detail::Normal | Detail::Full => None,
    }
}

fn tell_unexplained(fact: &SyncFact, stall: &Stall) -> Option<String> {
    let rest_ns = stall.breakdown.other_ns;
    let mut text = (rest_ns * 2 > fact.duration_ns()).then(|| {
        let waited_ns = stall.breakdown.other_cpu_ns;
        if waited_ns * 2 > rest_ns {
            return format!(
                "for {} of it the thread waited for a CPU",
                show_ns(waited_ns)
            );
        }
        format!(
            "{} of it is unexplained: no request, commit or lock seen then accounts for it",
            show_ns(rest_ns)
        )
    });
    if stall.has_gap {
        let gap = "the kernel's record of requests was overwritten for a part of that time";
        text = Some(text.map_or(gap.to_owned(), |text| format!("{text}; {gap}")));
    }
    text
}

fn tell_join(join: &Join, world: &World) -> String {
    let first = join
        .requests
        .first()
        .map(|request| tell_request(request, world))
        .unwrap_or_default();
    match &join.how {
        How::During => format!("and during the call {first}"),
        How::Late { by_ns, by_errseq } => format!(
            "but the failure is older by {}: {first} in the kernel's own writeback{}",
            show_ns(*by_ns),
            if *by_errseq {
                ", and the error told is that one by its errseq value"
            } else {
                ""
            }
        ),
        How::Flush => format!("and during the call {first}"),
        How::Journal => {
            let is_flush = |request: &&RequestEvent| request.op == "flush";
            let mut journal = join.requests.iter().filter(|request| !is_flush(request));
            let failed = journal.next().map(|request| tell_request(request, world));
            let below = (join.requests.iter().find(is_flush))
                .map(|request| format!(", because {} before it", tell_request(request, world)));
            format!(
                "and {}, which is journal or metadata of its file system{}",
                failed.unwrap_or(first),
                below.unwrap_or_default()
            )
        }
        How::Counters => {
            "and requests of the file failed during the call, but their records are missing"
                .to_owned()
        }
        How::WbErr { errno, by_ns } => format!(
            "because writeback of the file had failed with {}{}; no failed request was seen",
            errno_name(*errno),
            if *by_ns > 0 {
                format!(" {} before the call", show_ns(*by_ns))
            } else {
                String::new()
            }
        ),
        How::Silent { by_ns } => format!(
            "although {} before it {first}: that data is lost, and the error was told to nobody or to another call",
            show_ns(*by_ns)
        ),
        How::Nothing => "and nothing was seen to fail below it".to_owned(),
    }
}

pub(super) fn tell_request(request: &RequestEvent, world: &World) -> String {
    let disk = world.disk_name(request.dev);
    let place = match request.sector {
        Some(sector) => format!(
            " at sector {sector} ({})",
            show_bytes(u64::from(request.nr_bytes))
        ),
        None => String::new(),
    };
    let derived = if request.status_derived {
        ", status derived from the errno"
    } else {
        ""
    };
    format!(
        "a {} to {disk}{place} failed with {}{derived}",
        request.op, request.status
    )
}

fn tell_lines(case: &Case) -> Option<String> {
    let best = case.lines.iter().max_by_key(|line| line.tie)?;
    let place = format!("{}:{}", best.event.file, best.event.line_number);
    Some(match best.tie {
        Tie::Exact => format!(
            "the broker's line {place} names the same partition or file and follows the failure"
        ),
        Tie::Dir => {
            format!("the broker's line {place} names the same directory and follows the failure")
        }
        Tie::Broker | Tie::Alone => {
            format!("the broker's line {place} follows the failure in time")
        }
    })
}

fn tell_full(space: Space) -> String {
    let room = if space.total_inodes > 0 && space.free_inodes == 0 {
        "no inode free".to_owned()
    } else {
        let total = show_bytes(space.total_bytes);
        format!("{} free of {total}", show_bytes(space.free_bytes))
    };
    format!("the broker's line says ENOSPC, and its file system then had {room}")
}

fn judge_lines(case: &Case, world: &World) -> Judgement {
    let line = case.lines.first();
    let exception = line.and_then(|line| {
        line.event
            .storage
            .root_exception
            .clone()
            .or_else(|| line.event.storage.exception.clone())
    });
    let (rule, text) = if case.key.origin == Origin::History {
        ("U1", "the broker reported a storage error, but the kernel side was not watching at that time".to_owned())
    } else if case.key.origin == Origin::OtherException {
        let class = exception.unwrap_or_else(|| "an exception".to_owned());
        (
            "U3",
            format!(
                "the line carries {class}, which a deleted topic or moved replica raises under a running flush; no proof of either was seen"
            ),
        )
    } else if let Some(space) = case.space.filter(Space::is_full) {
        ("L1", tell_full(space))
    } else {
        (
            "U2",
            "the broker reported a storage error, but no sync of this directory was seen to fail"
                .to_owned(),
        )
    };
    let mut reasons = vec![cite(&text, rule)];
    if rule == "U2" {
        reasons.extend(tell_blind(case, world));
    }
    let rule = find_rule(rule);
    Judgement {
        verdict: rule.verdict,
        cause: rule.cause,
        confidence: rule.confidence,
        reasons,
    }
}

/// What was blind, so that silence of the kernel side proves little.
fn tell_blind(case: &Case, world: &World) -> Vec<String> {
    use crate::brokerlog::StorageEventKind as Kind;
    let mut reasons = Vec::new();
    if case.lines.iter().any(|line| {
        matches!(
            line.event.storage.kind,
            Kind::AppendError | Kind::LogDirLoadError
        )
    }) {
        reasons.push(
            "the failing call of such a line is a write or a read, which are not watched"
                .to_owned(),
        );
    }
    if let Some(hook) = world.missing_hook() {
        reasons.push(format!(
            "hook {} is missing ({}): {}",
            hook.name, hook.reason, hook.lost
        ));
    }
    if !case.lost.is_empty() {
        let classes: Vec<String> = case
            .lost
            .iter()
            .map(|(class, count)| format!("{class} {count}"))
            .collect();
        reasons.push(format!("evidence was lost: {}", classes.join(", ")));
    }
    if reasons.is_empty() {
        reasons.push("all hooks for syncs were watching: the failing call was probably another operation (write, open, rename)".to_owned());
    }
    reasons
}
