//! The disk server: a FUSE file system with one file, `disk`, whose requests
//! meet the rules. A loop device with direct I/O sits on the file, so each
//! block request arrives here as one FUSE request, and a cache flush as fsync.
//! Which requests are touched is `rule`'s matter, when they are answered is
//! `queue`'s; how rules get here is `control`'s.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, WriteFlags,
};
use serde::{Deserialize, Serialize};

use super::queue::{Bandwidth, HeldAnswers};
use super::rule::{Op, Rule, RuleSet};
use super::truth::{Stamp, TruthEntry, TruthLog, TruthRequest};

const ROOT: INodeNo = INodeNo(1);
const DISK: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);
const SECTOR_BYTES: u64 = 512;

/// What the server counted since it started, touched by rules or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests by operation.
    pub requests: BTreeMap<String, u64>,
    /// Bytes by operation.
    pub bytes: BTreeMap<String, u64>,
    /// Requests that a rule touched.
    pub touched: u64,
    /// Answers held back at this moment.
    pub held: u64,
}

#[derive(Default)]
struct Mutable {
    rules: RuleSet,
    bandwidth: Bandwidth,
    stats: Stats,
    seq: u64,
}

/// The disk: its content, its rules, its truth.
pub struct Disk {
    content: File,
    size_bytes: u64,
    truth: TruthLog,
    held: HeldAnswers,
    mutable: Mutex<Mutable>,
}

