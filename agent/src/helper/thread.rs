//! Reads what a thread does: state, system call, the file that it syncs, kernel
//! stack. In: proc root, pid, tid. Out: [`ThreadState`]. None of these files needs
//! the process's mmap_lock, so they answer for a thread in D state; nor does the
//! name of a descriptor's file touch its file system.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::mapped::without_mark;
use super::protocol::ThreadState;

/// Frames kept; the kernel's own limit is 64.
const MAX_FRAMES: usize = 32;

pub(super) fn read_thread(proc_root: &Path, pid: u32, tid: u32) -> ThreadState {
    let dir = proc_root.join(format!("{pid}/task/{tid}"));
    let mut thread = ThreadState::default();
    let Ok(stat) = fs::read_to_string(dir.join("stat")) else {
        thread.gone = true;
        return thread;
    };
    if let Some((comm, rest)) = stat
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(')'))
    {
        comm.clone_into(&mut thread.comm);
        thread.state = rest.trim_start().chars().next();
    }
    if let Ok(text) = fs::read_to_string(dir.join("syscall")) {
        parse_syscall(&text, &mut thread);
        thread.file = synced_file(&proc_root.join(format!("{pid}/fd")), &thread);
    }
    if let Ok(text) = fs::read_to_string(dir.join("stack")) {
        let frames = text
            .lines()
            .take(MAX_FRAMES)
            .map(|line| line.trim_start_matches("[<0>] ").to_owned());
        thread.stack = frames.collect();
    }
    thread
}

/// Calls whose first argument is the descriptor of what they sync.
const SYNCS_OF_FD: [libc::c_long; 4] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
];

fn synced_file(fds: &Path, thread: &ThreadState) -> Option<PathBuf> {
    let call = thread.syscall?;
    let fd = thread.args.first()?;
    if !SYNCS_OF_FD.contains(&call) {
        return None;
    }
    let target = fs::read_link(fds.join(fd.to_string())).ok()?;
    let name = target.as_os_str().as_bytes();
    // Else a socket, a pipe: `socket:[7]`.
    name.starts_with(b"/")
        .then(|| PathBuf::from(OsStr::from_bytes(without_mark(name))))
}

/// `running`, or `NR ARGS… SP PC`; NR is -1 outside of a call.
fn parse_syscall(text: &str, thread: &mut ThreadState) {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else { return };
    thread.syscall_known = true;
    let Some(number) = first.parse::<i64>().ok().filter(|number| *number >= 0) else {
        return;
    };
    thread.syscall = Some(number);
    let values = words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    thread.args = values.take(6).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    #[test]
    fn thread_in_fsync_is_read() {
        let dir = TestDir::new("thread");
        dir.write("7/task/9/stat", "9 (kafka (x) y) D 1 2 3");
        dir.write(
            "7/task/9/syscall",
            "74 0x1d 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f00\n",
        );
        dir.write(
            "7/task/9/stack",
            "[<0>] blkdev_issue_flush+0x1/0x2\n[<0>] ext4_sync_file+0x3/0x4\n",
        );
        let thread = read_thread(dir.path(), 7, 9);
        assert_eq!(
            (thread.state, thread.syscall, thread.args[0]),
            (Some('D'), Some(74), 0x1d)
        );
        assert_eq!(thread.comm, "kafka (x) y");
        assert_eq!(thread.stack[0], "blkdev_issue_flush+0x1/0x2");
        assert!(read_thread(dir.path(), 7, 10).gone);
    }

    #[test]
    fn the_file_of_a_sync_is_named_by_its_descriptor() {
        let dir = TestDir::new("thread-fd");
        dir.write("7/task/9/stat", "9 (x) D 1");
        let name_of = |call: i64, target: &str| {
            dir.write("7/task/9/syscall", &format!("{call} 0x1d 0x0 0x7ffd\n"));
            dir.write("7/fd/none", "");
            let link = dir.path().join("7/fd/29");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(target, link).unwrap();
            read_thread(dir.path(), 7, 9).file
        };
        let file = Some(PathBuf::from("/d1/a b-0/00.log"));
        assert_eq!(name_of(libc::SYS_fsync, "/d1/a b-0/00.log"), file);
        let deleted = "/d1/a b-0/00.log (deleted)";
        assert_eq!(name_of(libc::SYS_fdatasync, deleted), file);
        assert_eq!(name_of(libc::SYS_fsync, "socket:[7]"), None);
        assert_eq!(name_of(libc::SYS_msync, "/d1/a b-0/00.log"), None);
    }

    #[test]
    fn no_call_and_unknown_are_told_apart() {
        let dir = TestDir::new("thread-none");
        dir.write("7/task/9/stat", "9 (x) R 1");
        assert!(!read_thread(dir.path(), 7, 9).syscall_known);
        for text in ["running\n", "-1 0x7ffd 0x7f00\n"] {
            dir.write("7/task/9/syscall", text);
            let thread = read_thread(dir.path(), 7, 9);
            assert_eq!(
                (thread.syscall_known, thread.syscall),
                (true, None),
                "{text}"
            );
        }
    }
}
