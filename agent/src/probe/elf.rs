//! As much of ELF as is needed: sections by name, of 64-bit little-endian files (kernel images, modules, our own kernel object). In: bytes
//! that are read piece by piece, since a kernel image with debug information has
//! hundreds of megabytes; out: where things lie. Nothing is interpreted here.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use thiserror::Error;

/// No table or section that is read whole is larger.
const MAX_BYTES: u64 = 64 << 20;
const HEADER_BYTES: u64 = 64;
const SECTION_BYTES: u64 = 64;
const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 1 << 11;

/// Why an ELF file can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ElfError {
    /// Not ELF, or not of 64 bits and little-endian.
    #[error("not a little-endian 64-bit ELF file")]
    Kind,
    /// The file ends before the named part does.
    #[error("truncated in the {0}")]
    Truncated(&'static str),
    /// A part that is larger than any known file's.
    #[error("{0} has more than {MAX_BYTES} bytes")]
    TooLarge(&'static str),
    /// A section that the linker compressed.
    #[error("section {0} is compressed")]
    Compressed(String),
}

/// Bytes at an offset; `None` where there are not that many.
pub trait ReadAt {
    /// Reads them.
    fn read_at(&self, offset: u64, length: u64) -> Option<Vec<u8>>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        self.get(start..end).map(<[u8]>::to_vec)
    }
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        // Asked first: a damaged header must not make us allocate.
        if offset.checked_add(length)? > self.metadata().ok()?.len() {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    name: String,
    kind: u32,
    flags: u64,
    offset: u64,
    bytes: u64,
}

/// An open file.
pub struct Elf<'r, R: ReadAt + ?Sized> {
    reader: &'r R,
    sections: Vec<Section>,
}

impl<'r, R: ReadAt + ?Sized> Elf<'r, R> {
    /// Reads the table of sections.
    ///
    /// # Errors
    /// When it is not ELF, or cut off.
    pub fn open(reader: &'r R) -> Result<Self, ElfError> {
        let header = reader.read_at(0, HEADER_BYTES).ok_or(ElfError::Kind)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(ElfError::Kind);
        }
        let cut = ElfError::Truncated("section table");
        let number = |at, bytes| number(&header, at, bytes).ok_or(ElfError::Truncated("header"));
        let (start, entry, count) = (number(40, 8)?, number(58, 2)?, number(60, 2)?);
        let names_index = number(62, 2)?;
        if count != 0 && entry != SECTION_BYTES {
            return Err(ElfError::Kind);
        }
        let table = reader.read_at(start, count * SECTION_BYTES);
        let table = table.ok_or_else(|| cut.clone())?;
        let (records, _) = table.as_chunks::<{ SECTION_BYTES as usize }>();
        let mut raw = Vec::new();
        for record in records {
            let field = |at, bytes| self::number(record, at, bytes).unwrap_or(0);
            raw.push((
                field(0, 4) as usize,
                Section {
                    name: String::new(),
                    kind: field(4, 4) as u32,
                    flags: field(8, 8),
                    offset: field(24, 8),
                    bytes: field(32, 8),
                },
            ));
        }
        let names = match raw.get(names_index as usize) {
            Some((_, section)) => content(reader, section, "section names")?,
            None => Vec::new(),
        };
        let sections = raw
            .into_iter()
            .map(|(name, section)| Section {
                name: text_at(&names, name),
                ..section
            })
            .collect();
        Ok(Elf { reader, sections })
    }

    /// Content of the first section of that name, `None` if there is none.
    ///
    /// # Errors
    /// When it is cut off or compressed.
    pub fn section(&self, name: &str) -> Result<Option<Vec<u8>>, ElfError> {
        match self.sections.iter().find(|section| section.name == name) {
            Some(section) if section.flags & SHF_COMPRESSED != 0 => {
                Err(ElfError::Compressed(name.to_owned()))
            }
            Some(section) if section.kind != SHT_NOBITS => {
                content(self.reader, section, "section").map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Where in the file a section lies, `None` if there is none.
    pub fn section_range(&self, name: &str) -> Option<Range<u64>> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        Some(section.offset..section.offset.checked_add(section.bytes)?)
    }
}

fn content<R: ReadAt + ?Sized>(
    reader: &R,
    section: &Section,
    what: &'static str,
) -> Result<Vec<u8>, ElfError> {
    if section.bytes > MAX_BYTES {
        return Err(ElfError::TooLarge(what));
    }
    let bytes = reader.read_at(section.offset, section.bytes);
    bytes.ok_or(ElfError::Truncated(what))
}

fn number(data: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..bytes].copy_from_slice(data.get(at..at + bytes)?);
    Some(u64::from_le_bytes(word))
}

fn text_at(names: &[u8], at: usize) -> String {
    let rest = names.get(at..).unwrap_or_default();
    let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A file with one section.
    pub fn file_with(section: &str, content: &[u8]) -> Vec<u8> {
        let names = [b"\0", section.as_bytes(), b"\0"].concat();
        let mut file = vec![0; HEADER_BYTES as usize];
        let mut headers = vec![0; SECTION_BYTES as usize];
        let mut add = |name: u32, kind: u32, content: &[u8]| {
            headers.extend(name.to_le_bytes());
            headers.extend(kind.to_le_bytes());
            headers.extend([0; 16]);
            headers.extend((file.len() as u64).to_le_bytes());
            headers.extend((content.len() as u64).to_le_bytes());
            headers.extend([0; 24]);
            file.extend(content);
        };
        add(1, 1, content);
        add(0, 3, &names);
        let start = file.len() as u64;
        file.extend(headers);
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[40..48].copy_from_slice(&start.to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&3_u16.to_le_bytes());
        file[62..64].copy_from_slice(&2_u16.to_le_bytes());
        file
    }

    #[test]
    fn a_section_is_found_by_name() {
        let file = file_with("maps", b"0123456789");
        let elf = Elf::open(&file[..]).unwrap();
        assert_eq!(elf.section("maps"), Ok(Some(b"0123456789".to_vec())));
        assert_eq!(elf.section(".BTF"), Ok(None));
        let range = elf.section_range("maps").unwrap();
        assert_eq!(
            &file[range.start as usize..range.end as usize],
            b"0123456789"
        );
        assert_eq!(elf.section_range(".BTF"), None);
    }

    #[test]
    fn cut_anywhere_is_an_error_or_an_absence() {
        let file = file_with("maps", b"0123456789");
        for length in 0..file.len() {
            assert!(Elf::open(&file[..length]).is_err(), "cut at {length}");
        }
        let mut broken = file.clone();
        broken[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Elf::open(&broken[..]).is_err());
    }

    #[test]
    fn another_architecture_is_refused() {
        let mut file = file_with("maps", b"");
        file[5] = 2;
        assert_eq!(Elf::open(&file[..]).err(), Some(ElfError::Kind));
        assert_eq!(Elf::open(&b"\x7fELF"[..]).err(), Some(ElfError::Kind));
    }
}
