//! Starts helper processes. In: the kind's arguments. Out: a tokio child with
//! pipes on stdin and stdout, which is killed when dropped; the kernel frees
//! one in D state when its I/O ends, nobody waits for it.

use std::{ffi::OsString, io, path::PathBuf, process::Stdio};

use tokio::process::{Child, Command};

use super::child::HELPER_COMMAND;

/// How to start a helper.
#[derive(Debug, Clone)]
pub struct HelperCommand {
    /// Program.
    pub program: PathBuf,
    /// Words before the kind.
    pub args: Vec<OsString>,
    /// Environment beside our own; for tests.
    pub envs: Vec<(OsString, OsString)>,
}

impl Default for HelperCommand {
    /// This binary. /proc/self/exe is right even after it was replaced on
    /// disk by an upgrade: in the child, between fork and exec, it is still
    /// the parent's.
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            args: vec![HELPER_COMMAND.into()],
            envs: Vec::new(),
        }
    }
}

impl HelperCommand {
    /// Starts a helper of a kind. Must be called within a tokio runtime with
    /// I/O enabled.
    ///
    /// # Errors
    /// If fork or exec fails.
    pub fn spawn(&self, kind: &[OsString]) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.args)
            .args(kind)
            .envs(self.envs.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    }

    /// A shell script in a helper's place.
    #[cfg(test)]
    pub(crate) fn script(script: &str) -> Self {
        Self {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into(), "sh".into()],
            envs: Vec::new(),
        }
    }

    /// This test binary in a helper's place, through the test below.
    #[cfg(test)]
    pub(crate) fn test_binary() -> Self {
        Self {
            program: "/bin/sh".into(),
            // libtest would take the kind for a filter: hand it over by env.
            args: vec![
                "-c".into(),
                r#"IFS='	'; FSYNCSCOPE_TEST_HELPER="$*" exec "$0" --exact --nocapture helper::spawn::tests::helper_entry"#.into(),
                std::env::current_exe().unwrap().into(),
            ],
            envs: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    /// Becomes a helper if started as one by [`super::HelperCommand::test_binary`].
    #[test]
    fn helper_entry() {
        let Ok(words) = std::env::var("FSYNCSCOPE_TEST_HELPER") else {
            assert_eq!(crate::helper::helper_main(&["nonsense".to_owned()]), 2);
            return;
        };
        let args: Vec<String> = words.split('\t').map(str::to_owned).collect();
        std::process::exit(crate::helper::helper_main(&args));
    }
}
