//! Entry of a helper process: `__helper discover`, `__helper follow FILE …`,
//! `__helper sink FILE`. In: arguments behind `__helper`. Out: exit code. The
//! child dies with its parent, and when its stdin is closed.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::serve::serve;
use super::sink::SinkSaid;
use crate::brokerlog::FollowOptions;
use crate::brokerlog::follow::{Follower, POLL};

/// The hidden subcommand.
pub const HELPER_COMMAND: &str = "__helper";

/// Runs a helper; the exit code of the process.
#[must_use]
pub fn helper_main(args: &[String]) -> i32 {
    // SAFETY: PR_SET_PDEATHSIG takes one integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["discover"] => serve(io::stdin().lock(), io::stdout().lock()),
        ["follow", file, ref options @ ..] => parse_follow(file, options).and_then(follow),
        ["sink", file] => sink(Path::new(file)),
        _ => Err(io::Error::other("unknown kind of helper")),
    };
    match outcome {
        Ok(()) => 0,
        // The parent is gone or has enough: no error of ours.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            let kind = args.first().map_or("", String::as_str);
            crate::messages::say(&format!("error: helper {kind}: {error}"));
            2
        }
    }
}

fn parse_follow(file: &str, words: &[&str]) -> io::Result<FollowOptions> {
    let mut options = FollowOptions {
        file: PathBuf::from(file),
        ..FollowOptions::default()
    };
    let bad = |word: &str| io::Error::other(format!("bad argument {word}"));
    for pair in words.chunks(2) {
        match pair {
            ["--history", bytes] => {
                options.history_bytes = bytes.parse().map_err(|_| bad(bytes))?
            }
            ["--root", root] => options.root = Some(PathBuf::from(root)),
            ["--resume", place] => {
                let (ino, offset) = place.split_once(':').ok_or_else(|| bad(place))?;
                options.resume = Some((
                    ino.parse().map_err(|_| bad(place))?,
                    offset.parse().map_err(|_| bad(place))?,
                ));
            }
            _ => return Err(bad(pair[0])),
        }
    }
    Ok(options)
}

fn follow(options: FollowOptions) -> io::Result<()> {
    let mut follower = Follower::new(options, BufWriter::new(io::stdout().lock()));
    while !stdin_closed(POLL.as_millis() as i32) {
        follower.poll()?;
    }
    Ok(())
}

/// Sleeps up to `timeout_ms`; true as soon as the parent has closed its end.
fn stdin_closed(timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd {
        fd: 0,
        events: 0,
        revents: 0,
    };
    // SAFETY: one valid pollfd, and the count says one.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
    ready > 0 && poll.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

/// Copies stdin to a file. No fsync: on the disk it reports on, that could
/// hang for ever, and the capture is of use as far as it reached.
fn sink(path: &Path) -> io::Result<()> {
    let mut said = io::stdout().lock();
    let mut say = |what: &SinkSaid| -> io::Result<()> {
        serde_json::to_writer(&mut said, what)?;
        said.write_all(b"\n")?;
        said.flush()
    };
    let mut file = match create_private(path) {
        Ok(file) => file,
        Err(error) => {
            return say(&SinkSaid::Failed {
                why: format!("open {}: {error}", path.display()),
            });
        }
    };
    say(&SinkSaid::Opened)?;
    let mut input = io::stdin().lock();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let read = input.read(&mut buffer)?;
        if read == 0 {
            return say(&SinkSaid::Done);
        }
        if let Err(error) = file.write_all(&buffer[..read]) {
            return say(&SinkSaid::Failed {
                why: format!("write {}: {error}", path.display()),
            });
        }
    }
}

/// Creates the file with mode 0600; takes an empty one that is there (mktemp's),
/// never one with content: it may be the evidence of the last incident. Follows
/// no symlink and opens no device or pipe. Locked, so that two runs started with
/// the same name do not write into one file.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
        other => other?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file; name a new one"));
    }
    if file.try_lock().is_err() {
        return Err(io::Error::other(
            "another run writes to it; name a new file",
        ));
    }
    if meta.len() > 0 {
        return Err(io::Error::other(
            "it exists and is not overwritten; name a new file, or move it away",
        ));
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    #[test]
    fn capture_is_private_and_no_symlink_and_overwrites_nothing() {
        let dir = TestDir::new("private");
        dir.write("empty", "");
        let empty = dir.path().join("empty");
        std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o644)).unwrap();
        let file = create_private(&empty).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = create_private(&empty).unwrap_err().to_string();
        assert!(error.starts_with("another run writes to it"), "{error}");
        dir.write("old", "content");
        let old = dir.path().join("old");
        let error = create_private(&old).unwrap_err().to_string();
        assert!(error.starts_with("it exists"), "{error}");
        assert_eq!(std::fs::read(&old).unwrap(), b"content");
        dir.link("link", "old");
        assert!(create_private(&dir.path().join("link")).is_err());
        assert!(create_private(dir.path()).is_err());
    }

    #[test]
    fn follow_arguments_are_read() {
        let options = parse_follow(
            "/f",
            &[
                "--history",
                "65536",
                "--root",
                "/proc/7/root",
                "--resume",
                "12:99",
            ],
        )
        .unwrap();
        assert_eq!(
            (options.history_bytes, options.resume),
            (65_536, Some((12, 99)))
        );
        assert!(parse_follow("/f", &["--history"]).is_err());
        assert!(parse_follow("/f", &["--resume", "12"]).is_err());
    }
}
