//! Loads the kernel object and attaches each hook in the best form that works.
//! In: facts, settings; out: [`Probe`], which owns the maps and the links. A
//! hook that cannot be had is a row with its reason, never an error; only a
//! kernel without eBPF at all is one.

use std::{any::Any, error::Error as _, fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{MapData, RingBuf},
    programs::{
        BtfTracePoint, FEntry, FExit, ProgramError, ProgramType, RawTracePoint, TracePoint,
    },
    sys::{BpfHelper, is_helper_supported},
};
use fsyncscope_abi::{facts::Facts, span::span_pages};

use crate::{
    detail::Detail,
    event::HookState,
    helper::clock::monotonic_ns,
    probe::{
        facts::ResolvedFacts,
        hooks::{Attach, Form, Hook, hooks_at},
        late::Late,
        maps::Maps,
        object::OBJECT,
        prepare::{are_hists_late, prepare},
    },
};

/// Settings of a load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A sync's own record from here on.
    pub slow_ns: u64,
    /// A request's own record from here on.
    pub request_slow_ns: u64,
    /// Level of the programs' own debug messages; 0 = none.
    pub log_level: u8,
    /// Watch every process and disk.
    pub is_all: bool,
    /// Forms not to be tried, by name ("fexit", "typed_tracepoint").
    pub avoid: Vec<String>,
    /// Forms of hooks that were seen not to do what they should.
    pub refuted: Vec<RefutedForm>,
    /// BTF that typed programs are loaded with in place of the kernel's, for tests.
    pub btf: Option<PathBuf>,
    /// Which hooks are attached.
    pub detail: Detail,
}

/// A form of one hook that is not to be used again.
#[derive(Clone, Debug)]
pub struct RefutedForm {
    /// Name of the hook.
    pub hook: String,
    /// Name of the form.
    pub form: String,
    /// What was seen.
    pub why: String,
}

/// Attached hooks, until dropped.
pub struct Probe {
    /// The ring, which the loop reads alone, and the other maps.
    pub maps: (RingBuf<MapData>, Maps),
    /// One row a hook.
    pub states: Vec<HookState>,
    /// Ids of the programs that were loaded, with the hook's name.
    pub programs: Vec<(String, u32)>,
    /// Keeps the programs attached.
    pub links: Vec<Box<dyn Any>>,
    /// Hooks that wait for their driver.
    pub late: Option<Late>,
    /// The programs' own messages, if asked for.
    pub logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

/// Loads and attaches.
///
/// # Errors
/// When the object cannot be loaded at all: no rights, no eBPF, no memory.
pub fn attach(resolved: &ResolvedFacts, options: &LoadOptions) -> anyhow::Result<Probe> {
    let Some(object) = OBJECT.filter(|object| !object.is_empty()) else {
        bail!("load kernel programs: this build has none; build it with `cargo xtask build`");
    };
    let nr_cpus =
        aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("read {path}: {error}"))?;
    let (request_span_pages, wait_span_pages) = span_pages(nr_cpus.get() as usize);
    let object = prepare(object, resolved, nr_cpus.get() as usize)?;
    let facts = Facts {
        slow_ns: options.slow_ns,
        request_slow_ns: options.request_slow_ns,
        span_min_ns: span_min_ns(options.slow_ns),
        request_span_pages,
        wait_span_pages,
        watch_all: u32::from(options.is_all),
        detail: options.detail.code(),
        has_typed_task: u32::from(has_typed_task()),
        ..resolved.facts
    };
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(verifier_log_level())
        .override_global("FACTS", &facts, true)
        .map_max_entries("RQ_SPANS", request_span_pages)
        .map_max_entries("WAIT_SPANS", wait_span_pages)
        .override_global(aya_log::LEVEL, &options.log_level, false)
        .load(&object)
        .context("load kernel programs: create maps (needs root, or CAP_BPF and CAP_PERFMON)")?;
    let logger = if options.log_level > 0 {
        Some(aya_log::EbpfLogger::init(&mut ebpf).context("read the programs' messages")?)
    } else {
        None
    };
    // Only typed programs need the parsed BTF, some 30 MB; it goes before the
    // agent settles.
    let btf = match &options.btf {
        Some(path) => Btf::parse_file(path, Endianness::default()),
        None => Btf::from_sys_fs(),
    };
    let btf = btf.map_err(|error| error.to_string());
    let mut loader = Loader {
        ebpf,
        btf,
        resolved,
        avoid: &options.avoid,
        refuted: &options.refuted,
        links: Vec::new(),
        programs: Vec::new(),
    };
    let states = hooks_at(options.detail)
        .map(|hook| loader.attach(hook))
        .collect();
    let Loader {
        mut ebpf,
        links,
        programs,
        ..
    } = loader;
    let states: Vec<HookState> = states;
    let (ring, mut maps) = Maps::take(&mut ebpf, are_hists_late(resolved))?;
    let waiting = hooks_at(options.detail)
        .zip(&states)
        .filter(|(_, state)| state.state == "waiting")
        .map(|(hook, _)| hook)
        .collect();
    maps.watched_since
        .set(0, &monotonic_ns(), 0)
        .context("set WATCHED_SINCE")?;
    Ok(Probe {
        maps: (ring, maps),
        states,
        programs,
        links,
        late: Late::new(ebpf, facts, options, waiting),
        logger,
    })
}

