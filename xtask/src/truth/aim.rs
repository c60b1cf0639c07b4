//! From a fault as drawn to rules of the disk at hand. In: the fault, where files
//! and journal lie. Out: rules; none if there is no such place.

use fsyncscope_tests::faultdisk::{Rule, RuleOp};

use super::draw::{Fault, Kind};
use super::known::{Files, Layout, Sectors};

/// See the module's comment. `last` is the last sector of the disk.
pub fn aim(fault: &Fault, files: &Files, layout: &Layout, last: u64) -> Vec<Rule> {
    let mut rules = aim_one(fault, files, layout, last);
    if fault.flush_ms > 0 && !rules.is_empty() {
        rules.push(Rule::on(RuleOp::Flush).delay_ms(fault.flush_ms).count(1));
    }
    rules
}

fn aim_one(fault: &Fault, files: &Files, layout: &Layout, last: u64) -> Vec<Rule> {
    let on = |op, range: Option<(u64, u64)>| {
        let mut rule = Rule::on(op).errno(fault.errno).delay_ms(fault.delay_ms);
        rule.sectors = range;
        rule.count = fault.count;
        rule
    };
    let within = |op, range: Option<(u64, u64)>| {
        let ranged = range.map(|range| on(op, Some(range)));
        ranged.into_iter().collect::<Vec<Rule>>()
    };
    match fault.kind {
        Kind::FlushError | Kind::FlushDelay => vec![on(RuleOp::Flush, None)],
        Kind::WriteError | Kind::WriteDelay if !fault.is_one_file && layout.data_first > 0 => {
            within(RuleOp::Write, Some((layout.data_first, last)))
        }
        Kind::WriteError | Kind::WriteDelay => {
            within(RuleOp::Write, extent(fault, files, &[".log", ".index"]))
        }
        Kind::BackgroundError => within(RuleOp::Write, extent(fault, files, &[".snapshot"])),
        Kind::ReadError => within(RuleOp::Read, extent(fault, files, &["0000.log"])),
        Kind::JournalError | Kind::JournalDelay => within(RuleOp::Write, longest(&layout.journal)),
        Kind::TableError => {
            let first = layout.tables.iter().map(|range| range.0).min();
            let last = layout.tables.iter().map(|range| range.1).max();
            within(RuleOp::Write, first.zip(last))
        }
        Kind::Gone | Kind::Healthy => Vec::new(),
    }
}

/// The first extent (what is written again and again) of one of the files that last and end so.
fn extent(fault: &Fault, files: &Files, ends: &[&str]) -> Option<(u64, u64)> {
    let is_wanted = |name: &str| {
        // The first segment of a partition is overwritten for ever; later ones
        // are deleted soon.
        name.contains("/00000000000000000000.") && ends.iter().any(|end| name.ends_with(end))
    };
    let placed = files.placed().filter(|(name, _)| is_wanted(name));
    let all: Vec<&[Sectors]> = placed.map(|(_, sectors)| sectors).collect();
    let nth = fault.choice.checked_rem(all.len() as u64)?;
    all.get(nth as usize)?.first().copied()
}

fn longest(ranges: &[(u64, u64)]) -> Option<(u64, u64)> {
    ranges.iter().copied().max_by_key(|(a, b)| b - a)
}

#[cfg(test)]
mod tests {
    use fsyncscope_tests::campaign::Record;
    use fsyncscope_tests::faultdisk::FsKind;

    use super::*;

    #[test]
    fn a_fault_is_aimed_at_the_place_it_is_about() {
        let mut files = Files::default();
        for (ino, end, at) in [(12, "log", 9000), (13, "snapshot", 9500)] {
            let path = format!("/d/orders-0/00000000000000000000.{end}");
            files.learn(&Record::Name {
                at_ns: 1,
                ino,
                path,
            });
            let sectors = vec![(at, at + 7), (at + 100, at + 199)];
            files.learn(&Record::Placed {
                at_ns: 1,
                ino,
                sectors,
            });
        }
        let layout = Layout {
            journal: vec![(1000, 1999)],
            tables: vec![(100, 199), (200, 299)],
            data_first: 8000,
        };
        for nth in 1..200 {
            let fault = Fault::draw(1, nth, &[FsKind::Ext4]);
            let rules = aim(&fault, &files, &layout, 20_000);
            let sectors = rules.first().and_then(|rule| rule.sectors);
            let expected = match fault.kind {
                Kind::Gone | Kind::Healthy | Kind::FlushError | Kind::FlushDelay => None,
                Kind::WriteError | Kind::WriteDelay if !fault.is_one_file => Some((8000, 20_000)),
                Kind::WriteError | Kind::WriteDelay | Kind::ReadError => Some((9000, 9007)),
                Kind::BackgroundError => Some((9500, 9507)),
                Kind::JournalError | Kind::JournalDelay => Some((1000, 1999)),
                Kind::TableError => Some((100, 299)),
            };
            assert_eq!(sectors, expected, "{fault:?}");
            assert_eq!(rules.is_empty(), fault.kind == Kind::Gone);
            assert!(rules.iter().take(1).all(|rule| rule.count == fault.count));
            assert_eq!(rules.len() > 1, fault.flush_ms > 0);
        }
    }
}
