//! What a run needs before anything is loaded: /proc, /sys, rights. In: their
//! roots. Out: the one line that says what is missing and what to do, or warnings
//! for what it can do without. Also: who else runs this tool.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};

/// A capability: bit in /proc/PID/status (include/uapi/linux/capability.h), name.
type Capability = (u32, &'static str);

const DAC_OVERRIDE: u32 = 1;
const SYS_ADMIN: u32 = 21;
/// CAP_SYS_ADMIN stands in for these two, as before 5.8.
const TO_LOAD: [Capability; 2] = [(39, "CAP_BPF"), (38, "CAP_PERFMON")];
const TO_SEE_BROKERS: Capability = (19, "CAP_SYS_PTRACE");
const TO_READ: Capability = (2, "CAP_DAC_READ_SEARCH");
/// What it takes, for people.
const ALL: &str = "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";

/// Commands that attach and stay.
const COMMANDS: [&str; 5] = ["watch", "export", "diagnose", "top", "verify"];

/// Effective capabilities of this process.
#[derive(Clone, Copy, Debug)]
pub struct Rights(u64);

impl Rights {
    /// Of the process `self` under this root.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn read(proc_root: &Path) -> anyhow::Result<Self> {
        let path = proc_root.join("self/status");
        let text = fs::read_to_string(&path).map_err(|error| {
            anyhow!(
                "read {}: {error}; is proc mounted? mount -t proc proc /proc",
                path.display()
            )
        })?;
        parse_rights(&text).with_context(|| format!("read {}: no line CapEff", path.display()))
    }

    /// Whether that capability is held.
    pub fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }

    /// Capabilities to load and attach programs that are not held.
    pub fn missing_to_load(self) -> Vec<&'static str> {
        TO_LOAD
            .iter()
            .filter(|(bit, _)| !self.has(*bit) && !self.has(SYS_ADMIN))
            .map(|(_, name)| *name)
            .collect()
    }

    /// What is lost without the other rights, one line each.
    pub fn warnings(self) -> Vec<String> {
        let mut lines = Vec::new();
        let (bit, name) = TO_SEE_BROKERS;
        if !self.has(bit) {
            lines.push(format!(
                "{name} is missing: log.dirs and logs of brokers of other users are not found; run as root, or name them by --log-dir and --follow-log"
            ));
        }
        let (bit, name) = TO_READ;
        if !self.has(bit) && !self.has(DAC_OVERRIDE) {
            lines.push(format!(
                "{name} is missing: tracefs, and configurations and logs of other users, may be unreadable; run as root"
            ));
        }
        lines
    }
}

fn parse_rights(status: &str) -> Option<Rights> {
    let hex = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok().map(Rights)
}

/// Whether a run can begin here at all.
///
/// # Errors
/// With what is missing and what to do.
pub fn check(sys_root: &Path, proc_root: &Path) -> anyhow::Result<Rights> {
    let rights = Rights::read(proc_root)?;
    // SAFETY: no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    let missing = rights.missing_to_load();
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        if is_root {
            bail!(
                "load kernel programs: not permitted: root lacks {missing} here, as in a container; run it on the host, or privileged, or with {ALL}"
            );
        }
        bail!("load kernel programs: not permitted without {missing}; try sudo, or give it {ALL}");
    }
    let cpus = sys_root.join("devices/system/cpu/possible");
    fs::metadata(&cpus).map_err(|error| {
        anyhow!(
            "read {}: {error}; is sysfs mounted? mount -t sysfs sysfs /sys",
            cpus.display()
        )
    })?;
    Ok(rights)
}

/// Why the kernel refused all programs of a process that has the rights.
pub fn explain_refusal(sys_root: &Path) -> String {
    let lockdown =
        fs::read_to_string(sys_root.join("kernel/security/lockdown")).unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return "load kernel programs: kernel lockdown is set to confidentiality, which forbids them; boot without lockdown=confidentiality".to_owned();
    }
    "load kernel programs: refused in spite of all capabilities: a user namespace or the seccomp profile of a container forbids bpf(2); run it on the host, or privileged".to_owned()
}

/// Other runs of this tool: pid and command. Their helpers are not named.
pub fn others(proc_root: &Path, own_pid: u32, own_comm: &str) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(proc_root) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own_pid)
        .filter_map(|pid| {
            let dir: PathBuf = proc_root.join(pid.to_string());
            // comm first: cmdline of a hung process can block.
            let comm = fs::read_to_string(dir.join("comm")).ok()?;
            if comm.trim_end() != own_comm {
                return None;
            }
            let cmdline = fs::read(dir.join("cmdline")).ok()?;
            let words = cmdline.split(|byte| *byte == 0).skip(1);
            let command = words
                .filter_map(|word| std::str::from_utf8(word).ok())
                .find(|word| COMMANDS.contains(word))?;
            Some((pid, command.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    fn rights(bits: &[u32]) -> Rights {
        let mask: u64 = bits.iter().map(|bit| 1 << bit).sum();
        parse_rights(&format!("Name:\tx\nCapEff:\t{mask:016x}\n")).unwrap()
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon() {
        assert!(rights(&[38, 39]).missing_to_load().is_empty());
        assert!(rights(&[SYS_ADMIN]).missing_to_load().is_empty());
        assert_eq!(rights(&[39]).missing_to_load(), ["CAP_PERFMON"]);
        assert_eq!(rights(&[]).missing_to_load(), ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn what_is_lost_without_the_other_rights_is_said() {
        assert!(rights(&[38, 39, 19, 2]).warnings().is_empty());
        let lines = rights(&[38, 39, DAC_OVERRIDE]).warnings();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("CAP_SYS_PTRACE is missing: "));
    }

    #[test]
    fn a_root_without_proc_or_sysfs_is_named() {
        let dir = TestDir::new("preflight");
        let error = check(dir.path(), dir.path()).unwrap_err();
        assert!(
            format!("{error:#}").contains("is proc mounted?"),
            "{error:#}"
        );
        dir.write("self/status", "CapEff:\tffffffffffffffff\n");
        let error = check(dir.path(), dir.path()).unwrap_err();
        assert!(
            format!("{error:#}").contains("is sysfs mounted?"),
            "{error:#}"
        );
        dir.write("devices/system/cpu/possible", "0-1\n");
        assert!(check(dir.path(), dir.path()).is_ok());
        dir.write("self/status", "CapEff:\t0000000000000000\n");
        let error = check(dir.path(), dir.path()).unwrap_err();
        assert!(
            format!("{error:#}").contains("CAP_BPF and CAP_PERFMON"),
            "{error:#}"
        );
    }

    #[test]
    fn other_runs_are_found_without_their_helpers() {
        let dir = TestDir::new("others");
        for (pid, comm, cmdline) in [
            (5, "fsyncscope", "fsyncscope\0watch\0"),
            (6, "fsyncscope", "/proc/self/exe\0__helper\0discover\0"),
            (7, "fsyncscope", "fsyncscope\0--log-level\0info\0export\0"),
            (8, "java", "java\0watch\0"),
        ] {
            dir.write(&format!("{pid}/comm"), &format!("{comm}\n"));
            dir.write(&format!("{pid}/cmdline"), cmdline);
        }
        let found = others(dir.path(), 5, "fsyncscope");
        assert_eq!(found, [(7, "export".to_owned())]);
    }
}
