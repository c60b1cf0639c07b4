//! What can be attached on a kernel that is not running, from its facts alone. In:
//! facts; out: one row a hook, in the shape of a live load, but with "likely" for
//! what only attaching proves, and "unknown" for what lies in a module whose BTF is
//! not at hand. Pure; the same table of hooks as `load`.

use std::fmt::Write as _;

use crate::{
    detail::Detail,
    event::HookState,
    probe::{
        facts::{ResolvedFacts, table},
        hooks::{Attach, Form, Hook, hooks_at},
    },
};

/// Why a form is not likely.
enum Doubt {
    /// The kernel has no such event.
    Absent(String),
    /// It has, but not as the programs need it.
    Failed(String),
    /// It may lie in a module.
    Unknown(String),
}

/// One row a hook that the level attaches.
pub fn forecast(resolved: &ResolvedFacts, detail: Detail) -> Vec<HookState> {
    hooks_at(detail)
        .map(|hook| of_hook(resolved, hook))
        .collect()
}

fn of_hook(resolved: &ResolvedFacts, hook: &Hook) -> HookState {
    let mut state = HookState {
        name: hook.name.to_owned(),
        required: hook.required,
        lost: hook.lost.to_owned(),
        ..HookState::default()
    };
    let mut worst = "absent";
    for form in hook.forms {
        let why = match of_form(resolved, form) {
            Ok(()) => {
                "likely".clone_into(&mut state.state);
                form.name.clone_into(&mut state.form);
                return state;
            }
            Err(Doubt::Absent(why)) => why,
            Err(Doubt::Unknown(why)) => {
                worst = "unknown";
                why
            }
            Err(Doubt::Failed(why)) => {
                if worst != "unknown" {
                    worst = "failed";
                }
                why
            }
        };
        if !state.reason.is_empty() {
            state.reason.push_str("; ");
        }
        let _ = write!(state.reason, "{}: {why}", form.name);
    }
    worst.clone_into(&mut state.state);
    state
}

fn of_form(resolved: &ResolvedFacts, form: &Form) -> Result<(), Doubt> {
    // Absence first: a fact of a module that is not at hand is missing, too.
    for (_, attach) in form.programs {
        of_program(resolved, *attach)?;
    }
    match resolved.missing_for(form.facts).first() {
        Some(fact) => Err(Doubt::Failed(fact.sentence())),
        None => Ok(()),
    }
}

fn of_program(resolved: &ResolvedFacts, attach: Attach) -> Result<(), Doubt> {
    match attach {
        Attach::Fentry(names) | Attach::Fexit(names) => {
            resolved.traceable(names).map_err(Doubt::Failed)?;
            if resolved.arch == "aarch64" && !resolved.has_trait("ftrace_direct") {
                return Err(Doubt::Failed(
                    "no register_ftrace_direct, by which arm64 attaches it".to_owned(),
                ));
            }
            Ok(())
        }
        Attach::Typed(event) if resolved.has_typed_event(event) => Ok(()),
        Attach::Typed(event) if resolved.has_event(event) => Err(Doubt::Failed(format!(
            "{event} is a module's, and typed programs reach the kernel image's only"
        ))),
        Attach::Tracepoint("syscalls", event) => {
            let call = event.trim_start_matches("sys_enter_");
            let call = call.trim_start_matches("sys_exit_");
            let is_there = ["__x64_sys_", "__arm64_sys_"]
                .iter()
                .any(|prefix| resolved.has_function(&format!("{prefix}{call}")));
            if is_there {
                Ok(())
            } else {
                Err(Doubt::Absent(format!("no system call {call} in BTF")))
            }
        }
        Attach::Typed(event) | Attach::Raw(event) | Attach::Tracepoint(_, event) => {
            of_event(resolved, event)
        }
    }
}

