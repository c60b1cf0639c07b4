//! What the self-probe has shown: which hooks are proven, and which forms or facts
//! are refuted. In: what the helper did and what the hooks saw; out: states, and
//! [`Refuted`]. Pure. A fact is refuted only by what contradicts it; what was merely
//! not seen refutes a form where the call or request certainly happened.

use fsyncscope_abi::block::{RqState, req_op};

use super::helper::{DIRECT_BYTES, ReadBack, Synced};
use crate::event::{HookState, SyncEvent};

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refuted {
    /// This form of a hook does not do what it should.
    Form {
        /// Hook, as in the table.
        hook: String,
        /// Its form.
        form: String,
        /// What was seen.
        why: String,
    },
    /// These facts are not as BTF says; which of them, the probe cannot tell.
    Facts {
        /// Fields of `Facts`.
        names: Vec<&'static str>,
        /// What was seen.
        why: String,
    },
}

/// What the hooks saw of one step of reads: bytes counted for the file.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// What the helper says.
    pub said: ReadBack,
    /// What was counted for its file.
    pub seen_bytes: u64,
}

/// All that was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the helper did.
    pub synced: Synced,
    /// Records of its syncs.
    pub syncs: Vec<SyncEvent>,
    /// Type and s_dev of the file system that the file lies on, where an inode number
    /// of stat(2) is the one that the hooks see: ext4, xfs, btrfs.
    pub fs: Option<(String, u32)>,
    /// The disk below it, where it answers requests itself.
    pub disk: Option<u32>,
    /// Reads through the page cache.
    pub cached: Reads,
    /// Direct reads.
    pub direct: Reads,
    /// Requests as the issue hook noted them, those of other disks too.
    pub requests: Vec<RqState>,
    /// Whether the end of direct I/O is told from others.
    pub is_direct_known: bool,
    /// The helper's process.
    pub pid: u32,
}

/// A step of reads asks for 64 KB at most; others may run the same binary.
const MAX_READ_BYTES: u64 = 1 << 30;
/// The blocks that lead to a file's data are fewer than four.
const MIN_READ_BYTES: u64 = 16 << 10;

/// Facts from a page of the cache to its file.
const BY_PAGE: [&str; 6] = [
    "bio_bi_io_vec",
    "bio_vec_bv_page",
    "page_compound_head",
    "folio_mapping",
    "address_space_host",
    "inode_i_mapping",
];
/// Facts from a request to its disk.
const BY_DISK: [&str; 5] = [
    "request_q",
    "request_rq_disk",
    "request_queue_disk",
    "gendisk_major",
    "gendisk_first_minor",
];
/// Facts that identify an inode.
const IDENTITY: [&str; 3] = ["inode_i_ino", "inode_i_sb", "super_block_s_dev"];

/// Marks what is proven, returns what is refuted.
pub fn judge(states: &mut [HookState], seen: &Seen) -> Vec<Refuted> {
    let mut refuted = Vec::new();
    for op in ["fsync", "fdatasync", "msync", "sync_file_range"] {
        if let Some(state) = attached(states, op) {
            match wrong_call(seen, op) {
                Some(why) => refuted.push(Refuted::form(state, why)),
                None => "attached".clone_into(&mut state.state),
            }
        }
    }
    judge_files(states, seen, &mut refuted);
    judge_requests(states, seen, &mut refuted);
    refuted
}

impl Refuted {
    /// Whether both name the same culprit.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Refuted::Form { hook, form, .. },
                Refuted::Form {
                    hook: other_hook,
                    form: other_form,
                    ..
                },
            ) => hook == other_hook && form == other_form,
            (
                Refuted::Facts { names, .. },
                Refuted::Facts {
                    names: other_names, ..
                },
            ) => names == other_names,
            _ => false,
        }
    }

    fn form(state: &HookState, why: String) -> Self {
        Refuted::Form {
            hook: state.name.clone(),
            form: state.form.clone(),
            why,
        }
    }
}

