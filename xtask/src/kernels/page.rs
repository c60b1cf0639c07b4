//! docs/KERNELS.md, out of the stored results of the whole matrix: nothing in it
//! is written by hand. In: results. Out: the file.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};
use fsyncscope_tests::faultdisk::FsKind;
use fsyncscope_tests::guest::broker::VERSION;
use fsyncscope_tests::guest::fault::Fault;
use fsyncscope_tests::guest::protocol::{CellResult, Outcome as CellOutcome};

use super::asserted;
use super::forms;
use super::list::Kernel;
use super::table::word;
use super::work::{Store, Stored};
use crate::arch::Arch;
use crate::process::{output, repository, say};

/// Writes the page. In: what was played, as [`of_what`] gave it when it was built.
pub fn write(
    of_what: &str,
    kernels: &[Kernel],
    archs: &[Arch],
    file_systems: &[FsKind],
    stores: &[&Store],
) -> anyhow::Result<()> {
    let (mut results, mut late) = (Vec::new(), Vec::new());
    for arch in archs {
        let store = stores.iter().find(|store| store.arch() == *arch);
        let store = store.context("an architecture without results")?;
        for kernel in kernels {
            for fs in file_systems {
                let mut stored = store.get(&kernel.name(), *fs);
                if stored.release.is_empty() {
                    stored.release = kernel.name();
                }
                match kernel.is_late {
                    true => late.push((*arch, *fs, stored)),
                    false => results.push((*arch, *fs, stored)),
                }
            }
        }
    }
    if results.iter().all(|(_, _, stored)| stored.check.is_none()) {
        bail!("no kernel has been booted with this agent: there is nothing to write");
    }
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let of_what = format!("{date}, of {of_what}");
    let path = repository().join("docs/KERNELS.md");
    fs::write(&path, render(&of_what, &results, &late))
        .with_context(|| format!("write {}", path.display()))?;
    say(format!("wrote {}", path.display()));
    Ok(())
}

/// The version and the commit, and whether the tree has been changed since.
pub fn of_what() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty=, changed"]);
    let commit = output(git.current_dir(repository()));
    let commit = commit.unwrap_or_else(|_| "git knows no commit".to_owned());
    format!("{} ({})", env!("CARGO_PKG_VERSION"), commit.trim())
}

/// Results of one architecture, file system and kernel.
pub type Played = (Arch, FsKind, Stored);

/// `late`: of kernels whose modules are loaded after the agent.
fn render(of_what: &str, results: &[Played], late: &[Played]) -> String {
    let mut text = format!(
        "# Kernels\n\n\
         Written by `cargo xtask kernels` on {of_what}; not by hand. Each row is boots of the\n\
         distribution's own kernel in an emulated machine with an NVMe disk that fails on\n\
         demand, and the released agent over a writer that behaves like a broker.\n\n\
         {}{}\n## Cells\n\n",
        summarize(results, late),
        asserted::section()
    );
    text.push_str("| kernel | arch | fs |");
    for fault in columns() {
        text.push_str(&format!(" {} |", fault.name()));
    }
    text.push_str("\n|---|---|---|");
    text.push_str(&"---|".repeat(columns().count()));
    text.push('\n');
    let mut reasons = Vec::new();
    for (arch, fs, stored) in results {
        let head = format!("{} | {} | {}", stored.release, arch.name(), fs.name());
        text.push_str(&format!("| {head} |"));
        for fault in columns() {
            let cell = stored.cells.iter().find(|cell| cell.id == fault);
            let none = if stored.is_absent {
                "absent"
            } else {
                "not run"
            };
            let shown = cell.map_or(none, |cell| word(cell.outcome));
            text.push_str(&format!(" {shown} |"));
            reasons.extend(cell.and_then(|cell| reason(&head, cell)));
        }
        text.push('\n');
    }
    if results.iter().any(|(_, _, stored)| stored.is_absent) {
        text.push_str(
            "\n`absent`: the distribution's archive has no module of that file system for that\n\
             kernel, so there is no cell.\n",
        );
    }
    text.push_str(&render_forced(results, &mut reasons));
    text.push_str(&render_stacks(results, &mut reasons));
    text.push_str(&render_brokers(results, &mut reasons));
    text.push_str(&render_late(late, &mut reasons));
    if !reasons.is_empty() {
        text.push_str("\n## Not passed\n\n| kernel | arch | fs | fault | | why |\n|---|---|---|---|---|---|\n");
        for reason in reasons {
            text.push_str(&reason);
            text.push('\n');
        }
    }
    text.push_str(&render_times(results));
    text.push_str(
        "\n## Forms of the hooks\n\n\
         As `fsyncscope check` printed them before the first fault. `-` = not there, `waiting` =\n\
         its module is not loaded, `?` = attached, and no call of the self-probe passed it.\n\n",
    );
    text.push_str(&forms::render(results));
    text
}

