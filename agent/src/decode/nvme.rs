//! What an NVMe controller answered, in the words of the NVM Express Base
//! Specification. In: the driver's `status` and `retries`. Out: [`NvmeStatus`].
//! A code without a name here keeps its number, and says of which type it is.

use fsyncscope_abi::block::nvme_status;

use crate::event::NvmeStatus;

/// Status code types: section "Status Code Type (SCT)" of the specification, bits
/// 10:8 here.
const TYPES: [(u8, &str); 5] = [
    (0, "Generic Command Status"),
    (1, "Command Specific Status"),
    (2, "Media and Data Integrity Errors"),
    (3, "Path Related Status"),
    (7, "Vendor Specific"),
];

/// Type, code, words, and the name of `NVME_SC_…` in include/linux/nvme.h that has
/// this number. The words are those of the specification's tables of status codes:
/// "Generic Command Status Values" (and those of the NVM command set from 80h),
/// "Command Specific Status Values" of the NVM and zoned command sets, "Media and
/// Data Integrity Error Values", "Path Related Status Values".
#[rustfmt::skip]
const CODES: &[(u8, u8, &str, &str)] = &[
    (0, 0x01, "Invalid Command Opcode", "INVALID_OPCODE"),
    (0, 0x02, "Invalid Field in Command", "INVALID_FIELD"),
    (0, 0x03, "Command ID Conflict", "CMDID_CONFLICT"),
    (0, 0x04, "Data Transfer Error", "DATA_XFER_ERROR"),
    (0, 0x05, "Commands Aborted due to Power Loss Notification", "POWER_LOSS"),
    (0, 0x06, "Internal Error", "INTERNAL"),
    (0, 0x07, "Command Abort Requested", "ABORT_REQ"),
    (0, 0x08, "Command Aborted due to SQ Deletion", "ABORT_QUEUE"),
    (0, 0x0b, "Invalid Namespace or Format", "INVALID_NS"),
    (0, 0x0c, "Command Sequence Error", "CMD_SEQ_ERROR"),
    (0, 0x0d, "Invalid SGL Segment Descriptor", "SGL_INVALID_LAST"),
    (0, 0x0e, "Invalid Number of SGL Descriptors", "SGL_INVALID_COUNT"),
    (0, 0x0f, "Data SGL Length Invalid", "SGL_INVALID_DATA"),
    (0, 0x11, "SGL Descriptor Type Invalid", "SGL_INVALID_TYPE"),
    (0, 0x13, "PRP Offset Invalid", "PRP_INVALID_OFFSET"),
    (0, 0x14, "Atomic Write Unit Exceeded", "ATOMIC_WU_EXCEEDED"),
    (0, 0x15, "Operation Denied", "OP_DENIED"),
    (0, 0x16, "SGL Offset Invalid", "SGL_INVALID_OFFSET"),
    (0, 0x1b, "Command Aborted due to Preempt and Abort", "ABORTED_PREEMPT_ABORT"),
    (0, 0x1c, "Sanitize Failed", "SANITIZE_FAILED"),
    (0, 0x1d, "Sanitize In Progress", "SANITIZE_IN_PROGRESS"),
    (0, 0x1e, "SGL Data Block Granularity Invalid", "SGL_INVALID_GRANULARITY"),
    (0, 0x20, "Namespace is Write Protected", "NS_WRITE_PROTECTED"),
    (0, 0x21, "Command Interrupted", "CMD_INTERRUPTED"),
    (0, 0x22, "Transient Transport Error", "TRANSIENT_TR_ERR"),
    (0, 0x80, "LBA Out of Range", "LBA_RANGE"),
    (0, 0x81, "Capacity Exceeded", "CAP_EXCEEDED"),
    (0, 0x82, "Namespace Not Ready", "NS_NOT_READY"),
    (0, 0x83, "Reservation Conflict", "RESERVATION_CONFLICT"),
    (0, 0x84, "Format In Progress", "FORMAT_IN_PROGRESS"),
    (1, 0x80, "Conflicting Attributes", "BAD_ATTRIBUTES"),
    (1, 0x81, "Invalid Protection Information", "INVALID_PI"),
    (1, 0x82, "Attempted Write to Read Only Range", "READ_ONLY"),
    (1, 0xb8, "Zone Boundary Error", "ZONE_BOUNDARY_ERROR"),
    (1, 0xb9, "Zone Is Full", "ZONE_FULL"),
    (1, 0xba, "Zone Is Read Only", "ZONE_READ_ONLY"),
    (1, 0xbb, "Zone Is Offline", "ZONE_OFFLINE"),
    (1, 0xbc, "Zone Invalid Write", "ZONE_INVALID_WRITE"),
    (1, 0xbd, "Too Many Active Zones", "ZONE_TOO_MANY_ACTIVE"),
    (1, 0xbe, "Too Many Open Zones", "ZONE_TOO_MANY_OPEN"),
    (1, 0xbf, "Invalid Zone State Transition", "ZONE_INVALID_TRANSITION"),
    (2, 0x80, "Write Fault", "WRITE_FAULT"),
    (2, 0x81, "Unrecovered Read Error", "READ_ERROR"),
    (2, 0x82, "End-to-end Guard Check Error", "GUARD_CHECK"),
    (2, 0x83, "End-to-end Application Tag Check Error", "APPTAG_CHECK"),
    (2, 0x84, "End-to-end Reference Tag Check Error", "REFTAG_CHECK"),
    (2, 0x85, "Compare Failure", "COMPARE_FAILED"),
    (2, 0x86, "Access Denied", "ACCESS_DENIED"),
    (2, 0x87, "Deallocated or Unwritten Logical Block", "UNWRITTEN_BLOCK"),
    (3, 0x00, "Internal Path Error", "INTERNAL_PATH_ERROR"),
    (3, 0x01, "Asymmetric Access Persistent Loss", "ANA_PERSISTENT_LOSS"),
    (3, 0x02, "Asymmetric Access Inaccessible", "ANA_INACCESSIBLE"),
    (3, 0x03, "Asymmetric Access Transition", "ANA_TRANSITION"),
    (3, 0x60, "Controller Pathing Error", "CTRL_PATH_ERROR"),
    (3, 0x70, "Host Pathing Error", "HOST_PATH_ERROR"),
    (3, 0x71, "Command Aborted By Host", "HOST_ABORTED_CMD"),
];

