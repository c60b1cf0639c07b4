//! Changes to the kernel object before it is loaded that the loader cannot make. In:
//! the object, facts, the number of CPUs; out: the object. Only maps' definitions are
//! touched, in the section `maps`.

use std::borrow::Cow;

use anyhow::{Context as _, bail};

use crate::probe::{elf::Elf, facts::ResolvedFacts};

/// `struct bpf_map_def` { type, key, value, max_entries, flags, id, pinning }, one a
/// map, and nothing else in the section.
const DEF_WORDS: usize = 7;
const TYPE: usize = 0;
const VALUE_BYTES: usize = 2;
const MAX_ENTRIES: usize = 3;
const FLAGS: usize = 4;
/// BPF_MAP_TYPE_PERCPU_HASH and BPF_F_NO_PREALLOC (include/uapi/linux/bpf.h).
const PERCPU_HASH: u32 = 5;
const NO_PREALLOC: u32 = 1;
/// Memory of each map with a value on each CPU where it is allocated at load: enough
/// for 36 directories and 9 disks at 128 CPUs.
const MAX_BYTES: usize = 8 << 20;
const MIN_KEYS: usize = 32;

/// Whether maps that allocate on first use stay so: the kernel can do that in programs.
pub fn are_hists_late(resolved: &ResolvedFacts) -> bool {
    resolved.has_trait("bpf_mem_alloc")
}

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
    if are_hists_late(resolved) {
        return Ok(Cow::Borrowed(object));
    }
    let elf = Elf::open(object).context("read the kernel object")?;
    let range = elf
        .section_range("maps")
        .context("find section maps of the kernel object")?;
    let mut patched = object.to_vec();
    let section = patched
        .get_mut(usize::try_from(range.start)?..usize::try_from(range.end)?)
        .context("section maps of the kernel object is cut off")?;
    if !section.len().is_multiple_of(DEF_WORDS * 4) {
        bail!("section maps of the kernel object is not made of definitions");
    }
    let (words, _) = section.as_chunks_mut::<4>();
    let (maps, _) = words.as_chunks_mut::<DEF_WORDS>();
    for map in maps {
        allocate_at_load(map, nr_cpus);
    }
    Ok(Cow::Owned(patched))
}

fn allocate_at_load(map: &mut [[u8; 4]; DEF_WORDS], nr_cpus: usize) {
    let word = |nth: usize| u32::from_le_bytes(map[nth]);
    let flags = word(FLAGS);
    if flags & NO_PREALLOC == 0 {
        return;
    }
    let keys = word(MAX_ENTRIES);
    let keys = if word(TYPE) == PERCPU_HASH {
        keys.min(max_keys(word(VALUE_BYTES) as usize, nr_cpus) as u32)
    } else {
        keys
    };
    map[FLAGS] = (flags & !NO_PREALLOC).to_le_bytes();
    map[MAX_ENTRIES] = keys.to_le_bytes();
}

fn max_keys(value_bytes: usize, nr_cpus: usize) -> usize {
    (MAX_BYTES / (value_bytes * nr_cpus).max(1)).max(MIN_KEYS)
}

#[cfg(test)]
mod tests {
    use fsyncscope_abi::{block::BlockHist, hist::Hist};

    use super::*;
    use crate::probe::{elf::tests::file_with, facts::resolve_btf};

    const HIST: u32 = size_of::<Hist>() as u32;
    const BLOCK_HIST: u32 = size_of::<BlockHist>() as u32;

    fn resolved(kernel: &str) -> ResolvedFacts {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../tests/fixtures/btf/{kernel}.btf"));
        resolve_btf(&std::fs::read(path).unwrap(), &[], kernel).unwrap()
    }

    /// Flags and entries of maps after preparation: a hash, two per-CPU ones, and one
    /// that is allocated anyway.
    fn prepared(kernel: &str, nr_cpus: usize) -> Vec<(u32, u32)> {
        let maps = [
            [1, 8, 8, 1024, 1, 0, 0],
            [5, 12, HIST, 1024, 1, 0, 0],
            [5, 8, BLOCK_HIST, 1024, 1, 0, 0],
            [6, 4, 8, 1, 0, 0, 0],
        ];
        let section: Vec<u8> = maps
            .as_flattened()
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        let object = file_with("maps", &section);
        let prepared = prepare(&object, &resolved(kernel), nr_cpus).unwrap();
        let elf = Elf::open(&prepared[..]).unwrap();
        let section = elf.section("maps").unwrap().unwrap();
        let (words, _) = section.as_chunks::<4>();
        let (maps, _) = words.as_chunks::<DEF_WORDS>();
        let word = |map: &[[u8; 4]; DEF_WORDS], nth: usize| u32::from_le_bytes(map[nth]);
        maps.iter()
            .map(|map| (word(map, FLAGS), word(map, MAX_ENTRIES)))
            .collect()
    }

    #[test]
    fn memory_stays_bounded_and_directories_fit() {
        assert_eq!(
            prepared("5.10.218-arm64", 2),
            [(0, 1024), (0, 1024), (0, 1024), (0, 1)]
        );
        // Two operations a directory, four a disk.
        assert_eq!(
            prepared("5.10.218-arm64", 128),
            [(0, 1024), (0, 2 * 36), (0, 4 * 9), (0, 1)]
        );
        for cpus in [1, 2, 16, 64, 128] {
            for (_, keys) in &prepared("5.15.0-amd64", cpus)[1..3] {
                assert!(*keys as usize * HIST as usize * cpus <= MAX_BYTES, "{cpus}");
            }
        }
    }

    #[test]
    fn a_kernel_that_can_allocate_in_programs_keeps_the_maps_as_they_are() {
        assert_eq!(
            prepared("6.1.192-amd64", 128),
            [(1, 1024), (1, 1024), (1, 1024), (0, 1)]
        );
    }
}
