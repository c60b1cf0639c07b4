//! How the things of a demo are called. The tool may know none of these names:
//! a demo with all of them changed must end the same. Pure.

use std::path::PathBuf;

use anyhow::bail;
use fsyncscope_tests::lab::Lab;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The topic that is flushed.
    pub topic: String,
    /// The disks: two of the broker's, and one that is not.
    pub disks: [String; 3],
    /// The log directory on each disk.
    pub log_dir: String,
    /// Where the broker's configuration and its own log are.
    pub broker: String,
}

impl Names {
    /// The usual ones, or all made of this word.
    pub fn new(word: Option<&str>) -> anyhow::Result<Names> {
        let Some(word) = word else {
            return Ok(Names {
                topic: "orders".into(),
                disks: ["alpha", "beta", "other"].map(String::from),
                log_dir: "kafka".into(),
                broker: "broker".into(),
            });
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if word.is_empty() || !word.chars().all(is_plain) {
            bail!("rename to `{word}`: topics and directories take letters, digits and `-`");
        }
        Ok(Names {
            topic: word.into(),
            disks: [1, 2, 3].map(|nth| format!("{word}{nth}")),
            log_dir: format!("{word}-data"),
            broker: format!("{word}-node"),
        })
    }

    /// The directory of the broker's own things.
    pub fn broker_dir(&self, lab: &Lab) -> PathBuf {
        lab.dir().join(&self.broker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_things_share_no_name_with_the_usual_ones() {
        let all = |names: Names| {
            let mut all = names.disks.to_vec();
            all.extend([names.topic, names.log_dir, names.broker]);
            all
        };
        let usual = all(Names::new(None).unwrap());
        for name in all(Names::new(Some("payments")).unwrap()) {
            assert!(name.starts_with("payments") && !usual.contains(&name));
        }
    }

    #[test]
    fn a_word_that_is_no_name_of_a_topic_is_refused() {
        for word in ["", "a b", "../x", "a/b"] {
            assert!(Names::new(Some(word)).is_err(), "{word}");
        }
    }
}
