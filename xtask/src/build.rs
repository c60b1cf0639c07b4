//! Builds the agent with its kernel programs inside. In: the profile. Out: the
//! path of the binary, as cargo reports it (so CARGO_TARGET_DIR is honoured).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cli::BuildArgs;
use crate::process::{EXIT_NOT_SO, cargo, display, path_with, say};
use crate::setup;

/// `cargo xtask build`.
pub fn main(args: &BuildArgs) -> anyhow::Result<u8> {
    let Some(binary) = agent(args.release)? else {
        return Ok(EXIT_NOT_SO);
    };
    println!("{}", binary.display());
    Ok(0)
}

/// The agent, or an error.
pub fn require_agent(release: bool) -> anyhow::Result<PathBuf> {
    agent(release)?.context("the agent does not build")
}

/// The agent; `None` if cargo said why it does not build.
fn agent(release: bool) -> anyhow::Result<Option<PathBuf>> {
    setup::host_targets()?;
    let tools = setup::kernel_side()?;
    say(format!(
        "building the agent for {} ({})",
        setup::HOST_TARGET_MUSL,
        if release { "release" } else { "dev" }
    ));
    let mut command = cargo();
    command
        .args(["build", "--package", "fsyncscope", "--bin", "fsyncscope"])
        .args(["--target", setup::HOST_TARGET_MUSL])
        .args(["--message-format", "json-render-diagnostics"])
        .args(release.then_some("--release"))
        .env("PATH", path_with(&tools)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("run {}", display(&command)))?;
    let stdout = child.stdout.take().context("no pipe from cargo")?;
    let mut binary = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read cargo's messages")?;
        binary = parse_executable(&line).or(binary);
    }
    if !child.wait().context("wait for cargo")?.success() {
        return Ok(None);
    }
    if binary.is_none() {
        bail!("cargo built the agent and named no binary");
    }
    Ok(binary)
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The path, if this message of cargo's says that the agent is built.
fn parse_executable(line: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(line).ok()?;
    let is_agent = message.reason == "compiler-artifact" && message.target?.name == "fsyncscope";
    is_agent.then_some(message.executable).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_found_among_cargos_messages() {
        let built = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"fsyncscope"},"executable":"/t/fsyncscope","fresh":true}"#;
        assert_eq!(parse_executable(built), Some("/t/fsyncscope".into()));
        let library = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"fsyncscope"},"executable":null}"#;
        assert_eq!(parse_executable(library), None);
        assert_eq!(
            parse_executable(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(parse_executable("not json"), None);
    }
}
