//! What came out, for a person or a program. In: rows. Out: stdout: a line a boot
//! with its cells, a line for each that is not as expected, counts; or JSON.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::guest::protocol::{CellResult, Outcome as CellOutcome};
use serde_json::{Value, json};

use super::boot::Record;
use crate::arch::Arch;

/// All that came out.
#[derive(Debug)]
pub struct Outcome {
    /// One for each boot.
    pub rows: Vec<Row>,
    /// Where the evidence is, if any was kept.
    pub evidence: Option<PathBuf>,
    /// How long it took.
    pub took: Duration,
    /// Cells of boots that were not begun, since the run was stopped.
    pub nr_left: usize,
}

/// One boot.
#[derive(Debug)]
pub struct Row {
    /// As in tests/KERNELS.
    pub version: String,
    /// `uname -r`.
    pub release: String,
    /// Of which architecture.
    pub arch: Arch,
    /// The file system.
    pub fs: FsKind,
    /// What came out of it.
    pub record: Record,
}

impl Outcome {
    /// Cells in which the agent was wrong, or the guest died; a `check` that was wrong
    /// counts as one.
    pub fn nr_failed(&self) -> usize {
        let records = self.rows.iter().map(|row| &row.record);
        let bad = records.filter(|record| record.bad_check.is_some() && record.cells.is_empty());
        self.count(CellOutcome::Failed) + bad.count()
    }

    /// Cells that the lab could not play, and boots that ended early with nothing else
    /// to show for it.
    pub fn nr_broken(&self) -> usize {
        let is_bad = |cell: &CellResult| !super::work::is_as_expected(cell.outcome);
        let records = self.rows.iter().map(|row| &row.record);
        let early = records.filter(|record| {
            let is_told = record.bad_check.is_some() || record.cells.iter().any(is_bad);
            record.failure.is_some() && !is_told
        });
        self.count(CellOutcome::Harness) + early.count() + self.nr_left
    }

    /// Cells that passed, gaps that are expected as well.
    pub fn nr_as_expected(&self) -> usize {
        self.count(CellOutcome::Passed) + self.count(CellOutcome::ExpectedGap)
    }

    fn count(&self, outcome: CellOutcome) -> usize {
        let cells = self.rows.iter().flat_map(|row| &row.record.cells);
        cells.filter(|cell| cell.outcome == outcome).count()
    }
}

/// Prints it.
pub fn print(outcome: &Outcome, as_json: bool) -> anyhow::Result<()> {
    for row in &outcome.rows {
        if as_json {
            for line in json_lines(row)? {
                println!("{line}");
            }
        } else {
            print!("{}", render(row));
        }
    }
    if as_json {
        return Ok(());
    }
    println!(
        "{} cells as expected ({} of them gaps with a reason), {} failed, {} not played, in {} min",
        outcome.nr_as_expected(),
        outcome.count(CellOutcome::ExpectedGap),
        outcome.nr_failed(),
        outcome.nr_broken(),
        outcome.took.as_secs().div_ceil(60),
    );
    if let Some(evidence) = &outcome.evidence {
        println!("evidence: {}", evidence.display());
    }
    Ok(())
}

fn render(row: &Row) -> String {
    let mut text = format!(
        "{:<26} {:<8} {:<5} {}\n",
        row.release,
        row.arch.name(),
        row.fs.name(),
        row.record.check.as_ref().map_or_else(
            || "check: not run".to_owned(),
            |check| format!("check: {}", summarize_check(check))
        )
    );
    if let Some(why) = &row.record.bad_check {
        text.push_str(&format!(
            "  {:<18} {:<12}         {why}\n",
            "check", "FAILED"
        ));
    }
    if let Some(why) = &row.record.failure {
        text.push_str(&format!("  {why}\n"));
    }
    if let Some(why) = &row.record.given_up {
        text.push_str(&format!(
            "  booted twice: the first {why}; no agent was there\n"
        ));
    }
    for cell in &row.record.cells {
        text.push_str(&format!(
            "  {:<18} {:<12} {:>4} s  {}\n",
            cell.id.name(),
            word(cell.outcome),
            cell.took_ms / 1000,
            cell.why
        ));
    }
    text
}