impl Disk {
    /// A disk of this size over a file that already has it.
    pub fn new(content: File, size_bytes: u64, truth: TruthLog) -> io::Result<Self> {
        Ok(Disk {
            content,
            size_bytes,
            truth,
            held: HeldAnswers::start()?,
            mutable: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Mutable> {
        self.mutable.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Puts new rules in force.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        let mut mutable = self.lock();
        mutable.rules.set(rules.clone());
        // Under the lock: no request may meet the new rules before their line.
        self.truth.append(&TruthEntry::Rules {
            at: Stamp::now(),
            rules,
        });
    }

    /// Limits the rate of the disk, 0 for no limit.
    pub fn set_bandwidth(&self, bytes_per_s: u64) {
        self.lock().bandwidth.set(bytes_per_s);
    }

    /// Answers all held requests now.
    pub fn release(&self) {
        self.held.release();
    }

    /// The counts at this moment.
    pub fn stats(&self) -> Stats {
        let mut stats = self.lock().stats.clone();
        stats.held = self.held.len() as u64;
        stats
    }

    /// Takes one request through the rules. `perform` does it (or, with an
    /// errno, does not) and answers; it runs now or when the answer is due.
    fn handle(
        self: &Arc<Self>,
        op: Op,
        offset: u64,
        bytes: u64,
        perform: impl FnOnce(&Disk, Option<Errno>, &dyn Fn()) + Send + 'static,
    ) {
        let arrival = Stamp::now();
        let now = Instant::now();
        let sector = offset / SECTOR_BYTES;
        let (seq, action, mut due) = {
            let mut mutable = self.lock();
            mutable.seq += 1;
            let name = format!("{op:?}").to_lowercase();
            *mutable.stats.requests.entry(name.clone()).or_default() += 1;
            *mutable.stats.bytes.entry(name).or_default() += bytes;
            let action = mutable
                .rules
                .decide(op, sector, bytes.div_ceil(SECTOR_BYTES));
            mutable.stats.touched += u64::from(action.is_some());
            let due = mutable.bandwidth.done_at(now, bytes);
            (mutable.seq, action, due)
        };
        let touched = action.map(|action| {
            due += Duration::from_millis(action.delay_ms);
            TruthRequest {
                seq,
                op,
                sector,
                bytes,
                errno: action.errno,
                delay_ms: action.delay_ms,
                rule: action.rule,
                arrival,
                reply: None,
            }
        });
        let held = due > now;
        if let Some(request) = touched.as_ref().filter(|_| held) {
            self.truth.append(&TruthEntry::Held(request.clone()));
        }
        let disk = Arc::clone(self);
        let finish = move || {
            let errno = touched.as_ref().map_or(0, |request| request.errno);
            let errno = (errno != 0).then(|| Errno::from_i32(errno));
            perform(&disk, errno, &|| {
                if let Some(request) = &touched {
                    disk.truth.append(&TruthEntry::Request(TruthRequest {
                        reply: Some(Stamp::now()),
                        ..request.clone()
                    }));
                }
            });
        };
        if held {
            self.held.hold(due, finish);
        } else {
            finish();
        }
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain syscall on an open descriptor.
        let done =
            unsafe { libc::fallocate(self.content.as_raw_fd(), mode, offset as i64, bytes as i64) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let epoch = SystemTime::UNIX_EPOCH;
        let is_disk = ino == DISK;
        let size = if is_disk { self.size_bytes } else { 0 };
        FileAttr {
            ino,
            size,
            blocks: size / SECTOR_BYTES,
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind: if is_disk {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: if is_disk { 1 } else { 2 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The file system that the kernel sees.
pub struct DiskFs(pub Arc<Disk>);

impl Filesystem for DiskFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without async direct I/O the kernel would send the loop device's
        // requests one at a time, and one held answer would block the rest.
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_| io::Error::other("the kernel's FUSE has no async direct I/O"))?;
        let refused = |nearest| io::Error::other(format!("max_background: at most {nearest}"));
        config.set_max_background(1024).map_err(refused)?;
        config.set_congestion_threshold(1024).map_err(refused)?;
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == ROOT && name == "disk" {
            reply.entry(&TTL, &self.0.attr(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.0.attr(ino));
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if offset == 0 {
            let _full = reply.add(DISK, 1, FileType::RegularFile, "disk");
        }
        reply.ok();
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Direct: no page cache of this file may answer in the disk's place.
        // Parallel: a write must not hold the inode lock until it is answered.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let perform = move |disk: &Disk, errno: Option<Errno>, note: &dyn Fn()| {
            let mut data = vec![0; size as usize];
            let outcome = match errno {
                Some(errno) => Err(errno),
                None => read_at_most(&disk.content, &mut data, offset),
            };
            note();
            match outcome {
                Ok(bytes) => reply.data(&data[..bytes]),
                Err(errno) => reply.error(errno),
            }
        };
        self.0.handle(Op::Read, offset, u64::from(size), perform);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = data.len() as u64;
        let data = data.to_vec();
        let perform = move |disk: &Disk, errno: Option<Errno>, note: &dyn Fn()| {
            let outcome = match errno {
                Some(errno) => Err(errno),
                None => disk
                    .content
                    .write_all_at(&data, offset)
                    .map_err(Errno::from),
            };
            note();
            match outcome {
                Ok(()) => reply.written(data.len() as u32),
                Err(errno) => reply.error(errno),
            }
        };
        self.0.handle(Op::Write, offset, bytes, perform);
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let perform = move |_: &Disk, errno: Option<Errno>, note: &dyn Fn()| {
            note();
            answer_empty(reply, errno);
        };
        self.0.handle(Op::Flush, 0, 0, perform);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        // The loop device asks for discard and write-zeroes only; a hole in the
        // content reads as zeroes and so is right for both.
        let perform = move |disk: &Disk, errno: Option<Errno>, note: &dyn Fn()| {
            let errno = errno.or_else(|| disk.punch(offset, length).err().map(Errno::from));
            note();
            answer_empty(reply, errno);
        };
        self.0.handle(Op::Discard, offset, length, perform);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // FUSE's flush is a close, nothing that a block device knows.
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = self.0.size_bytes / 4096;
        reply.statfs(blocks, 0, 0, 1, 0, 4096, 255, 4096);
    }
}

fn answer_empty(reply: ReplyEmpty, errno: Option<Errno>) {
    match errno {
        Some(errno) => reply.error(errno),
        None => reply.ok(),
    }
}

fn read_at_most(content: &File, data: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < data.len() {
        match content.read_at(&mut data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(done)
}
