//! The rules of a faultdisk: which requests they touch and what they do to
//! them. Pure: a request goes in, an action comes out, and the only state is
//! how often each rule has matched.

use serde::{Deserialize, Serialize};

/// What a request asks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Data from the disk.
    Read,
    /// Data to the disk.
    Write,
    /// The block layer's FLUSH: empty the volatile cache.
    Flush,
    /// Discard or write-zeroes.
    Discard,
}

/// The operations that a rule touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleOp {
    /// Reads only.
    Read,
    /// Writes only.
    Write,
    /// Cache flushes only.
    Flush,
    /// Every request.
    #[default]
    Any,
}

/// One rule. The first rule of the list that matches a request, with its `skip`
/// over and its `count` not used up, decides; the others are not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The operations touched.
    #[serde(default)]
    pub op: RuleOp,
    /// First and last sector (512 bytes, both included) of the range; a request
    /// matches if it overlaps. Flushes have no sector: a rule with a range
    /// touches them only if its `op` is `flush`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sectors: Option<(u64, u64)>,
    /// The error to answer with, 0 for none.
    #[serde(default)]
    pub errno: i32,
    /// How long the answer is held back.
    #[serde(default)]
    pub delay_ms: u64,
    /// How many matching requests pass untouched first.
    #[serde(default)]
    pub skip: u64,
    /// How many requests are touched, `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Rule {
    /// A rule that only notes each request of this kind in the truth.
    pub fn on(op: RuleOp) -> Self {
        Rule {
            op,
            ..Rule::default()
        }
    }

    /// Answer with this error.
    pub fn errno(self, errno: i32) -> Self {
        Rule { errno, ..self }
    }

    /// Hold the answer back.
    pub fn delay_ms(self, delay_ms: u64) -> Self {
        Rule { delay_ms, ..self }
    }

    /// Only requests that overlap these sectors, both ends included.
    pub fn sectors(self, first: u64, last: u64) -> Self {
        Rule {
            sectors: Some((first, last)),
            ..self
        }
    }

    /// Let the first `skip` matching requests pass.
    pub fn skip(self, skip: u64) -> Self {
        Rule { skip, ..self }
    }

    /// Touch this many requests, then no more.
    pub fn count(self, count: u64) -> Self {
        Rule {
            count: Some(count),
            ..self
        }
    }

    fn matches(&self, op: Op, sector: u64, nr_sectors: u64) -> bool {
        let op_matches = match self.op {
            RuleOp::Any => true,
            RuleOp::Read => op == Op::Read,
            RuleOp::Write => op == Op::Write,
            RuleOp::Flush => op == Op::Flush,
        };
        let range_matches = match self.sectors {
            None => true,
            Some(_) if op == Op::Flush => self.op == RuleOp::Flush,
            Some((first, last)) => sector <= last && sector + nr_sectors > first,
        };
        op_matches && range_matches
    }
}

/// What a rule does to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Index of the rule in the list.
    pub rule: usize,
    /// The error to answer with, 0 for none.
    pub errno: i32,
    /// How long the answer is held back.
    pub delay_ms: u64,
}

/// The rules in force, with their counts.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<(Rule, u64)>,
}

impl RuleSet {
    /// Puts new rules in force; all counts start again.
    pub fn set(&mut self, rules: Vec<Rule>) {
        self.rules = rules.into_iter().map(|rule| (rule, 0)).collect();
    }

    /// Decides on one request, and counts it.
    pub fn decide(&mut self, op: Op, sector: u64, nr_sectors: u64) -> Option<Action> {
        for (index, (rule, matched)) in self.rules.iter_mut().enumerate() {
            if !rule.matches(op, sector, nr_sectors) {
                continue;
            }
            let nth = *matched;
            *matched += 1;
            let used_up = rule.count.is_some_and(|count| nth >= rule.skip + count);
            if nth < rule.skip || used_up {
                continue;
            }
            return Some(Action {
                rule: index,
                errno: rule.errno,
                delay_ms: rule.delay_ms,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rules: &[Rule]) -> RuleSet {
        let mut set = RuleSet::default();
        set.set(rules.to_vec());
        set
    }

    #[test]
    fn a_range_touches_each_request_that_overlaps_it() {
        let mut rules = set(&[Rule::on(RuleOp::Write).sectors(100, 107).errno(5)]);
        let mut hit = |sector, n| rules.decide(Op::Write, sector, n).is_some();
        assert!(!hit(92, 8));
        assert!(hit(93, 8));
        assert!(hit(100, 8));
        assert!(hit(107, 1));
        assert!(!hit(108, 8));
        assert!(hit(0, 4096));
    }

    #[test]
    fn a_range_of_any_leaves_flushes_alone() {
        let mut rules = set(&[Rule::on(RuleOp::Any).sectors(0, u64::MAX).errno(5)]);
        assert_eq!(rules.decide(Op::Flush, 0, 0), None);
        assert!(rules.decide(Op::Read, 0, 8).is_some());
    }

    #[test]
    fn skip_passes_and_count_ends() {
        let mut rules = set(&[Rule::on(RuleOp::Flush).delay_ms(9).skip(2).count(1)]);
        let hits: Vec<bool> = (0..5)
            .map(|_| rules.decide(Op::Flush, 0, 0).is_some())
            .collect();
        assert_eq!(hits, [false, false, true, false, false]);
    }

    #[test]
    fn a_used_up_rule_leaves_the_request_to_the_next_one() {
        let mut rules = set(&[
            Rule::on(RuleOp::Write).errno(5).count(1),
            Rule::on(RuleOp::Any).errno(28),
        ]);
        let errno = |rules: &mut RuleSet| rules.decide(Op::Write, 0, 8).unwrap().errno;
        assert_eq!((errno(&mut rules), errno(&mut rules)), (5, 28));
    }

    #[test]
    fn new_rules_start_their_counts_again() {
        let rule = Rule::on(RuleOp::Write).errno(5).count(1);
        let mut rules = set(std::slice::from_ref(&rule));
        assert!(rules.decide(Op::Write, 0, 8).is_some());
        assert!(rules.decide(Op::Write, 0, 8).is_none());
        rules.set(vec![rule]);
        assert!(rules.decide(Op::Write, 0, 8).is_some());
    }

    #[test]
    fn rules_read_as_json_with_defaults() {
        let rule: Rule =
            serde_json::from_str(r#"{"op":"write","sectors":[8,15],"errno":5}"#).unwrap();
        assert_eq!(rule, Rule::on(RuleOp::Write).sectors(8, 15).errno(5));
    }
}
