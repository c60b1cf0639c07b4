//! What `check` says, as JSON (docs/OUTPUT.md names its fields) and as a table.
//! In: the states of the hooks and all else that was learnt; out: text.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::needs::Need;
use crate::{
    event::HookState,
    probe::{
        facts::{ResolvedFacts, table},
        hooks::{Hook, TABLE},
    },
};

/// Column at which the last one begins.
const NOTE: usize = 31 + 10 + 18;

/// Shape of `check --json`.
#[derive(Serialize)]
pub struct Report {
    pub schema: u32,
    /// live, or btf for a kernel that is not running.
    pub source: &'static str,
    pub version: &'static str,
    /// Release, or the file that its BTF was read from.
    pub kernel: String,
    pub arch: &'static str,
    pub hooks: Vec<Row>,
    /// Every fact, `null` where it is not known.
    pub facts: BTreeMap<&'static str, Option<u32>>,
    pub traits: Vec<&'static str>,
    pub missing_facts: Vec<String>,
    pub needs: Vec<Need>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Program>,
    pub notes: Vec<String>,
    pub ok: bool,
}

/// One hook.
#[derive(Serialize)]
pub struct Row {
    #[serde(flatten)]
    state: HookState,
    purpose: &'static str,
}

/// One program of a hook, as loaded.
#[derive(Serialize)]
pub struct Program {
    pub hook: String,
    pub program: String,
    /// Instructions that the verifier walked; left out before 5.16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_instructions: Option<u32>,
}

/// Rows with what each is for.
pub fn rows(states: Vec<HookState>) -> Vec<Row> {
    // A name may have a row for each level of detail: what is lost tells them apart.
    let purpose_of = |state: &HookState| {
        let is_row = |hook: &&Hook| hook.name == state.name && hook.lost == state.lost;
        TABLE.iter().find(is_row).map_or("", |hook| hook.purpose)
    };
    states
        .into_iter()
        .map(|state| Row {
            purpose: purpose_of(&state),
            state,
        })
        .collect()
}

/// Every fact by name.
pub fn facts(resolved: &ResolvedFacts) -> BTreeMap<&'static str, Option<u32>> {
    table::ROWS
        .iter()
        .map(|row| (row.name, resolved.get(row.name)))
        .collect()
}

/// The table.
pub fn render(report: &Report) -> String {
    let mut text = format!(
        "fsyncscope {} on {} ({})\n\n",
        report.version,
        match report.source {
            "live" => format!("Linux {}", report.kernel),
            _ => format!("the kernel of {}", report.kernel),
        },
        report.arch
    );
    let _ = writeln!(text, "{:<31}{:<10}{:<18}WHAT FOR", "HOOK", "STATE", "FORM");
    for Row { state, purpose } in &report.hooks {
        let name = if state.required {
            format!("{} *", state.name)
        } else {
            state.name.clone()
        };
        let form = if state.form.is_empty() {
            "-"
        } else {
            &state.form
        };
        let _ = writeln!(text, "{name:<31}{:<10}{form:<18}{purpose}", state.state);
        for detail in details(state) {
            let _ = writeln!(text, "{:NOTE$}{detail}", "");
        }
    }
    text.push_str(legend(report.source));
    let _ = writeln!(text, "\n{:<31}{:<28}WHAT FOR", "NEEDS", "STATE");
    for need in &report.needs {
        let _ = writeln!(text, "{:<31}{:<28}{}", need.name, need.state, need.why);
    }
    text.push('\n');
    for fact in &report.missing_facts {
        let _ = writeln!(text, "not known of this kernel: {fact}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for program in &report.programs {
        let count = match program.verified_instructions {
            Some(count) => count.to_string(),
            None => "unknown, told from 5.16 on".to_owned(),
        };
        let _ = writeln!(
            text,
            "verified instructions: {}/{} {count}",
            program.hook, program.program
        );
    }
    text.push_str(match (report.ok, report.source) {
        (true, "live") => "ok: all required hooks are attached\n",
        (true, _) => "ok: all required hooks are likely\n",
        (false, _) => "not ok: a required hook is missing; findings would be UNKNOWN\n",
    });
    text
}

/// Why not better, and what that costs.
fn details(state: &HookState) -> Vec<String> {
    let mut lines = Vec::new();
    let reasons = state.reason.split("; ").filter(|reason| !reason.is_empty());
    let is_attached = !state.form.is_empty();
    lines.extend(reasons.map(|reason| {
        if is_attached {
            format!("not {reason}")
        } else {
            reason.to_owned()
        }
    }));
    if state.state == "waiting" {
        lines.push("nothing is lost until then".to_owned());
    } else if !is_attached {
        lines.push(format!("lost: {}", state.lost));
    } else if state.state == "unproven" {
        lines.push(unproven(&state.name).to_owned());
    } else if state.state == "likely" && state.form == "fexit" {
        lines.push("tracepoint, if that does not attach".to_owned());
    }
    lines
}

fn legend(source: &str) -> &'static str {
    if source == "live" {
        "\n* required. attached = proven by a sync or read of its own; unproven = attached, not yet seen to fire; waiting = for its driver.\n"
    } else {
        "\n* required. likely = all that BTF tells is there; unknown = BTF at hand does not tell.\n"
    }
}

/// Why a hook that is attached could not be proven here.
fn unproven(name: &str) -> &'static str {
    if name.starts_with("block_") {
        "unproven until the first request"
    } else if name == "syncfs" {
        "not tried: it would flush a whole file system"
    } else if name.ends_with("wb_err") {
        "unproven until the first writeback error"
    } else if name.starts_with("jbd2_") || name.starts_with("ext4_fc") {
        "unproven until a journal does so"
    } else if name.starts_with("nvme_") {
        "unproven until the first command"
    } else if name == "lock_contention" {
        "unproven until a sync waits for a lock"
    } else {
        "unproven until the first sync on such a file system"
    }
}
