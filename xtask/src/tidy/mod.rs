//! Checks the rules of the house. In: the files that git knows. Out: a line
//! `file:line: what` for each breach. The checks on text are pure and in
//! `rules`; rustfmt and clippy follow them. Changes nothing.

mod readme;
mod rules;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::cli::TidyArgs;
use crate::process::{EXIT_NOT_SO, cargo, output, repository, run, say};

/// A breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// `cargo xtask tidy`.
pub fn main(args: &TidyArgs) -> anyhow::Result<u8> {
    say("checks on text");
    let breaches = check_repository(&repository())?;
    for breach in &breaches {
        println!("{breach}");
    }
    let mut is_tidy = breaches.is_empty();
    if !args.text_only {
        say("rustfmt");
        is_tidy &= passes(cargo().args(["fmt", "--all", "--", "--check"]))?;
        say("clippy");
        is_tidy &= passes(
            cargo()
                .args(["clippy", "--workspace", "--exclude", "fsyncscope-ebpf"])
                .args([
                    "--no-default-features",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ]),
        )?;
    }
    println!("{}", if is_tidy { "tidy" } else { "not tidy" });
    Ok(if is_tidy { 0 } else { EXIT_NOT_SO })
}

/// Cargo's own text says what is wrong; only a cargo that cannot be started is
/// an error here.
fn passes(command: &mut Command) -> anyhow::Result<bool> {
    match run(command) {
        Ok(()) => Ok(true),
        Err(err) if err.is::<std::io::Error>() => Err(err),
        Err(err) => {
            say(format!("{err:#}"));
            Ok(false)
        }
    }
}

/// All checks on text, on all files that are or would be committed.
fn check_repository(root: &Path) -> anyhow::Result<Vec<String>> {
    let list = output(
        Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root),
    )
    .context("list the files of the repository")?;
    let mut breaches = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // Deleted and not yet committed, or not text: nothing to check.
        let Ok(bytes) = fs::read(root.join(name)) else {
            continue;
        };
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let mut found = rules::check(name, &text);
        if name == "README.md" {
            let agent_cli = fs::read_to_string(root.join("agent/src/cli.rs")).unwrap_or_default();
            found.extend(readme::check(&text, &agent_cli));
            let page = fs::read_to_string(root.join("docs/KERNELS.md")).unwrap_or_default();
            found.extend(readme::check_summary(&text, &page));
        }
        breaches.extend(
            found
                .into_iter()
                .map(|breach| format!("{name}:{}: {}", breach.line, breach.what)),
        );
    }
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let breaches = check_repository(&repository()).unwrap();
        assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
    }
}