/// Those of the main table.
fn columns() -> impl Iterator<Item = Fault> {
    Fault::all()
        .iter()
        .copied()
        .filter(|fault| !fault.is_forced())
}

/// What is to be said of a cell that did not pass.
fn reason(head: &str, cell: &CellResult) -> Option<String> {
    let (name, shown) = (cell.id.name(), word(cell.outcome));
    let is_said = cell.outcome != CellOutcome::Passed;
    is_said.then(|| format!("| {head} | {name} | {shown} | {} |", cell_text(&cell.why)))
}

fn render_brokers(results: &[Played], reasons: &mut Vec<String>) -> String {
    let table = render_group(Fault::broker(), results, reasons);
    if table.is_empty() {
        return table;
    }
    format!(
        "\n## A real broker in the machine\n\n\
         Kafka {} on the NVMe disk, by `cargo xtask kernels --broker`, with what `cargo\n\
         xtask demo eio` and `hang` assert, and NVMe status and sector.\n\n{table}",
        VERSION.number()
    )
}

fn render_forced(results: &[Played], reasons: &mut Vec<String>) -> String {
    let table = render_group(Fault::forced(), results, reasons);
    if table.is_empty() {
        return table;
    }
    format!(
        "\n## Both forms of the hooks\n\n\
         A write error on ext4 with no hook by fexit or a typed tracepoint; all other cells use\n\
         the forms in the table below.\n\n{table}"
    )
}

fn render_stacks(results: &[Played], reasons: &mut Vec<String>) -> String {
    let table = render_group(Fault::stacked(), results, reasons);
    if table.is_empty() {
        return table;
    }
    format!(
        "\n## Between the file system and the disk\n\n\
         By `cargo xtask kernels --stacks`: a write error below a partition, dm-linear and md\n\
         (level 0, on a partition), where each layer must be named; writes that dm-delay\n\
         holds and dm-error fails by themselves, for which no request may be blamed.\n\n{table}"
    )
}

fn render_late(late: &[Played], reasons: &mut Vec<String>) -> String {
    let table = render_group(&[Fault::LateModules], late, reasons);
    if table.is_empty() {
        return table;
    }
    format!(
        "\n## Modules loaded after the agent\n\n\
         Kernels of the generic flavour, whose ext4, jbd2 and nvme are modules: hooks on their\n\
         events wait for them, then a write fails.\n\n{table}"
    )
}

