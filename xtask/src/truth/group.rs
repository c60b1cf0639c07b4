//! Misses by what was wrong: numbers, names and places taken from the text, what
//! is left tells one cause from another. In: text of each miss, with the number
//! of its fault. Out: groups, the most frequent first. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Misses of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What is wrong, with `N` for numbers.
    pub what: String,
    /// The faults that have it.
    pub faults: Vec<u64>,
}

/// Groups texts by fault.
pub fn group<'a>(texts: impl Iterator<Item = (u64, &'a str)>) -> Vec<Group> {
    let mut groups: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (fault, text) in texts {
        groups.entry(pattern(text)).or_default().insert(fault);
    }
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|(what, faults)| Group {
            what,
            faults: faults.into_iter().collect(),
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.faults.len()));
    groups
}

/// As a table.
pub fn render(groups: &[Group]) -> String {
    let mut text = String::from("| miss | faults | which |\n|---|---:|---|\n");
    for group in groups {
        let which: Vec<String> = group.faults.iter().map(u64::to_string).collect();
        text += &format!(
            "| {} | {} | {} |\n",
            group.what.replace('|', "\\|"),
            group.faults.len(),
            which.join(", ")
        );
    }
    text
}

/// A word that is a path, an incident's id or a number stands for all of its kind.
fn pattern(text: &str) -> String {
    let words: Vec<String> = text.split(' ').map(pattern_of_word).collect();
    words.join(" ")
}

fn pattern_of_word(word: &str) -> String {
    if word.contains('/') {
        return "PATH".into();
    }
    let is_id = word.len() > 12
        && word.as_bytes().get(1) == Some(&b'-')
        && word
            .chars()
            .skip(2)
            .all(|c| c.is_ascii_hexdigit() || c == ';');
    if is_id {
        return word.chars().take(1).chain("-ID".chars()).collect();
    }
    // Rules keep their numbers: `(E14)`.
    if word.starts_with('(') {
        return word.to_owned();
    }
    let mut pattern = String::new();
    for c in word.chars() {
        match c.is_ascii_digit() {
            true if pattern.ends_with('N') => {}
            true => pattern.push('N'),
            false => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_paths_and_ids_do_not_tell_misses_apart_and_rules_do() {
        let texts = [
            (3, "found: a fsync of 12 ms is not reported"),
            (1, "found: a fsync of 7 ms is not reported"),
            (
                2,
                "once: STALLED device-stall (S1) s-1a2b3c4d5e6f; STALLED no cause (S3) s-aaaaaaaaaaaa",
            ),
            (3, "file: write of sector 8: of /mnt/a, not of File(12)"),
        ];
        let groups = group(texts.into_iter());
        assert_eq!(groups[0].what, "found: a fsync of N ms is not reported");
        assert_eq!(groups[0].faults, [1, 3]);
        let what: Vec<&str> = groups.iter().map(|group| group.what.as_str()).collect();
        assert!(what.contains(&"once: STALLED device-stall (S1) s-ID STALLED no cause (S3) s-ID"));
        assert!(what.contains(&"file: write of sector N: of PATH not of File(N)"));
        assert!(render(&groups).contains("| 2 | 1, 3 |"));
    }
}
