//! Proof that the hooks fire: a helper process syncs its own binary, opened
//! read-only, so nothing is written; each call must come back through the ring
//! with the inode and result that the helper saw. Block hooks stay "unproven
//! until the first request": a clean file causes none.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fsyncscope_abi::keys::{SLOT_NONE, Target, target_flags};

use crate::{
    decode::decode_record,
    event::{Event, HookState, SyncEvent},
    messages::{one_line, say},
    probe::Probe,
    ring::drain,
};

/// The hidden subcommand of the helper.
pub const PROBE_COMMAND: &str = "__probe";
/// A sync of a clean file takes microseconds; a root disk that hangs must not
/// hold up the start for long.
const DEADLINE: Duration = Duration::from_secs(2);
/// Operations that the helper makes. syncfs is left out: it would flush the
/// whole root file system.
const OPS: [&str; 4] = ["fsync", "fdatasync", "msync", "sync_file_range"];

/// What the helper did.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Said {
    ino: u64,
    major: u32,
    minor: u32,
    name: String,
    /// Result of each of [`OPS`], 0 or −errno.
    results: Vec<i64>,
}

/// The helper's side: waits for a line on stdin, syncs, says what it did.
pub fn probe_main() -> i32 {
    // SAFETY: takes one integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    match sync_own_binary() {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("error: self-probe: {}", one_line(&error)));
            2
        }
    }
}

fn sync_own_binary() -> anyhow::Result<()> {
    let path = std::fs::read_link("/proc/self/exe").context("read /proc/self/exe")?;
    let file = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let stat = file.metadata().context("stat /proc/self/exe")?;
    let mut go = [0; 1];
    std::io::stdin()
        .read_exact(&mut go)
        .context("wait for the word to go")?;
    let fd = file.as_raw_fd();
    let result = |ret: i32| {
        if ret == 0 {
            0
        } else {
            -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
        }
    };
    // SAFETY: fd is open; the mapping is private to this function, made and
    // unmapped with the same length, and only synced.
    let results = unsafe {
        let fsync = result(libc::fsync(fd));
        let fdatasync = result(libc::fdatasync(fd));
        let map = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            0,
        );
        let msync = if map == libc::MAP_FAILED {
            result(-1)
        } else {
            result(libc::msync(map, 4096, libc::MS_SYNC))
        };
        if map != libc::MAP_FAILED {
            libc::munmap(map, 4096);
        }
        let range = result(libc::sync_file_range(fd, 0, 4096, 0));
        vec![fsync, fdatasync, msync, range]
    };
    let said = Said {
        ino: stat.ino(),
        major: libc::major(stat.dev()),
        minor: libc::minor(stat.dev()),
        name: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        results,
    };
    let line = serde_json::to_string(&said)? + "\n";
    std::io::stdout()
        .write_all(line.as_bytes())
        .context("answer")?;
    Ok(())
}

