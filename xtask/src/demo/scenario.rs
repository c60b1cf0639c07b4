//! The scenarios: what is done to the disk, and what the tool must say of it.
//! Pure data; who does it is `stage`, who checks it is `compare`.

use fsyncscope_tests::faultdisk::{Rule, RuleOp};

use crate::cli::ScenarioName;

/// What the tool must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// CONFIRMED, device-error: failed syncs of files of these kinds.
    Failed {
        /// Name of the call.
        op: &'static str,
        /// As the incident has them.
        file_kinds: &'static [&'static str],
        /// Whether the broker prints a line that must be among the evidence.
        has_log_line: bool,
        /// A word that the reasons must hold.
        said: Option<&'static str>,
    },
    /// STALLED on the device's flush, held this long; the broker prints nothing.
    FlushHeld {
        /// By the rule.
        delay_ms: u64,
        /// It must be reported while it lasts.
        while_in_flight: bool,
    },
    /// CONFIRMED, device-error: lost data is told at once, and the fsync that is
    /// told later, with the broker's line, is of the same incident.
    ToldLate,
    /// CONFIRMED, journal: the request, the failed syncs, the read-only file
    /// system and the broker's lines.
    Journal,
    /// STALLED, neighbour: with the process that took the disk.
    Neighbour,
    /// Nothing that concerns the broker.
    Nothing,
    /// UNKNOWN, and nothing more certain.
    Unknown,
}

/// See the module.
pub fn expect(name: ScenarioName) -> Expect {
    match name {
        ScenarioName::Eio => Expect::Failed {
            op: "fsync",
            file_kinds: &["log"],
            has_log_line: true,
            said: None,
        },
        ScenarioName::Index => Expect::Failed {
            op: "msync",
            file_kinds: &["index", "timeindex"],
            has_log_line: false,
            said: Some("online"),
        },
        ScenarioName::Stall => Expect::FlushHeld {
            delay_ms: 1500,
            while_in_flight: false,
        },
        ScenarioName::Hang => Expect::FlushHeld {
            delay_ms: 20_000,
            while_in_flight: true,
        },
        ScenarioName::Late => Expect::ToldLate,
        ScenarioName::Journal => Expect::Journal,
        ScenarioName::Neighbour => Expect::Neighbour,
        ScenarioName::Bystander
        | ScenarioName::Noise
        | ScenarioName::Big
        | ScenarioName::Healthy => Expect::Nothing,
        ScenarioName::Blind => Expect::Unknown,
    }
}

/// What is done to the disk that is made to fail. In: the sectors that hold its
/// data, and those of the files that the scenario is about.
pub fn rules(name: ScenarioName, data: (u64, u64), aimed: &[(u64, u64)]) -> Vec<Rule> {
    let write_error = |(first, last)| {
        Rule::on(RuleOp::Write)
            .sectors(first, last)
            .errno(libc::EIO)
    };
    match name {
        ScenarioName::Eio | ScenarioName::Blind | ScenarioName::Bystander => {
            vec![write_error(data)]
        }
        ScenarioName::Index | ScenarioName::Late | ScenarioName::Journal => {
            aimed.iter().copied().map(write_error).collect()
        }
        // Changes nothing: each write is noted.
        ScenarioName::Neighbour => vec![Rule::on(RuleOp::Write)],
        ScenarioName::Stall => vec![Rule::on(RuleOp::Flush).delay_ms(1500)],
        ScenarioName::Hang => vec![Rule::on(RuleOp::Flush).delay_ms(20_000).count(1)],
        ScenarioName::Noise | ScenarioName::Big | ScenarioName::Healthy => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_expected_is_the_delay_made() {
        for name in [ScenarioName::Stall, ScenarioName::Hang] {
            let Expect::FlushHeld {
                delay_ms: expected, ..
            } = expect(name)
            else {
                panic!("{name:?} holds no flush");
            };
            assert_eq!(rules(name, (0, 0), &[])[0].delay_ms, expected);
        }
    }

    #[test]
    fn what_is_expected_to_fail_is_made_to_fail() {
        let rules_of = |name| rules(name, (100, 200), &[(8, 15), (32, 39)]);
        assert_eq!(rules_of(ScenarioName::Eio)[0].errno, libc::EIO);
        assert_eq!(rules_of(ScenarioName::Index).len(), 2);
        assert_eq!(rules_of(ScenarioName::Late)[1].sectors, Some((32, 39)));
        assert_eq!(rules_of(ScenarioName::Journal)[0].errno, libc::EIO);
        // Only noted.
        assert_eq!(
            rules_of(ScenarioName::Neighbour)[0],
            Rule::on(RuleOp::Write)
        );
        assert!(rules_of(ScenarioName::Noise).is_empty());
    }
}
