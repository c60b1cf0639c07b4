//! Bytes of a ring record → [`Event`]. Pure: checks length, kind and version,
//! never panics. Numbers become words in `words`; enrichment comes later.

mod nvme;
mod span;
mod words;

use std::mem::MaybeUninit;

use fsyncscope_abi::{
    ABI_VERSION, RecordHeader,
    block::{RequestRecord, RqState, file_source, req_op},
    keys::{InodeKey, Names},
    kind,
    sync::{BY_FD, InodeCounters, SyncRecord, SyncState},
    wb::{WbErrRecord, WbTellRecord, errseq},
};
use thiserror::Error;

use crate::event::{
    Counters, Event, FileId, InFlightRequest, RequestEvent, SyncEvent, WbErrEvent, WbTellEvent,
};

pub use nvme::{KNOWN as KNOWN_NVME, nvme_words, split_nvme_status};
pub use span::{decode_request_span, decode_wait_span};
pub use words::{errno_name, flag_words, req_op_name, status_words, sync_op_name};

/// Why a record could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Shorter than its kind.
    #[error("record of {got} bytes is shorter than the {want} of its kind")]
    Short {
        /// Bytes there.
        got: usize,
        /// Bytes needed.
        want: usize,
    },
    /// Written by other programs.
    #[error("record of version {0}, this agent reads {ABI_VERSION}")]
    Version(u16),
    /// Not a kind that this agent knows.
    #[error("record of unknown kind {0}")]
    Kind(u16),
}

/// Masks of request flags that this kernel uses (facts `req_*`).
#[derive(Clone, Copy, Debug, Default)]
pub struct FlagMasks {
    /// REQ_PREFLUSH
    pub preflush: u32,
    /// REQ_FUA
    pub fua: u32,
    /// REQ_META
    pub meta: u32,
    /// REQ_SYNC
    pub sync: u32,
}

/// Copies a plain struct out of bytes that may not be aligned.
fn read<T: Copy>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() < size_of::<T>() {
        return Err(DecodeError::Short {
            got: bytes.len(),
            want: size_of::<T>(),
        });
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the length was checked; every T used here is #[repr(C)] and made
    // of integers, for which any bytes are valid.
    unsafe {
        std::ptr::copy_nonoverlapping(
            bytes.as_ptr(),
            value.as_mut_ptr().cast::<u8>(),
            size_of::<T>(),
        );
        Ok(value.assume_init())
    }
}

/// Decodes one record.
///
/// # Errors
/// [`DecodeError`] for anything that is not a whole record of a known kind and
/// this version.
pub fn decode_record(bytes: &[u8], masks: FlagMasks) -> Result<Event, DecodeError> {
    let header: RecordHeader = read(bytes)?;
    if header.version != ABI_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    match header.kind {
        kind::SYNC => Ok(Event::Sync(sync_event(&read::<SyncRecord>(bytes)?))),
        kind::REQUEST => Ok(Event::Request(request_event(
            &read::<RequestRecord>(bytes)?,
            masks,
        ))),
        kind::WB_ERR => Ok(Event::WbErr(wb_err_event(&read::<WbErrRecord>(bytes)?))),
        kind::WB_TELL => Ok(Event::WbTell(wb_tell_event(&read::<WbTellRecord>(bytes)?))),
        other => Err(DecodeError::Kind(other)),
    }
}

/// A sync still in flight, from its map value; `now_ns` stands for its exit.
pub fn decode_in_flight(
    state: &SyncState,
    names: Option<&Names>,
    comm: &str,
    delta: Counters,
    now_ns: u64,
) -> SyncEvent {
    SyncEvent {
        comm: comm.to_owned(),
        exit_ns: now_ns,
        ret: 0,
        names: names.map(decode_names).unwrap_or_default(),
        delta,
        ..from_state(state)
    }
}

/// A request outstanding, from its map entry.
pub fn decode_outstanding(rq: u64, state: &RqState, masks: FlagMasks) -> InFlightRequest {
    let op = state.cmd_flags as u8;
    InFlightRequest {
        rq,
        dev: state.dev,
        op: req_op_name(op),
        sector: (op != req_op::FLUSH).then_some(state.sector),
        nr_bytes: if op == req_op::FLUSH {
            0
        } else {
            state.nr_bytes
        },
        issue_ns: state.issue_ns,
        flags: flag_words(state.cmd_flags, masks),
        pid: (state.pid_tgid >> 32) as u32,
        tid: state.pid_tgid as u32,
    }
}