/// Type and code of those that a counter exists for before the first: what the
/// driver makes an I/O error of, and what it tries again.
pub const KNOWN: &[(u8, u8)] = &[
    (0, 0x04),
    (0, 0x06),
    (0, 0x07),
    (0, 0x08),
    (0, 0x20),
    (0, 0x21),
    (0, 0x80),
    (0, 0x82),
    (2, 0x80),
    (2, 0x81),
    (2, 0x82),
    (2, 0x86),
    (3, 0x00),
    (3, 0x60),
    (3, 0x70),
    (3, 0x71),
];

/// Status code type and code.
#[must_use]
pub fn split_nvme_status(status: u16) -> (u8, u8) {
    let code = status & nvme_status::SC;
    let kind = (status & nvme_status::TYPE_AND_CODE) >> 8;
    (kind as u8, code as u8)
}

/// The answer in words; `None` where there was neither a status nor a retry.
#[must_use]
pub fn nvme_words(status: u16, retries: u8) -> Option<NvmeStatus> {
    if status & nvme_status::TYPE_AND_CODE == 0 && retries == 0 {
        return None;
    }
    let (sct, sc) = split_nvme_status(status);
    Some(NvmeStatus {
        sct,
        sc,
        crd: ((status & nvme_status::CRD) >> 11) as u8,
        dnr: status & nvme_status::DNR != 0,
        retries,
        text: text(sct, sc),
    })
}

/// `Write Fault (Media and Data Integrity Errors, SCT 2h, SC 80h)`
fn text(sct: u8, sc: u8) -> String {
    let kind = TYPES
        .iter()
        .find(|(number, _)| *number == sct)
        .map_or("Reserved", |(_, name)| name);
    let codes = format!("SCT {sct:x}h, SC {sc:02x}h");
    if (sct, sc) == (0, 0) {
        return format!("Successful Completion ({codes})");
    }
    match CODES.iter().find(|code| (code.0, code.1) == (sct, sc)) {
        Some((_, _, words, _)) => format!("{words} ({kind}, {codes})"),
        None => format!("{kind} without a name here ({codes})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_fault_is_said_in_the_words_of_the_specification() {
        let status = nvme_words(0x4280, 0).unwrap();
        assert_eq!((status.sct, status.sc, status.dnr), (2, 0x80, true));
        assert_eq!(
            status.text,
            "Write Fault (Media and Data Integrity Errors, SCT 2h, SC 80h)"
        );
    }

    #[test]
    fn a_code_without_a_name_keeps_its_number() {
        let status = nvme_words(0x07c3 | 2 << 11, 1).unwrap();
        assert_eq!((status.sct, status.sc, status.crd), (7, 0xc3, 2));
        assert_eq!(
            status.text,
            "Vendor Specific without a name here (SCT 7h, SC c3h)"
        );
        assert!(nvme_words(0x0599, 0).unwrap().text.starts_with("Reserved "));
    }

    #[test]
    fn success_is_told_only_after_a_retry() {
        assert_eq!(nvme_words(0, 0), None);
        // The retry delay and "more" alone are no status.
        assert_eq!(nvme_words(0x3800, 0), None);
        assert_eq!(
            nvme_words(0, 2).unwrap().text,
            "Successful Completion (SCT 0h, SC 00h)"
        );
    }

    #[test]
    fn every_code_is_there_once_and_every_known_one_has_a_name() {
        for (at, code) in CODES.iter().enumerate() {
            let twin = CODES[..at]
                .iter()
                .any(|other| (other.0, other.1) == (code.0, code.1) || other.3 == code.3);
            assert!(!twin, "{code:?}");
        }
        for known in KNOWN {
            assert!(
                CODES.iter().any(|code| (code.0, code.1) == *known),
                "{known:?}"
            );
        }
    }
}
