//! What `check --json` must say of hooks: of facts that were broken on purpose, and
//! of forms that it was told to avoid. In: its report. Out: assertions. Pure.

use serde_json::Value;

use super::expect::Evidence;
use super::fault::Fault;
use super::gaps;
use super::protocol::Assertion;
use crate::btf::Btf;

/// Hooks that must refuse the broken BTF, and words of their reasons.
const REFUSED: [(&str, &str); 4] = [
    // On xfs, another fact may be the one that is wrong.
    ("ext4_sync_file_enter", "not as BTF says: a sync of inode"),
    ("filemap_set_wb_err", "not as BTF says: a sync of inode"),
    (
        "block_rq_complete",
        "unexpected arguments of block_rq_complete",
    ),
    ("block_rq_requeue", "no event block_rq_requeue"),
];

/// Hooks that need none of what is broken.
const UNHURT: [&str; 2] = ["fsync", "block_rq_issue"];

/// What `check` ends with where a required hook is missing.
const HOOK_MISSING: i64 = 3;

/// A kernel's BTF with a member elsewhere, an event renamed, and two arguments
/// exchanged. Ids of types stay, so that the modules' BTF still fits.
///
/// # Errors
/// When the kernel has no such member or event.
pub fn break_facts(btf: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let mut btf = Btf::new(btf)?;
    btf.shift_member("inode", "i_ino", 8)?;
    btf.rename_event("block_rq_requeue", "block_rq_replace")?;
    btf.swap_arguments("block_rq_complete", 0, 1)?;
    Ok(btf.into_bytes())
}

/// Hooks on events of modules of the disk and of its file system.
const OF_MODULES: [&str; 3] = ["ext4_sync_file_enter", "jbd2_commit", "nvme_complete_rq"];
/// What a hook says that needs to know its module before the agent starts.
const TOO_LATE: &str = "was loaded after the agent";

/// Hooks of modules that are loaded after the agent wait for them; then they are
/// attached, or say that the agent must be started again.
pub fn compare_late(lines: &[String]) -> Vec<Assertion> {
    let lines: Vec<Value> = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let row_of = |name: &str| {
        let of_hook = |line: &&Value| line["type"] == "hook" && line["name"] == name;
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let states: Vec<(String, String)> = lines
            .iter()
            .filter(of_hook)
            .map(|line| (text(line, "state"), text(line, "reason")))
            .collect();
        let waited = states.first().is_some_and(|(state, _)| state == "waiting");
        let came = states.last().is_some_and(|(state, reason)| {
            let is_in_use = ["attached", "unproven"].contains(&state.as_str());
            is_in_use || state == "failed" && reason.contains(TOO_LATE)
        });
        let shown: Vec<String> = states
            .iter()
            .map(|(state, reason)| show(state, reason))
            .collect();
        row(
            name,
            waited && came,
            "waiting, then in use, or that the agent must be restarted",
            &shown.join(", "),
        )
    };
    OF_MODULES.map(row_of).to_vec()
}

/// Each hook that depends on a broken fact is refused with a reason; no other is.
pub fn compare_broken(report: &Value) -> Vec<Assertion> {
    let mut rows = Vec::new();
    for (name, words) in REFUSED {
        let (state, reason) = state_of(report, name);
        let passed = state == "failed" && reason.contains(words);
        let wanted = format!("failed: {words}");
        rows.push(row(name, passed, &wanted, &show(&state, &reason)));
    }
    for name in UNHURT {
        let (state, reason) = state_of(report, name);
        let passed = ["attached", "unproven"].contains(&state.as_str());
        rows.push(row(name, passed, "in use", &show(&state, &reason)));
    }
    let code = report["exit_code"].as_i64();
    let got = code.map_or("none".to_owned(), |code| code.to_string());
    rows.push(row(
        "exit code",
        code == Some(HOOK_MISSING),
        &HOOK_MISSING.to_string(),
        &got,
    ));
    rows
}

