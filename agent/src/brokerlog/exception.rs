//! Reads the Java exception that follows a log line: class, message, root
//! cause, first frames, and the errno that its text names. In: continuation
//! lines. Out: [`Exception`]. Not here: what it means.

/// What the lines behind a record say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exception {
    pub class: String,
    pub message: String,
    pub root_class: String,
    pub root_message: String,
    pub top: Vec<String>,
    /// Classes of the whole chain, outermost first.
    pub chain: Vec<String>,
}

/// Frames kept for the report: the native call and the Kafka frame above it
/// are within the first eight in every recording.
const TOP_FRAMES: usize = 8;

/// Reads the chain of exceptions; `None` if the lines hold none.
pub(crate) fn parse_exception(stack: &[String]) -> Option<Exception> {
    let mut found: Option<Exception> = None;
    for line in stack {
        let (cause, text) = match line.strip_prefix("Caused by: ") {
            Some(text) => (true, text),
            None => (false, line.as_str()),
        };
        if let Some(frame) = line
            .trim_start()
            .strip_prefix("at ")
            .filter(|_| line.starts_with([' ', '\t']))
        {
            if let Some(exception) = found
                .as_mut()
                .filter(|exception| exception.top.len() < TOP_FRAMES)
            {
                exception.top.push(frame.to_owned());
            }
            continue;
        }
        let Some((class, message)) = split_class(text) else {
            continue;
        };
        match &mut found {
            None => {
                found = Some(Exception {
                    class: class.to_owned(),
                    message: message.to_owned(),
                    root_class: class.to_owned(),
                    root_message: message.to_owned(),
                    top: Vec::new(),
                    chain: vec![class.to_owned()],
                });
            }
            Some(exception) if cause => {
                class.clone_into(&mut exception.root_class);
                message.clone_into(&mut exception.root_message);
                exception.chain.push(class.to_owned());
                // The frames nearest to the failed call are the root's.
                exception.top.clear();
            }
            Some(_) => {}
        }
    }
    found
}

/// `a.b.SomeException: message`.
fn split_class(line: &str) -> Option<(&str, &str)> {
    let (class, message) = line
        .split_once(": ")
        .unwrap_or((line.trim_end_matches(':'), ""));
    let is_class = class.contains('.')
        && class
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._$".contains(&byte))
        && (class.ends_with("Exception")
            || class.ends_with("Error")
            || class.ends_with("Throwable"));
    is_class.then_some((class, message))
}

/// strerror texts (glibc, C locale; musl spells EIO "I/O error") of the errnos
/// that a write, fsync, msync, open or rename of a broker's file can give.
const ERRNO_TEXTS: &[(&str, i32)] = &[
    ("Input/output error", libc::EIO),
    ("I/O error", libc::EIO),
    ("No space left on device", libc::ENOSPC),
    ("Read-only file system", libc::EROFS),
    ("No data available", libc::ENODATA),
    ("Disk quota exceeded", libc::EDQUOT),
    ("Quota exceeded", libc::EDQUOT),
    ("Structure needs cleaning", libc::EUCLEAN),
    ("Remote I/O error", libc::EREMOTEIO),
    ("Invalid exchange", libc::EBADE),
    ("Link has been severed", libc::ENOLINK),
    ("Connection timed out", libc::ETIMEDOUT),
    ("No such device or address", libc::ENXIO),
    ("No such device", libc::ENODEV),
    ("No such file or directory", libc::ENOENT),
    ("Permission denied", libc::EACCES),
    ("Operation not permitted", libc::EPERM),
    ("Stale file handle", libc::ESTALE),
    ("Too many open files", libc::EMFILE),
    ("Cannot allocate memory", libc::ENOMEM),
    ("Device or resource busy", libc::EBUSY),
    ("Transport endpoint is not connected", libc::ENOTCONN),
    ("Host is down", libc::EHOSTDOWN),
    ("File too large", libc::EFBIG),
    ("Bad file descriptor", libc::EBADF),
];

/// The errno text in an exception's message and its number: the message is
/// `TEXT`, `TEXT (detail)`, or `PATH: TEXT`, perhaps behind a wrapped class.
pub(crate) fn parse_errno(message: &str) -> Option<(&'static str, i32)> {
    let without_detail = message.split(" (").next().unwrap_or(message).trim();
    ERRNO_TEXTS.iter().copied().find(|(text, _)| {
        without_detail
            .strip_suffix(text)
            .is_some_and(|before| before.is_empty() || before.ends_with(": "))
            || message
                .strip_suffix(text)
                .is_some_and(|before| before.is_empty() || before.ends_with(": "))
    })
}

/// Whether the chain speaks of files: other exceptions in the same messages
/// (a record too large, an unknown partition) are no matter of storage.
pub(crate) fn is_storage(chain: &[String]) -> bool {
    chain.iter().any(|class| {
        matches!(
            class.as_str(),
            "java.io.IOException"
                | "java.io.UncheckedIOException"
                | "java.io.SyncFailedException"
                | "java.io.FileNotFoundException"
                | "java.lang.InternalError"
                | "java.nio.channels.ClosedChannelException"
                | "org.apache.kafka.common.errors.KafkaStorageException"
        ) || class.starts_with("java.nio.file.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn root_cause_and_its_frames_are_kept() {
        let exception = parse_exception(&lines(
            "org.apache.kafka.common.errors.KafkaStorageException: Error while x\n\
             Caused by: java.io.IOException: Input/output error\n\
             \tat java.base/sun.nio.ch.FileDispatcherImpl.force0(Native Method)\n\t... 10 more",
        ))
        .unwrap();
        assert_eq!(
            exception.class,
            "org.apache.kafka.common.errors.KafkaStorageException"
        );
        assert_eq!(exception.root_class, "java.io.IOException");
        assert_eq!(
            parse_errno(&exception.root_message),
            Some(("Input/output error", libc::EIO))
        );
        assert_eq!(
            exception.top,
            ["java.base/sun.nio.ch.FileDispatcherImpl.force0(Native Method)"]
        );
    }

    #[test]
    fn errno_is_found_in_every_shape_and_nowhere_else() {
        for (text, errno) in [
            (
                "Input/output error (msync with parameter MS_SYNC failed)",
                Some(libc::EIO),
            ),
            (
                "java.io.IOException: Input/output error (msync with parameter MS_SYNC failed)",
                Some(libc::EIO),
            ),
            (
                "/var/lib/kafka/x (1).log: Read-only file system",
                Some(libc::EROFS),
            ),
            ("No such device or address", Some(libc::ENXIO)),
            ("Remote I/O error", Some(libc::EREMOTEIO)),
            ("sync failed", None),
            ("client said Input/output error", None),
        ] {
            assert_eq!(parse_errno(text).map(|found| found.1), errno, "{text}");
        }
    }

    #[test]
    fn config_lines_are_no_exception() {
        assert_eq!(
            parse_exception(&lines("\tlog.dirs = /a\n (kafka.server.KafkaConfig)")),
            None
        );
        assert_eq!(
            parse_exception(&lines("java.nio.channels.ClosedChannelException"))
                .unwrap()
                .message,
            ""
        );
    }
}
