//! The rows of a campaign added up, and rendered as Markdown. In: rows. Out:
//! counts per kind of fault and question, the account of slow syncs, the table
//! of rules, and whether all of it is as it should be. Pure.

use std::collections::BTreeMap;

use super::draw::Kind;
use super::row::{Check, Row, SlowAccount};

/// A slow sync that a row of its own tells of takes at least this.
const LONG_NS: u64 = 20_000_000;
/// Of the slow syncs half are to be explained at least to this share,
const MEDIAN: f64 = 0.97;
/// and all but a twentieth to this.
const FIFTH: f64 = 0.90;
/// Verdicts that claim this much
const SURE: f64 = 0.9;
/// are to be right this often.
const SURE_RIGHT: f64 = 0.99;

/// Right and asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    right: u64,
    asked: u64,
    gaps: u64,
}

/// See the module's comment.
#[derive(Debug)]
pub struct Table<'a> {
    /// Windows in which the fault had an effect.
    applied: Vec<&'a Row>,
    /// Windows in which nothing happened.
    healthy: Vec<&'a Row>,
}

impl<'a> Table<'a> {
    /// Of these rows, each with whether its fault had an effect.
    pub fn new(rows: &'a [(Row, bool)]) -> Self {
        let of = |wanted: bool| {
            rows.iter()
                .filter(|(_, is_applied)| *is_applied == wanted)
                .map(|(row, _)| row)
                .collect()
        };
        Table {
            applied: of(true),
            healthy: of(false),
        }
    }

    /// Whether everything outside of the expected gaps is right.
    pub fn is_right(&self) -> bool {
        let rows = || self.applied.iter().chain(&self.healthy);
        rows().all(|row| row.is_right()) && self.is_explained() && self.is_calibrated()
    }

    fn is_explained(&self) -> bool {
        let slow = self.slow();
        if slow.is_empty() {
            return true;
        }
        let shares = shares_explained(&slow);
        shares.len() == slow.iter().filter(|slow| slow.is_reported).count()
            && quantile(&shares, 0.5).is_some_and(|share| share >= MEDIAN)
            && quantile(&shares, 0.05).is_some_and(|share| share >= FIFTH)
    }

    fn is_calibrated(&self) -> bool {
        let (right, given) = self.sure();
        given == 0 || right as f64 >= SURE_RIGHT * given as f64
    }

    fn sure(&self) -> (u64, u64) {
        let sure = || self.verdicts().filter(|verdict| verdict.confidence >= SURE);
        let right = sure().filter(|verdict| verdict.is_right).count();
        (right as u64, sure().count() as u64)
    }

    fn verdicts(&self) -> impl Iterator<Item = &super::row::VerdictRow> {
        let rows = self.applied.iter().chain(&self.healthy);
        rows.flat_map(|row| &row.verdicts)
    }

    fn slow(&self) -> Vec<&SlowAccount> {
        self.applied.iter().flat_map(|row| &row.slow).collect()
    }

    /// As Markdown.
    pub fn render(&self) -> String {
        let mut text = self.render_counts();
        text += "\n";
        text += &self.render_slow();
        text += "\n";
        text += &self.render_rules();
        let gaps = self.render_gaps();
        if !gaps.is_empty() {
            text += "\n";
            text += &gaps;
        }
        text
    }

    fn render_counts(&self) -> String {
        let mut text = String::from("| fault | applied |");
        let mut rule = String::from("|---|---:|");
        for check in Check::ALL {
            text += &format!(" {} |", check.name());
            rule += "---:|";
        }
        text += &format!("\n{rule}\n");
        for kind in Kind::ALL {
            let rows: Vec<&Row> = self.of_kind(kind);
            if !rows.is_empty() {
                text += &render_line(kind.name(), &rows);
            }
        }
        text += &render_line("**all**", &self.applied);
        text += &render_line("nothing (healthy)", &self.healthy);
        text
    }

    fn of_kind(&self, kind: Kind) -> Vec<&Row> {
        let rows = self.applied.iter().copied();
        rows.filter(|row| row.fault.kind == kind).collect()
    }

    fn render_slow(&self) -> String {
        let all = self.slow();
        let of = |is_it: &dyn Fn(&&SlowAccount) -> bool| -> Vec<&SlowAccount> {
            all.iter().copied().filter(|slow| is_it(slow)).collect()
        };
        let rows = [
            ("20 ms and more, held by the fault", of(&is_long)),
            ("all held by the fault", of(&is_held)),
            ("all", of(&|_| true)),
        ];
        let mut text = String::from(
            "| slow syncs | by their callers | reported | with a breakdown | tied, median | 5th percentile | explained, median | 5th percentile |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (name, slow) in rows {
            let reported = slow.iter().filter(|slow| slow.is_reported).count();
            let (tied, explained) = (shares(&slow, |slow| slow.tied), shares_explained(&slow));
            let show = |of: &[f64], at| quantile(of, at).map_or("—".into(), percent);
            text += &format!(
                "| {name} | {} | {reported} | {} | {} | {} | {} | {} |\n",
                slow.len(),
                tied.len(),
                show(&tied, 0.5),
                show(&tied, 0.05),
                show(&explained, 0.5),
                show(&explained, 0.05)
            );
        }
        text
    }

