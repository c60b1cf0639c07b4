//! Elements of the flight recorder in words. In: map values; out: the spans that
//! events carry. What a number means is in `words`.

use fsyncscope_abi::{block::req_op, span, span::wait_kind};

use super::{FlagMasks, file_id, flag_words, req_op_name, status_words, words};
use crate::event::{RequestSpan, WaitSpan};

/// A request; `comm` is the submitter's name, "" = unknown.
pub fn decode_request_span(
    span: &span::RequestSpan,
    masks: FlagMasks,
    comm: String,
) -> RequestSpan {
    let op = span.cmd_flags as u8;
    let is_flush = op == req_op::FLUSH;
    let status = status_words(span.status, span.status_is_errno == 1);
    RequestSpan {
        dev: span.dev,
        op: req_op_name(op),
        flags: flag_words(span.cmd_flags, masks),
        start_ns: span.start_ns,
        issue_ns: span.issue_ns,
        complete_ns: span.complete_ns,
        sector: (!is_flush).then_some(span.sector),
        nr_bytes: if is_flush { 0 } else { span.nr_bytes },
        status: status.name,
        errno: status.errno,
        file: file_id(&span.inode),
        file_source: words::file_source_name(span.source).to_owned(),
        rdev: span.rdev,
        pid: (span.submitter >> 32) as u32,
        tid: span.submitter as u32,
        comm,
        root: span.root,
        nr_requeue: span.nr_requeue,
    }
}

/// A wait.
pub fn decode_wait_span(span: &span::WaitSpan) -> WaitSpan {
    WaitSpan {
        kind: match span.kind {
            wait_kind::COMMIT => "commit".to_owned(),
            wait_kind::CHECKPOINT => "checkpoint".to_owned(),
            wait_kind::LOG_FORCE => "log_force".to_owned(),
            wait_kind::LOCK => "lock".to_owned(),
            wait_kind::FAST_COMMIT => "fast_commit".to_owned(),
            other => format!("wait({other})"),
        },
        s_dev: span.s_dev,
        seq: span.seq,
        tid: span.tid,
        start_ns: span.start_ns,
        flushing_ns: span.flushing_ns,
        logging_ns: span.logging_ns,
        end_ns: span.end_ns,
    }
}

#[cfg(test)]
mod tests {
    use fsyncscope_abi::{
        block::file_source,
        keys::{InodeKey, SLOT_NONE},
    };

    use super::*;

    #[test]
    fn a_flush_has_no_place_and_says_who_asked() {
        let raw = span::RequestSpan {
            number: 7,
            start_ns: 1,
            issue_ns: 2,
            complete_ns: 3,
            sector: 77,
            submitter: 41 << 32 | 42,
            nr_bytes: 4096,
            cmd_flags: u32::from(req_op::FLUSH) | 1 << 18,
            dev: 7 << 20,
            source: file_source::FLUSH,
            root: SLOT_NONE,
            ..span::RequestSpan::default()
        };
        let masks = FlagMasks {
            preflush: 1 << 18,
            ..FlagMasks::default()
        };
        let decoded = decode_request_span(&raw, masks, "kworker/0:1H".to_owned());
        assert_eq!((decoded.op.as_str(), decoded.sector), ("flush", None));
        assert_eq!((decoded.nr_bytes, decoded.pid, decoded.tid), (0, 41, 42));
        assert_eq!(decoded.flags, ["preflush"]);
        assert_eq!(
            (decoded.status.as_str(), decoded.file_source.as_str()),
            ("OK", "flush")
        );
    }

    #[test]
    fn a_failed_write_keeps_its_file_and_status() {
        let raw = span::RequestSpan {
            sector: 2048,
            nr_bytes: 4096,
            cmd_flags: u32::from(req_op::WRITE),
            status: 10,
            inode: InodeKey {
                ino: 12,
                s_dev: 7 << 20,
                pad: 0,
            },
            source: file_source::PAGE,
            ..span::RequestSpan::default()
        };
        let decoded = decode_request_span(&raw, FlagMasks::default(), String::new());
        assert_eq!(decoded.sector, Some(2048));
        assert_eq!(
            (decoded.status.as_str(), decoded.errno),
            ("IOERR", libc::EIO)
        );
        assert_eq!((decoded.file.ino, decoded.file.s_dev), (12, 7 << 20));
    }

    #[test]
    fn kinds_of_waits_have_names_and_unknown_ones_their_number() {
        let kind = |kind| {
            decode_wait_span(&span::WaitSpan {
                kind,
                ..span::WaitSpan::default()
            })
            .kind
        };
        assert_eq!(
            [1, 2, 3, 4, 5, 9].map(kind),
            [
                "commit",
                "checkpoint",
                "log_force",
                "lock",
                "fast_commit",
                "wait(9)"
            ]
        );
    }
}
