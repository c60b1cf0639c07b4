//! Facts about a kernel: member offsets, argument positions, flag values, and
//! which events and functions there are. In: BTF, kallsyms and tracefs; out:
//! [`ResolvedFacts`], whose `facts` go to the programs before load.
//!
//! `btf` reads the format, `lookup` answers questions to it, `table` lists the
//! questions, `catalog` puts them, `resolved` holds the answers, `live` reads
//! the running kernel. No kernel version is tested anywhere; what can't be
//! resolved is listed with its reason and never guessed.

pub mod btf;
pub mod catalog;
pub mod format;
mod live;
pub mod lookup;
mod resolved;
pub mod symbols;
pub mod table;
#[cfg(test)]
mod tests;

use thiserror::Error;

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
    let mut facts = ResolvedFacts::unknown(kernel, "not known without the running kernel");
    let image = Btf::parse(vmlinux, None)?;
    facts.add_kernel(&image)?;
    for (name, data) in modules {
        let added = Btf::parse(data, Some(&image)).and_then(|btf| facts.add_module(&btf));
        if let Err(error) = added {
            facts
                .notes
                .push(format!("parse BTF of module {name}: {error}"));
        }
    }
    facts.complete();
    Ok(facts)
}
