//! A broker's write that failed for want of room: writes are not watched, but the
//! file system's state at that moment is. In: what statfs(2) said of a directory
//! when a line came. Out: the case of that line, with the state.

use super::Core;
use super::bounded::push_bounded;
use super::case::{Class, Key, Origin};
use super::output::Output;
use crate::event::{Space, SpaceEvent};

/// Directories with a line that says ENOSPC.
const MAX_SPACES: usize = 64;
/// A state is that of a line's moment if it was read so shortly after it.
const NEAR_NS: u64 = 5_000_000_000;

/// A directory's state.
#[derive(Clone, Debug)]
pub(super) struct Known {
    event: SpaceEvent,
    at_ns: u64,
}

impl Core {
    pub(super) fn on_space(&mut self, event: &SpaceEvent, out: &mut Vec<Output>) {
        let at_ns = self.world.now_ns;
        let known = Known {
            event: event.clone(),
            at_ns,
        };
        push_bounded(&mut self.spaces, known, MAX_SPACES);
        let concerned: Vec<Key> = self
            .cases
            .keys()
            .filter(|key| key.class == Class::NoSpace && key.origin == Origin::Lines)
            .cloned()
            .collect();
        for key in concerned {
            if self.set_space(&key) {
                self.emit_or_mark(&key, out);
            }
        }
    }

    /// Gives a case of lines the state of its directory, if that is known.
    /// True if it is news.
    pub(super) fn set_space(&mut self, key: &Key) -> bool {
        if key.class != Class::NoSpace {
            return false;
        }
        let Some(case) = self.cases.get_mut(key) else {
            return false;
        };
        let is_of = |known: &&Known| {
            case.lines.iter().any(|line| {
                line.event.broker == known.event.broker
                    && line.event.storage.dir.as_deref() == Some(known.event.dir.as_str())
                    && known.at_ns.abs_diff(line.arrival_ns) <= NEAR_NS
            })
        };
        let found: Option<Space> = self
            .spaces
            .iter()
            .rev()
            .find(is_of)
            .map(|known| known.event.space);
        let is_news = found.is_some() && case.space.is_none();
        case.space = case.space.or(found);
        is_news
    }
}