/// A row for each boot that had such cells; nothing if there was none.
fn render_group(group: &[Fault], results: &[Played], reasons: &mut Vec<String>) -> String {
    let mut rows = String::new();
    for (arch, fs, stored) in results {
        let cell = |fault: &Fault| stored.cells.iter().find(|cell| cell.id == *fault);
        let cells: Vec<Option<&CellResult>> = group.iter().map(cell).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let head = format!("{} | {} | {}", stored.release, arch.name(), fs.name());
        let shown = cells
            .iter()
            .map(|cell| cell.map_or("not run", |cell| word(cell.outcome)));
        let shown: Vec<&str> = shown.collect();
        rows.push_str(&format!("| {head} | {} |\n", shown.join(" | ")));
        reasons.extend((cells.into_iter().flatten()).filter_map(|cell| reason(&head, cell)));
    }
    if rows.is_empty() {
        return rows;
    }
    let names: Vec<&str> = group.iter().map(|fault| fault.name()).collect();
    format!(
        "| kernel | arch | fs | {} |\n|---|---|---|{}\n{rows}",
        names.join(" | "),
        "---|".repeat(group.len())
    )
}

/// How many cells came out how, in one line, which the README shows as well; a matrix
/// that is not whole says so.
fn summarize(results: &[Played], late: &[Played]) -> String {
    let of_late = || late.iter().flat_map(|(_, _, stored)| &stored.cells);
    let of_late = || of_late().filter(|cell| cell.id == Fault::LateModules);
    let of_results = || results.iter().flat_map(|(_, _, stored)| &stored.cells);
    let cells = || of_results().chain(of_late());
    let count = |outcome| cells().filter(|cell| cell.outcome == outcome).count();
    let [passed, gaps, failed] = [
        CellOutcome::Passed,
        CellOutcome::ExpectedGap,
        CellOutcome::Failed,
    ]
    .map(count);
    // Of the matrix, and what else has been played.
    let wanted = |(_, fs, stored): &&Played| match stored.is_absent {
        true => 0,
        false => Fault::all()
            .iter()
            .filter(|fault| fault.is_for(*fs))
            .count(),
    };
    let wanted: usize = results.iter().map(|row| wanted(&row)).sum();
    let is_other = |cell: &&CellResult| !Fault::all().contains(&cell.id);
    // On the modules of one file system and one architecture.
    let is_first = |row: &&Played| {
        late.first()
            .is_some_and(|it| (it.0, it.1) == (row.0, row.1))
    };
    let nr_late = late.iter().filter(is_first).count();
    let total = wanted + of_results().filter(is_other).count() + nr_late;
    let rest = total.saturating_sub(passed + gaps + failed);
    let rest = match rest {
        0 => String::new(),
        rest => format!(", {rest} have not been run"),
    };
    format!(
        "Of {total} cells {passed} passed, {gaps} are gaps with a reason, {failed} failed{rest}.\n"
    )
}

/// How long the boots took, by the fatal fault that ends each.
fn render_times(results: &[Played]) -> String {
    let ends = || Fault::all().iter().filter(|fault| fault.is_fatal());
    let mut rows = String::new();
    for (arch, fs, stored) in results {
        let shown: Vec<String> = ends().map(|fault| show_time(stored, *fault)).collect();
        if shown.iter().all(|text| text == "-") {
            continue;
        }
        let head = format!("{} | {} | {}", stored.release, arch.name(), fs.name());
        rows.push_str(&format!("| {head} | {} |\n", shown.join(" | ")));
    }
    if rows.is_empty() {
        return rows;
    }
    let names: Vec<&str> = ends().map(|fault| fault.name()).collect();
    format!(
        "\n## Time\n\n\
         Seconds from power-on to power-off of a boot with its cells, by the fault that ends it,\n\
         and how many of them that fault took; emulated, several machines at a time.\n\n\
         | kernel | arch | fs | {} |\n|---|---|---|{}\n{rows}",
        names.join(" | "),
        "---|".repeat(names.len())
    )
}

fn show_time(stored: &Stored, last: Fault) -> String {
    let cell = stored.cells.iter().find(|cell| cell.id == last);
    match (stored.boot_s.get(last.name()), cell) {
        (Some(boot_s), Some(cell)) => format!("{boot_s} ({})", cell.took_ms / 1000),
        _ => "-".to_owned(),
    }
}