fn of_event(resolved: &ResolvedFacts, event: &str) -> Result<(), Doubt> {
    if resolved.has_event(event) {
        return Ok(());
    }
    let system_of = |name: &str| {
        let row = table::EVENTS.iter().find(|(_, known)| *known == name);
        row.map_or("", |(system, _)| *system)
    };
    let system = system_of(event);
    let module = if system == "nvme" {
        "nvme_core"
    } else {
        system
    };
    let is_built_in = resolved
        .events
        .iter()
        .any(|known| known.is_in_image && known.system == system);
    let can_be_module = table::MODULES.contains(&module);
    if is_built_in || !can_be_module || resolved.modules.iter().any(|name| name == module) {
        return Err(Doubt::Absent(format!("no event {event} in BTF")));
    }
    Err(Doubt::Unknown(format!(
        "no {module} in this BTF, give the module's by --btf-module {module}=FILE"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::facts::resolve_btf;

    fn rows(kernel: &str) -> Vec<HookState> {
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../tests/fixtures/btf/{kernel}.btf"));
        let facts = resolve_btf(&std::fs::read(path).unwrap(), &[], kernel).unwrap();
        forecast(&facts, Detail::Full)
    }

    fn row<'r>(rows: &'r [HookState], name: &str) -> &'r HookState {
        rows.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn every_kernel_has_the_required_hooks() {
        for kernel in [
            "5.10.218-amd64",
            "5.10.218-arm64",
            "5.10.262-amd64",
            "5.15.0-amd64",
            "6.1.192-amd64",
            "6.1.192-arm64",
            "6.12.101-amd64",
            "6.12.101-arm64",
            "6.18.44-amd64",
            "7.3-rc7-amd64",
            "7.3-rc7-arm64",
        ] {
            let rows = rows(kernel);
            for row in rows.iter().filter(|row| row.required) {
                assert_eq!(row.state, "likely", "{kernel}: {row:?}");
            }
            let fexit = row(&rows, "fsync").form == "fexit";
            let has_direct_calls = !kernel.contains("arm64")
                || !kernel.starts_with("5.10") && !kernel.starts_with("6.1.");
            assert_eq!(fexit, has_direct_calls, "{kernel}");
            let ext4 = row(&rows, "ext4_sync_file_enter");
            assert_eq!(ext4.form, "typed_tracepoint", "{kernel}: {ext4:?}");
        }
    }

    /// As a 5.10.218 that runs says (VM): fsync by fexit, msync not.
    #[test]
    fn a_function_whose_argument_btf_does_not_describe_gets_no_fexit() {
        let rows = rows("5.10.218-amd64");
        assert_eq!(row(&rows, "fsync").form, "fexit");
        let msync = row(&rows, "msync");
        assert_eq!(msync.form, "tracepoint");
        assert_eq!(
            msync.reason,
            "fexit: BTF does not describe the argument of __x64_sys_msync"
        );
    }

    #[test]
    fn an_event_that_came_later_is_absent_and_a_modules_is_unknown() {
        let old = rows("5.10.218-amd64");
        let lock = row(&old, "lock_contention");
        assert_eq!(
            (lock.state.as_str(), lock.reason.as_str()),
            ("absent", "raw_tracepoint: no event contention_begin in BTF")
        );
        let xfs = row(&old, "xfs_file_fsync");
        assert_eq!(xfs.state, "unknown");
        assert!(xfs.reason.ends_with("--btf-module xfs=FILE"), "{xfs:?}");
        assert_eq!(
            row(&rows("6.18.44-amd64"), "xfs_file_fsync").state,
            "likely"
        );
    }

    #[test]
    fn a_typed_program_needs_its_argument_in_place() {
        let old = rows("5.10.218-amd64");
        let flush = row(&old, "block_bio_queue");
        assert_eq!(flush.form, "raw_tracepoint");
        assert_eq!(
            flush.reason,
            "typed_tracepoint: argument 0 of block_bio_queue is struct request_queue *, not struct bio *"
        );
    }
}