/// No hook has a form that `--avoid-form` names; empty if it names none.
pub fn compare_forms(report: &Value, agent_args: &[String]) -> Vec<Assertion> {
    let avoided: Vec<&str> = agent_args
        .windows(2)
        .filter(|pair| pair[0] == "--avoid-form")
        .map(|pair| pair[1].as_str())
        .collect();
    let hooks = report["hooks"].as_array().map_or(&[][..], Vec::as_slice);
    let mut rows = Vec::new();
    for form in avoided {
        let users: Vec<&str> = hooks
            .iter()
            .filter(|hook| hook["form"] == form)
            .filter_map(|hook| hook["name"].as_str())
            .collect();
        let got = match (hooks.is_empty(), users.is_empty()) {
            (true, _) => "no report".to_owned(),
            (false, true) => "no hook".to_owned(),
            (false, false) => users.join(", "),
        };
        let name = format!("hooks with {form}");
        rows.push(row(&name, got == "no hook", "no hook", &got));
    }
    rows
}

/// Of `check` on a healthy machine: fsync's hook has the best form that it may have.
pub fn compare_best(report: &Value, agent_args: &[String], evidence: &Evidence) -> Assertion {
    let is_avoided = agent_args
        .windows(2)
        .any(|pair| pair == ["--avoid-form", "fexit"]);
    let wanted = if is_avoided { "tracepoint" } else { "fexit" };
    form_of_fsync(&report["hooks"], wanted, evidence)
}

/// The hooks of the agent that runs have none of the forms that the fault forbids.
pub fn compare_forced(fault: Fault, lines: &[String], evidence: &Evidence) -> Vec<Assertion> {
    let mut hooks: Vec<Value> = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        if line["type"] == "hook" {
            hooks.retain(|known| known["name"] != line["name"]);
            hooks.push(line);
        }
    }
    let hooks = Value::from(hooks);
    let args: Vec<String> = fault
        .agent_args()
        .iter()
        .map(|arg| (*arg).to_owned())
        .collect();
    let mut rows = compare_forms(&serde_json::json!({ "hooks": hooks }), &args);
    rows.push(form_of_fsync(&hooks, "tracepoint", evidence));
    rows
}

fn form_of_fsync(hooks: &Value, wanted: &str, evidence: &Evidence) -> Assertion {
    let hooks = hooks.as_array().map_or(&[][..], Vec::as_slice);
    let fsync = hooks.iter().find(|hook| hook["name"] == "fsync");
    let form = fsync.and_then(|hook| hook["form"].as_str());
    let form = form.unwrap_or("none");
    let mut is_form = row(gaps::FORM, form == wanted, wanted, form);
    if !is_form.passed {
        is_form.gap = gaps::reason(evidence, gaps::FORM).map(str::to_owned);
    }
    is_form
}

/// `check` says of the kernel's preemption what the kernel itself shows.
pub fn compare_preemption(report: &Value, evidence: &Evidence) -> Assertion {
    let needs = report["needs"].as_array().map_or(&[][..], Vec::as_slice);
    let said = needs.iter().find(|need| need["name"] == "preemption");
    let said = said.and_then(|need| need["state"].as_str());
    let got = match said {
        None => "nothing",
        Some("none") => "none",
        Some("unknown") => "unknown",
        Some(_) => "some",
    };
    let wanted = if evidence.preempts { "some" } else { "none" };
    row("preemption", got == wanted, wanted, got)
}

