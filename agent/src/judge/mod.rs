//! Gives verdicts. In: a case from `correlate` and what is known of the host.
//! Out: an [`Incident`] in the shape of docs/OUTPUT.md. What a verdict rests on
//! is one visible table, [`rules`]. No I/O, no clock, no state.

mod adjust;
pub mod errno;
mod exit;
mod lost;
mod neighbours;
mod report;
pub mod rules;
mod steps;
mod verdict;

pub use exit::exit_code;
pub(crate) use neighbours::name_neighbour;
pub(crate) use report::{report, show_sync};

use crate::correlate::case::Case;
use crate::correlate::world::World;

/// What a reader wants to hear of at once when it changes.
pub(crate) fn stand(case: &Case, world: &World) -> String {
    let judgement = verdict::judge(case, world);
    let lines = !case.lines.is_empty();
    format!(
        "{:?} {:?} {lines} {} {} {}",
        judgement.verdict,
        judgement.cause,
        case.syncs.is_empty(),
        case.has_in_flight(),
        case.is_open
    )
}
