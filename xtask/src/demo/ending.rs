//! What the agent prints beside incidents: slow syncs, the summary and the last
//! line. In: lines of `watch --json`, as docs/OUTPUT.md has them. Out: the parts
//! that are checked when nothing is to be found.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ending {
    /// How many syncs were printed as slow.
    pub slow_syncs: u64,
    /// The summary, once it is printed.
    pub rows: Vec<Row>,
    /// The last line, once it is printed.
    pub stopped: Option<Stopped>,
}

/// The syncs of one directory, device and operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Row {
    pub log_dir: String,
    pub device: String,
    pub op: String,
    pub count: u64,
    pub errors: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Stopped {
    pub findings: u64,
    pub lost: BTreeMap<String, u64>,
    pub required_hook_missing: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    SlowSync,
    Summary { rows: Vec<Row> },
    Stopped(Stopped),
}

impl Ending {
    /// Takes up a line; those of other kinds change nothing.
    pub fn add(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Line::SlowSync) => self.slow_syncs += 1,
            Ok(Line::Summary { rows }) => self.rows = rows,
            Ok(Line::Stopped(stopped)) => self.stopped = Some(stopped),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_made_of_its_lines() {
        let mut ending = Ending::default();
        for line in [
            r#"{"type":"slow_sync","op":"fsync"}"#,
            r#"{"type":"broker","pid":7}"#,
            r#"{"type":"summary","rows":[{"broker":"1","log_dir":"/d","op":"fsync","count":9}]}"#,
            r#"{"type":"stopped","why":"interrupted","findings":0,"lost":{"ring":2}}"#,
        ] {
            ending.add(line);
        }
        assert_eq!(ending.slow_syncs, 1);
        assert_eq!((&*ending.rows[0].log_dir, ending.rows[0].count), ("/d", 9));
        assert_eq!(ending.stopped.unwrap().lost["ring"], 2);
    }
}
