//! What a run needs of its host besides hooks: capabilities, limits, tracefs,
//! lockdown, BTF. In: the roots of /proc and /sys; out: one row each, with what it
//! is for. Of a kernel that is not running, what its BTF tells.

use std::{fs, path::Path};

use serde::Serialize;

use crate::{
    messages::plain,
    probe::facts::{ResolvedFacts, preemption::Preemption},
    run::{preflight::Rights, start::find_tracefs},
};

/// One row.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    pub name: &'static str,
    /// held, ok, missing, not needed, unknown, or a value.
    pub state: String,
    /// What for, or what to do.
    pub why: String,
}

/// Name, bit (include/uapi/linux/capability.h), what for.
const CAPABILITIES: [(&str, u32, &str); 5] = [
    ("CAP_BPF", 39, "load programs, make maps"),
    (
        "CAP_PERFMON",
        38,
        "attach programs, read kernel memory in them",
    ),
    (
        "CAP_DAC_READ_SEARCH",
        2,
        "tracefs; configurations and logs of other users",
    ),
    (
        "CAP_SYS_PTRACE",
        19,
        "/proc/PID of brokers of other users: files, root, state of threads",
    ),
    (
        "CAP_SYSLOG",
        34,
        "addresses in /proc/kallsyms: files of direct I/O",
    ),
];

const DAC_OVERRIDE: u32 = 1;
const SYS_ADMIN: u32 = 21;
const SYS_RESOURCE: u32 = 24;

/// Of this host.
pub fn live(sys_root: &Path, proc_root: &Path, resolved: &ResolvedFacts) -> Vec<Need> {
    let rights = Rights::read(proc_root).ok();
    let has = |bit| rights.is_some_and(|rights| rights.has(bit));
    let mut needs = Vec::new();
    for (name, bit, why) in CAPABILITIES {
        let by_admin = (bit == 38 || bit == 39) && has(SYS_ADMIN);
        let by_override = bit == 2 && has(DAC_OVERRIDE);
        let state = match (has(bit), by_admin, by_override) {
            (true, _, _) => "held",
            (_, true, _) => "held by CAP_SYS_ADMIN",
            (_, _, true) => "held by CAP_DAC_OVERRIDE",
            _ => "missing",
        };
        needs.push(need(name, state, why));
    }
    needs.push(sys_resource(has(SYS_RESOURCE), resolved));
    needs.push(need(
        "RLIMIT_MEMLOCK",
        &memlock(proc_root),
        if is_charged(resolved) {
            "maps are charged to it on this kernel"
        } else {
            "not charged for maps on this kernel"
        },
    ));
    needs.push(match find_tracefs() {
        Ok(path) => need(
            "tracefs",
            &path.display().to_string(),
            "tracepoints of system calls and journals",
        ),
        Err(why) if why.starts_with("read ") => need("tracefs", "unreadable", &why),
        Err(why) => need(
            "tracefs",
            "missing",
            &format!("{why}; as root: mount -t tracefs tracefs /sys/kernel/tracing"),
        ),
    });
    needs.push(lockdown(sys_root));
    needs.push(btf(sys_root, resolved));
    needs.push(jit(proc_root));
    needs.push(preemption(&resolved.preemption));
    needs
}

/// Of a kernel that is not running: what it would need.
pub fn of_btf(resolved: &ResolvedFacts) -> Vec<Need> {
    let unknown = |(name, _, why): (&'static str, u32, &str)| need(name, "unknown", why);
    let mut needs: Vec<Need> = CAPABILITIES.into_iter().map(unknown).collect();
    needs.push(sys_resource(false, resolved));
    needs.push(need(
        "tracefs",
        "unknown",
        "tracepoints of system calls and journals",
    ));
    needs.push(need(
        "lockdown",
        "unknown",
        "confidentiality forbids all programs",
    ));
    let modules = match resolved.modules.len() {
        0 => "the image's; no module's was given".to_owned(),
        _ => format!("the image's and of {}", resolved.modules.join(", ")),
    };
    needs.push(need("BTF", "ok", &modules));
    needs
}

fn need(name: &'static str, state: &str, why: &str) -> Need {
    Need {
        name,
        state: state.to_owned(),
        why: why.to_owned(),
    }
}

/// Whether maps are charged to the limit on locked memory; without BTF, maybe.
fn is_charged(resolved: &ResolvedFacts) -> bool {
    resolved.has_trait("memlock_charged")
}

fn sys_resource(is_held: bool, resolved: &ResolvedFacts) -> Need {
    let name = "CAP_SYS_RESOURCE";
    match (is_charged(resolved), is_held) {
        (false, _) => need(name, "not needed", "only where RLIMIT_MEMLOCK limits maps"),
        (true, true) => need(name, "held", "raise RLIMIT_MEMLOCK, which limits maps here"),
        (true, false) => need(
            name,
            "needed",
            "raise RLIMIT_MEMLOCK, which limits maps there; or set it to infinity",
        ),
    }
}

fn memlock(proc_root: &Path) -> String {
    let text = fs::read_to_string(proc_root.join("self/limits")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|rest| rest.split_whitespace().next())
        .map_or_else(
            || "unknown".to_owned(),
            |limit| match limit {
                "unlimited" => limit.to_owned(),
                _ => format!("{limit} bytes"),
            },
        )
}

fn lockdown(sys_root: &Path) -> Need {
    let text = fs::read_to_string(sys_root.join("kernel/security/lockdown")).unwrap_or_default();
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(chosen, _)| chosen);
    match chosen {
        Some("confidentiality") => need(
            "lockdown",
            "confidentiality",
            "forbids all programs; boot without lockdown=confidentiality",
        ),
        Some(chosen) => need("lockdown", chosen, "does not forbid programs"),
        // The file is missing both without securityfs and without lockdown.
        None => need(
            "lockdown",
            "not seen",
            "confidentiality forbids all programs",
        ),
    }
}

