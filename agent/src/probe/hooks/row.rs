//! What a row of the table of hooks consists of.

use crate::detail::Detail;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// fentry on the first function that exists.
    Fentry(&'static [&'static str]),
    /// fexit likewise.
    Fexit(&'static [&'static str]),
    /// Classic tracepoint: category, name.
    Tracepoint(&'static str, &'static str),
    /// Raw tracepoint.
    Raw(&'static str),
    /// Raw tracepoint with arguments typed by BTF.
    Typed(&'static str),
}

/// One way to attach a hook: all of its programs, or none.
#[derive(Debug)]
pub struct Form {
    /// As `check` names it.
    pub name: &'static str,
    /// Programs of the kernel object and where they go.
    pub programs: &'static [(&'static str, Attach)],
    /// What must hold, or this form reads garbage: see `ResolvedFacts::missing_for`.
    pub facts: &'static [&'static str],
}

/// A row of the table.
#[derive(Debug)]
pub struct Hook {
    /// Name in `check`, metrics and captures.
    pub name: &'static str,
    /// The main job cannot be done without it.
    pub required: bool,
    /// What it tells.
    pub purpose: &'static str,
    /// The module whose events it uses, which may be loaded later; empty: the
    /// kernel's own.
    pub driver: &'static str,
    /// What is lost without it.
    pub lost: &'static str,
    /// Levels at which it is attached.
    pub levels: &'static [Detail],
    /// Ways to attach it, best first.
    pub forms: &'static [Form],
}
