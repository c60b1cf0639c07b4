//! From nothing to attached: facts, hooks, self-probe. Comes in: settings; goes
//! out: what the loop needs. Runs before the runtime has anything to do, so it
//! may read /proc and /sys.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};

use crate::{
    config::Config,
    decode::FlagMasks,
    event::{HookState, Start},
    helper::clock::{monotonic_ns, offset_ns},
    messages::{one_line, plain},
    probe::{
        self, LoadOptions, Probe, RefutedForm,
        facts::{ResolvedFacts, resolve_live},
    },
    run::{
        preflight,
        selfprobe::{self, Refuted},
    },
};

/// An attached agent.
pub struct Attached {
    /// Maps, hooks, links.
    pub probe: Probe,
    /// What is known of the kernel.
    pub resolved: ResolvedFacts,
    /// Masks to decode request flags with.
    pub masks: FlagMasks,
    /// First event of a capture.
    pub start: Start,
}

/// Where tracefs is mounted; mounts it where it is not (root may).
///
/// # Errors
/// Why it is not there.
pub fn find_tracefs() -> Result<PathBuf, String> {
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let found = || {
        places
            .iter()
            .map(PathBuf::from)
            .find(|place| place.join("events").is_dir())
    };
    if let Some(place) = found() {
        return Ok(place);
    }
    // Mounted (and not covered by another mount), but closed to others than root.
    let is_closed = |place: &&&str| {
        fs::read_dir(place).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    if let Some(place) = places.iter().find(is_closed) {
        return Err(format!(
            "read {place}: not permitted without CAP_DAC_READ_SEARCH, which root has"
        ));
    }
    // SAFETY: constant NUL-terminated strings; the call keeps none of them.
    let mounted = unsafe {
        libc::mount(
            c"tracefs".as_ptr(),
            c"/sys/kernel/tracing".as_ptr(),
            c"tracefs".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            std::ptr::null(),
        )
    };
    let error = std::io::Error::last_os_error();
    found().ok_or_else(|| {
        if mounted == 0 {
            "mounted, but without events".to_owned()
        } else {
            plain(&error.to_string())
        }
    })
}

/// Learns the kernel and attaches all hooks.
///
/// # Errors
/// When no kernel program can be loaded at all.
pub fn attach(config: &Config) -> anyhow::Result<Attached> {
    let (sys, proc) = (Path::new("/sys"), Path::new("/proc"));
    let rights = preflight::check(sys, proc)?;
    for pid in &config.pids {
        if !proc.join(pid.to_string()).exists() {
            bail!("watch pid {pid}: no such process; find the broker's with: pgrep -f kafka.Kafka");
        }
    }
    for warning in rights.warnings() {
        log::warn!("{warning}");
    }
    warn_of_others(proc);
    raise_memlock();
    let tracefs = find_tracefs();
    let tracefs_dir = tracefs.as_deref().ok();
    let image = config.test_btf.as_deref();
    if let Some(path) = image {
        log::warn!("--test-btf: facts are those of {}", path.display());
    }
    let mut resolved = resolve_live(sys, proc, tracefs_dir, image);
    let mut probe = attach_proven(&mut resolved, config.load_options())?;
    for hook in &mut probe.states {
        hook.reason = short_reason(&hook.reason, tracefs.is_err());
    }
    if let Some(line) = handicap(&probe.states, &resolved, tracefs.as_ref().err()) {
        log::warn!("{line}");
    }
    let facts = &resolved.facts;
    let masks = FlagMasks {
        preflush: facts.req_preflush,
        fua: facts.req_fua,
        meta: facts.req_meta,
        sync: facts.req_sync,
    };
    let attached_ns = monotonic_ns();
    let read = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let start = Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: read("/proc/sys/kernel/hostname"),
        kernel: read("/proc/sys/kernel/osrelease"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        timezone: host_timezone(),
        slow_ns: config.slow_ns,
        stall_ns: config.stall_ns,
        clock_offset_ns: offset_ns(),
        attached_ns,
        detail: config.detail,
    };
    Ok(Attached {
        probe,
        resolved,
        masks,
        start,
    })
}

/// More rounds than a table of hooks has forms to refute, in practice two.
const MAX_ROUNDS: usize = 12;

/// Attaches, lets the self-probe refute forms and facts, and attaches anew without
/// these until nothing is refuted: what was seen to be wrong sends no event.
fn attach_proven(resolved: &mut ResolvedFacts, mut options: LoadOptions) -> anyhow::Result<Probe> {
    let (sys, proc) = (Path::new("/sys"), Path::new("/proc"));
    for _ in 0..MAX_ROUNDS {
        let mut probe = probe::attach(resolved, &options).map_err(|error| explain(sys, &error))?;
        let refuted = match selfprobe::run(&mut probe, resolved, sys, proc) {
            Ok(refuted) => refuted,
            Err(error) => {
                log::warn!("self-probe: {}; hooks stay unproven", one_line(&error));
                Vec::new()
            }
        };
        if refuted.is_empty() {
            return Ok(probe);
        }
        for what in refuted {
            match what {
                Refuted::Form { hook, form, why } => {
                    options.refuted.push(RefutedForm { hook, form, why });
                }
                Refuted::Facts { names, why } => {
                    resolved.refute(&names, &why);
                }
            }
        }
    }
    bail!("self-probe: hooks were seen to be wrong {MAX_ROUNDS} times, in whatever form");
}

/// Why loading failed, in words that say what to do.
fn explain(sys_root: &Path, error: &anyhow::Error) -> anyhow::Error {
    let is_refused = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.raw_os_error() == Some(libc::EPERM))
    });
    if is_refused {
        anyhow!(preflight::explain_refusal(sys_root))
    } else {
        anyhow!(one_line(error))
    }
}

