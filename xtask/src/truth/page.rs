//! docs/TRUTH.md: one section a campaign, written only by a whole one. In: the
//! page as it is, the new section. Out: the page, in which the section takes the
//! place of the last one of the same seed and file systems. Pure.

const HEAD: &str = "\
# Truth

Written by `cargo xtask truth`, never by hand. A workload of many threads and
files (fsync, fdatasync, msync, O_DSYNC, io_uring, direct I/O, renames, deletes,
writeback in the background) runs on a disk that fails on demand. Faults are drawn
from a seed, each with a run of the agent of its own (`--slow 5ms --stall 200ms`);
what it says is held against what the disk and the callers wrote down. The
denominator is the faults that the disk applied. A number alone means: asked so
often, right each time; `a/b`: right in a of b. Of a slow sync (6 ms and more by its
caller), *tied* is the share of its time that belongs to a request, commit or lock;
*explained* counts the time for which its thread waited for a CPU as well. What is
compared and how is in `xtask/src/truth/compare.rs`, `failed.rs` and `held.rs`.
";

/// What a campaign was.
#[derive(Clone, Debug)]
pub struct Section {
    /// Head of its section; the same head is the same section.
    pub title: String,
    /// What was typed.
    pub command: String,
    /// Kernel, how long it took, and the like: one line.
    pub about: String,
    /// The tables.
    pub tables: String,
    /// What was wrong, if anything was.
    pub misses: Option<String>,
}

/// Puts a section into the page.
pub fn update(page: &str, section: &Section) -> String {
    let mut sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    sections.retain(|text| text.lines().next() != Some(section.title.as_str()));
    let new = render(section);
    let mut all: Vec<String> = sections.iter().map(|text| text.trim().to_owned()).collect();
    all.push(new.trim().to_owned());
    all.sort();
    let mut text = HEAD.to_owned();
    for section in all {
        text += &format!("\n## {section}\n");
    }
    text
}

fn render(section: &Section) -> String {
    let mut text = format!(
        "{}\n\n```\n{}\n```\n\n{}\n\n{}",
        section.title, section.command, section.about, section.tables
    );
    text += &match &section.misses {
        None => "\nNo misses.\n".to_owned(),
        Some(table) => format!("\n{table}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, tables: &str) -> Section {
        Section {
            title: title.into(),
            command: "cargo xtask truth".into(),
            about: "Linux".into(),
            tables: tables.into(),
            misses: None,
        }
    }

    #[test]
    fn a_campaign_takes_the_place_of_its_last_run_and_leaves_the_others() {
        let page = update("", &section("Seed 1", "old"));
        let page = update(&page, &section("Seed 2", "two"));
        let page = update(&page, &section("Seed 1", "new"));
        assert!(page.starts_with("# Truth\n"));
        assert!(page.contains("two") && page.contains("new"));
        assert!(!page.contains("old"), "{page}");
        assert_eq!(page.matches("\n## ").count(), 2);
        assert_eq!(update(&page, &section("Seed 1", "new")), page);
    }
}