/// Whether the programs may read the running task by plain loads. Where that cannot
/// be found out, they read it by a helper.
fn has_typed_task() -> bool {
    let helper = BpfHelper::BPF_FUNC_get_current_task_btf;
    is_helper_supported(ProgramType::TracePoint, helper).unwrap_or(false)
}

/// From when on the flight recorder keeps a request or a wait: a hundredth of a
/// slow sync, so that a hundred too short to be kept cannot make one slow; above
/// the noise of a good disk, below what people call slow.
fn span_min_ns(slow_ns: u64) -> u64 {
    (slow_ns / 100).clamp(100_000, 1_000_000)
}

pub(super) struct Loader<'a> {
    pub ebpf: Ebpf,
    pub btf: Result<Btf, String>,
    pub resolved: &'a ResolvedFacts,
    pub avoid: &'a [String],
    pub refuted: &'a [RefutedForm],
    pub links: Vec<Box<dyn Any>>,
    pub programs: Vec<(String, u32)>,
}

impl Loader<'_> {
    /// Tries the forms of a hook in order.
    pub fn attach(&mut self, hook: &Hook) -> HookState {
        let mut state = HookState {
            name: hook.name.to_owned(),
            required: hook.required,
            lost: hook.lost.to_owned(),
            ..HookState::default()
        };
        for form in hook.forms {
            match self.attach_form(hook, form) {
                Ok(()) => {
                    "unproven".clone_into(&mut state.state);
                    form.name.clone_into(&mut state.form);
                    return state;
                }
                Err(why) => {
                    if !state.reason.is_empty() {
                        state.reason.push_str("; ");
                    }
                    let _ = write!(state.reason, "{}: {why}", form.name);
                }
            }
        }
        let absent = state.reason.contains("no such tracepoint");
        let is_of_driver = !hook.driver.is_empty() && (absent || !self.has_events(hook));
        if is_of_driver {
            "waiting".clone_into(&mut state.state);
            state.reason = format!("{} is not loaded; attached once it is", hook.driver);
            return state;
        }
        if absent { "absent" } else { "failed" }.clone_into(&mut state.state);
        state
    }

    /// Whether the kernel has any event of a hook now.
    fn has_events(&self, hook: &Hook) -> bool {
        let mut programs = hook.forms.iter().flat_map(|form| form.programs);
        programs.any(|(_, attach)| match attach {
            Attach::Tracepoint(_, event) | Attach::Raw(event) | Attach::Typed(event) => {
                self.resolved.has_event(event)
            }
            Attach::Fentry(_) | Attach::Fexit(_) => true,
        })
    }

    fn attach_form(&mut self, hook: &Hook, form: &Form) -> Result<(), String> {
        if self.avoid.iter().any(|name| name == form.name) {
            return Err("not wanted".to_owned());
        }
        let is_this = |known: &&RefutedForm| known.hook == hook.name && known.form == form.name;
        if let Some(refuted) = self.refuted.iter().find(is_this) {
            return Err(refuted.why.clone());
        }
        let missing = self.resolved.missing_for(form.facts);
        if let Some(fact) = missing.first() {
            return Err(fact.sentence());
        }
        let mut links: Vec<Box<dyn Any>> = Vec::new();
        let mut programs = Vec::new();
        for (program, attach) in form.programs {
            let (link, id) = self.attach_program(program, *attach)?;
            links.push(link);
            programs.push((hook.name.to_owned(), id));
        }
        self.links.append(&mut links);
        self.programs.append(&mut programs);
        Ok(())
    }

    fn attach_program(
        &mut self,
        name: &str,
        attach: Attach,
    ) -> Result<(Box<dyn Any>, u32), String> {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| format!("program {name} is not in the kernel object"))?;
        let btf = self.btf.as_ref();
        let known = |names: &[&'static str]| self.resolved.traceable(names);
        macro_rules! go {
            ($kind:ty, |$p:ident| $load:expr, |$q:ident| $attach:expr) => {{
                let $p: &mut $kind = program.try_into().map_err(|e: ProgramError| explain(&e))?;
                if $p.fd().is_err() {
                    $load.map_err(|e| explain(&e))?;
                }
                let id = $p.info().map_err(|e| explain(&e))?.id();
                // Kept open: the kernel's account of a program is read through it.
                let fd = $p.fd().map_err(|e| explain(&e))?;
                let fd = fd.try_clone().map_err(|e| e.to_string())?;
                let $q = $p;
                let link = $attach.map_err(|e| explain(&e))?;
                let link = $q.take_link(link).map_err(|e| explain(&e))?;
                Ok((Box::new((link, fd)) as Box<dyn Any>, id))
            }};
        }
        match attach {
            Attach::Fentry(names) => {
                let (function, btf) = (known(names)?, btf.map_err(Clone::clone)?);
                go!(FEntry, |p| p.load(function, btf), |p| p.attach())
            }
            Attach::Fexit(names) => {
                let (function, btf) = (known(names)?, btf.map_err(Clone::clone)?);
                go!(FExit, |p| p.load(function, btf), |p| p.attach())
            }
            Attach::Tracepoint(category, event) => {
                go!(TracePoint, |p| p.load(), |p| p.attach(category, event))
            }
            Attach::Raw(event) => go!(RawTracePoint, |p| p.load(), |p| p.attach(event)),
            Attach::Typed(event) => {
                let btf = btf.map_err(Clone::clone)?;
                go!(BtfTracePoint, |p| p.load(event, btf), |p| p.attach())
            }
        }
    }
}

