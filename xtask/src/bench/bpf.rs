//! The kernel's own account of BPF programs: who is loaded, how often it ran
//! and for how long. In: `bpftool prog show`. Out: one `Program` each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::process::output;

const BPF_ENABLE_STATS: libc::c_long = 32;
const BPF_STATS_RUN_TIME: u32 = 0;

/// Makes the kernel account run time as long as the file is open. Like
/// `sysctl kernel.bpf_stats_enabled=1`, but it ends with us, however we end.
pub fn enable_stats() -> anyhow::Result<File> {
    let kind = BPF_STATS_RUN_TIME;
    // SAFETY: the attribute of this command is one u32, which lives through the
    // call and whose size is given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_ENABLE_STATS,
            &raw const kind,
            size_of::<u32>(),
        )
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("enable the kernel's BPF statistics");
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

/// One loaded program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Program {
    /// Never given again while the machine is up.
    pub id: u32,
    /// What it is attached as.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// At most 15 characters.
    #[serde(default)]
    pub name: String,
    /// How long it ran, in all.
    #[serde(default)]
    pub run_time_ns: u64,
    /// How often it ran.
    #[serde(default)]
    pub run_cnt: u64,
}

/// All loaded programs by id.
pub type Programs = BTreeMap<u32, Program>;

/// Asks the kernel.
pub fn read_programs() -> anyhow::Result<Programs> {
    parse_programs(&output(
        Command::new("bpftool").args(["prog", "show", "-j"]),
    )?)
}

fn parse_programs(json: &str) -> anyhow::Result<Programs> {
    if json.trim().is_empty() {
        return Ok(Programs::new());
    }
    let Ok(list) = serde_json::from_str::<Vec<Program>>(json) else {
        bail!("bpftool prog show printed no list of programs");
    };
    Ok(list
        .into_iter()
        .map(|program| (program.id, program))
        .collect())
}

/// The programs that a process holds open, directly or by a link. Who else
/// loads programs meanwhile does not matter then.
pub fn read_held_by(proc_root: &Path, pid: u32) -> anyhow::Result<BTreeSet<u32>> {
    let folder = proc_root.join(pid.to_string()).join("fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    // A descriptor may be closed between the list and the look.
    let texts = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(texts.filter_map(|text| parse_prog_id(&text)).collect())
}

fn parse_prog_id(fdinfo: &str) -> Option<u32> {
    let line = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:"))?;
    line.trim().parse().ok()
}

/// What ran between two looks, of these programs.
pub fn ran(held: &BTreeSet<u32>, start: &Programs, end: &Programs) -> Vec<Program> {
    held.iter()
        .filter_map(|id| end.get(id))
        .map(|program| {
            let start = start.get(&program.id).cloned().unwrap_or_default();
            Program {
                run_time_ns: program.run_time_ns - start.run_time_ns,
                run_cnt: program.run_cnt - start.run_cnt,
                ..program.clone()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u32, run_time_ns: u64, run_cnt: u64) -> Program {
        Program {
            id,
            run_time_ns,
            run_cnt,
            ..Program::default()
        }
    }

    fn programs(list: &[Program]) -> Programs {
        list.iter().map(|p| (p.id, p.clone())).collect()
    }

    #[test]
    fn bpftools_list_is_read_with_and_without_statistics() {
        let json = r#"[{"id":7,"type":"raw_tracepoint","name":"rq","tag":"x","run_time_ns":900,"run_cnt":3},{"id":8,"type":"cgroup_device"}]"#;
        let list = parse_programs(json).unwrap();
        assert_eq!((list[&7].run_time_ns, list[&7].run_cnt), (900, 3));
        assert_eq!(list[&8].name, "");
        assert!(parse_programs("").unwrap().is_empty());
        assert!(parse_programs("{}").is_err());
    }

    #[test]
    fn only_what_is_held_counts_and_only_what_it_did_since() {
        let start = programs(&[program(1, 20, 2), program(2, 100, 5)]);
        let end = programs(&[program(1, 90, 9), program(2, 400, 8), program(3, 50, 1)]);
        let held = BTreeSet::from([2, 3, 4]);
        assert_eq!(
            ran(&held, &start, &end),
            [program(2, 300, 3), program(3, 50, 1)]
        );
    }

    #[test]
    fn programs_and_links_name_their_program() {
        assert_eq!(
            parse_prog_id("pos:\t0\nlink_type:\traw\nprog_id:\t42\n"),
            Some(42)
        );
        assert_eq!(parse_prog_id("pos:\t0\nmap_id:\t7\n"), None);
    }
}