fn from_state(state: &SyncState) -> SyncEvent {
    SyncEvent {
        op: sync_op_name(state.op),
        pid: (state.pid_tgid >> 32) as u32,
        tid: state.pid_tgid as u32,
        enter_ns: state.enter_ns,
        arg0: state.arg0,
        arg1: state.arg1,
        broker: state.broker,
        root: state.root,
        file: file_id(&state.inode),
        nr_files: state.nr_files,
        is_by_fd: state.flags & BY_FD != 0,
        flush_asked_ns: state.flush_asked_ns,
        told_errseq: state.told_errseq,
        log_force_ns: state.log_force_ns,
        lock_ns: if state.lock == 0 { 0 } else { state.lock_ns },
        ..SyncEvent::default()
    }
}

fn sync_event(record: &SyncRecord) -> SyncEvent {
    SyncEvent {
        comm: text(&record.comm),
        exit_ns: record.exit_ns,
        ret: record.ret,
        names: decode_names(&record.names),
        delta: counters(&record.delta),
        run_delay_ns: record.run_delay_ns,
        ..from_state(&record.state)
    }
}

fn request_event(record: &RequestRecord, masks: FlagMasks) -> RequestEvent {
    let op = record.cmd_flags as u8;
    let flush = op == req_op::FLUSH;
    let status = status_words(record.status, record.status_is_errno == 1);
    let disk = text(&record.disk_name);
    RequestEvent {
        rq: record.rq,
        dev: record.dev,
        op: req_op_name(op),
        flags: flag_words(record.cmd_flags, masks),
        sector: (!flush).then_some(record.sector),
        nr_bytes: if flush { 0 } else { record.nr_bytes },
        start_ns: record.start_ns,
        issue_ns: record.issue_ns,
        complete_ns: record.complete_ns,
        status: status.name,
        errno: status.errno,
        status_derived: status.derived,
        file_source: words::file_source_name(record.file_source).to_owned(),
        file: file_id(&record.inode),
        rdev: file_system_of(record.file_source, record.rdev, record.dev, &disk),
        names: decode_names(&record.names),
        root: record.root,
        spans_files: record.spans_files != 0,
        nr_requeue: record.nr_requeue,
        nr_errors: record.nr_errors,
        nvme: nvme_words(record.nvme_status, record.nvme_retries),
        disk,
        is_failover: record.is_failover != 0,
    }
}

/// Whose metadata it is, where no page says so: the number of the bio's device. On a
/// path of an NVMe multipath disk that is the hidden path's own, and before 5.12 a bio
/// has none: the disk then stands for the file system, which is right where there are
/// no partitions.
fn file_system_of(source: u8, rdev: u32, dev: u32, disk: &str) -> u32 {
    let is_meta = source == file_source::META;
    if is_meta && (rdev == 0 || is_hidden_path(disk)) {
        dev
    } else {
        rdev
    }
}

/// `nvme0c0n1`: controller 0 as a path to namespace 1 of subsystem 0.
fn is_hidden_path(disk: &str) -> bool {
    let numbers = disk.strip_prefix("nvme");
    numbers.is_some_and(|numbers| numbers.contains('c'))
}

fn wb_err_event(record: &WbErrRecord) -> WbErrEvent {
    WbErrEvent {
        time_ns: record.header.ktime_ns,
        file: file_id(&record.inode),
        errseq: record.errseq,
        errno: (record.errseq & errseq::ERRNO_MASK) as i32,
        root: record.root,
        names: decode_names(&record.names),
    }
}

fn wb_tell_event(record: &WbTellRecord) -> WbTellEvent {
    WbTellEvent {
        time_ns: record.header.ktime_ns,
        file: file_id(&record.inode),
        pid: (record.pid_tgid >> 32) as u32,
        tid: record.pid_tgid as u32,
        comm: text(&record.comm),
        errseq: record.new,
        errno: (record.new & errseq::ERRNO_MASK) as i32,
        in_sync: record.in_sync != 0,
    }
}

fn file_id(key: &InodeKey) -> FileId {
    FileId {
        s_dev: key.s_dev,
        ino: key.ino,
    }
}

/// Counters as the pure stages carry them.
pub fn counters(c: &InodeCounters) -> Counters {
    Counters {
        nr_requests: c.nr_requests,
        nr_bytes: c.nr_bytes,
        device_ns: c.device_ns,
        nr_errors: c.nr_errors,
    }
}

