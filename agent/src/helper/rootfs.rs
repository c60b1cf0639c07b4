//! Files as another process sees them: opens below `/proc/PID/root` with
//! openat2(RESOLVE_IN_ROOT), so that a container's absolute symlink ends in
//! the container and not on the host. Blocks where the file system blocks:
//! for helper processes only.

use std::{
    ffi::CString,
    fs::{File, Metadata},
    io::{self, Read},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use crate::event::Space;

/// include/uapi/linux/openat2.h, since 5.6.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_IN_ROOT: u64 = 0x10;

/// The root directory in which paths are resolved.
#[derive(Debug)]
pub struct Root {
    dir: Option<File>,
    path: PathBuf,
}

impl Root {
    /// Opens a root; None is the host's own.
    ///
    /// # Errors
    /// If the directory cannot be opened (the process ended, no rights).
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                dir: None,
                path: PathBuf::from("/"),
            });
        };
        let dir = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(path)?;
        Ok(Self {
            dir: Some(dir),
            path: path.to_owned(),
        })
    }

    fn open_flags(&self, path: &Path, flags: i32) -> io::Result<File> {
        let flags = flags | libc::O_CLOEXEC;
        let Some(dir) = &self.dir else {
            return File::options().read(true).custom_flags(flags).open(path);
        };
        let name = CString::new(path.as_os_str().as_bytes())?;
        let how = OpenHow {
            flags: flags as u64,
            mode: 0,
            resolve: RESOLVE_IN_ROOT,
        };
        // SAFETY: `name` is NUL-terminated, `how` lives through the call and
        // its size is passed; openat2 writes to neither.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                name.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        if fd >= 0 {
            // SAFETY: the kernel has just given us this descriptor.
            return Ok(unsafe { File::from_raw_fd(fd as i32) });
        }
        let error = io::Error::last_os_error();
        // A seccomp filter answers EPERM or ENOSYS; then the plain path is the
        // best there is.
        if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            return File::options()
                .read(true)
                .custom_flags(flags)
                .open(self.join(path));
        }
        Err(error)
    }

    /// Opens a file for reading; a FIFO does not block it.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        self.open_flags(path, libc::O_NONBLOCK | libc::O_NOCTTY)
    }

    /// Opens a path only to look at it.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_path(&self, path: &Path) -> io::Result<File> {
        // openat2 refuses any further flag beside O_PATH.
        self.open_flags(path, libc::O_PATH)
    }

    /// stat(2), symlinks followed within the root.
    ///
    /// # Errors
    /// As stat(2).
    pub fn stat(&self, path: &Path) -> io::Result<Metadata> {
        self.open_path(path)?.metadata()
    }

    /// statfs(2): how full the file system of a path is.
    ///
    /// # Errors
    /// As open(2) and statfs(2).
    pub fn space(&self, path: &Path) -> io::Result<Space> {
        let file = self.open_path(path)?;
        let mut stat = std::mem::MaybeUninit::<libc::statfs64>::zeroed();
        // SAFETY: the descriptor is open, and there is room for the answer.
        if unsafe { libc::fstatfs64(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed at first, and filled by the call.
        let stat = unsafe { stat.assume_init() };
        let block_bytes = u64::try_from(stat.f_bsize).unwrap_or(0);
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(block_bytes),
            total_bytes: stat.f_blocks.saturating_mul(block_bytes),
            free_inodes: stat.f_ffree,
            total_inodes: stat.f_files,
        })
    }

    /// Reads a regular file of at most `max_bytes`; the rest is cut.
    ///
    /// # Errors
    /// As open(2) and read(2); a file that is not regular is refused.
    pub fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let file = self.open_file(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut content = Vec::new();
        file.take(max_bytes).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The path from the host's side.
    #[must_use]
    pub fn join(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    #[test]
    fn room_is_that_of_the_paths_own_file_system() {
        let dir = TestDir::new("rootfs-space");
        let space = Root::open(None).unwrap().space(dir.path()).unwrap();
        assert!(space.total_bytes > space.free_bytes && space.free_bytes > 0);
        let proc = Root::open(Some(Path::new("/"))).unwrap();
        assert_eq!(proc.space(Path::new("/proc")).unwrap().total_bytes, 0);
    }

    #[test]
    fn absolute_symlink_stays_within_the_root() {
        let dir = TestDir::new("rootfs");
        dir.write("data/real", "inside");
        dir.link("var/log", "/data");
        let root = Root::open(Some(dir.path())).unwrap();
        assert_eq!(
            root.read(Path::new("/var/log/real"), 100).unwrap(),
            b"inside"
        );
        assert_eq!(root.read(Path::new("/../../data/real"), 3).unwrap(), b"ins");
        assert_eq!(root.stat(Path::new("/var/log/real")).unwrap().len(), 6);
        assert_eq!(
            root.stat(Path::new("/etc/passwd")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn folder_is_no_regular_file() {
        let dir = TestDir::new("rootfs-dir");
        let root = Root::open(Some(dir.path())).unwrap();
        assert_eq!(
            root.read(Path::new("/"), 1).unwrap_err().to_string(),
            "not a regular file"
        );
    }
}
