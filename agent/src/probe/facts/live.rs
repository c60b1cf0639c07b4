//! Facts of the running kernel: reads BTF, kallsyms and tracefs under the roots
//! given, one blob at a time, so that no more than the image's BTF (4 to 7 MB)
//! and one module's are in memory, and nothing of them afterwards. A file that
//! can't be read makes facts missing, with the reason; it is not an error.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::btf::Btf;
use super::format::{parse_enter_args, parse_exit_ret, parse_offset};
use super::preemption::read_preemption;
use super::resolved::{EventFact, ResolvedFacts, SYMBOLS};
use super::{symbols, table};

/// The largest known image BTF, with every driver built in, has 30 MB.
pub(super) const MAX_BTF_BYTES: u64 = 64 << 20;
const MAX_FORMAT_BYTES: u64 = 64 << 10;

/// Resolves what the kernel under these roots tells; `tracefs` is its mount
/// point (`/sys/kernel/tracing`), if it is mounted and may be read; `image` is read
/// in place of the image's BTF, for tests.
pub fn resolve_live(
    sys_root: &Path,
    proc_root: &Path,
    tracefs: Option<&Path>,
    image: Option<&Path>,
) -> ResolvedFacts {
    let kernel = read_text(&proc_root.join("sys/kernel/osrelease")).unwrap_or_default();
    let mut facts = resolve_dir(&sys_root.join("kernel/btf"), image, kernel.trim());
    if let Some(tracefs) = tracefs {
        add_tracefs(&mut facts, tracefs);
    }
    add_symbols(&mut facts, proc_root);
    facts.preemption = read_preemption(sys_root, proc_root, Path::new("/"));
    facts.complete();
    facts
}

fn resolve_dir(dir: &Path, image: Option<&Path>, kernel: &str) -> ResolvedFacts {
    let path = image.map_or_else(|| dir.join("vmlinux"), Path::to_owned);
    let data = match read_bounded(&path, MAX_BTF_BYTES) {
        Ok(data) => data,
        Err(why) => return ResolvedFacts::unknown(kernel, &why),
    };
    let mut facts = ResolvedFacts::unknown(kernel, "not in the kernel's BTF");
    let image = match Btf::parse(&data, None).and_then(|btf| facts.add_kernel(&btf).map(|()| btf)) {
        Ok(btf) => btf,
        Err(error) => {
            return ResolvedFacts::unknown(kernel, &format!("parse {}: {error}", path.display()));
        }
    };
    for module in table::MODULES {
        let path = dir.join(module);
        if !path.exists() {
            continue; // built in, not loaded, or before 5.11
        }
        let added = read_bounded(&path, MAX_BTF_BYTES).and_then(|data| {
            let parsed = Btf::parse(&data, Some(&image)).and_then(|btf| facts.add_module(&btf));
            parsed.map_err(|error| format!("parse {}: {error}", path.display()))
        });
        match added {
            Ok(()) => facts.modules.push((*module).to_owned()),
            Err(why) => facts.notes.push(why),
        }
    }
    facts
}

fn add_tracefs(facts: &mut ResolvedFacts, tracefs: &Path) {
    let events = tracefs.join("events");
    if let Err(error) = std::fs::read_dir(&events) {
        facts
            .notes
            .push(format!("read {}: {error}", events.display()));
        return;
    }
    for &(system, name) in table::EVENTS {
        if !events.join(system).join(name).exists() {
            continue;
        }
        match facts.events.iter_mut().find(|event| event.name == name) {
            Some(event) => event.in_tracefs = true,
            None => facts.events.push(EventFact {
                system,
                name,
                args: None,
                is_in_image: false,
                in_tracefs: true,
            }),
        }
    }
    let of_syscalls = |prefix: &str, parse: fn(&str) -> Option<u32>| {
        agreed_offset(&events, |name| name.starts_with(prefix), parse)
    };
    let mut offsets = vec![
        (
            "sys_enter_args",
            of_syscalls("sys_enter_", parse_enter_args),
        ),
        ("sys_exit_ret", of_syscalls("sys_exit_", parse_exit_ret)),
    ];
    for &(fact, field, size, of) in table::FIELDS {
        let parse = |text: &str| parse_offset(text, field, size);
        let offset = agreed_offset(&events, |name| of.contains(&name), parse);
        offsets.push((fact, offset));
    }
    for (name, offset) in offsets {
        match offset {
            Ok(Some(offset)) => facts.learn(name, offset),
            Ok(None) => {}
            Err(why) => facts.notes.push(why),
        }
    }
}

/// The offset on which the formats of all events agree that are wanted and
/// exist, `None` if there are none.
fn agreed_offset(
    events: &Path,
    is_wanted: impl Fn(&str) -> bool,
    parse: impl Fn(&str) -> Option<u32>,
) -> Result<Option<u32>, String> {
    let mut agreed = None;
    for &(system, name) in table::EVENTS.iter().filter(|(_, name)| is_wanted(name)) {
        let path = events.join(system).join(name).join("format");
        if !path.exists() {
            continue;
        }
        let text = String::from_utf8_lossy(&read_bounded(&path, MAX_FORMAT_BYTES)?).into_owned();
        let offset =
            parse(&text).ok_or_else(|| format!("parse {}: unexpected fields", path.display()))?;
        if *agreed.get_or_insert(offset) != offset {
            return Err(format!("parse {}: differs from the others", path.display()));
        }
    }
    Ok(agreed)
}

fn add_symbols(facts: &mut ResolvedFacts, proc_root: &Path) {
    let path = proc_root.join("kallsyms");
    let opened = File::open(&path).map(|file| BufReader::with_capacity(64 << 10, file));
    let found = match opened.and_then(|reader| symbols::read_addresses(reader, SYMBOLS)) {
        Ok(found) => found,
        Err(error) => {
            for name in SYMBOLS {
                facts.explain(name, format!("read {}: {error}", path.display()));
            }
            return;
        }
    };
    [facts.facts.iomap_dio_bio_end_io, facts.facts.ext4_end_bio] = found;
    for (name, address) in SYMBOLS.into_iter().zip(found) {
        if address == 0 {
            facts.explain(
                name,
                format!(
                    "no address of {name} in {} (kernel.kptr_restrict?)",
                    path.display()
                ),
            );
        } else {
            facts.missing.retain(|missing| missing.name != name);
        }
    }
}

fn read_text(path: &Path) -> Option<String> {
    String::from_utf8(read_bounded(path, MAX_FORMAT_BYTES).ok()?).ok()
}

/// Reads a file in one allocation of the size that it states.
fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let failed = |error| format!("read {}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut data = Vec::with_capacity(size.min(max_bytes) as usize);
    file.take(max_bytes + 1)
        .read_to_end(&mut data)
        .map_err(failed)?;
    if data.len() as u64 > max_bytes {
        return Err(format!(
            "read {}: more than {max_bytes} bytes",
            path.display()
        ));
    }
    Ok(data)
}