/// Names up to the first empty one. "/" ends them, the root of a file system or a
/// watched directory; it is kept where it is the file itself.
pub fn decode_names(names: &Names) -> Vec<String> {
    let is_end = |(depth, name): &(usize, String)| name.is_empty() || (*depth > 0 && name == "/");
    let named = names.part.iter().map(|part| text(part)).enumerate();
    named
        .take_while(|one| !is_end(one))
        .map(|(_, name)| name)
        .collect()
}

/// Bytes up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use fsyncscope_abi::sync::op;

    use super::*;

    fn bytes_of<T>(value: &T) -> Vec<u8> {
        // SAFETY: plain #[repr(C)] structs of integers without hidden padding.
        unsafe { std::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }
            .to_vec()
    }

    fn sync_record() -> SyncRecord {
        let mut names = Names {
            part: [[0; 128]; 4],
        };
        names.part[0][..5].copy_from_slice(b"0.log");
        names.part[1][..8].copy_from_slice(b"orders-0");
        SyncRecord {
            header: RecordHeader {
                kind: kind::SYNC,
                version: ABI_VERSION,
                size: 0,
                ktime_ns: 9,
            },
            state: SyncState {
                enter_ns: 5,
                pid_tgid: 7 << 32 | 8,
                op: op::FSYNC,
                ..SyncState::default()
            },
            exit_ns: 9,
            ret: -5,
            run_delay_ns: 0,
            delta: InodeCounters::default(),
            comm: *b"kafka-scheduler\0",
            names,
        }
    }

    #[test]
    fn metadata_on_a_hidden_path_is_that_of_the_disk_above() {
        let of = |source, rdev, disk| file_system_of(source, rdev, 71, disk);
        assert_eq!(of(file_source::META, 70, "nvme0c0n1"), 71);
        assert_eq!(of(file_source::META, 0, "sda"), 71);
        assert_eq!(of(file_source::META, 72, "nvme0n1"), 72);
        assert_eq!(of(file_source::META, 72, "sdc"), 72);
        assert_eq!(of(file_source::BLOCKDEV, 72, "nvme0c0n1"), 72);
        assert_eq!(of(file_source::PAGE, 0, "nvme0c0n1"), 0);
    }

    #[test]
    fn a_sync_record_decodes_to_its_words() {
        let Ok(Event::Sync(sync)) = decode_record(&bytes_of(&sync_record()), FlagMasks::default())
        else {
            panic!("no sync");
        };
        assert_eq!(
            (sync.op.as_str(), sync.pid, sync.tid, sync.ret),
            ("fsync", 7, 8, -5)
        );
        assert_eq!(sync.names, ["0.log", "orders-0"]);
        assert_eq!(sync.comm, "kafka-scheduler");
    }

    #[test]
    fn a_root_ends_the_names_and_is_kept_where_it_is_the_file() {
        let named = |parts: &[&str]| {
            let mut names = Names {
                part: [[0; 128]; 4],
            };
            for (part, name) in names.part.iter_mut().zip(parts) {
                part[..name.len()].copy_from_slice(name.as_bytes());
            }
            decode_names(&names)
        };
        assert_eq!(named(&["a.log", "orders-0", "/"]), ["a.log", "orders-0"]);
        assert_eq!(named(&["/"]), ["/"]);
        assert!(named(&[]).is_empty());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = bytes_of(&sync_record());
        for len in 0..bytes.len() {
            assert!(
                matches!(
                    decode_record(&bytes[..len], FlagMasks::default()),
                    Err(DecodeError::Short { .. })
                ),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn any_bytes_decode_or_fail_without_a_panic() {
        let mut state = 1_u64;
        for round in 0..2_000_u32 {
            let bytes: Vec<u8> = (0..900)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            let mut bytes = bytes;
            bytes[0] = (round % 6) as u8;
            bytes[1] = 0;
            bytes[2] = ABI_VERSION as u8;
            bytes[3] = 0;
            let known = (1..=4).contains(&(round % 6));
            assert_eq!(decode_record(&bytes, FlagMasks::default()).is_ok(), known);
        }
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = bytes_of(&sync_record());
        bytes[2] = 99;
        assert_eq!(
            decode_record(&bytes, FlagMasks::default()),
            Err(DecodeError::Version(99))
        );
    }
}