/// BTF alone says all that the running kernel says: each fact, and each hook's form.
pub fn compare_btf(live: &Value, from_btf: &Value) -> Vec<Assertion> {
    let mut rows = Vec::new();
    for key in ["facts", "traits", "arch"] {
        let name = format!("{key} by BTF alone");
        let is_same = live[key] == from_btf[key] && !live[key].is_null();
        let got = if is_same { "as live" } else { "others" };
        let got = match differing(&live[key], &from_btf[key]) {
            names if names.is_empty() => got.to_owned(),
            names => names.join(", "),
        };
        rows.push(row(&name, is_same, "as live", &got));
    }
    let hooks = live["hooks"].as_array().map_or(&[][..], Vec::as_slice);
    let others = hooks.iter().filter_map(|hook| {
        let name = hook["name"].as_str().unwrap_or_default();
        let (form, guess) = (form_of(live, name), form_of(from_btf, name));
        // A module's, of which no BTF is at hand: that is what it says.
        let is_open = state_of(from_btf, name).0 == "unknown";
        (form != guess && !is_open).then(|| format!("{name}: {guess} instead of {form}"))
    });
    let mut others: Vec<String> = others.collect();
    if hooks.is_empty() {
        others.push("no report".to_owned());
    }
    let got = match others.is_empty() {
        true => "as live".to_owned(),
        false => others.join(", "),
    };
    rows.push(row(
        "forms by BTF alone",
        others.is_empty(),
        "as live",
        &got,
    ));
    rows
}

/// Names of what two objects do not have alike.
fn differing(one: &Value, other: &Value) -> Vec<String> {
    let keys = |value: &Value| -> Vec<String> {
        let fields = value.as_object();
        fields.map_or_else(Vec::new, |fields| fields.keys().cloned().collect())
    };
    let mut names = [keys(one), keys(other)].concat();
    names.sort();
    names.dedup();
    names.retain(|name| one[name] != other[name]);
    names
}

/// A kernel's BTF in which fsync's function and one that nobody calls have exchanged
/// their names.
///
/// # Errors
/// When the kernel has no such functions.
pub fn mislead_fexit(btf: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let mut btf = Btf::new(btf)?;
    btf.swap_functions(
        &format!("__{arch}_sys_fsync"),
        &format!("__{arch}_sys_fchdir"),
    )?;
    Ok(btf.into_bytes())
}

/// The form that attaches and does not fire is refused, and the next one is in use.
pub fn compare_misled(report: &Value) -> Vec<Assertion> {
    const SILENT: &str = "fexit: attached but did not fire";
    let (state, reason) = state_of(report, "fsync");
    let form = form_of(report, "fsync");
    let is_next = state == "attached" && form == "tracepoint";
    vec![
        row(
            "fexit that does not fire",
            reason.contains(SILENT),
            SILENT,
            &show(&state, &reason),
        ),
        row(
            "fsync's next form",
            is_next,
            "attached, tracepoint",
            &format!("{state}, {form}"),
        ),
    ]
}

/// The form of a hook; empty if it is not there.
pub fn form_of<'r>(report: &'r Value, name: &str) -> &'r str {
    let hooks = report["hooks"].as_array();
    let hook = hooks.and_then(|hooks| hooks.iter().find(|hook| hook["name"] == name));
    hook.and_then(|hook| hook["form"].as_str())
        .unwrap_or_default()
}

fn state_of(report: &Value, name: &str) -> (String, String) {
    let hooks = report["hooks"].as_array();
    let hook = hooks.and_then(|hooks| hooks.iter().find(|hook| hook["name"] == name));
    let text = |key: &str| {
        let value = hook.and_then(|hook| hook[key].as_str());
        value.unwrap_or_default().to_owned()
    };
    (text("state"), text("reason"))
}

fn show(state: &str, reason: &str) -> String {
    match (state, reason) {
        ("", _) => "no such hook".to_owned(),
        (state, "") => state.to_owned(),
        (state, reason) => format!("{state}: {reason}"),
    }
}

fn row(name: &str, passed: bool, wanted: &str, got: &str) -> Assertion {
    Assertion {
        name: name.to_owned(),
        passed,
        wanted: wanted.to_owned(),
        got: got.to_owned(),
        gap: None,
    }
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
