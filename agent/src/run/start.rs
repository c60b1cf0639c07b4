//! From nothing to attached: facts, hooks, self-probe. Comes in: settings; goes
//! out: what the loop needs. Runs before the runtime has anything to do, so it
//! may read /proc and /sys.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    config::Config,
    decode::FlagMasks,
    event::{HookState, Start},
    helper::clock::{monotonic_ns, offset_ns},
    probe::{
        self, Probe,
        facts::{ResolvedFacts, resolve_live},
    },
    run::selfprobe,
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
pub fn find_tracefs() -> Option<PathBuf> {
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let found = || {
        places
            .iter()
            .map(PathBuf::from)
            .find(|place| place.join("events").is_dir())
    };
    found().or_else(|| {
        // SAFETY: constant NUL-terminated strings; the call keeps none of them.
        unsafe {
            libc::mount(
                c"tracefs".as_ptr(),
                c"/sys/kernel/tracing".as_ptr(),
                c"tracefs".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
                std::ptr::null(),
            );
        }
        found()
    })
}

/// Learns the kernel and attaches all hooks.
///
/// # Errors
/// When no kernel program can be loaded at all.
pub fn attach(config: &Config) -> anyhow::Result<Attached> {
    let tracefs = find_tracefs();
    let resolved = resolve_live(Path::new("/sys"), Path::new("/proc"), tracefs.as_deref());
    let mut options = config.load_options();
    let mut probe =
        probe::attach(&resolved, &options).with_context(|| explain(tracefs.as_deref()))?;
    match selfprobe::run(&mut probe) {
        Ok(silent) if has_silent_fexit(&probe.states, &silent) => {
            // It attaches and does not fire: the other form, and proof of that.
            options.avoid.push("fexit".to_owned());
            drop(probe);
            probe =
                probe::attach(&resolved, &options).with_context(|| explain(tracefs.as_deref()))?;
            if let Err(error) = selfprobe::run(&mut probe) {
                log::warn!("self-probe: {error:#}");
            }
        }
        Ok(_) => {}
        Err(error) => log::warn!("self-probe: {error:#}; hooks stay unproven"),
    }
    if tracefs.is_none() {
        for hook in &mut probe.states {
            if hook.state != "unproven" && hook.reason.contains("tracepoint") {
                hook.reason.push_str(" (tracefs is not mounted and could not be: mount -t tracefs tracefs /sys/kernel/tracing)");
            }
        }
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
    };
    Ok(Attached {
        probe,
        resolved,
        masks,
        start,
    })
}

/// A sync hook in the form fexit that did not see a sync.
fn has_silent_fexit(states: &[HookState], silent: &[String]) -> bool {
    states
        .iter()
        .any(|state| state.form == "fexit" && silent.contains(&state.name))
}

/// Why loading may have failed, in words that say what to do.
fn explain(tracefs: Option<&Path>) -> String {
    // SAFETY: no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        return "attach to the kernel: this needs root (or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH); try sudo".to_owned();
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return "attach to the kernel: /sys/kernel/btf/vmlinux is missing; the kernel needs CONFIG_DEBUG_INFO_BTF".to_owned();
    }
    if tracefs.is_none() {
        return "attach to the kernel: tracefs is not mounted; mount -t tracefs tracefs /sys/kernel/tracing".to_owned();
    }
    "attach to the kernel".to_owned()
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
