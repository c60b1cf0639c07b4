//! `fsyncscope check`: attaches every hook, proves what can be proven, prints the
//! table, detaches. Comes in: settings; goes out: text or JSON, and an exit code
//! that a pipeline can use.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    cli::Check,
    config::Config,
    event::HookState,
    run::{
        start::{self, missing_required},
        stdout::print_all,
    },
};

/// Shape of `check --json`.
#[derive(Serialize)]
struct Report {
    schema: u32,
    kernel: String,
    arch: &'static str,
    hooks: Vec<HookState>,
    missing_facts: Vec<String>,
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verified_instructions: Vec<(String, u32)>,
    ok: bool,
}

/// Runs; returns the exit code: 0, or 3 with a required hook missing.
///
/// # Errors
/// When nothing can be loaded at all.
pub fn check(options: &Check, config: &Config) -> anyhow::Result<u8> {
    let attached = start::attach(config)?;
    let resolved = &attached.resolved;
    let missing = missing_required(&attached.probe.states);
    let missing_facts = resolved
        .missing
        .iter()
        .filter(|fact| fact.replaced_by.is_none())
        .map(|fact| format!("{}: {}", fact.name, fact.why))
        .collect();
    let mut verified = Vec::new();
    if options.verbose {
        let loaded: Vec<_> = aya::programs::loaded_programs().flatten().collect();
        for (hook, id) in &attached.probe.programs {
            if let Some(info) = loaded.iter().find(|info| info.id() == *id) {
                verified.push((
                    format!("{hook}/{}", info.name_as_str().unwrap_or("")),
                    info.verified_instruction_count().unwrap_or(0),
                ));
            }
        }
    }
    let report = Report {
        schema: 1,
        kernel: attached.start.kernel.clone(),
        arch: resolved.arch,
        hooks: attached.probe.states.clone(),
        missing_facts,
        notes: resolved.notes.clone(),
        verified_instructions: verified,
        ok: missing.is_empty(),
    };
    if options.json {
        print_all(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print_all(&render(&report))?;
    }
    Ok(if report.ok { 0 } else { 3 })
}

/// The table.
fn render(report: &Report) -> String {
    let mut text = format!(
        "fsyncscope {} on Linux {} ({})\n\n",
        env!("CARGO_PKG_VERSION"),
        report.kernel,
        report.arch
    );
    let _ = writeln!(text, "{:<31}{:<10}{:<18}NOTE", "HOOK", "STATE", "FORM");
    for hook in &report.hooks {
        let name = if hook.required {
            format!("{} *", hook.name)
        } else {
            hook.name.clone()
        };
        let note = if hook.form.is_empty() {
            format!("lost: {} ({})", hook.lost, hook.reason)
        } else if hook.reason.is_empty() && hook.state == "unproven" {
            unproven(&hook.name).to_owned()
        } else {
            hook.reason.clone()
        };
        let form = if hook.form.is_empty() {
            "-"
        } else {
            &hook.form
        };
        let _ = writeln!(text, "{name:<31}{:<10}{form:<18}{note}", hook.state);
    }
    text.push_str("\n* required. attached = proven by a sync of its own; unproven = attached, not yet seen to fire.\n");
    for fact in &report.missing_facts {
        let _ = writeln!(text, "not known of this kernel: {fact}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for (program, count) in &report.verified_instructions {
        let _ = writeln!(text, "verified instructions: {program} {count}");
    }
    text.push_str(if report.ok {
        "ok: all required hooks are attached\n"
    } else {
        "not ok: a required hook is missing; findings would be UNKNOWN\n"
    });
    text
}

/// Why a hook that is attached could not be proven here.
fn unproven(name: &str) -> &'static str {
    if name.starts_with("block_") {
        "until the first request"
    } else if name == "syncfs" {
        "not tried: it would flush a whole file system"
    } else if name.ends_with("wb_err") {
        "until the first writeback error"
    } else if name.starts_with("jbd2_") || name.starts_with("ext4_fc") {
        "until a journal does so"
    } else if name == "lock_contention" {
        "until a sync waits for a lock"
    } else {
        "until the first sync on such a file system"
    }
}
