//! The agent on the test's own process or another, with its directory given.

use std::fs;
use std::path::Path;

use fsyncscope_tests::lab::Lab;
use serde_json::Value;

use crate::common::Watch;

/// Starts it, and waits until it follows this process and its directory.
pub fn watch(lab: &Lab, log_dir: &Path) -> Watch {
    watch_process(lab, std::process::id(), log_dir)
}

/// The same for another process.
pub fn watch_process(lab: &Lab, pid: u32, log_dir: &Path) -> Watch {
    start(lab, pid, &[log_dir], &[])
}

/// The same for this process with several directories, and with further arguments.
pub fn watch_dirs(lab: &Lab, log_dirs: &[&Path], more: &[&str]) -> Watch {
    start(lab, std::process::id(), log_dirs, more)
}

fn start(lab: &Lab, pid: u32, log_dirs: &[&Path], more: &[&str]) -> Watch {
    // Else it would follow what this process prints.
    let log = lab.dir().join("server.log");
    fs::write(&log, "").unwrap();
    let mut args = vec!["--stall", "500ms", "--duration", "90s"];
    for dir in log_dirs {
        args.extend(["--log-dir", dir.to_str().unwrap()]);
    }
    args.extend(["--follow-log", log.to_str().unwrap()]);
    args.extend(more);
    let mut watch = Watch::start(lab, pid, &args);
    watch.wait_for("broker", |line| {
        (line["type"] == "broker" && line["pid"] == pid).then_some(())
    });
    watch
}

/// The syncs of a line: those of an incident, or the slow one that it is.
pub fn syncs(line: &Value) -> impl Iterator<Item = &Value> {
    let of_incident = line["syncs"].as_array().into_iter().flatten();
    of_incident.chain((line["type"] == "slow_sync").then_some(line))
}
