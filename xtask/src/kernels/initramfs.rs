//! The initramfs of a guest: a cpio archive in the kernel's "newc" form, not
//! compressed (the kernel of an emulated machine would unpack it slowly). In:
//! files by name. Out: bytes. Pure.

/// An archive being made.
pub struct Cpio {
    bytes: Vec<u8>,
    ino: u32,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

impl Cpio {
    /// An archive with these folders.
    pub fn new(folders: &[&str]) -> Self {
        let mut cpio = Cpio {
            bytes: Vec::new(),
            ino: 0,
        };
        for folder in folders {
            cpio.entry(folder, DIRECTORY, &[]);
        }
        cpio
    }

    /// Adds a file that may be run.
    pub fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, content);
    }

    /// Adds any other file.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE, content);
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.ino += 1;
        let nlink = if mode == DIRECTORY { 2 } else { 1 };
        let size = content.len() as u32;
        let name_size = name.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
        // rdevmajor, rdevminor, namesize, check.
        let fields = [
            self.ino, mode, 0, 0, nlink, 0, size, 0, 0, 0, 0, name_size, 0,
        ];
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let rest = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(rest, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_form_that_the_kernel_reads() {
        let mut cpio = Cpio::new(&["dev"]);
        cpio.program("init", b"abcde");
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 4, 0);
        // A head of 110 bytes, "dev\0", to the next multiple of 4.
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[110..116], b"dev\0\0\0");
        let second = &bytes[116..];
        assert_eq!(&second[14..22], b"000081ed");
        assert_eq!(&second[54..62], b"00000005");
        assert_eq!(&second[110..115], b"init\0");
        assert_eq!(&second[116..124], b"abcde\0\0\0");
        assert!(String::from_utf8_lossy(&bytes).contains("TRAILER!!!"));
    }
}
