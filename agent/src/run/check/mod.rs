//! `fsyncscope check`: attaches every hook, proves what can be proven, prints the
//! table, detaches; with `--btf`, says what can be said of a kernel that is not
//! running. Comes in: settings; goes out: text or JSON, and an exit code that a
//! pipeline can use.

mod needs;
mod report;

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::{
    cli::Check,
    config::Config,
    detail::Detail,
    event::HookState,
    probe::{
        facts::{ResolvedFacts, resolve_files},
        forecast,
        hooks::hooks_left_out_at,
    },
    run::{
        start::{self, missing_required},
        stdout::print_all,
    },
};
use needs::Need;
use report::{Program, Report, render};

/// Runs; returns the exit code: 0, or 3 with a required hook missing.
///
/// # Errors
/// When nothing can be loaded at all, or the BTF cannot be read.
pub fn check(options: &Check, config: &Config) -> anyhow::Result<u8> {
    let report = match &options.btf {
        Some(path) => of_btf(path, &options.btf_module, options.detail)?,
        None => live(options, config)?,
    };
    if options.json {
        print_all(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print_all(&render(&report))?;
    }
    Ok(if report.ok { 0 } else { 3 })
}

/// Of the running kernel: loaded, attached, probed.
fn live(options: &Check, config: &Config) -> anyhow::Result<Report> {
    let attached = start::attach(config)?;
    let resolved = &attached.resolved;
    let mut states = attached.probe.states.clone();
    states.extend(left_out(options.detail));
    let mut report = Report::new("live", resolved, states);
    report.needs = needs::live(Path::new("/sys"), Path::new("/proc"), resolved);
    if options.verbose {
        let loaded: Vec<_> = aya::programs::loaded_programs().flatten().collect();
        for (hook, id) in &attached.probe.programs {
            let info = loaded.iter().find(|info| info.id() == *id);
            report.programs.push(Program {
                hook: hook.clone(),
                program: info
                    .and_then(|info| info.name_as_str())
                    .unwrap_or_default()
                    .to_owned(),
                verified_instructions: info.and_then(|info| info.verified_instruction_count()),
            });
        }
    }
    Ok(report)
}

/// Of a kernel that is not running.
fn of_btf(
    path: &Path,
    modules: &[(String, PathBuf)],
    detail: Option<Detail>,
) -> anyhow::Result<Report> {
    let resolved = resolve_files(path, modules).map_err(|why| anyhow!(why))?;
    let mut states = forecast(&resolved, detail.unwrap_or_default());
    states.extend(left_out(detail));
    let mut report = Report::new("btf", &resolved, states);
    report.needs = needs::of_btf(&resolved);
    report.notes.push(
        "likely = all that BTF tells is there; whether it attaches, only the running kernel tells"
            .to_owned(),
    );
    Ok(report)
}

/// What a level that was asked for does not attach.
fn left_out(detail: Option<Detail>) -> Vec<HookState> {
    detail.map_or_else(Vec::new, |detail| {
        hooks_left_out_at(detail)
            .map(|hook| HookState {
                name: hook.name.to_owned(),
                state: "off".to_owned(),
                reason: format!("not at --detail {}", detail.name()),
                lost: hook.lost.to_owned(),
                ..HookState::default()
            })
            .collect()
    })
}

impl Report {
    fn new(source: &'static str, resolved: &ResolvedFacts, states: Vec<HookState>) -> Self {
        let missing = missing_required(&states);
        Report {
            schema: 1,
            source,
            version: env!("CARGO_PKG_VERSION"),
            kernel: resolved.kernel.clone(),
            arch: resolved.arch,
            hooks: report::rows(states),
            facts: report::facts(resolved),
            traits: resolved.traits.clone(),
            missing_facts: resolved
                .missing
                .iter()
                .filter(|fact| fact.replaced_by.is_none())
                .map(|fact| format!("{}: {}", fact.name, fact.why))
                .collect(),
            needs: Vec::<Need>::new(),
            programs: Vec::new(),
            notes: resolved.notes.clone(),
            ok: missing.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::helper::testdir::TestDir;

    fn fixture(kernel: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../tests/fixtures/btf/{kernel}.btf"));
        fs::read(path).unwrap()
    }

    #[test]
    fn btf_that_is_damaged_or_foreign_ends_with_what_it_is() {
        let dir = TestDir::new("check-btf");
        let path = dir.path().join("vmlinux");
        let good = fixture("6.12.101-amd64");
        let mut big_endian = good.clone();
        big_endian.swap(0, 1);
        for (content, says) in [
            (&good[..good.len() - 9], "truncated in the string section"),
            (&good[..10], "truncated in the header"),
            (&big_endian[..], "big-endian BTF"),
            (b"no BTF at all", "bad magic"),
            (b"", "it is empty"),
        ] {
            fs::write(&path, content).unwrap();
            let error = of_btf(&path, &[], None)
                .err()
                .map(|error| error.to_string());
            let error = error.unwrap_or_default();
            assert!(error.contains(says), "{says}: {error}");
            assert!(error.contains("vmlinux: "), "{error}");
        }
    }

    #[test]
    fn a_module_that_cannot_be_read_is_noted_and_the_rest_is_told() {
        let dir = TestDir::new("check-module");
        let image = dir.path().join("vmlinux");
        fs::write(&image, fixture("6.12.101-arm64")).unwrap();
        let broken = dir.path().join("xfs.ko");
        fs::write(&broken, b"no BTF").unwrap();
        let modules = [
            ("xfs".to_owned(), broken),
            ("btrfs".to_owned(), dir.path().join("none")),
        ];
        let report = of_btf(&image, &modules, None).unwrap();
        assert!(report.ok);
        let text = render(&report);
        assert!(
            text.contains("note: parse BTF of module xfs: bad magic"),
            "{text}"
        );
        assert!(text.contains("note: module btrfs: open "), "{text}");
        assert!(
            text.contains("not known of this kernel: xfs_inode_i_vnode"),
            "{text}"
        );
        assert!(
            text.ends_with("ok: all required hooks are likely\n"),
            "{text}"
        );
    }
}
