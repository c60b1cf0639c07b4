//! What an ELF file says about itself, as far as a release promises something of
//! it. In: its bytes. Out: architecture, whether it is static and stripped.

use anyhow::{Context, ensure};

use crate::arch::Arch;

/// e_machine (include/uapi/linux/elf-em.h).
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const EM_BPF: u16 = 247;
/// The program header that names a dynamic linker.
const PT_INTERP: u32 = 3;
/// The section header of a symbol table.
const SHT_SYMTAB: u32 = 2;

/// What a release promises of its binary.
#[derive(Debug, PartialEq, Eq)]
pub struct Elf {
    /// `None`: of no architecture that we ship for.
    pub arch: Option<Arch>,
    /// It asks for no dynamic linker.
    pub is_static: bool,
    /// It has no symbol table.
    pub is_stripped: bool,
}

/// Reads the headers of a 64-bit little-endian ELF file.
pub fn parse(bytes: &[u8]) -> anyhow::Result<Elf> {
    ensure!(
        bytes.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit little-endian ELF file"
    );
    let arch = match u16_at(bytes, 18)? {
        EM_X86_64 => Some(Arch::X86_64),
        EM_AARCH64 => Some(Arch::Aarch64),
        _ => None,
    };
    let segments = Table {
        start: u64_at(bytes, 32)?,
        entry: u16_at(bytes, 54)?,
        count: u16_at(bytes, 56)?,
        kind_at: 0,
    };
    let sections = Table {
        start: u64_at(bytes, 40)?,
        entry: u16_at(bytes, 58)?,
        count: u16_at(bytes, 60)?,
        kind_at: 4,
    };
    Ok(Elf {
        arch,
        is_static: !segments.has(bytes, PT_INTERP)?,
        is_stripped: !sections.has(bytes, SHT_SYMTAB)?,
    })
}

/// True if an ELF file for the kernel's BPF machine lies inside.
pub fn holds_kernel_object(bytes: &[u8]) -> bool {
    let magic = b"\x7fELF";
    bytes.windows(20).any(|header| {
        header.starts_with(magic) && u16_at(header, 18).is_ok_and(|machine| machine == EM_BPF)
    })
}

/// A table of headers, each with its type at `kind_at`.
struct Table {
    start: u64,
    entry: u16,
    count: u16,
    kind_at: u64,
}

impl Table {
    fn has(&self, bytes: &[u8], kind: u32) -> anyhow::Result<bool> {
        for index in 0..u64::from(self.count) {
            let at = self.start.saturating_add(index * u64::from(self.entry));
            if u32_at(bytes, at.saturating_add(self.kind_at))? == kind {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn u16_at(bytes: &[u8], at: u64) -> anyhow::Result<u16> {
    read(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: u64) -> anyhow::Result<u32> {
    read(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: u64) -> anyhow::Result<u64> {
    read(bytes, at).map(u64::from_le_bytes)
}

fn read<const N: usize>(bytes: &[u8], at: u64) -> anyhow::Result<[u8; N]> {
    usize::try_from(at)
        .ok()
        .and_then(|at| bytes.get(at..)?.first_chunk::<N>().copied())
        .with_context(|| format!("the ELF file ends before byte {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One program header and one section header of these types.
    fn file(machine: u16, segment: u32, section: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(18, &machine.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(40, &120u64.to_le_bytes());
        for (at, value) in [(54, 56u16), (56, 1), (58, 64), (60, 1)] {
            put(at, &value.to_le_bytes());
        }
        bytes.resize(120 + 64, 0);
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes[124..128].copy_from_slice(&section.to_le_bytes());
        bytes
    }

    #[test]
    fn a_static_stripped_file_is_known_from_the_others() {
        let elf = |arch, is_static, is_stripped| Elf {
            arch,
            is_static,
            is_stripped,
        };
        let x86_64 = Some(Arch::X86_64);
        assert_eq!(parse(&file(62, 1, 1)).unwrap(), elf(x86_64, true, true));
        assert_eq!(parse(&file(62, 3, 1)).unwrap(), elf(x86_64, false, true));
        assert_eq!(parse(&file(62, 1, 2)).unwrap(), elf(x86_64, true, false));
        let aarch64 = Some(Arch::Aarch64);
        assert_eq!(parse(&file(183, 1, 1)).unwrap(), elf(aarch64, true, true));
        assert_eq!(parse(&file(243, 1, 1)).unwrap().arch, None);
    }

    #[test]
    fn what_is_no_elf_file_or_half_of_one_is_an_error() {
        assert!(parse(b"#!/bin/sh\n").is_err());
        let whole = file(62, 1, 1);
        for length in [7, 30, 63, 66, 126] {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_kernel_object_is_found_inside_and_the_file_itself_is_none() {
        let mut bytes = file(62, 1, 1);
        assert!(!holds_kernel_object(&bytes));
        bytes.extend(file(247, 1, 1));
        assert!(holds_kernel_object(&bytes));
    }

    #[test]
    fn this_very_test_is_of_this_machines_architecture() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(parse(&bytes).unwrap().arch, Some(Arch::HOST));
    }
}