fn btf(sys_root: &Path, resolved: &ResolvedFacts) -> Need {
    let path = sys_root.join("kernel/btf/vmlinux");
    match fs::metadata(&path) {
        Ok(meta) => {
            let of = match resolved.modules.len() {
                0 => String::new(),
                _ => format!(", and of {}", resolved.modules.join(", ")),
            };
            need(
                "BTF",
                &format!("{} bytes", meta.len()),
                &format!("the layout of this kernel{of}"),
            )
        }
        Err(error) => need(
            "BTF",
            "missing",
            &format!(
                "read {}: {}; boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
                path.display(),
                plain(&error.to_string())
            ),
        ),
    }
}

fn preemption(of: &Preemption) -> Need {
    let name = "preemption";
    match of {
        Preemption::Never => need(name, "none", "programs run to their ends"),
        Preemption::Anywhere(model) => need(
            name,
            model,
            "a program may be put aside, and its next run on that CPU lost: counted as recursion",
        ),
        Preemption::Unknown => need(
            name,
            "unknown",
            "where the kernel preempts itself, runs of programs may be lost: counted as recursion",
        ),
    }
}

fn jit(proc_root: &Path) -> Need {
    let path = proc_root.join("sys/net/core/bpf_jit_enable");
    match fs::read_to_string(path).unwrap_or_default().trim() {
        "0" => need(
            "JIT",
            "off",
            "programs are interpreted and cost several times as much: sysctl net.core.bpf_jit_enable=1",
        ),
        "" => need("JIT", "unknown", "compiles programs"),
        _ => need("JIT", "on", "compiles programs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{helper::testdir::TestDir, probe::facts::resolve_btf};

    fn resolved(kernel: &str) -> ResolvedFacts {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../tests/fixtures/btf/{kernel}.btf"));
        resolve_btf(&fs::read(path).unwrap(), &[], kernel).unwrap()
    }

    fn state<'n>(needs: &'n [Need], name: &str) -> &'n str {
        let found = needs.iter().find(|need| need.name == name);
        &found.unwrap().state
    }

    #[test]
    fn what_is_missing_of_a_host_is_named() {
        let dir = TestDir::new("needs");
        let bits = 1_u64 << 21 | 1 << 34;
        dir.write("self/status", &format!("CapEff:\t{bits:016x}\n"));
        dir.write(
            "self/limits",
            "Limit  Soft Limit\nMax locked memory         65536                65536                bytes     \n",
        );
        dir.write(
            "kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        );
        dir.write("sys/net/core/bpf_jit_enable", "0\n");
        let needs = live(dir.path(), dir.path(), &resolved("5.10.218-amd64"));
        for (name, expected) in [
            ("CAP_BPF", "held by CAP_SYS_ADMIN"),
            ("CAP_SYSLOG", "held"),
            ("CAP_SYS_PTRACE", "missing"),
            ("CAP_SYS_RESOURCE", "needed"),
            ("RLIMIT_MEMLOCK", "65536 bytes"),
            ("lockdown", "integrity"),
            ("BTF", "missing"),
            ("JIT", "off"),
        ] {
            assert_eq!(state(&needs, name), expected, "{name}");
        }
    }

    #[test]
    fn only_kernels_that_charge_maps_to_the_limit_need_the_right_to_raise_it() {
        for (kernel, expected) in [
            ("5.10.218-arm64", "needed"),
            ("5.15.0-amd64", "not needed"),
            ("7.3-rc7-amd64", "not needed"),
        ] {
            let needs = of_btf(&resolved(kernel));
            assert_eq!(state(&needs, "CAP_SYS_RESOURCE"), expected, "{kernel}");
        }
    }
}
