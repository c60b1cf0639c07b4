//! What the init of a virtual machine and its host say to each other: one JSON
//! object a line, over the virtio-serial port [`PORT`]. And the plan, which the
//! init finds at [`PLAN_PATH`] of its initramfs. Types only.
//!
//! The guest speaks first, with [`FromGuest::Hello`]. It waits for an answer
//! only after what [`FromGuest::wants_answer`] says; the host says nothing else.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::Fault;
use crate::faultdisk::{FsKind, Rule, TruthEntry};

/// The name of the virtio-serial port.
pub const PORT: &str = "fsyncscope.0";

/// Where the initramfs holds the plan.
pub const PLAN_PATH: &str = "/plan.json";

/// Where the initramfs holds the agent.
pub const AGENT_PATH: &str = "/fsyncscope";

/// The folder of the modules.
pub const MODULES_DIR: &str = "/modules";

/// When a module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// At once: the line to the host, what others need.
    First,
    /// Then: the disk and its file systems.
    Disk,
    /// What stands between them, when a cell asks for it.
    Stack,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Stage; 3] = [Stage::First, Stage::Disk, Stage::Stack];
}

/// The modules to load, a file name of [`MODULES_DIR`] a line, in this order.
pub fn modules_order(stage: Stage) -> String {
    format!("{MODULES_DIR}/order-{stage:?}").to_lowercase()
}

/// How many bytes of a file go into one line at most.
pub const FILE_CHUNK_BYTES: usize = 48 << 10;

/// What one boot is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The cells, in order.
    pub cells: Vec<Fault>,
    /// The file system that the host has made on the disk.
    pub fs: FsKind,
    /// The disk whose backing fails on demand.
    pub disk: PlanDisk,
    /// The disk with a JVM and a broker's jars, laid out as [`super::broker`] says,
    /// if cells need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_disk: Option<String>,
    /// Further arguments of every run of the agent (`--avoid-form …`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agent_args: Vec<String>,
    /// Keep the capture of passed cells as well.
    #[serde(default)]
    pub keep_all: bool,
}

/// The disk under the file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDisk {
    /// As the user knows it: `nvme0n1`.
    pub name: String,
    /// Its serial number, as given to QEMU.
    pub serial: String,
    /// QEMU's id of the device, for [`FromGuest::DeviceDel`]; `None`: it cannot
    /// be unplugged, the guest removes it by sysfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_id: Option<String>,
}

/// A line of the guest's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGuest {
    /// The first line: the port is open, modules are loaded.
    Hello {
        /// `uname -r`.
        kernel: String,
        /// `uname -m`.
        arch: String,
    },
    /// Put these rules in force on the disk, in place of all others. → `Ok`
    Inject {
        /// The rules.
        rules: Vec<Rule>,
    },
    /// No rules, and answer what is held. → `Ok`
    Clear,
    /// All of the disk's log since the machine started. → `DiskLog`
    DiskLog,
    /// Unplug this device. → `Ok` when asked for; the guest sees it go.
    DeviceDel {
        /// QEMU's id of it.
        id: String,
    },
    /// For the person who waits. No answer.
    Progress {
        /// One line.
        text: String,
    },
    /// What `check --json` printed, once a boot. No answer.
    Check {
        /// It.
        said: Value,
    },
    /// A cell is over. No answer.
    Cell(CellResult),
    /// A part of a file: the parts of one name follow each other. No answer.
    File {
        /// Its name, without a folder.
        name: String,
        /// The bytes, by [`super::base64`].
        data: String,
    },
    /// All is done, the guest powers off. No answer.
    Done,
}

impl FromGuest {
    /// Whether the guest waits for an answer.
    pub fn wants_answer(&self) -> bool {
        matches!(
            self,
            FromGuest::Inject { .. }
                | FromGuest::Clear
                | FromGuest::DiskLog
                | FromGuest::DeviceDel { .. }
        )
    }
}

/// A line of the host's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGuest {
    /// Done.
    Ok,
    /// The disk's log.
    DiskLog {
        /// Its entries.
        entries: Vec<TruthEntry>,
    },
    /// It could not be done: the harness failed, not the cell.
    Error {
        /// Why.
        text: String,
    },
}

/// How a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All that was asserted holds.
    Passed,
    /// Something does not.
    Failed,
    /// What does not hold cannot on such a kernel; `why` says the reason.
    ExpectedGap,
    /// The cell could not be tried: the lab's failure, not the product's.
    Harness,
}

/// One assertion of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// What is asserted: `verdict`, `cause`, `file`, …
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What should have been.
    pub wanted: String,
    /// What was.
    pub got: String,
    /// Why it cannot hold here, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
}

/// What came out of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// Which.
    pub id: Fault,
    /// How it ended.
    pub outcome: Outcome,
    /// What was asserted.
    pub asserts: Vec<Assertion>,
    /// One line: what failed, or why the gap is one; empty if it passed.
    pub why: String,
    /// How long it took.
    pub took_ms: u64,
    /// The incidents that the agent printed, each in its last version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faultdisk::RuleOp;

    #[test]
    fn lines_have_the_documented_form() {
        let inject = FromGuest::Inject {
            rules: vec![Rule::on(RuleOp::Write).errno(5)],
        };
        let text = serde_json::to_string(&inject).unwrap();
        assert_eq!(
            text,
            r#"{"type":"inject","rules":[{"op":"write","errno":5,"delay_ms":0,"skip":0}]}"#
        );
        assert!(inject.wants_answer());
        assert_eq!(serde_json::from_str::<FromGuest>(&text).unwrap(), inject);
        let text = serde_json::to_string(&ToGuest::Ok).unwrap();
        assert_eq!(text, r#"{"type":"ok"}"#);
    }

    #[test]
    fn a_cell_comes_back_as_it_was_sent() {
        let cell = FromGuest::Cell(CellResult {
            id: Fault::WriteError,
            outcome: Outcome::Failed,
            asserts: vec![Assertion {
                name: "cause".into(),
                passed: false,
                wanted: "device-error".into(),
                got: "device-stall".into(),
                gap: None,
            }],
            why: "cause: device-stall instead of device-error".into(),
            took_ms: 7,
            said: vec![Value::from(1)],
        });
        let text = serde_json::to_string(&cell).unwrap();
        assert!(text.starts_with(r#"{"type":"cell","id":"write-error","outcome":"failed""#));
        assert_eq!(serde_json::from_str::<FromGuest>(&text).unwrap(), cell);
        assert!(!cell.wants_answer());
    }

    #[test]
    fn a_plan_needs_only_what_it_uses() {
        let text = r#"{"cells":["healthy"],"fs":"ext4",
            "disk":{"name":"nvme0n1","serial":"FSYNCSCOPE01"}}"#;
        let plan: Plan = serde_json::from_str(text).unwrap();
        assert_eq!(plan.cells, [Fault::Healthy]);
        assert_eq!(plan.disk.qemu_id, None);
    }
}
