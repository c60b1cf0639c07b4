//! BTF in a file, however it is wrapped: raw (as in /sys/kernel/btf), in the
//! section `.BTF` of an ELF file (a kernel image, a module), either compressed by
//! zstd, or in a bootable image of x86_64 whose payload is. In: a path; out: [`Blob`], or one line that says what the file is instead.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

use super::super::elf::Elf;
use super::live::MAX_BTF_BYTES;

/// A kernel image with debug information, decompressed, has 400 MB at most.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What tells the kinds of files apart lies within.
const HEAD_BYTES: usize = 0x250;
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// BTF as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The types.
    pub btf: Vec<u8>,
    /// What the types of a module that was built apart from the kernel refer to.
    pub base: Option<Vec<u8>>,
}

/// Reads a file.
///
/// # Errors
/// What could not be done with it, with its path.
pub fn read_blob(path: &Path) -> Result<Blob, String> {
    let failed = |error: &dyn std::fmt::Display| format!("read {}: {error}", path.display());
    let mut file = File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let mut head = [0; HEAD_BYTES];
    let mut length = 0;
    while length < head.len() {
        match file.read(&mut head[length..]).map_err(|e| failed(&e))? {
            0 => break,
            more => length += more,
        }
    }
    file.rewind().map_err(|e| failed(&e))?;
    let head = &head[..length];
    if head.starts_with(ZSTD) {
        return decompressed(file, path);
    }
    if let Some(start) = payload_start(head) {
        file.seek(SeekFrom::Start(start)).map_err(|e| failed(&e))?;
        let mut magic = [0; 4];
        if file.read_exact(&mut magic).is_ok() && magic == ZSTD {
            file.seek(SeekFrom::Start(start)).map_err(|e| failed(&e))?;
            return decompressed(file, path);
        }
        file.rewind().map_err(|e| failed(&e))?;
    }
    if head.starts_with(b"\x7fELF") {
        return from_elf(Elf::open(&file), path);
    }
    let mut data = Vec::new();
    file.take(MAX_BTF_BYTES + 1)
        .read_to_end(&mut data)
        .map_err(|e| failed(&e))?;
    plain(data, path)
}

fn decompressed(file: File, path: &Path) -> Result<Blob, String> {
    let failed = |error: &dyn std::fmt::Display| format!("decompress {}: {error}", path.display());
    // One frame: a bootable image goes on with other things behind it.
    let decoder = StreamingDecoder::new(file).map_err(|error| failed(&error))?;
    let mut data = Vec::new();
    decoder
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut data)
        .map_err(|error| failed(&error))?;
    if data.starts_with(b"\x7fELF") {
        return from_elf(Elf::open(&data[..]), path);
    }
    plain(data, path)
}

/// Where the compressed kernel of a bootable image begins
/// (Documentation/arch/x86/boot.rst, protocol 2.08 and later).
fn payload_start(head: &[u8]) -> Option<u64> {
    if head.get(0x202..0x206) != Some(b"HdrS") {
        return None;
    }
    let setup_sectors = match head.get(0x1f1)? {
        0 => 4,
        sectors => u64::from(*sectors),
    };
    let offset = u32::from_le_bytes(head.get(0x248..0x24c)?.try_into().ok()?);
    Some((setup_sectors + 1) * 512 + u64::from(offset))
}

fn from_elf<R: super::super::elf::ReadAt + ?Sized>(
    elf: Result<Elf<R>, super::super::elf::ElfError>,
    path: &Path,
) -> Result<Blob, String> {
    let failed = |error| format!("read {}: {error}", path.display());
    let elf = elf.map_err(failed)?;
    let btf = elf.section(".BTF").map_err(failed)?.ok_or_else(|| {
        format!(
            "read {}: it has no section .BTF: built without CONFIG_DEBUG_INFO_BTF, or stripped",
            path.display()
        )
    })?;
    let base = elf.section(".BTF.base").map_err(failed)?;
    Ok(Blob { btf, base })
}

/// What is not BTF is named for what it is.
fn plain(data: Vec<u8>, path: &Path) -> Result<Blob, String> {
    let is = |what: &str| Err(format!("read {}: {what}", path.display()));
    if data.len() as u64 > MAX_BTF_BYTES {
        return is(&format!(
            "more than {MAX_BTF_BYTES} bytes: no BTF is so large"
        ));
    }
    if data.is_empty() {
        return is("it is empty");
    }
    if data.starts_with(b"\x1f\x8b") || data.starts_with(b"\xfd7zXZ") {
        return is("compressed by gzip or xz: decompress it first (zstd is read as it is)");
    }
    if data.get(0x202..0x206) == Some(b"HdrS") || data.get(0x38..0x3c) == Some(b"ARM\x64") {
        return is(
            "a bootable kernel image whose payload is not zstd: take /sys/kernel/btf/vmlinux of that kernel, vmlinux from its debug package, or what its scripts/extract-vmlinux makes",
        );
    }
    Ok(Blob {
        btf: data,
        base: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::elf::tests::file_with;
    use super::*;
    use crate::helper::testdir::TestDir;

    fn read(name: &str, content: &[u8]) -> Result<Blob, String> {
        let dir = TestDir::new(name);
        let path = dir.path().join("file");
        std::fs::write(&path, content).unwrap();
        read_blob(&path)
    }

    #[test]
    fn every_wrapping_gives_the_same_bytes() {
        let btf = b"\x9f\xeb\x01\x00 and so on".to_vec();
        let elf = file_with(".BTF", &btf);
        let compress = |data: &[u8]| {
            ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
        };
        let mut bootable = vec![0; 2 * 512 + 16];
        bootable[0x1f1] = 1;
        bootable[0x202..0x206].copy_from_slice(b"HdrS");
        bootable[0x248] = 16;
        bootable.extend(compress(&elf));
        bootable.extend(b"what follows");
        for content in [
            btf.clone(),
            elf.clone(),
            compress(&btf),
            compress(&elf),
            bootable,
        ] {
            let blob = read("blob", &content).unwrap();
            assert_eq!((blob.btf, blob.base), (btf.clone(), None));
        }
    }

    #[test]
    fn what_is_no_btf_is_named_for_what_it_is() {
        let mut bootable = vec![0; 0x300];
        bootable[0x202..0x206].copy_from_slice(b"HdrS");
        let stripped = file_with(".text", b"code");
        for (content, says) in [
            (&b""[..], "it is empty"),
            (b"\x1f\x8b\x08", "decompress it first"),
            (&bootable, "a bootable kernel image"),
            (&stripped, "it has no section .BTF"),
            (&stripped[..70], "truncated in the section table"),
            (b"\x28\xb5\x2f\xfdxxxxxxxx", "decompress "),
        ] {
            let error = read("no-blob", content).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let error = read_blob(Path::new("/nonexistent/btf")).unwrap_err();
        assert!(error.starts_with("open /nonexistent/btf: "), "{error}");
    }
}
