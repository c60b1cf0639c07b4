//! The rules on text, each a pure function of a file's name and text.
//! In: name relative to the repository, text. Out: breaches. Not here: what
//! clippy checks better (unwrap, SAFETY comments).

use super::Breach;

/// None over this, most under half of it.
const MAX_LINES: usize = 500;

/// This file has to spell what the others must not.
const SELF: &str = "xtask/src/tidy/rules.rs";

/// Registries, mirrors and archives are the machine's business: cargo, maven
/// and apt are told by their own configuration where to fetch from.
const REGISTRY_HOSTS: &[&str] = &[
    "index.crates.io",
    "static.crates.io",
    "static.rust-lang.org",
    "repo.maven.apache.org",
    "repo1.maven.org",
    "deb.debian.org",
    "security.debian.org",
    "snapshot.debian.org",
    "archive.ubuntu.com",
    "registry.npmjs.org",
    "pypi.org",
    "proxy.golang.org",
    "docker.io/",
    "ghcr.io/",
    "artifactory",
];

/// Paths of one developer's machine.
const MACHINE_PATHS: &[&str] = &["/work/", "/root/"];

/// Words that the kernel side does not know. `partition` and `segment` are
/// words of block devices too.
const KAFKA_WORDS: &[&str] = &[
    "kafka",
    "topic",
    "log.dir",
    "log_dir",
    "logdir",
    "replica",
    "recovery point",
];

/// All breaches in one file.
pub fn check(name: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if name == "Cargo.lock" {
        lock_sources(text, &mut breaches);
        return breaches;
    }
    if name == SELF {
        return breaches;
    }
    let is_rust = name.ends_with(".rs");
    let is_fixture = name.contains("/fixtures/");
    let is_checked_length = is_rust
        || [".md", ".toml", ".sh", ".yaml", ".yml"]
            .iter()
            .any(|end| name.ends_with(end));
    let nr_lines = text.lines().count();
    if is_checked_length && !is_fixture && nr_lines > MAX_LINES {
        breaches.push(Breach {
            line: nr_lines,
            what: format!("{nr_lines} lines, more than {MAX_LINES}: split it"),
        });
    }
    if is_rust && !text.starts_with("//! ") {
        breaches.push(Breach {
            line: 1,
            what: "does not open with `//!`: what is here, what comes in, what goes out".into(),
        });
    }
    for (index, line) in text.lines().enumerate() {
        let found = Line {
            name,
            text: line,
            is_rust,
        };
        breaches.extend(found.check().map(|what| Breach {
            line: index + 1,
            what,
        }));
    }
    breaches
}

struct Line<'a> {
    name: &'a str,
    text: &'a str,
    is_rust: bool,
}

impl Line<'_> {
    fn check(&self) -> impl Iterator<Item = String> {
        [
            self.registry_host(),
            self.machine_path(),
            self.unfinished(),
            self.ignored_test(),
            self.kafka_word(),
        ]
        .into_iter()
        .flatten()
    }

    fn registry_host(&self) -> Option<String> {
        let host = REGISTRY_HOSTS
            .iter()
            .find(|host| self.text.contains(**host))?;
        Some(format!("names the registry or mirror `{host}`"))
    }

    fn machine_path(&self) -> Option<String> {
        let path = MACHINE_PATHS
            .iter()
            .find(|path| has_absolute(self.text, path))?;
        Some(format!("a path of one machine: `{path}…`"))
    }

    fn unfinished(&self) -> Option<String> {
        let word = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"]
            .iter()
            .find(|word| self.is_rust && self.text.contains(**word))?;
        Some(format!("unfinished: `{word}`"))
    }

    fn ignored_test(&self) -> Option<String> {
        (self.is_rust && self.text.trim_start().starts_with("#[ignore"))
            .then(|| "an ignored test: state what is expected instead".into())
    }

    fn kafka_word(&self) -> Option<String> {
        if !self.name.starts_with("ebpf/") {
            return None;
        }
        // The rule itself may be stated.
        if self.text.contains("Kafka word") {
            return None;
        }
        let lower = self.text.to_lowercase();
        let word = KAFKA_WORDS.iter().find(|word| lower.contains(**word))?;
        Some(format!("a Kafka word on the kernel side: `{word}`"))
    }
}

/// True if the path occurs as an absolute one: `/proc/1/root/` is none.
fn has_absolute(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}])>*".contains(c))
    })
}

/// A lock file made against a mirror fails everywhere else.
fn lock_sources(text: &str, breaches: &mut Vec<Breach>) {
    for (index, line) in text.lines().enumerate() {
        let Some(source) = line.strip_prefix("source = ") else {
            continue;
        };
        if source != "\"registry+https://github.com/rust-lang/crates.io-index\"" {
            breaches.push(Breach {
                line: index + 1,
                what: format!("a source beside crates.io: {source}"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(name: &str, text: &str) -> Vec<String> {
        let found = check(name, text);
        found.into_iter().map(|breach| breach.what).collect()
    }

    #[test]
    fn a_good_file_has_no_breach() {
        let text = "//! What is here.\nfn f() -> u8 { 1 }\n#[cfg(test)]\nmod tests { fn t() { f().unwrap() } }\n";
        assert_eq!(check("agent/src/a.rs", text), []);
    }

    #[test]
    fn long_files_and_missing_headers_are_found() {
        let long = format!("//! Long.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(check("a.rs", &long).len(), 1);
        assert_eq!(check("tests/fixtures/a.md", &long), []);
        assert_eq!(check("a.rs", "fn main() {}\n")[0].line, 1);
    }

    #[test]
    fn hosts_and_machine_paths_are_found_in_any_text() {
        assert_eq!(whats("README.md", "see https://repo1.maven.org/x").len(), 1);
        assert_eq!(whats("a.sh", "cd /work/main").len(), 1);
        assert_eq!(whats("a.sh", "ls \"/root/.cache\"").len(), 1);
        assert!(whats("a.md", "/proc/1/root/var and ../work/x, {proc}/root/").is_empty());
    }

    #[test]
    fn unfinished_and_ignored_are_found() {
        assert_eq!(check("a.rs", "//! A.\n    todo!()\n").len(), 1);
        assert_eq!(check("a.rs", "//! A.\n// FIXME later\n").len(), 1);
        assert_eq!(check("a.rs", "//! A.\n    #[ignore = \"slow\"]\n").len(), 1);
    }

    #[test]
    fn the_kernel_side_knows_no_kafka() {
        let text = "//! Topic of this file.\n";
        assert_eq!(check("ebpf/src/a.rs", text).len(), 1);
        assert_eq!(check("agent/src/a.rs", text), []);
    }

    #[test]
    fn a_mirror_in_the_lock_file_is_found() {
        let good = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert_eq!(check("Cargo.lock", good), []);
        let bad = "source = \"sparse+https://mirror.example/index/\"\n";
        assert_eq!(check("Cargo.lock", bad).len(), 1);
    }
}