fn attached<'s>(states: &'s mut [HookState], name: &str) -> Option<&'s mut HookState> {
    states
        .iter_mut()
        .find(|state| state.name == name && !state.form.is_empty())
}

/// What is wrong with how the calls of one kind were seen.
fn wrong_call(seen: &Seen, op: &str) -> Option<String> {
    for call in seen.synced.calls.iter().filter(|call| call.op == op) {
        let mut records = seen.syncs.iter().filter(|sync| sync.op == op).peekable();
        if records.peek().is_none() {
            return Some("attached but did not fire for a sync of its own".to_owned());
        }
        let Some(record) = records.find(|sync| sync.arg0 == call.arg0) else {
            return Some(format!("saw no call on {:#x}, which was made", call.arg0));
        };
        if record.ret != call.ret {
            return Some(format!(
                "saw result {} of a sync that returned {}",
                record.ret, call.ret
            ));
        }
    }
    None
}

/// The file system's own event names the file of the helper's fsync; where none does,
/// the programs find it by its descriptor, and say so.
fn judge_files(states: &mut [HookState], seen: &Seen, refuted: &mut Vec<Refuted>) {
    let Some((fs, s_dev)) = &seen.fs else {
        return;
    };
    let hook = match fs.as_str() {
        "xfs" => "xfs_file_fsync",
        "btrfs" => "btrfs_sync_file",
        _ => "ext4_sync_file_enter",
    };
    let proves_identity = is_counted(&seen.cached);
    let call = seen.synced.calls.iter().find(|call| call.op == "fsync");
    let record = seen
        .syncs
        .iter()
        .find(|sync| call.is_some_and(|call| sync.op == call.op && sync.arg0 == call.arg0));
    let Some(record) = record else {
        return;
    };
    // Without the event, the facts that lead from the descriptor can still be wrong.
    let state = attached(states, hook);
    let has_event = state.is_some();
    if let Some(state) = &state
        && record.nr_files <= u16::from(record.is_by_fd)
    {
        let why = "attached but did not fire for a sync of its own".to_owned();
        refuted.push(Refuted::form(state, why));
        return;
    }
    if !has_event && !record.is_by_fd {
        return;
    }
    let (file, name) = (
        &record.file,
        record.names.first().map_or("", String::as_str),
    );
    let said = &seen.synced;
    let mut names = Vec::new();
    if file.ino != said.ino {
        names.extend(["file_f_inode", "inode_i_ino"]);
    }
    if file.s_dev != *s_dev {
        names.extend(["file_f_inode", "inode_i_sb", "super_block_s_dev"]);
    }
    let is_named = name == said.name || name.len() < said.name.len() && said.name.starts_with(name);
    if names.is_empty() && (!is_named || name.is_empty()) {
        names.extend(["file_f_path_dentry", "dentry_d_name_name"]);
    }
    if fs == "xfs" && has_event {
        let by_file = |name: &&str| *name == "file_f_inode" || *name == "file_f_path_dentry";
        for name in names.iter_mut().filter(|name| by_file(name)) {
            *name = "xfs_inode_i_vnode";
        }
    }
    if let Some(state) = &state
        && record.is_by_fd
        && names.is_empty()
    {
        let why = "named no file of a sync of its own".to_owned();
        refuted.push(Refuted::form(state, why));
        return;
    }
    // What reads counted for the right inode is right.
    names.retain(|name| !(proves_identity && IDENTITY.contains(name)));
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        if let Some(state) = state {
            "attached".clone_into(&mut state.state);
        }
        return;
    }
    refuted.push(Refuted::Facts {
        names,
        why: format!(
            "a sync of inode {} on {} ({}) was seen as one of inode {} on {} ({})",
            said.ino,
            dev_text(*s_dev),
            said.name,
            file.ino,
            dev_text(file.s_dev),
            name
        ),
    });
}

