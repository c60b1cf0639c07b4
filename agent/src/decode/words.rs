//! Numbers of kernel records in words. What is not known keeps its number:
//! `blk_status(17)`, `errno(61)`, never an error.

use fsyncscope_abi::{block::file_source, block::req_op, sync::op};

use super::FlagMasks;

/// Name of a sync operation.
pub fn sync_op_name(code: u8) -> String {
    match code {
        op::FSYNC => "fsync".to_owned(),
        op::FDATASYNC => "fdatasync".to_owned(),
        op::MSYNC => "msync".to_owned(),
        op::SYNC_FILE_RANGE => "sync_file_range".to_owned(),
        op::SYNCFS => "syncfs".to_owned(),
        op::DSYNC => "dsync".to_owned(),
        op::IO_URING => "io_uring".to_owned(),
        op::AIO => "aio".to_owned(),
        other => format!("op({other})"),
    }
}

/// Name of a request operation (include/linux/blk_types.h, enum req_op, req_opf
/// before 6.0: these have these values from 5.10 to 7.3, those of zones have not).
pub fn req_op_name(code: u8) -> String {
    match code {
        req_op::READ => "read".to_owned(),
        req_op::WRITE => "write".to_owned(),
        req_op::FLUSH => "flush".to_owned(),
        req_op::DISCARD => "discard".to_owned(),
        req_op::SECURE_ERASE => "secure_erase".to_owned(),
        req_op::WRITE_ZEROES => "write_zeroes".to_owned(),
        other => format!("op({other})"),
    }
}

/// Where the file of a request was found.
pub fn file_source_name(code: u8) -> &'static str {
    match code {
        file_source::PAGE => "page",
        file_source::DIRECT => "direct",
        file_source::BLOCKDEV => "blockdev",
        file_source::FLUSH => "flush",
        file_source::META => "meta",
        _ => "unknown",
    }
}

/// Flags of a request that matter here.
pub fn flag_words(cmd_flags: u32, masks: FlagMasks) -> Vec<String> {
    [
        (masks.sync, "sync"),
        (masks.meta, "meta"),
        (masks.fua, "fua"),
        (masks.preflush, "preflush"),
    ]
    .into_iter()
    .filter(|(mask, _)| *mask != 0 && cmd_flags & mask != 0)
    .map(|(_, word)| word.to_owned())
    .collect()
}

/// A block status in words.
pub struct Status {
    /// `OK`, `IOERR`, …
    pub name: String,
    /// errno that the block layer derives from it, 0 = success or unknown.
    pub errno: i32,
    /// The kernel gave an errno, several statuses share it.
    pub derived: bool,
}

/// Names and errnos of `blk_status_t` 0 to 13 (block/blk-core.c, blk_errors[];
/// these numbers are the same from 5.10 to 7.3, those above are not).
const STATUSES: [(&str, i32); 14] = [
    ("OK", 0),
    ("NOTSUPP", libc::EOPNOTSUPP),
    ("TIMEOUT", libc::ETIMEDOUT),
    ("NOSPC", libc::ENOSPC),
    ("TRANSPORT", libc::ENOLINK),
    ("TARGET", libc::EREMOTEIO),
    ("RESV_CONFLICT", libc::EBADE),
    ("MEDIUM", libc::ENODATA),
    ("PROTECTION", libc::EILSEQ),
    ("RESOURCE", libc::ENOMEM),
    ("IOERR", libc::EIO),
    ("DM_REQUEUE", libc::EREMCHG),
    ("AGAIN", libc::EAGAIN),
    ("DEV_RESOURCE", libc::EBUSY),
];

/// Words for the raw status argument of block_rq_complete.
pub fn status_words(raw: i32, is_errno: bool) -> Status {
    if !is_errno {
        return match usize::try_from(raw).ok().and_then(|i| STATUSES.get(i)) {
            Some((name, errno)) => Status {
                name: (*name).to_owned(),
                errno: *errno,
                derived: false,
            },
            None => Status {
                name: format!("blk_status({raw})"),
                errno: 0,
                derived: false,
            },
        };
    }
    let errno = raw.unsigned_abs() as i32;
    if errno == 0 {
        return Status {
            name: "OK".to_owned(),
            errno: 0,
            derived: false,
        };
    }
    let name = STATUSES
        .iter()
        .find(|(_, e)| *e == errno)
        .map_or_else(|| errno_name(errno), |(name, _)| (*name).to_owned());
    Status {
        name,
        errno,
        derived: true,
    }
}

/// Name of an errno as programs print it; the number where there is no name.
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
        libc::EBADE => "EBADE",
        libc::ENODATA => "ENODATA",
        libc::ETIME => "ETIME",
        libc::ENOLINK => "ENOLINK",
        libc::EBADMSG => "EBADMSG",
        libc::EREMCHG => "EREMCHG",
        libc::EILSEQ => "EILSEQ",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ESHUTDOWN => "ESHUTDOWN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ESTALE => "ESTALE",
        libc::EUCLEAN => "EUCLEAN",
        libc::EREMOTEIO => "EREMOTEIO",
        libc::EDQUOT => "EDQUOT",
        other => return format!("errno({other})"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unstable_statuses_keep_their_number() {
        assert_eq!(status_words(17, false).name, "blk_status(17)");
        assert_eq!(status_words(10, false).name, "IOERR");
        assert_eq!(status_words(7, false).errno, libc::ENODATA);
    }

    #[test]
    fn an_errno_that_is_not_known_keeps_its_number() {
        assert_eq!(errno_name(libc::EIO), "EIO");
        assert_eq!(errno_name(9_999), "errno(9999)");
    }

    /// A kernel that gives an errno alone must not turn one into a number that
    /// the table of statuses has a name for.
    #[test]
    fn every_errno_of_a_status_has_a_name() {
        for (status, errno) in STATUSES {
            let is_known = errno == 0 || !errno_name(errno).starts_with("errno(");
            assert!(is_known, "{status}: errno {errno}");
        }
    }

    #[test]
    fn an_errno_gives_a_derived_status() {
        let status = status_words(-libc::EIO, true);
        assert_eq!(
            (status.name.as_str(), status.errno, status.derived),
            ("IOERR", libc::EIO, true)
        );
    }
}
