//! The commands that the README shows must exist. In: the README, the agent's
//! cli.rs. Out: breaches. xtask's own commands are parsed as if typed; of the
//! agent's only the subcommand's name is compared.

use clap::Parser;
use clap::error::ErrorKind;

use super::Breach;
use crate::cli::Cli;

/// All breaches in the README.
pub fn check(readme: &str, agent_cli: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut in_code = false;
    for (index, line) in readme.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if !in_code {
            continue;
        }
        let words = command_words(line);
        let what = xtask_breach(&words).or_else(|| agent_breach(&words, agent_cli));
        breaches.extend(what.map(|what| Breach {
            line: index + 1,
            what,
        }));
    }
    breaches
}

/// The README shows the summary of docs/KERNELS.md as the matrix wrote it.
pub fn check_summary(readme: &str, page: &str) -> Option<Breach> {
    let is_summary = |line: &&str| line.starts_with("Of ") && line.contains(" cells ");
    let summary = page.lines().find(is_summary)?;
    let is_shown = readme.lines().any(|line| line == summary);
    (!is_shown).then(|| Breach {
        line: 1,
        what: format!("not the summary of docs/KERNELS.md: {summary}"),
    })
}

/// The words of a command line in a code block, without prompt, sudo and
/// comment, up to a pipe or redirection.
fn command_words(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .skip_while(|word| matches!(*word, "$" | "#" | "sudo"))
        .take_while(|word| !word.starts_with('#') && !matches!(*word, "|" | ">" | "&&" | ";" | "&"))
        .collect()
}

fn xtask_breach(words: &[&str]) -> Option<String> {
    let ["cargo", "xtask", arguments @ ..] = words else {
        return None;
    };
    let err = Cli::try_parse_from(std::iter::once(&"xtask").chain(arguments)).err()?;
    let is_help = matches!(
        err.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    (!is_help).then(|| format!("no such command: cargo xtask {}", arguments.join(" ")))
}

fn agent_breach(words: &[&str], agent_cli: &str) -> Option<String> {
    let program = words.first()?;
    let is_agent = *program == "fsyncscope" || program.ends_with("/fsyncscope");
    let subcommand = words
        .get(1)
        .filter(|word| is_agent && !word.starts_with('-'))?;
    let mut variant = subcommand.to_string();
    variant[..1].make_ascii_uppercase();
    let exists = agent_cli.lines().any(|line| {
        let line = line.trim_start();
        line.strip_prefix(&variant)
            .is_some_and(|rest| rest.starts_with([',', '(', ' ', '{']))
    });
    (!exists).then(|| format!("no such command: fsyncscope {subcommand}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT_CLI: &str = "enum Command {\n    Watch(WatchArgs),\n    Check,\n}\n";

    fn lines(code: &str) -> Vec<usize> {
        let breaches = check(&format!("text\n```sh\n{code}\n```\n"), AGENT_CLI);
        breaches.into_iter().map(|breach| breach.line).collect()
    }

    #[test]
    fn commands_that_exist_pass() {
        let code = "$ sudo fsyncscope watch --json | jq .\ncargo xtask test --ring unit # quick\nfsyncscope --help\nls";
        assert!(lines(code).is_empty());
    }

    #[test]
    fn commands_that_do_not_exist_are_found() {
        let code =
            "cargo xtask fly\ncargo xtask test --ring moon\nfsyncscope dance\nfsyncscope check";
        assert_eq!(lines(code), [3, 4, 5]);
    }

    #[test]
    fn prose_is_not_checked() {
        assert_eq!(check("cargo xtask fly\n", AGENT_CLI), []);
    }

    #[test]
    fn the_summary_of_the_matrix_is_that_of_its_page() {
        let page = "# Kernels\n\nOf 9 cells 8 passed, 1 failed.\n";
        let breach = check_summary("Of 9 cells 9 passed, 0 failed.\n", page).unwrap();
        assert!(breach.what.contains("8 passed"), "{}", breach.what);
        assert!(check_summary("x\nOf 9 cells 8 passed, 1 failed.\ny\n", page).is_none());
        assert!(check_summary("", "").is_none());
    }
}