/// Reads were counted for their file, and no more bytes than anybody reads.
fn is_counted(reads: &Reads) -> bool {
    (512..MAX_READ_BYTES).contains(&reads.seen_bytes)
}

/// The helper made the device read of the file, not only what leads there, and none
/// of it was counted.
fn is_uncounted(reads: &Reads) -> bool {
    reads.said.disk_bytes.unwrap_or(0) >= MIN_READ_BYTES && reads.seen_bytes == 0
}

/// Requests of the helper's reads.
fn judge_requests(states: &mut [HookState], seen: &Seen, refuted: &mut Vec<Refuted>) {
    let Some(disk) = seen.disk else {
        return;
    };
    let read_bytes = |reads: &Reads| reads.said.disk_bytes.unwrap_or(0);
    if read_bytes(&seen.direct) == 0 {
        return;
    }
    let is_sized = |rq: &&RqState| {
        rq.cmd_flags as u8 == req_op::READ && DIRECT_BYTES.contains(&u64::from(rq.nr_bytes))
    };
    let mut on_disk = seen.requests.iter().filter(|rq| rq.dev == disk);
    let mut own = on_disk
        .clone()
        .filter(|rq| rq.pid_tgid >> 32 == u64::from(seen.pid));
    let mut is_issue_good = false;
    if let Some(state) = attached(states, "block_rq_issue") {
        if seen.requests.is_empty() {
            let why = "attached but did not fire for a read of its own".to_owned();
            refuted.push(Refuted::form(state, why));
            return;
        }
        if on_disk.clone().any(|rq| is_sized(&rq)) {
            "attached".clone_into(&mut state.state);
            is_issue_good = true;
        } else if let Some(rq) = own.next() {
            refuted.push(Refuted::Facts {
                names: vec!["request_data_len", "request_cmd_flags"],
                why: format!(
                    "a read of 4096 to 16384 bytes was seen as operation {} of {} bytes",
                    rq.cmd_flags as u8, rq.nr_bytes
                ),
            });
            return;
        } else if on_disk.clone().next().is_none() {
            let found = seen.requests.iter().find(|rq| rq.dev != 0);
            refuted.push(Refuted::Facts {
                names: BY_DISK.to_vec(),
                why: format!(
                    "a read on disk {} was not seen as one{}",
                    dev_text(disk),
                    found.map_or(String::new(), |rq| format!(", but on {}", dev_text(rq.dev)))
                ),
            });
            return;
        }
    }
    // Before the other facts are right, what is found with them says nothing; and
    // compressed data is not in pages of the file.
    let by_page = seen.fs.as_ref().is_some_and(|(fs, _)| fs != "btrfs");
    if !is_issue_good || !by_page || !refuted.is_empty() {
        return;
    }
    let is_ended = on_disk.any(|rq| is_sized(&rq) && rq.issue_ns == 0);
    let Some(state) = attached(states, "block_rq_complete") else {
        return;
    };
    if !is_ended {
        let why = "attached but did not fire for a read of its own".to_owned();
        refuted.push(Refuted::form(state, why));
    } else if is_uncounted(&seen.cached) {
        refuted.push(Refuted::Facts {
            names: BY_PAGE.to_vec(),
            why: "of reads through the page cache the file was not found".to_owned(),
        });
    } else if seen.cached.seen_bytes >= MAX_READ_BYTES {
        let why = format!("saw {} bytes of a small read", seen.cached.seen_bytes);
        refuted.push(Refuted::form(state, why));
    } else if is_counted(&seen.cached) || is_counted(&seen.direct) {
        "attached".clone_into(&mut state.state);
        if seen.is_direct_known && is_uncounted(&seen.direct) {
            refuted.push(Refuted::Facts {
                names: vec!["iomap_dio_iocb"],
                why: "of direct reads the file was not found".to_owned(),
            });
        }
    }
}

fn dev_text(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