/// As it stands in tables.
pub fn word(outcome: CellOutcome) -> &'static str {
    match outcome {
        CellOutcome::Passed => "passed",
        CellOutcome::Failed => "FAILED",
        CellOutcome::ExpectedGap => "expected gap",
        CellOutcome::Harness => "not played",
    }
}

/// `22 hooks: 20 fexit or typed, …`: how many are in place, and which are not.
pub fn summarize_check(check: &Value) -> String {
    let hooks = check["hooks"].as_array().map_or(&[][..], Vec::as_slice);
    let missing: Vec<&str> = hooks
        .iter()
        .filter(|hook| is_missing(hook))
        .filter_map(|hook| hook["name"].as_str())
        .collect();
    let there = hooks.len() - missing.len();
    match missing.is_empty() {
        true => format!("{there} of {} hooks", hooks.len()),
        false => format!(
            "{there} of {} hooks, without {}",
            hooks.len(),
            missing.join(", ")
        ),
    }
}

/// Whether a hook of `check` is not there.
pub fn is_missing(hook: &Value) -> bool {
    matches!(hook["state"].as_str(), Some("failed" | "absent") | None)
}

fn json_lines(row: &Row) -> anyhow::Result<Vec<String>> {
    let head = |kind: &str| {
        json!({
            "type": kind, "kernel": row.version, "release": row.release,
            "arch": row.arch.name(), "fs": row.fs.name(),
        })
    };
    let mut lines = Vec::new();
    let mut boot = head("boot");
    boot["check"] = row.record.check.clone().unwrap_or(Value::Null);
    boot["took_ms"] = (row.record.took.as_millis() as u64).into();
    if let Some(why) = &row.record.bad_check {
        boot["bad_check"] = why.clone().into();
    }
    if let Some(why) = &row.record.failure {
        boot["failure"] = why.clone().into();
    }
    if let Some(why) = &row.record.given_up {
        boot["given_up"] = why.clone().into();
    }
    lines.push(boot.to_string());
    for cell in &row.record.cells {
        let mut line = head("cell");
        merge(&mut line, cell)?;
        lines.push(line.to_string());
    }
    Ok(lines)
}

fn merge(line: &mut Value, cell: &CellResult) -> anyhow::Result<()> {
    let cell = serde_json::to_value(cell)?;
    let cell = cell.as_object().context("a cell is an object")?;
    for (name, value) in cell {
        let name = if name == "id" { "fault" } else { name };
        line[name] = value.clone();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_that_are_not_there_are_named() {
        let check = json!({"hooks": [
            {"name": "fsync", "state": "attached"},
            {"name": "lock_contention", "state": "absent"},
            {"name": "block_rq_issue", "state": "unproven"},
        ]});
        assert_eq!(
            summarize_check(&check),
            "2 of 3 hooks, without lock_contention"
        );
    }

    fn row(record: Record) -> Row {
        Row {
            version: "6.12".into(),
            release: "6.12.1".into(),
            arch: Arch::X86_64,
            fs: FsKind::Ext4,
            record,
        }
    }

    #[test]
    fn a_check_that_is_wrong_and_a_boot_that_ends_early_are_counted() {
        let records = [
            Record::default(),
            Record {
                bad_check: Some("check ended with exit code 3".into()),
                ..Record::default()
            },
            Record {
                failure: Some("the guest ended in power-off".into()),
                ..Record::default()
            },
        ];
        let outcome = Outcome {
            rows: records.into_iter().map(row).collect(),
            evidence: None,
            took: Duration::ZERO,
            nr_left: 4,
        };
        assert_eq!((outcome.nr_failed(), outcome.nr_broken()), (1, 5));
        assert!(render(&outcome.rows[1]).contains("FAILED"));
    }
}
