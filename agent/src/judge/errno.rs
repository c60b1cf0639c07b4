//! What an errno means to the judge. In: a number. Out: yes or no. Not here:
//! its name, which `decode` gives to all, and block statuses, which come as
//! words already.

pub use crate::decode::errno_name;

/// Numbers above 511 are the kernel's own "call me again": no failure.
#[must_use]
pub fn is_restart(errno: i32) -> bool {
    errno >= 512
}

/// errnos by which a file system says that its own structures are wrong.
#[must_use]
pub fn is_filesystem_damage(errno: i32) -> bool {
    matches!(errno, libc::EUCLEAN | libc::EBADMSG | libc::ESHUTDOWN)
}
