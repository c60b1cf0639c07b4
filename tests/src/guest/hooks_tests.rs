//! Reports that are right, and what can be wrong with one.

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
        is_in_reset: false,
        trouble: None,
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
    // A sync that was under way when the agent came is no loss.
    assert!(gap(true, &[("recursion", 1), ("unmatched_exit", 1)]));
    assert!(!gap(true, &[("recursion", 1), ("unmatched_exit", 3)]));
    assert!(!gap(false, &[("recursion", 2)]));
    assert!(!gap(true, &[("recursion", 2), ("ring_full", 1)]));
    assert!(!gap(true, &[("lost_exit", 1)]));
    assert!(!gap(true, &[("recursion", 11)]));
}

#[test]
fn check_must_know_how_the_kernel_preempts_itself() {
    let passes = |preempts, state: &str| {
        let report = json!({"needs": [{"name": "preemption", "state": state}]});
        let evidence = Evidence {
            preempts,
            ..evidence_on("7.3.4", "x86_64")
        };
        compare_preemption(&report, &evidence).passed
    };
    assert!(passes(true, "lazy") && passes(false, "none"));
    assert!(!passes(true, "none") && !passes(false, "lazy"));
    assert!(!passes(true, "unknown") && !passes(false, "unknown"));
    let nothing = compare_preemption(&Value::Null, &evidence_on("7.3.4", "x86_64"));
    assert_eq!((nothing.passed, &*nothing.got), (false, "nothing"));
}

#[test]
fn btf_alone_must_say_the_same() {
    let report = |ino: u32, form: &str| {
        json!({"arch": "x86_64", "traits": [], "facts": {"ino": ino, "dev": 4},
               "hooks": [{"name": "fsync", "form": form}]})
    };
    let live = report(64, "fexit");
    assert_eq!(failed_rows(&compare_btf(&live, &live)), []);
    let rows = compare_btf(&live, &report(72, "tracepoint"));
    assert_eq!(
        failed_rows(&rows),
        [
            ("facts by BTF alone", "ino"),
            ("forms by BTF alone", "fsync: tracepoint instead of fexit"),
        ]
    );
    assert!(
        compare_btf(&Value::Null, &Value::Null)
            .iter()
            .all(|row| !row.passed)
    );
}

#[test]
fn a_form_that_does_not_fire_must_give_way_to_the_next() {
    let report = |state: &str, form: &str, reason: &str| {
        let hook = json!({"name": "fsync", "state": state, "form": form, "reason": reason});
        compare_misled(&json!({"hooks": [hook]}))
    };
    let silent = "fexit: attached but did not fire for a sync of its own";
    assert_eq!(failed_rows(&report("attached", "tracepoint", silent)), []);
    assert_eq!(failed_rows(&report("attached", "fexit", "")).len(), 2);
    assert_eq!(failed_rows(&report("failed", "", silent)).len(), 1);
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