/// Whether the verifier's whole log shall be printed, for who mends a hook.
fn is_verifier_log_wanted() -> bool {
    std::env::var_os("FSYNCSCOPE_VERIFIER_LOG").is_some()
}

fn verifier_log_level() -> VerifierLogLevel {
    if is_verifier_log_wanted() {
        VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS
    } else {
        VerifierLogLevel::STATS
    }
}

/// A line of registers, `R0=inv0 R1=ctx`, not `R4 invalid mem access`.
fn is_state(line: &str) -> bool {
    line.strip_prefix('R').is_some_and(|rest| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.starts_with(['=', '_'])
    })
}

/// The chain of causes in one line; the verifier's log only by its last lines.
fn explain(error: &ProgramError) -> String {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        let log = verifier_log.to_string();
        if is_verifier_log_wanted() {
            eprintln!("{log}");
        }
        let why = log
            .lines()
            .rev()
            .find(|l| {
                !l.is_empty()
                    && !l.starts_with("processed ")
                    && !l.starts_with("verification time")
                    && !l.starts_with("stack depth")
                    // A line a function, from 7.1 on or so.
                    && !l.starts_with("subprog ")
                    // Source lines, instructions and states say nothing of the reason.
                    && !l.starts_with(';')
                    && !l.starts_with(|c: char| c.is_ascii_digit())
                    && !is_state(l)
            })
            .unwrap_or("")
            .to_owned();
        return if why.is_empty() {
            format!("load: {io_error}")
        } else {
            format!("load: {io_error} ({why})")
        };
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    if text.contains("No such file") {
        text = format!("no such tracepoint ({text})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_from_the_state_of_registers() {
        assert!(is_state("R0=inv0 R1=ctx(id=0,off=0,imm=0)"));
        assert!(is_state("R1_w=scalar() R10=fp0"));
        assert!(!is_state("R4 invalid mem access 'scalar'"));
        assert!(!is_state("invalid bpf_context access off=0 size=8"));
    }
}
