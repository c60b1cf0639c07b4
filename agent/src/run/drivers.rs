//! Keeps the hooks attached, and attaches those of drivers that are loaded later.
//! In: what the start attached, and what waits. Out: states of hooks that changed.

use std::{any::Any, path::Path};

use crate::{
    event::HookState,
    probe::{Arrived, Late},
    run::start::find_tracefs,
};

/// See the module's comment.
pub struct Drivers {
    links: Vec<Box<dyn Any>>,
    late: Option<Late>,
}

impl Drivers {
    /// Takes both over.
    pub fn new(links: Vec<Box<dyn Any>>, late: Option<Late>) -> Self {
        Self { links, late }
    }

    /// Looks whether a driver has come; gives what its hooks came to, and the ids of
    /// their programs.
    pub fn look(&mut self) -> (Vec<HookState>, Vec<(String, u32)>) {
        let (Ok(tracefs), true) = (find_tracefs(), self.late.is_some()) else {
            return (Vec::new(), Vec::new());
        };
        let Some(late) = self.late.take() else {
            return (Vec::new(), Vec::new());
        };
        let (sys, proc) = (Path::new("/sys"), Path::new("/proc"));
        let (late, arrived) = late.look(sys, proc, &tracefs);
        self.late = late;
        let Arrived {
            states,
            links,
            programs,
        } = arrived;
        self.links.extend(links);
        (states, programs)
    }
}
