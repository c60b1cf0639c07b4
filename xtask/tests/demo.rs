//! The demo with everything renamed and the other disk failing, on a real broker:
//! the tool must not know the lab. `FSYNCSCOPE_BIN` names the agent's binary;
//! the demo itself holds the answer against the disk's log, the test looks for
//! names that it can have from nowhere but the host.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const BINARY_VARIABLE: &str = "FSYNCSCOPE_BIN";
/// Where labs are made; the usual place has the lab's name in it.
const LAB_VARIABLE: &str = "FSYNCSCOPE_LAB";
const WORD: &str = "settlements";
/// What only the usual names and the scenario's are made of.
const USUAL: [&str; 7] = [
    "orders",
    "alpha",
    "beta",
    "kafka/",
    "broker/logs",
    "fsyncscope",
    "eio/",
];

/// A place of its own for labs, gone when dropped.
struct Place(PathBuf);

impl Place {
    fn make() -> Place {
        let path = env::temp_dir().join(format!("{WORD}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only if empty: what a demo left behind is not deleted through a mount.
        let _ = fs::remove_dir(&self.0);
    }
}

/// The words of every path and name in the incident, without the lab's base.
fn names_of(incident: &Value, place: &Path) -> String {
    let parts = ["broker", "syncs", "first_victim", "log_events"];
    let text: String = parts
        .iter()
        .map(|part| incident[part].to_string())
        .collect();
    text.replace(place.to_str().unwrap(), "")
}

#[test]
fn eio_is_confirmed_under_other_names_on_the_other_disk() {
    let binary = PathBuf::from(env::var_os(BINARY_VARIABLE).unwrap_or_default());
    assert!(
        binary.is_file(),
        "set {BINARY_VARIABLE} to a built fsyncscope: {binary:?} is no file"
    );
    let place = Place::make();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "eio", "--json", "--swap-disks", "--rename", WORD])
        .arg("--agent")
        .arg(&binary)
        .env(LAB_VARIABLE, &place.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // The verdict, sector, file, thread and line agree with the disk's log.
    assert_eq!(output.status.code(), Some(0), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let incident = printed.lines().last().unwrap_or_default();
    let incident: Value = serde_json::from_str(incident).unwrap();
    assert_eq!(incident["verdict"], "CONFIRMED", "{incident}");
    assert_eq!(incident["cause"], "device-error", "{incident}");
    let log_dir = incident["broker"]["log_dir"].as_str().unwrap();
    let second = format!("mnt/{WORD}2/{WORD}-data");
    assert!(log_dir.ends_with(&second), "{log_dir}");
    let names = names_of(&incident, &place.0);
    assert!(names.contains(&format!("{WORD}-node/logs/server.log")));
    let topic = format!("\"{WORD}-");
    let failed = incident["syncs"].as_array().unwrap().iter();
    let mut failed = failed.filter(|sync| sync["errno"] == "EIO");
    let is_of_topic = |sync: &Value| sync["topic_partition"].to_string().starts_with(&topic);
    assert!(failed.any(is_of_topic), "{incident}");
    for usual in USUAL {
        assert!(!names.contains(usual), "{usual} in {names}");
    }
    assert!(fs::read_dir(&place.0).unwrap().next().is_none(), "{said}");
}