/// Before 5.11 maps are charged to the limit on locked memory, which is too small
/// by default even for root.
fn raise_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads one valid struct. A refusal shows where it matters: at load.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

fn warn_of_others(proc_root: &Path) {
    let comm = fs::read_to_string(proc_root.join("self/comm")).unwrap_or_default();
    let others = preflight::others(proc_root, std::process::id(), comm.trim_end());
    if others.is_empty() {
        return;
    }
    let names: Vec<String> = others
        .iter()
        .map(|(pid, command)| format!("{command}, pid {pid}"))
        .collect();
    log::warn!(
        "fsyncscope runs here already ({}): each run has probes of its own and their costs add up; end one with kill -INT if that is too much",
        names.join("; ")
    );
}

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A reason that holds for many hooks is said in full once, by [`handicap`].
fn short_reason(reason: &str, is_without_tracefs: bool) -> String {
    let mut forms: Vec<String> = Vec::new();
    for form in reason.split("; ").filter(|form| !form.is_empty()) {
        let form = plain(form);
        let form = match form.split_once(": ") {
            Some((name, why)) if why.contains(BTF) => format!("{name}: no BTF"),
            Some((name, why)) if is_without_tracefs && why.contains("tracefs not found") => {
                format!("{name}: no tracefs")
            }
            _ => form,
        };
        forms.push(form);
    }
    forms.join("; ")
}

