//! Running other programs, the repository's root and the lines of progress.
//! In: a `Command`. Out: its output, or an error that names the program, how it
//! ended and the last of what it said.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The thing asked about is not so.
pub const EXIT_NOT_SO: u8 = 1;
/// It could not be asked.
pub const EXIT_COULD_NOT_RUN: u8 = 2;

/// A line of progress.
pub fn say(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// The checkout: the folder above this crate, or, if the checkout was moved
/// since it was compiled, the workspace that cargo runs us in.
pub fn repository() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let xtask = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    xtask.parent().unwrap_or(&xtask).to_path_buf()
}

/// Cargo, of the toolchain that this repository pins.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    clean_cargo_env(&mut command);
    command
}

/// Another program of that toolchain, like rustc.
pub fn cargo_tool(name: &str) -> Command {
    let beside_cargo = env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name(name));
    let mut command = Command::new(beside_cargo.unwrap_or_else(|| name.into()));
    command.current_dir(repository());
    command
}

/// Takes away what `cargo run` has set for us, so that the child sees the
/// environment of the user: leaked package variables make cargo rebuild, and
/// build scripts take them for their own.
pub fn clean_cargo_env(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let leaked = text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_BIN_EXE_")
            || matches!(
                &*text,
                "CARGO_MANIFEST_DIR"
                    | "CARGO_MANIFEST_PATH"
                    | "CARGO_CRATE_NAME"
                    | "CARGO_PRIMARY_PACKAGE"
            );
        if leaked {
            command.env_remove(&name);
        }
    }
}

/// Runs a program to its end, with its output on our stderr.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command
        .status()
        .with_context(|| format!("run {}", display(command)))?;
    if !status.success() {
        bail!("{}: {status}", display(command));
    }
    Ok(())
}

/// SHA-256 of a file, in hex.
pub fn sha256_of(file: &Path) -> anyhow::Result<String> {
    let sums = output(Command::new("sha256sum").arg("--").arg(file))?;
    let sum = sums.split(' ').next().unwrap_or_default();
    Ok(sum.to_owned())
}

/// Runs a program to its end and gives what it printed.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", display(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("it said nothing");
        bail!("{}: {}: {last}", display(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it, without the environment.
pub fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where a program is, by PATH and the system folders that a PATH of an
/// ordinary user leaves out.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    find_program_in(&path, name)
}

fn find_program_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// PATH with a folder put in front.
pub fn path_with(folder: &Path) -> anyhow::Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(folders).with_context(|| format!("put {} on PATH", folder.display()))
}

/// True if we may do what only root may.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_last_words() {
        let err = output(Command::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]))
            .unwrap_err();
        let text = format!("{err:#}");
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(text.ends_with(": two"), "{text}");
    }

    #[test]
    fn programs_are_found_in_order_of_path_and_only_if_executable() {
        let found = find_program_in(OsStr::new("/nowhere:/bin"), "sh");
        assert_eq!(found, Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_program_in(OsStr::new("/etc"), "passwd"), None);
    }

    #[test]
    fn the_repository_is_the_workspace() {
        assert!(repository().join("rust-toolchain.toml").is_file());
    }
}
