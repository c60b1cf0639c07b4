//! The table. In: all measurements and what the machine is. Out: Markdown with
//! medians over the rounds, ratios, targets, and what was missed by how much.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::Series;
use super::contender::Contender;
use super::disturbance::MAX_SHARE;
use super::round::{Measured, ProcessCost};
use crate::process::output;

/// Where and when it was measured.
#[derive(Debug)]
pub struct Facts {
    lines: Vec<(&'static str, String)>,
}

impl Facts {
    /// Asks the machine.
    pub fn read(nr_rounds: usize, seconds: u64) -> Facts {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let said = |program: &str, args: &[&str]| {
            let text = output(Command::new(program).args(args)).unwrap_or_default();
            text.lines().next().unwrap_or("unknown").trim().to_string()
        };
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = field(&cpuinfo, "model name").unwrap_or("unknown");
        let nr_cpus = std::thread::available_parallelism().map_or(0, |n| n.get());
        let meminfo = read("/proc/meminfo");
        let memory = field(&meminfo, "MemTotal").unwrap_or("unknown").to_string();
        Facts {
            lines: vec![
                ("date", said("date", &["-u", "+%F"])),
                (
                    "kernel",
                    read("/proc/sys/kernel/osrelease").trim().to_string(),
                ),
                ("machine", format!("{nr_cpus} × {cpu}, {memory}")),
                ("disk", "ext4 on a loop device on a file in tmpfs".into()),
                (
                    "peers",
                    format!(
                        "{}, {}, {}",
                        said(
                            "dpkg-query",
                            &["-W", "-f", "libbpf-tools ${Version}", "libbpf-tools"]
                        ),
                        said("bpftrace", &["--version"]),
                        said("fio", &["--version"])
                    ),
                ),
                (
                    "method",
                    format!(
                        "{nr_rounds} interleaved rounds of {seconds} s each, medians; BPF statistics on for everybody"
                    ),
                ),
            ],
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// The median; of an even number the mean of the two in the middle.
fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

impl Series {
    fn of(&self, name: &str) -> Vec<&Measured> {
        let all = self.rounds.iter().flatten();
        all.filter(|(contender, _)| contender.name() == name)
            .map(|(_, measured)| measured)
            .collect()
    }

    fn median(&self, name: &str, value: impl Fn(&Measured) -> f64) -> Option<f64> {
        median(self.of(name).into_iter().map(value))
    }

    fn median_cost(&self, name: &str, value: impl Fn(&ProcessCost) -> f64) -> Option<f64> {
        let costs = self.of(name).into_iter().filter_map(|m| m.process.as_ref());
        median(costs.map(value))
    }

    /// Against another contender of the same round, so that what all of a round
    /// suffered cancels out.
    fn ratio(&self, name: &str, other: &str, value: impl Fn(&Measured) -> f64) -> Option<f64> {
        let ratios = self.rounds.iter().filter_map(|round| {
            let find = |name| {
                round
                    .iter()
                    .find(|(c, _)| c.name() == name)
                    .map(|(_, m)| value(m))
            };
            Some(find(name)? / find(other)?)
        });
        median(ratios)
    }

    fn names(&self) -> Vec<&'static str> {
        // The first round has them in their order.
        let first = self.rounds.first();
        first.map_or(Vec::new(), |round| {
            round.iter().map(|(c, _)| c.name()).collect()
        })
    }

    fn lost(&self, name: &str) -> Option<u64> {
        let costs = self.of(name).into_iter().map(|m| m.process.as_ref()?.lost);
        costs.sum()
    }
}

/// The whole document.
pub fn render(facts: &Facts, all: &[Series]) -> String {
    let mut text = String::from(
        "# Benchmarks\n\nWritten by `cargo xtask bench`; do not edit. What watching costs, side by side\n\
         with tools for the same question, in one run under the same load.\n\n",
    );
    for (name, value) in &facts.lines {
        let _ = writeln!(text, "- {name}: {value}");
    }
    for series in all {
        let _ = write!(text, "\n## Load {}\n\n", series.load.name());
        render_disturbance(&mut text, series);
        render_table(&mut text, series);
        render_programs(&mut text, series);
        render_targets(&mut text, series);
    }
    text
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".into(), |value| format!("{value:.digits$}"))
}

fn render_disturbance(text: &mut String, series: &Series) {
    let shares = series.rounds.iter().flatten().map(|(_, m)| m.others_share);
    let disturbed = shares.clone().filter(|share| *share > MAX_SHARE).count();
    let worst = shares.fold(0.0, f64::max);
    if disturbed > 0 {
        let _ = write!(
            text,
            "**Disturbed**: in {disturbed} measurements other disks were busy too, at worst with {:.0} % of the \
             load's requests; run it again on a quiet machine.\n\n",
            worst * 100.0
        );
    }
}

fn render_table(text: &mut String, series: &Series) {
    let baseline = Contender::Baseline.name();
    let biolatency = Contender::Biolatency.name();
    text.push_str(
        "| watcher | kernel ns per sync | × biolatency | syncs/s | × nobody | getppid ns | × nobody | \
         RSS MB | anon MB | CPU % | attached s | lost |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for name in series.names() {
        let is_watcher = name != baseline;
        let rate = |m: &Measured| m.done.syncs_per_second;
        let cells = [
            name.to_string(),
            cell(
                series
                    .median(name, Measured::kernel_ns_per_sync)
                    .filter(|_| is_watcher),
                0,
            ),
            cell(
                series
                    .ratio(name, biolatency, Measured::kernel_ns_per_sync)
                    .filter(|_| is_watcher),
                2,
            ),
            cell(series.median(name, rate), 0),
            cell(series.ratio(name, baseline, rate), 3),
            cell(series.median(name, |m| m.bystander_ns), 1),
            cell(series.ratio(name, baseline, |m| m.bystander_ns), 2),
            cell(series.median_cost(name, |c| c.rss_bytes as f64 / 1e6), 1),
            cell(
                series.median_cost(name, |c| c.rss_anon_bytes as f64 / 1e6),
                1,
            ),
            cell(series.median_cost(name, |c| c.cpu_share * 100.0), 1),
            cell(series.median_cost(name, |c| c.attach_time.as_secs_f64()), 2),
            series
                .lost(name)
                .map_or("–".into(), |lost| lost.to_string()),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

fn render_programs(text: &mut String, series: &Series) {
    text.push_str("\n| program | runs per sync | ns per run |\n|---|--:|--:|\n");
    for name in series.names() {
        // By kind and name; the same program under several probes is told apart
        // by nothing but its id, which differs from round to round.
        let mut sums: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        let mut syncs = 0;
        for measured in series.of(name) {
            syncs += measured.done.syncs;
            for program in measured
                .programs
                .iter()
                .filter(|program| program.run_cnt > 0)
            {
                let sum = sums
                    .entry((program.kind.clone(), program.name.clone()))
                    .or_default();
                sum.0 += program.run_cnt;
                sum.1 += program.run_time_ns;
            }
        }
        for ((kind, program), (runs, time_ns)) in sums {
            let _ = writeln!(
                text,
                "| {name}: {kind} {program} | {:.2} | {:.0} |",
                runs as f64 / syncs as f64,
                time_ns as f64 / runs as f64
            );
        }
    }
}

/// A number, what it should be, and which way is good.
struct Target {
    what: &'static str,
    value: Option<f64>,
    limit: f64,
    is_ceiling: bool,
}

fn render_targets(text: &mut String, series: &Series) {
    let agent = Contender::Agent(Default::default()).name();
    if series.of(agent).is_empty() {
        text.push_str("\nThe agent did not take part.\n");
        return;
    }
    let ceiling = |what, value, limit| Target {
        what,
        value,
        limit,
        is_ceiling: true,
    };
    let normal = Contender::AgentNormal(Default::default()).name();
    let kernel_ratio = |other| series.ratio(agent, other, Measured::kernel_ns_per_sync);
    let targets = [
        ceiling(
            "kernel time per sync × biolatency",
            kernel_ratio(Contender::Biolatency.name()),
            1.0,
        ),
        ceiling(
            "kernel time per sync × biolatency -d",
            kernel_ratio(Contender::BiolatencyDisk.name()),
            1.0,
        ),
        ceiling(
            "kernel time per sync × bpftrace script",
            kernel_ratio(Contender::Bpftrace.name()),
            0.3,
        ),
        ceiling(
            "at --detail normal: kernel time per sync × biolatency",
            series.ratio(
                normal,
                Contender::Biolatency.name(),
                Measured::kernel_ns_per_sync,
            ),
            1.0,
        ),
        Target {
            what: "throughput × nobody",
            value: series.ratio(agent, Contender::Baseline.name(), |m| {
                m.done.syncs_per_second
            }),
            limit: 0.98,
            is_ceiling: false,
        },
        ceiling(
            "RSS, MB",
            series.median_cost(agent, |c| c.rss_bytes as f64 / 1e6),
            12.0,
        ),
        ceiling(
            "exec to attached, s",
            series.median_cost(agent, |c| c.attach_time.as_secs_f64()),
            0.5,
        ),
        ceiling(
            "events lost",
            series.lost(agent).map(|lost| lost as f64),
            0.0,
        ),
    ];
    let _ = write!(
        text,
        "\n| target for {agent} | limit | measured | |\n|---|--:|--:|---|\n"
    );
    for target in &targets {
        let _ = writeln!(text, "{}", render_target(target));
    }
}

fn render_target(target: &Target) -> String {
    let sign = if target.is_ceiling { "≤" } else { "≥" };
    let verdict = match target.value {
        None => "not measured".to_string(),
        Some(value) if target.is_ceiling == (value <= target.limit) || value == target.limit => {
            "hit".to_string()
        }
        Some(value) if target.limit == 0.0 => format!("missed by {value:.0}"),
        Some(value) => format!(
            "missed by {:.0} %",
            (value / target.limit - 1.0).abs() * 100.0
        ),
    };
    format!(
        "| {} | {sign} {} | {} | {verdict} |",
        target.what,
        target.limit,
        cell(target.value, 3)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_numbers() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn targets_say_hit_missed_and_by_how_much() {
        let target = |value, limit, is_ceiling| {
            render_target(&Target {
                what: "w",
                value,
                limit,
                is_ceiling,
            })
        };
        assert!(target(Some(0.9), 1.0, true).ends_with("| hit |"));
        assert!(target(Some(1.2), 1.0, true).ends_with("| missed by 20 % |"));
        assert!(target(Some(0.99), 0.98, false).ends_with("| hit |"));
        assert!(target(Some(0.49), 0.98, false).ends_with("| missed by 50 % |"));
        assert!(target(Some(0.0), 0.0, true).ends_with("| hit |"));
        assert!(target(Some(3.0), 0.0, true).ends_with("| missed by 3 |"));
        assert!(target(None, 1.0, true).ends_with("| not measured |"));
    }
}
