//! What comes of comparing one fault: for each question asked, right or wrong
//! and why; the account of each slow sync; the verdicts with their rules. Plain
//! data, kept beside the capture and added up by `table`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::draw::Fault;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// What the fault did was reported: the failed request, the slow syncs.
    Found,
    /// A failed writeback was reported before anybody was told of it.
    Early,
    /// Each request of file data and each sync has its file named.
    Named,
    /// The file named is the right one.
    File,
    /// Each request reported is one that the disk touched.
    Sector,
    /// errno of requests and of syncs.
    Errno,
    /// Each sync reported was called, by that thread, for that long, and each
    /// one that failed is reported.
    Caller,
    /// The cause of the incident.
    Cause,
    /// One incident, not several.
    Once,
    /// Of slow syncs: device and flush time is what the disk really did.
    Delay,
    /// Nothing was reported that did not happen.
    NoFalse,
}

impl Check {
    /// In the order of the table.
    pub const ALL: [Check; 11] = [
        Check::Found,
        Check::Early,
        Check::Named,
        Check::File,
        Check::Sector,
        Check::Errno,
        Check::Caller,
        Check::Cause,
        Check::Once,
        Check::Delay,
        Check::NoFalse,
    ];

    /// Head of its column.
    pub fn name(self) -> &'static str {
        match self {
            Check::Found => "found",
            Check::Early => "before told",
            Check::Named => "named",
            Check::File => "file",
            Check::Sector => "sector",
            Check::Errno => "errno",
            Check::Caller => "caller",
            Check::Cause => "cause",
            Check::Once => "once",
            Check::Delay => "delay",
            Check::NoFalse => "no false",
        }
    }
}

/// The answer. A question that is not asked of a fault has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What is wrong; none: it is right.
    pub wrong: Vec<String>,
    /// What this kernel cannot show, each with its reason.
    pub gaps: Vec<String>,
}

/// A sync that its caller saw take long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowAccount {
    /// By the caller's clock.
    pub duration_ns: u64,
    /// Of it, what the fault held.
    pub held_ns: u64,
    /// The agent reported it.
    pub is_reported: bool,
    /// Share of its time that is tied to a request, commit or lock; `None`: no
    /// whole breakdown.
    pub tied: Option<f64>,
    /// The same, with the time for which the thread waited for a CPU.
    pub explained: Option<f64>,
}

/// A verdict given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictRow {
    /// The rule that gave it.
    pub rule: String,
    /// As printed.
    pub confidence: f64,
    /// Whether it is right in verdict, cause, file, sector and errno.
    pub is_right: bool,
}

/// One fault, compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was drawn.
    pub fault: Fault,
    /// Answers.
    pub answers: BTreeMap<Check, Answer>,
    /// Slow syncs, by the caller's clock.
    pub slow: Vec<SlowAccount>,
    /// Verdicts.
    pub verdicts: Vec<VerdictRow>,
    /// What the agent says that it lost.
    pub lost: Option<String>,
}

impl Row {
    /// Nothing asked yet.
    pub fn new(fault: &Fault) -> Self {
        Row {
            fault: fault.clone(),
            answers: BTreeMap::new(),
            slow: Vec::new(),
            verdicts: Vec::new(),
            lost: None,
        }
    }

    /// Asks: from now on the answer is "right" unless something is added.
    pub fn ask(&mut self, check: Check) -> &mut Answer {
        self.answers.entry(check).or_default()
    }

    /// Something is wrong.
    pub fn wrong(&mut self, check: Check, text: impl Into<String>) {
        let wrong = &mut self.ask(check).wrong;
        let text = text.into();
        // A storm of the same tells nothing more.
        if wrong.len() < 8 && !wrong.contains(&text) {
            wrong.push(text);
        }
    }

    /// Something that this kernel cannot show.
    pub fn gap(&mut self, check: Check, reason: &str) {
        let gaps = &mut self.ask(check).gaps;
        if !gaps.iter().any(|known| known == reason) {
            gaps.push(reason.to_owned());
        }
    }

    /// Whether all answers are right.
    pub fn is_right(&self) -> bool {
        self.answers.values().all(|answer| answer.wrong.is_empty())
    }
}
