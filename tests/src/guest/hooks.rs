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

/// Whether `check` said that programs may be preempted on this kernel.
pub fn preempts(report: &Value) -> bool {
    let needs = report["needs"].as_array().map_or(&[][..], Vec::as_slice);
    let row = needs.iter().find(|need| need["name"] == "preemption");
    row.is_some_and(|row| row["state"] != "none" && row["state"] != "unknown")
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
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let failed = |name: &str, reason: &str| json!({"name": name, "state": "failed", "form": "", "reason": reason});
        let mut hooks: Vec<Value> = REFUSED
            .iter()
            .map(|(name, words)| failed(name, &format!("{words} …")))
            .collect();
        hooks.push(json!({"name": "fsync", "state": "attached", "form": "fexit", "reason": ""}));
        hooks.push(json!({"name": "block_rq_issue", "state": "unproven",
                          "form": "raw_tracepoint", "reason": ""}));
        json!({"hooks": hooks, "exit_code": 3})
    }

    fn failed_rows(rows: &[Assertion]) -> Vec<(&str, &str)> {
        let failed = rows.iter().filter(|row| !row.passed);
        failed
            .map(|row| (row.name.as_str(), row.got.as_str()))
            .collect()
    }

    #[test]
    fn a_hook_of_a_late_module_waits_first() {
        let line = |name: &str, state: &str, reason: &str| {
            serde_json::json!({"type": "hook", "name": name, "state": state, "reason": reason})
                .to_string()
        };
        let late = "jbd2 was loaded after the agent, which must know x before: restart it";
        let mut lines: Vec<String> = OF_MODULES
            .iter()
            .map(|name| line(name, "waiting", "is not loaded"))
            .collect();
        let passed = |lines: &[String]| {
            let rows = compare_late(lines);
            rows.iter().map(|row| row.passed).collect::<Vec<_>>()
        };
        assert_eq!(passed(&lines), [false; 3]);
        lines.push(line(OF_MODULES[0], "attached", ""));
        lines.push(line(OF_MODULES[1], "failed", late));
        lines.push(line(OF_MODULES[2], "failed", "load: permission denied"));
        assert_eq!(passed(&lines), [true, true, false]);
        assert_eq!(passed(&lines[3..]), [false; 3]);
    }

    fn evidence_on(kernel: &str, arch: &str) -> Evidence {
        Evidence {
            fault: Fault::Healthy,
            fs: crate::faultdisk::FsKind::Ext4,
            kernel: kernel.to_owned(),
            arch: arch.to_owned(),
            disk: String::new(),
            serial: String::new(),
            layers: Vec::new(),
            writer_pid: 1,
            victim: String::new(),
            caller_errnos: Vec::new(),
            truth: Vec::new(),
            told: Vec::new(),
            missing_hooks: Vec::new(),
            lost: Default::default(),
            preempts: false,
            broker: None,
        }
    }

    #[test]
    fn hooks_must_have_the_form_that_was_forced() {
        let fault = Fault::ForcedTracepoint;
        let failed = |fsync: &str, ext4: &str| {
            let hook = |name: &str, form: &str| {
                json!({"type": "hook", "name": name, "state": "attached", "form": form}).to_string()
            };
            let lines = [hook("fsync", fsync), hook("ext4_sync_file_enter", ext4)];
            let rows = compare_forced(fault, &lines, &evidence_on("6.12.1", "x86_64"));
            let failed = rows.into_iter().filter(|row| !row.passed);
            failed.map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(failed("tracepoint", "raw_tracepoint"), [""; 0]);
        assert_eq!(
            failed("tracepoint", "typed_tracepoint"),
            ["hooks with typed_tracepoint"]
        );
        assert_eq!(failed("fexit", ""), ["hooks with fexit", gaps::FORM]);
    }

    #[test]
    fn only_an_old_arm64_kernel_may_have_no_fexit() {
        let report = |form: &str| json!({"hooks": [{"name": "fsync", "form": form}]});
        let best = |form: &str, kernel: &str, arch: &str| {
            let row = compare_best(&report(form), &[], &evidence_on(kernel, arch));
            (row.passed, row.gap.is_some())
        };
        let (old, new) = ("6.1.0-50-cloud-arm64", "6.12.117+deb13-cloud-arm64");
        assert_eq!(best("fexit", new, "aarch64"), (true, false));
        assert_eq!(best("tracepoint", new, "aarch64"), (false, false));
        assert_eq!(best("tracepoint", old, "aarch64"), (false, true));
        assert_eq!(
            best("tracepoint", "6.1.0-50-cloud-amd64", "x86_64"),
            (false, false)
        );
        let avoid = ["--avoid-form", "fexit"].map(str::to_owned);
        let row = compare_best(&report("tracepoint"), &avoid, &evidence_on(new, "aarch64"));
        assert!(row.passed);
    }

    #[test]
    fn a_few_runs_may_be_left_out_where_programs_are_preempted() {
        let gap = |preempts, lost: &[(&str, u64)]| {
            let evidence = Evidence {
                preempts,
                lost: lost
                    .iter()
                    .map(|(class, n)| ((*class).to_owned(), *n))
                    .collect(),
                ..evidence_on("7.3.4", "x86_64")
            };
            gaps::reason(&evidence, "loss").is_some()
        };
        assert!(gap(true, &[("recursion", 2), ("lost_exit", 1)]));
        assert!(!gap(false, &[("recursion", 2)]));
        assert!(!gap(true, &[("recursion", 2), ("ring_full", 1)]));
        assert!(!gap(true, &[("lost_exit", 1)]));
        assert!(!gap(true, &[("recursion", 11)]));
        let needs = |state: &str| json!({"needs": [{"name": "preemption", "state": state}]});
        assert!(preempts(&needs("lazy")) && !preempts(&needs("none")));
        assert!(!preempts(&needs("unknown")) && !preempts(&Value::Null));
    }

    #[test]
    fn each_broken_fact_must_be_refused_for_its_own_reason() {
        assert_eq!(failed_rows(&compare_broken(&report())), []);
        let mut wrong = report();
        wrong["hooks"][0]["state"] = "attached".into();
        wrong["hooks"][1]["reason"] = "it was tired".into();
        wrong["hooks"][4]["state"] = "failed".into();
        wrong["exit_code"] = 0.into();
        assert_eq!(
            failed_rows(&compare_broken(&wrong)),
            [
                (
                    "ext4_sync_file_enter",
                    "attached: not as BTF says: a sync of inode …"
                ),
                ("filemap_set_wb_err", "failed: it was tired"),
                ("fsync", "failed"),
                ("exit code", "0"),
            ]
        );
        let nothing = compare_broken(&Value::Null);
        assert!(nothing.iter().all(|row| !row.passed));
    }

    #[test]
    fn no_hook_may_have_a_form_that_is_avoided() {
        let args = ["--avoid-form", "fexit", "--avoid-form", "typed_tracepoint"];
        let args = args.map(str::to_owned);
        assert_eq!(compare_forms(&report(), &[]), []);
        let rows = compare_forms(&report(), &args);
        assert_eq!(failed_rows(&rows), [("hooks with fexit", "fsync")]);
        assert_eq!(rows.len(), 2);
        let rows = compare_forms(&Value::Null, &args);
        assert_eq!(rows[0].got, "no report");
    }
}