fn cell_text(why: &str) -> String {
    why.replace('|', "/").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_gap_stands_in_the_table_with_its_reason() {
        let cell = CellResult {
            id: Fault::Stall,
            outcome: CellOutcome::ExpectedGap,
            asserts: Vec::new(),
            why: "no event a|b".into(),
            took_ms: 1,
            said: Vec::new(),
        };
        let stored = Stored {
            release: "5.10.0-32-cloud-amd64".into(),
            check: Some(json!({"hooks": [
                {"name": "fsync", "state": "attached", "form": "fexit"},
                {"name": "lock_contention", "state": "absent", "form": null},
            ]})),
            cells: vec![cell],
            ..Stored::default()
        };
        let text = render("2026-11-25", &[(Arch::X86_64, FsKind::Ext4, stored)], &[]);
        assert!(
            text.contains("| stall | expected gap | no event a/b |"),
            "{text}"
        );
        assert!(text.contains("| hook | 5.10.0 x86_64 |"), "{text}");
        assert!(
            text.contains("| fsync | fexit |\n| lock_contention | - |\n"),
            "{text}"
        );
        assert!(text.contains("| not run |"), "{text}");
        let rest = Fault::all().len() - 1;
        let said =
            format!("0 passed, 1 are gaps with a reason, 0 failed, {rest} have not been run.\n");
        assert!(text.contains(&said), "{text}");
        assert!(!text.contains("real broker in"), "{text}");
    }

    #[test]
    fn a_kernel_without_the_file_system_has_no_cells() {
        let absent = Stored {
            release: "7.0.1".into(),
            is_absent: true,
            ..Stored::default()
        };
        let text = render("2026-11-25", &[(Arch::X86_64, FsKind::Xfs, absent)], &[]);
        assert!(text.contains("| 7.0.1 | x86_64 | xfs | absent |"), "{text}");
        assert!(text.contains("Of 0 cells"), "{text}");
        assert!(text.contains("`absent`: "), "{text}");
    }

    #[test]
    fn boots_with_a_broker_have_a_table_of_their_own() {
        let cell = CellResult {
            id: Fault::BrokerHang,
            outcome: CellOutcome::Failed,
            asserts: Vec::new(),
            why: "device: none instead of nvme0n1".into(),
            took_ms: 1,
            said: Vec::new(),
        };
        let stored = Stored {
            release: "6.12.1".into(),
            check: None,
            cells: vec![cell],
            ..Stored::default()
        };
        let results = [(Arch::X86_64, FsKind::Ext4, stored)];
        let text = render("2026-11-25", &results, &[]);
        let row = "| 6.12.1 | x86_64 | ext4 | FAILED | not run |\n";
        assert!(text.contains(row), "{text}");
        let why = "| broker-hang | FAILED | device: none instead of nvme0n1 |";
        assert!(text.contains(why), "{text}");
        // What fails there is not left out of the summary.
        assert!(text.contains(" 1 failed,"), "{text}");
    }

    #[test]
    fn a_kernel_with_late_modules_is_one_cell() {
        let cell = CellResult {
            id: Fault::LateModules,
            outcome: CellOutcome::Passed,
            asserts: Vec::new(),
            why: String::new(),
            took_ms: 1,
            said: Vec::new(),
        };
        let played = Stored {
            release: "6.12.1-amd64".into(),
            cells: vec![cell],
            ..Stored::default()
        };
        let other = |arch, fs| (arch, fs, Stored::default());
        let late = [
            (Arch::X86_64, FsKind::Ext4, played),
            other(Arch::X86_64, FsKind::Xfs),
            other(Arch::Aarch64, FsKind::Ext4),
        ];
        let said = "Of 1 cells 1 passed, 0 are gaps with a reason, 0 failed.\n";
        assert_eq!(summarize(&[], &late), said);
        let nothing = [other(Arch::X86_64, FsKind::Ext4)];
        assert!(summarize(&[], &nothing).contains("1 have not been run"));
    }
}
