//! Facts about a kernel: member offsets, argument positions, flag values, and
//! which events and functions there are. In: BTF, kallsyms and tracefs; out:
//! [`ResolvedFacts`], whose `facts` go to the programs before load.
//!
//! `blob` finds it in a file, `btf` reads the format, `lookup` answers questions to it, `table` lists the
//! questions, `catalog` puts them, `resolved` holds the answers, `live` reads
//! the running kernel, `preemption` how it preempts itself. No kernel version is tested anywhere; what can't be
//! resolved is listed with its reason and never guessed.

mod blob;
pub mod btf;
pub mod catalog;
pub mod format;
mod live;
pub mod lookup;
pub mod preemption;
mod resolved;
pub mod symbols;
pub mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use thiserror::Error;

use blob::{Blob, read_blob};
use btf::{Btf, BtfError};

pub use live::resolve_live;
pub use resolved::{EventFact, FunctionFact, MissingFact, ResolvedFacts};

/// Why nothing at all could be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("parse BTF of the kernel image: {0}")]
pub struct FactsError(#[from] BtfError);

/// Resolves a kernel that need not be running, from its image's BTF and those of
/// its modules (name and split BTF). A module's that can't be read is a note.
pub fn resolve_btf(
    vmlinux: &[u8],
    modules: &[(&str, &[u8])],
    kernel: &str,
) -> Result<ResolvedFacts, FactsError> {
    let modules = modules.iter().map(|&(name, btf)| {
        let btf = btf.to_vec();
        (name.to_owned(), Ok(Blob { btf, base: None }))
    });
    resolve_blobs(vmlinux, &modules.collect::<Vec<_>>(), kernel)
}

/// Likewise from files, in any wrapping that [`read_blob`] knows. Modules are given
/// by name and file.
///
/// # Errors
/// Why nothing is known: the image's BTF can't be read.
pub fn resolve_files(
    vmlinux: &Path,
    modules: &[(String, PathBuf)],
) -> Result<ResolvedFacts, String> {
    let image = read_blob(vmlinux)?;
    let modules = modules
        .iter()
        .map(|(name, path)| (name.clone(), read_blob(path)));
    let name = vmlinux.display().to_string();
    resolve_blobs(&image.btf, &modules.collect::<Vec<_>>(), &name)
        .map_err(|FactsError(error)| format!("parse {name}: {error}"))
}

fn resolve_blobs(
    vmlinux: &[u8],
    modules: &[(String, Result<Blob, String>)],
    kernel: &str,
) -> Result<ResolvedFacts, FactsError> {
    let mut facts = ResolvedFacts::unknown(kernel, "not known without the running kernel");
    let image = Btf::parse(vmlinux, None)?;
    facts.add_kernel(&image)?;
    for (name, blob) in modules {
        match blob {
            Ok(blob) => match add_module(&mut facts, &image, blob) {
                Ok(()) => facts.modules.push(name.clone()),
                Err(error) => facts
                    .notes
                    .push(format!("parse BTF of module {name}: {error}")),
            },
            Err(why) => facts.notes.push(format!("module {name}: {why}")),
        }
    }
    facts.complete();
    Ok(facts)
}

fn add_module(facts: &mut ResolvedFacts, image: &Btf, blob: &Blob) -> Result<(), BtfError> {
    let base = match &blob.base {
        Some(base) => Some(Btf::parse(base, None)?),
        None => None,
    };
    let btf = Btf::parse(&blob.btf, Some(base.as_ref().unwrap_or(image)))?;
    btf.check_base()?;
    facts.add_module(&btf)
}
