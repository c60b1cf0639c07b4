//! Was anybody else at work? Peers that watch the whole host pay for everybody's
//! requests, so a round in which other disks were busy says little of a sync of
//! ours. In: /proc/diskstats before and after. Out: others' share.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// More than this is told in the report.
pub const MAX_SHARE: f64 = 0.02;

/// Requests completed by the disk of the bench and by all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    ours: u64,
    others: u64,
}

impl Completed {
    /// Asks the kernel.
    pub fn read(proc_root: &Path, device: &str) -> anyhow::Result<Completed> {
        let path = proc_root.join("diskstats");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(parse(&text, device.trim_start_matches("/dev/")))
    }

    /// Requests of others for each of ours since then.
    pub fn others_share_since(self, before: Completed) -> f64 {
        let ours = self.ours - before.ours;
        let others = self.others.saturating_sub(before.others);
        others as f64 / ours.max(1) as f64
    }
}

fn parse(text: &str, disk: &str) -> Completed {
    let mut completed = Completed::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| -> u64 {
            words
                .get(index)
                .and_then(|word| word.parse().ok())
                .unwrap_or(0)
        };
        // Reads, writes, flushes.
        let requests = number(3) + number(7) + number(18);
        match words.get(2) {
            Some(name) if *name == disk => completed.ours += requests,
            _ => completed.others += requests,
        }
    }
    completed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_disk() {
        let text = "   7 0 loop0 1 0 0 0 20 0 0 0 0 0 0 0 0 0 0 300 0\n 254 0 vda 5 0 0 0 6 0 0 0 0 0 0 0 0 0 0 7 0\n";
        let before = Completed::default();
        let after = parse(text, "loop0");
        let expected = Completed {
            ours: 321,
            others: 18,
        };
        assert_eq!(after, expected);
        assert!((after.others_share_since(before) - 18.0 / 321.0).abs() < 1e-9);
    }
}