/// The one line on what this run cannot do, if required hooks are missing.
fn handicap(
    states: &[HookState],
    resolved: &ResolvedFacts,
    tracefs_error: Option<&String>,
) -> Option<String> {
    let missing: Vec<&HookState> = states
        .iter()
        .filter(|hook| hook.required && hook.form.is_empty())
        .collect();
    let first = missing.first()?;
    let names: Vec<&str> = missing.iter().map(|hook| hook.name.as_str()).collect();
    let btf = resolved
        .missing
        .iter()
        .map(|fact| plain(&fact.why))
        .find(|why| why.contains(BTF));
    let is_sync_missing = names.iter().any(|name| name.ends_with("sync"));
    let why = match (btf, tracefs_error) {
        (_, Some(error)) if is_sync_missing && error.starts_with("read ") => error.clone(),
        (_, Some(error)) if is_sync_missing => format!(
            "mount tracefs on /sys/kernel/tracing: {error}; as root: mount -t tracefs tracefs /sys/kernel/tracing"
        ),
        (Some(why), _) => format!(
            "{why}: the layout of this kernel is unknown; boot one with CONFIG_DEBUG_INFO_BTF=y"
        ),
        // The last form is the simplest: what stops it stops the others.
        _ => format!(
            "{}; fsyncscope check says more",
            first.reason.rsplit("; ").next().unwrap_or_default()
        ),
    };
    Some(format!(
        "without {}, findings are UNKNOWN and silence proves nothing: {why}",
        names.join(", ")
    ))
}

/// The host's zone as an IANA name, else its offset.
fn host_timezone() -> String {
    let zone = jiff::tz::TimeZone::system();
    match zone.iana_name() {
        Some(name) => name.to_owned(),
        None => zone.to_offset(jiff::Timestamp::now()).to_string(),
    }
}

/// Reasons why a run cannot do its main job, one line each.
pub fn missing_required(states: &[HookState]) -> Vec<String> {
    states
        .iter()
        .filter(|hook| hook.required && hook.form.is_empty())
        .map(|hook| format!("{}: {}", hook.name, hook.reason))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, reason: &str) -> HookState {
        HookState {
            name: name.to_owned(),
            required: true,
            state: "failed".to_owned(),
            reason: reason.to_owned(),
            ..HookState::default()
        }
    }

    #[test]
    fn a_cause_of_many_hooks_is_short_in_each() {
        let reason = "typed_tracepoint: request_q is not known: read /sys/kernel/btf/vmlinux: No such file or directory (os error 2); raw_tracepoint: load: Operation not permitted (os error 1)";
        assert_eq!(
            short_reason(reason, false),
            "typed_tracepoint: no BTF; raw_tracepoint: load: operation not permitted"
        );
        assert_eq!(
            short_reason("tracepoint: tracefs not found", true),
            "tracepoint: no tracefs"
        );
        assert_eq!(short_reason("", true), "");
    }

    #[test]
    fn the_handicap_names_hooks_cause_and_remedy() {
        let why = "read /sys/kernel/btf/vmlinux: No such file or directory (os error 2)";
        let resolved = ResolvedFacts::unknown("6.1.0", why);
        let states = [hook("block_rq_issue", "raw_tracepoint: no BTF")];
        let line = handicap(&states, &resolved, None).unwrap();
        assert_eq!(
            line,
            "without block_rq_issue, findings are UNKNOWN and silence proves nothing: read /sys/kernel/btf/vmlinux: no such file or directory: the layout of this kernel is unknown; boot one with CONFIG_DEBUG_INFO_BTF=y"
        );
        let states = [hook("fsync", "tracepoint: no tracefs")];
        let error = "operation not permitted".to_owned();
        let line = handicap(&states, &resolved, Some(&error)).unwrap();
        assert!(line.contains("mount -t tracefs"), "{line}");
        let error = "read /sys/kernel/tracing: not permitted".to_owned();
        let line = handicap(&states, &resolved, Some(&error)).unwrap();
        assert!(line.ends_with(&format!(": {error}")), "{line}");
        let mut attached = hook("fsync", "");
        "tracepoint".clone_into(&mut attached.form);
        assert_eq!(handicap(&[attached], &resolved, None), None);
        let states = [hook("fsync", "fexit: no x; tracepoint: load: no y")];
        let line = handicap(&states, &ResolvedFacts::unknown("6.1.0", "x"), None).unwrap();
        assert!(
            line.ends_with(": tracepoint: load: no y; fsyncscope check says more"),
            "{line}"
        );
    }
}
