//! Writes the man pages and the shell completions, from the definition of the
//! command line. In: a folder that is there. Out: `man/*.1` and `completions/*` in
//! it. An example, so that what only the release needs is not in the agent;
//! `cargo xtask dist` runs it.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory as _;
use clap_complete::Shell;
use fsyncscope::cli::Cli;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).context("usage: pages FOLDER")?;
    let folder = Path::new(&folder);
    write_man(&folder.join("man"))?;
    write_completions(&folder.join("completions"))
}

/// One page for the program and one for each command.
fn write_man(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder).with_context(|| format!("create {}", folder.display()))?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder)
        .with_context(|| format!("write the man pages into {}", folder.display()))
}

/// By the names under which each shell looks for them.
fn write_completions(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder).with_context(|| format!("create {}", folder.display()))?;
    for (shell, name) in [
        (Shell::Bash, "fsyncscope"),
        (Shell::Zsh, "_fsyncscope"),
        (Shell::Fish, "fsyncscope.fish"),
    ] {
        let path = folder.join(name);
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        clap_complete::generate(shell, &mut Cli::command(), "fsyncscope", &mut file);
    }
    Ok(())
}