/// Runs the probe and marks hooks as attached (proven) or says what was wrong.
/// Returns the names of sync hooks that did not fire.
///
/// # Errors
/// When the helper cannot be run; the hooks then stay unproven.
pub fn run(probe: &mut Probe) -> anyhow::Result<Vec<String>> {
    let mut child = Command::new("/proc/self/exe")
        .arg(PROBE_COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start self-probe")?;
    let pid = child.id();
    let outcome = converse(probe, &mut child);
    let _ = probe.maps.1.targets.remove(&pid);
    let _ = child.kill();
    // Reaped only if it can be: one in D state is left to init.
    let _ = child.try_wait();
    let (said, seen) = outcome?;
    Ok(judge(&mut probe.states, &said, &seen))
}

fn converse(
    probe: &mut Probe,
    child: &mut std::process::Child,
) -> anyhow::Result<(Said, Vec<SyncEvent>)> {
    let pid = child.id();
    let target = Target {
        broker: SLOT_NONE,
        flags: target_flags::EMIT_ALL,
    };
    probe
        .maps
        .1
        .targets
        .insert(&pid, &target, 0)
        .context("watch the self-probe")?;
    child
        .stdin
        .take()
        .context("self-probe has no stdin")?
        .write_all(b"g")
        .context("start the self-probe's syncs")?;
    let stdout = child.stdout.take().context("self-probe has no stdout")?;
    let (tx, rx) = std::sync::mpsc::channel();
    // A thread, since a hung root disk must not hang the start with it.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let _ = tx.send(read.map(|_| line));
    });
    let line = rx
        .recv_timeout(DEADLINE)
        .with_context(|| format!("the self-probe's syncs did not return within {} s: does the disk of this binary hang?", DEADLINE.as_secs()))?
        .context("read from the self-probe")?;
    let said: Said = serde_json::from_str(&line).context("the self-probe failed")?;
    let mut seen = Vec::new();
    let until = Instant::now() + Duration::from_millis(200);
    while seen.len() < OPS.len() && Instant::now() < until {
        drain(&mut probe.maps.0, usize::MAX, |bytes| {
            if let Ok(Event::Sync(sync)) = decode_record(bytes, crate::decode::FlagMasks::default())
                && sync.pid == pid
            {
                seen.push(sync);
            }
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((said, seen))
}

/// Compares what was seen with what was done.
fn judge(states: &mut [HookState], said: &Said, seen: &[SyncEvent]) -> Vec<String> {
    let mut silent = Vec::new();
    let mut wrong_file = None;
    let mut has_file = false;
    for (op, result) in OPS.iter().zip(&said.results) {
        let Some(state) = states
            .iter_mut()
            .find(|state| state.name == *op && !state.form.is_empty())
        else {
            continue;
        };
        match seen.iter().find(|sync| sync.op == *op) {
            None => {
                state.reason = join(
                    &state.reason,
                    &format!(
                        "{} attached but did not fire for a sync of its own",
                        state.form
                    ),
                );
                silent.push((*op).to_owned());
            }
            Some(sync) if sync.ret != *result => {
                state.reason = join(
                    &state.reason,
                    &format!("saw result {} of a sync that returned {result}", sync.ret),
                );
                silent.push((*op).to_owned());
            }
            Some(sync) => {
                "attached".clone_into(&mut state.state);
                if sync.file.s_dev != 0 && *op != "sync_file_range" {
                    has_file = true;
                    let s_dev = said.major << 20 | said.minor;
                    if sync.file.ino != said.ino
                        || sync.file.s_dev != s_dev
                        || sync.names.first() != Some(&said.name)
                    {
                        wrong_file = Some(format!(
                            "a sync of inode {} on {}:{} ({}) was seen as inode {} on {}:{} ({})",
                            said.ino,
                            said.major,
                            said.minor,
                            said.name,
                            sync.file.ino,
                            sync.file.s_dev >> 20,
                            sync.file.s_dev & 0xf_ffff,
                            sync.names.first().map_or("", String::as_str)
                        ));
                    }
                }
            }
        }
    }
    // Which file system's hook fired is known by the mount of this binary only;
    // with one in use, it is the one whose hook is attached.
    for state in states
        .iter_mut()
        .filter(|state| is_file_hook(&state.name) && !state.form.is_empty())
    {
        if let Some(why) = &wrong_file {
            "failed".clone_into(&mut state.state);
            state.form.clear();
            state.reason.clone_from(why);
        } else if has_file && state.name == file_hook_of(said) {
            "attached".clone_into(&mut state.state);
        }
    }
    silent
}

fn is_file_hook(name: &str) -> bool {
    name.starts_with("ext4_") || name.starts_with("xfs_") || name.starts_with("btrfs_")
}

/// The hook of the file system that the probe's file lies on.
fn file_hook_of(said: &Said) -> &'static str {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = crate::enrich::parse_mountinfo(&text);
    let mount = mounts
        .iter()
        .find(|mount| mount.major == said.major && mount.minor == said.minor);
    match mount.map(|mount| mount.fs_type.as_str()) {
        Some("ext4" | "ext3" | "ext2") => "ext4_sync_file_enter",
        Some("xfs") => "xfs_file_fsync",
        Some("btrfs") => "btrfs_sync_file",
        _ => "",
    }
}

fn join(first: &str, second: &str) -> String {
    if first.is_empty() {
        second.to_owned()
    } else {
        format!("{first}; {second}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Said {
        Said {
            ino: 7,
            major: 8,
            minor: 1,
            name: "fsyncscope".to_owned(),
            results: vec![0; 4],
        }
    }

    fn hook(name: &str) -> HookState {
        HookState {
            name: name.to_owned(),
            state: "unproven".to_owned(),
            form: "tracepoint".to_owned(),
            ..HookState::default()
        }
    }

    fn sync(op: &str, ino: u64) -> SyncEvent {
        SyncEvent {
            op: op.to_owned(),
            file: crate::event::FileId {
                s_dev: 8 << 20 | 1,
                ino,
            },
            names: vec!["fsyncscope".to_owned()],
            ..SyncEvent::default()
        }
    }

    #[test]
    fn a_hook_that_fires_is_proven_and_a_silent_one_is_named() {
        let mut states = [hook("fsync"), hook("msync")];
        let silent = judge(&mut states, &said(), &[sync("fsync", 7)]);
        assert_eq!(silent, ["msync"]);
        assert_eq!(states[0].state, "attached");
        assert!(states[1].reason.contains("did not fire"));
    }

    #[test]
    fn a_wrong_inode_fails_the_file_hook() {
        let mut states = [hook("fsync"), hook("ext4_sync_file_enter")];
        judge(&mut states, &said(), &[sync("fsync", 8)]);
        assert_eq!(states[1].state, "failed");
        assert!(states[1].reason.contains("inode 7"), "{}", states[1].reason);
    }
}
