//! errno numbers to names and words. In: a number. Out: text; the unknown
//! becomes `errno(61)`, never an error. Not here: block statuses, which come
//! as words already.

/// `EIO` of 5.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::EFBIG => "EFBIG",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::EDEADLK => "EDEADLK",
        libc::ENODATA => "ENODATA",
        libc::ETIME => "ETIME",
        libc::ENOLINK => "ENOLINK",
        libc::EBADMSG => "EBADMSG",
        libc::EILSEQ => "EILSEQ",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ESTALE => "ESTALE",
        libc::EUCLEAN => "EUCLEAN",
        libc::EREMOTEIO => "EREMOTEIO",
        libc::EDQUOT => "EDQUOT",
        libc::ESHUTDOWN => "ESHUTDOWN",
        other => return format!("errno({other})"),
    };
    name.to_owned()
}

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
