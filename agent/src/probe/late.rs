//! Hooks whose driver was not loaded when the agent came (nvme_core, xfs, …):
//! attached as soon as their events exist. In: the kernel object with its programs,
//! kept for that; tracefs, which says what there is. Out: hooks' states and links.
//!
//! The programs' facts were frozen at load. A hook that needs one which only the
//! driver's own BTF tells is not attached, and says that a restart is needed.

use std::{any::Any, path::Path};

use aya::Ebpf;
use fsyncscope_abi::facts::Facts;

use crate::{
    event::HookState,
    probe::{
        facts::{resolve_live, table},
        hooks::{Attach, Form, Hook},
        load::{LoadOptions, Loader},
    },
};

/// See the module's comment.
pub struct Late {
    ebpf: Ebpf,
    facts: Facts,
    options: LoadOptions,
    waiting: Vec<&'static Hook>,
}

/// What a look came to.
#[derive(Default)]
pub struct Arrived {
    /// Hooks that do not wait any more.
    pub states: Vec<HookState>,
    /// Keep them attached.
    pub links: Vec<Box<dyn Any>>,
    /// Ids of their programs.
    pub programs: Vec<(String, u32)>,
}

impl Late {
    pub(super) fn new(
        ebpf: Ebpf,
        facts: Facts,
        options: &LoadOptions,
        waiting: Vec<&'static Hook>,
    ) -> Option<Self> {
        (!waiting.is_empty()).then(|| Self {
            ebpf,
            facts,
            options: options.clone(),
            waiting,
        })
    }

    /// Attaches what can be attached now; `None` in place of self when nothing waits
    /// any more. Costs a look at a few names in tracefs while nothing has come.
    pub fn look(mut self, sys: &Path, proc: &Path, tracefs: &Path) -> (Option<Self>, Arrived) {
        let (come, waiting): (Vec<_>, Vec<_>) = (self.waiting.iter().copied())
            .partition(|hook| events_of(hook).all(|event| is_there(tracefs, event)));
        self.waiting = waiting;
        if come.is_empty() {
            return (Some(self), Arrived::default());
        }
        let resolved = resolve_live(sys, proc, Some(tracefs), self.options.btf.as_deref());
        let mut loader = Loader {
            ebpf: self.ebpf,
            btf: Err("not tried once the agent runs".to_owned()),
            resolved: &resolved,
            avoid: &self.options.avoid,
            refuted: &self.options.refuted,
            links: Vec::new(),
            programs: Vec::new(),
        };
        let mut arrived = Arrived::default();
        for hook in come {
            let learnt_late = (hook.forms.iter().flat_map(|form| form.facts)).find(|fact| {
                let row = table::ROWS.iter().find(|row| row.name == **fact);
                row.is_some_and(|row| resolved.get(row.name) != Some((row.get)(&self.facts)))
            });
            arrived.states.push(match learnt_late {
                None => loader.attach(hook),
                Some(fact) => HookState {
                    name: hook.name.to_owned(),
                    state: "failed".to_owned(),
                    required: hook.required,
                    reason: format!(
                        "{} was loaded after the agent, which must know {fact} before: restart it",
                        hook.driver
                    ),
                    lost: hook.lost.to_owned(),
                    ..HookState::default()
                },
            });
        }
        arrived.links = loader.links;
        arrived.programs = loader.programs;
        self.ebpf = loader.ebpf;
        ((!self.waiting.is_empty()).then_some(self), arrived)
    }
}

/// Events of a hook's first form.
fn events_of(hook: &Hook) -> impl Iterator<Item = &'static str> {
    let programs = hook
        .forms
        .first()
        .map_or(&[][..], |form: &Form| form.programs);
    programs.iter().filter_map(|(_, attach)| match attach {
        Attach::Tracepoint(_, event) | Attach::Raw(event) | Attach::Typed(event) => Some(*event),
        Attach::Fentry(_) | Attach::Fexit(_) => None,
    })
}

fn is_there(tracefs: &Path, event: &str) -> bool {
    table::EVENTS
        .iter()
        .filter(|(_, name)| *name == event)
        .any(|(system, name)| tracefs.join("events").join(system).join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::hooks::TABLE;

    /// Or it would wait for ever.
    #[test]
    fn every_event_of_a_driver_is_looked_for() {
        let of_drivers: Vec<_> = TABLE
            .iter()
            .filter(|hook| !hook.driver.is_empty())
            .collect();
        assert!(
            of_drivers
                .iter()
                .any(|hook| hook.name == "nvme_complete_rq")
        );
        for hook in of_drivers {
            assert!(!hook.required, "{}", hook.name);
            assert!(events_of(hook).count() > 0, "{}", hook.name);
            for event in events_of(hook) {
                let is_known = table::EVENTS.iter().any(|(_, name)| *name == event);
                assert!(is_known, "{event} of {}", hook.name);
            }
        }
    }
}
