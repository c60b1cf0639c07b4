//! `fsyncscope check` on the running kernel: what BTF alone says of it agrees with
//! what loading it shows. `FSYNCSCOPE_BIN` names the agent's binary.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const BINARY_VARIABLE: &str = "FSYNCSCOPE_BIN";
const BTF: &str = "/sys/kernel/btf/vmlinux";

fn binary() -> PathBuf {
    let path = PathBuf::from(env::var_os(BINARY_VARIABLE).unwrap_or_default());
    assert!(
        path.is_file(),
        "set {BINARY_VARIABLE} to a built fsyncscope: {path:?} is no file"
    );
    path
}

fn check(args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("check").args(args).output().unwrap()
}

fn report(args: &[&str]) -> Value {
    let output = check(&[args, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error} in {text}, stderr {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn hook<'r>(report: &'r Value, name: &str) -> &'r Value {
    let hooks = report["hooks"].as_array().unwrap();
    hooks.iter().find(|hook| hook["name"] == name).unwrap()
}

#[test]
fn btf_alone_says_what_the_running_kernel_says() {
    let live = report(&[]);
    let mut args = vec!["--btf".to_owned(), BTF.to_owned()];
    for module in ["jbd2", "ext4", "xfs", "btrfs", "nvme_core"] {
        let path = format!("/sys/kernel/btf/{module}");
        if PathBuf::from(&path).exists() {
            args.push("--btf-module".to_owned());
            args.push(format!("{module}={path}"));
        }
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let from_btf = report(&args);
    let facts = live["facts"].as_object().unwrap();
    assert!(facts.len() > 60, "{facts:?}");
    assert_eq!(live["facts"], from_btf["facts"]);
    assert_eq!(live["traits"], from_btf["traits"]);
    assert_eq!(live["arch"], from_btf["arch"]);
    for row in live["hooks"].as_array().unwrap() {
        let guess = hook(&from_btf, row["name"].as_str().unwrap());
        let is_attached = row["form"] != "";
        assert_eq!(guess["form"] != "", is_attached, "{row} against {guess}");
        // Whether fexit can be attached is what BTF cannot tell.
        if guess["form"] != "fexit" {
            assert_eq!(guess["form"], row["form"], "{row} against {guess}");
        }
        assert_ne!(guess["state"], "attached", "{guess}");
    }
}

#[test]
fn the_exit_code_says_whether_the_required_hooks_are_there() {
    assert_eq!(check(&[]).status.code(), Some(0));
    assert_eq!(check(&["--btf", BTF]).status.code(), Some(0));
    let missing = check(&["--btf", "/nonexistent"]);
    assert_eq!(missing.status.code(), Some(2));
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(
        text,
        "error: open /nonexistent: no such file or directory\n"
    );
}

#[test]
fn verified_instructions_are_told_by_program() {
    let output = check(&["-v"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("verified instructions: "))
        .collect();
    assert!(counts.len() > 20, "{text}");
    for line in counts {
        let (program, count) = line.split_once(' ').unwrap();
        assert!(program.contains('/'), "{line}");
        let is_count = count.parse::<u32>().is_ok_and(|count| count > 0);
        assert!(is_count || count.starts_with("unknown"), "{line}");
    }
}

/// Runs check as nobody, with these capabilities and no others.
fn check_with(capabilities: &str) -> (Value, i32) {
    let set = format!("-all,{capabilities}");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(format!("--inh-caps={set}"))
        .arg(format!("--ambient-caps={set}"))
        .arg(format!("--bounding-set={set}"))
        .arg(binary())
        .args(["check", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("{error} in {text}, stderr {stderr}")
    });
    (report, output.status.code().unwrap())
}

fn need<'r>(report: &'r Value, name: &str) -> &'r str {
    let needs = report["needs"].as_array().unwrap();
    let row = needs.iter().find(|need| need["name"] == name).unwrap();
    row["state"].as_str().unwrap()
}

#[test]
fn the_capabilities_that_it_names_are_enough_for_nobody() {
    let all = "+bpf,+perfmon,+dac_read_search,+sys_ptrace,+syslog";
    let (report, code) = check_with(all);
    assert_eq!(code, 0, "{report}");
    for row in report["hooks"].as_array().unwrap() {
        if row["required"] == true {
            assert_eq!(row["state"], "attached", "{row}");
        }
    }
    for name in [
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_DAC_READ_SEARCH",
        "CAP_SYSLOG",
    ] {
        assert_eq!(need(&report, name), "held");
    }
    let missing = report["missing_facts"].to_string();
    assert!(!missing.contains("kallsyms"), "{missing}");
}

#[test]
fn a_capability_that_is_missing_is_named_with_what_it_costs() {
    let (report, code) = check_with("+bpf,+perfmon");
    assert_eq!(code, 3);
    assert_eq!(need(&report, "CAP_DAC_READ_SEARCH"), "missing");
    assert_eq!(need(&report, "tracefs"), "unreadable");
    let fsync = hook(&report, "fsync");
    assert_eq!(fsync["state"], "failed");
    let reason = fsync["reason"].as_str().unwrap();
    assert!(reason.ends_with("tracepoint: no tracefs"), "{reason}");
    // Without tracefs the rest works.
    assert_eq!(hook(&report, "block_rq_complete")["state"], "attached");
    let (report, code) = check_with("+bpf,+perfmon,+dac_read_search");
    assert_eq!(code, 0);
    assert_eq!(need(&report, "CAP_SYS_PTRACE"), "missing");
    assert_eq!(need(&report, "CAP_SYSLOG"), "missing");
}