    fn render_rules(&self) -> String {
        let mut rules: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for verdict in self.verdicts() {
            let count = rules.entry(&verdict.rule).or_default();
            count.0 += u64::from(verdict.is_right);
            count.1 += 1;
        }
        let mut text = String::from("| rule | verdicts | right |\n|---|---:|---:|\n");
        for (rule, (right, given)) in rules {
            let share = percent(right as f64 / given as f64);
            text += &format!("| {rule} | {given} | {right} ({share}) |\n");
        }
        let (right, given) = self.sure();
        text += &format!("| **confidence ≥ {SURE}** | {given} | {right} |\n");
        text
    }

    fn render_gaps(&self) -> String {
        let mut gaps: BTreeMap<&str, u64> = BTreeMap::new();
        for row in &self.applied {
            for gap in row.answers.values().flat_map(|answer| &answer.gaps) {
                *gaps.entry(gap).or_default() += 1;
            }
        }
        if gaps.is_empty() {
            return String::new();
        }
        let mut text = String::from("| expected gap | faults |\n|---|---:|\n");
        for (gap, count) in gaps {
            text += &format!("| {gap} | {count} |\n");
        }
        text
    }
}

fn render_line(name: &str, rows: &[&Row]) -> String {
    let mut text = format!("| {name} | {} |", rows.len());
    for check in Check::ALL {
        let mut count = Count::default();
        for answer in rows.iter().filter_map(|row| row.answers.get(&check)) {
            count.asked += 1;
            count.right += u64::from(answer.wrong.is_empty());
            count.gaps += u64::from(!answer.gaps.is_empty());
        }
        text += &match count {
            Count { asked: 0, .. } => " — |".to_owned(),
            Count { right, asked, .. } if right == asked => format!(" {asked} |"),
            Count { right, asked, .. } => format!(" **{right}/{asked}** |"),
        };
    }
    text + "\n"
}

/// At least half of its time was the fault's.
fn is_held(slow: &&SlowAccount) -> bool {
    slow.held_ns * 2 >= slow.duration_ns
}

/// By far longer than what a busy machine's scheduler does.
fn is_long(slow: &&SlowAccount) -> bool {
    is_held(slow) && slow.duration_ns >= LONG_NS
}

fn shares_explained(slow: &[&SlowAccount]) -> Vec<f64> {
    shares(slow, |slow| slow.explained)
}

fn shares(slow: &[&SlowAccount], of: fn(&SlowAccount) -> Option<f64>) -> Vec<f64> {
    let mut shares: Vec<f64> = slow.iter().filter_map(|slow| of(slow)).collect();
    shares.sort_by(f64::total_cmp);
    shares
}

/// Of sorted values, the one that this share of them is not above.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = (sorted.len() as f64 * share).floor() as usize;
    sorted.get(at.min(sorted.len().checked_sub(1)?)).copied()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::super::draw::Fault;
    use super::super::row::VerdictRow;
    use super::*;

    fn row(nth: u64) -> Row {
        let mut row = Row::new(&Fault {
            nth,
            kind: Kind::FlushDelay,
            ..Fault::none(false)
        });
        row.ask(Check::Found);
        row.slow = vec![SlowAccount {
            duration_ns: 100_000_000,
            held_ns: 90_000_000,
            is_reported: true,
            tied: Some(0.98),
            explained: Some(0.99),
        }];
        row.verdicts = vec![VerdictRow {
            rule: "S1".into(),
            confidence: 0.95,
            is_right: true,
        }];
        row
    }

    #[test]
    fn a_table_of_right_rows_is_right_and_one_wrong_answer_is_not() {
        let mut rows = vec![(row(1), true), (row(2), true)];
        assert!(Table::new(&rows).is_right());
        let text = Table::new(&rows).render();
        assert!(text.contains("| flush held | 2 | 2 |"), "{text}");
        rows[1].0.wrong(Check::Found, "nothing was said");
        let text = Table::new(&rows).render();
        assert!(text.contains("| flush held | 2 | **1/2** |"), "{text}");
        assert!(!Table::new(&rows).is_right());
    }

    #[test]
    fn a_time_line_that_explains_too_little_is_not_right() {
        let mut rows = vec![(row(1), true)];
        rows[0].0.slow[0].explained = Some(0.96);
        assert!(!Table::new(&rows).is_right());
        rows[0].0.slow[0].explained = None;
        assert!(!Table::new(&rows).is_right());
    }

    #[test]
    fn a_sure_verdict_that_is_wrong_is_not_right() {
        let mut rows = vec![(row(1), true)];
        rows[0].0.verdicts[0].is_right = false;
        assert!(!Table::new(&rows).is_right());
        rows[0].0.verdicts[0].confidence = 0.7;
        assert!(Table::new(&rows).is_right());
    }

    #[test]
    fn a_false_finding_in_a_healthy_window_is_not_right() {
        let mut rows = vec![(row(1), true), (Row::new(&Fault::none(false)), false)];
        rows[1].0.ask(Check::NoFalse);
        assert!(Table::new(&rows).is_right());
        rows[1].0.wrong(Check::NoFalse, "STALLED");
        assert!(!Table::new(&rows).is_right());
    }

    #[test]
    fn quantiles_are_of_the_values_there_are() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.05), Some(5.0));
        assert_eq!(quantile(&values, 0.5), Some(50.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
