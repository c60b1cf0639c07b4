//! What makes a verdict less sure. In: the case, and the sync that its verdict
//! rests on. Out: adjustments of the table in `rules`, each with its sentence.

use fsyncscope_abi::loss::Loss;

use crate::correlate::case::{Case, SyncFact};
use crate::correlate::join::{How, Join};
use crate::correlate::stall::Stall;
use crate::correlate::world::World;

/// Every adjustment that holds: its id, and what was seen.
pub(super) fn adjustments(
    case: &Case,
    fact: Option<&SyncFact>,
    world: &World,
) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    // A sync that was under way when the agent came is no gap in what followed; a count
    // that a histogram lacks is no evidence; and where the requests are at hand, one that
    // was missed changes nothing.
    let has_requests = fact.is_some_and(|fact| {
        let is_joined = |join: &Join| !join.requests.is_empty();
        let is_tied = |stall: &Stall| stall.tied_ns() * 2 >= fact.duration_ns();
        fact.join.as_ref().is_some_and(is_joined) || fact.stall.as_ref().is_some_and(is_tied)
    });
    let is_gap = |class: &str| {
        class != Loss::UnmatchedExit.name()
            && class != Loss::HistFull.name()
            && !(has_requests && class == Loss::MissedComplete.name())
    };
    let classes: Vec<String> = case
        .lost
        .iter()
        .filter(|(class, _)| is_gap(class))
        .map(|(class, count)| format!("{class} {count}"))
        .collect();
    if !classes.is_empty() {
        found.push(("A1", format!("evidence was lost: {}", classes.join(", "))));
    }
    let join = fact.and_then(|fact| fact.join.as_ref());
    let spans_files = join.is_some_and(|join| {
        !join.requests.is_empty() && join.requests.iter().all(|request| request.spans_files)
    });
    if spans_files {
        found.push((
            "A2",
            "the failed request carried pages of several files".to_owned(),
        ));
    }
    if fact.is_some_and(|fact| fact.in_flight && fact.confirmed.is_none()) {
        found.push((
            "A3",
            "/proc could not confirm that the thread is still in the call".to_owned(),
        ));
    }
    if let Some(hook) = world.missing_hook() {
        found.push((
            "A4",
            format!("hook {} is missing: {}", hook.name, hook.reason),
        ));
    }
    let is_unnamed = fact.is_some_and(|fact| {
        fact.sync.file.s_dev == 0 && join.is_some_and(|join| join.how == How::Journal)
    });
    if is_unnamed {
        found.push(("A6", "the call failed before its file was named".to_owned()));
    }
    if fact.is_some_and(|fact| fact.unseen_end) {
        found.push((
            "A5",
            "the call has ended, but its return was not seen".to_owned(),
        ));
    }
    found
}
