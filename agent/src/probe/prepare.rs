//! Changes to the kernel object before it is loaded that the loader cannot make. In:
//! the object, facts, the number of CPUs; out: the object. Only maps' definitions are
//! touched, in the section `maps`.

use std::borrow::Cow;

use anyhow::Context as _;
use fsyncscope_abi::{block::BlockHist, hist::Hist};

use crate::probe::{elf::Elf, facts::ResolvedFacts};

/// Maps whose keys are few of those possible, and what a value has on each CPU. They
/// are made with BPF_F_NO_PREALLOC.
const GROWING: [(&str, usize); 2] = [
    ("HIST", size_of::<Hist>()),
    ("BLOCK_HIST", size_of::<BlockHist>()),
];
/// Places in `struct bpf_map_def` { type, key, value, max_entries, flags, … }.
const MAX_ENTRIES_AT: usize = 12;
const FLAGS_AT: usize = 16;
/// Memory of each where it is allocated at load: enough for 36 directories and 9
/// disks at 128 CPUs.
const MAX_BYTES: usize = 8 << 20;
const MAX_KEYS: usize = 1024;
const MIN_KEYS: usize = 32;

/// Makes maps as this kernel can have them. A kernel before 6.1 (without struct
/// bpf_mem_alloc) prints a warning, and panics if it is set to, when a program uses a
/// map that allocates on first use.
///
/// # Errors
/// When the object is not as the build makes it.
pub fn prepare<'o>(
    object: &'o [u8],
    resolved: &ResolvedFacts,
    nr_cpus: usize,
) -> anyhow::Result<Cow<'o, [u8]>> {
    if resolved.has_trait("bpf_mem_alloc") {
        return Ok(Cow::Borrowed(object));
    }
    let elf = Elf::open(object).context("read the kernel object")?;
    let mut patched = object.to_vec();
    for (map, value_bytes) in GROWING {
        let at = elf
            .symbol_offset("maps", map)
            .context("read the kernel object")?
            .with_context(|| format!("find map {map} in the kernel object"))?;
        let at = usize::try_from(at).context("read the kernel object")?;
        let keys = max_keys(value_bytes, nr_cpus) as u32;
        for (place, value) in [(MAX_ENTRIES_AT, keys), (FLAGS_AT, 0)] {
            patched
                .get_mut(at + place..at + place + 4)
                .with_context(|| format!("map {map} of the kernel object is cut off"))?
                .copy_from_slice(&value.to_le_bytes());
        }
    }
    Ok(Cow::Owned(patched))
}

fn max_keys(value_bytes: usize, nr_cpus: usize) -> usize {
    (MAX_BYTES / (value_bytes * nr_cpus.max(1))).clamp(MIN_KEYS, MAX_KEYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::facts::resolve_btf;

    fn resolved(kernel: &str) -> ResolvedFacts {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../tests/fixtures/btf/{kernel}.btf"));
        resolve_btf(&std::fs::read(path).unwrap(), &[], kernel).unwrap()
    }

    #[test]
    fn memory_stays_bounded_and_directories_fit() {
        for cpus in [1, 2, 16, 64, 128] {
            for (map, bytes) in GROWING {
                let keys = max_keys(bytes, cpus);
                assert!(keys * bytes * cpus <= MAX_BYTES, "{map} at {cpus}");
            }
        }
        // Two operations a directory, four a disk.
        assert_eq!(max_keys(size_of::<Hist>(), 128) / 2, 36);
        assert_eq!(max_keys(size_of::<BlockHist>(), 128) / 4, 9);
        assert_eq!(max_keys(size_of::<Hist>(), 2), MAX_KEYS);
    }

    #[test]
    fn only_a_kernel_that_cannot_allocate_in_programs_gets_other_maps() {
        let Some(object) = crate::probe::object::OBJECT.filter(|object| !object.is_empty()) else {
            // Built without the kernel programs: the live ring looks at real maps.
            assert!(prepare(b"", &resolved("6.1.192-amd64"), 2).is_ok());
            return;
        };
        let new = prepare(object, &resolved("6.1.192-amd64"), 2).unwrap();
        assert!(new[..] == *object);
        let old = prepare(object, &resolved("5.10.218-arm64"), 64).unwrap();
        let changed = old.iter().zip(object).filter(|(old, new)| old != new);
        assert!((3..=6).contains(&changed.count()));
    }
}
