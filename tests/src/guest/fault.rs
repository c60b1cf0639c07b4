//! What is done to a disk in a virtual machine, one cell of the matrix each:
//! its name, what it needs of the machine, which cells may share a boot. Pure.
//! How each is done is the init's affair, what is expected of it `expect`'s.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::faultdisk::FsKind;

/// A fault. In the order in which those of one boot are run.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Nothing is done, and nothing may be said
    Healthy,
    /// The kernel is not as its BTF says: hooks that believed it are refused
    BrokenFact,
    /// A write fails while a sync waits for it
    WriteError,
    /// A write fails in the kernel's own writeback; a later sync is told
    LateError,
    /// The disk's cache flush fails
    FlushError,
    /// The device holds a write for seconds; the sync is told of in flight
    Stall,
    /// The file system is full
    NoSpace,
    /// A write error, with no hook by fexit or a typed tracepoint
    ForcedTracepoint,
    /// The controller is reset while it holds writes
    Reset,
    /// The journal or log cannot be written: read-only, or shut down
    JournalError,
    /// A command times out and is aborted and tried again
    Timeout,
    /// The device goes away
    Removed,
    /// Under a real broker: the device holds a cache flush for long
    BrokerHang,
    /// Under a real broker: no file of a log directory can be written
    BrokerWriteError,
    /// On a partition: a write fails while a sync waits for it
    Partition,
    /// The same on device-mapper's linear target
    DmLinear,
    /// The same on software RAID (level 0) over a partition
    Md,
    /// device-mapper's delay target holds writes that never reached the disk
    DmDelay,
    /// device-mapper's error target fails writes that never reached the disk
    DmError,
    /// The agent is there before the modules of the disk and of its file system are; then
    /// a write fails while a sync waits for it
    LateModules,
}

impl Fault {
    /// Those of the matrix, in their order.
    pub fn all() -> &'static [Fault] {
        let others = Fault::broker().len() + Fault::stacked().len() + 1;
        let (all, _) = Fault::value_variants().split_at(Fault::value_variants().len() - others);
        all
    }

    /// Those in which the agent is told which forms of its hooks to use.
    pub fn forced() -> &'static [Fault] {
        &[Fault::ForcedTracepoint]
    }

    /// The agent is told which forms of its hooks to use.
    pub fn is_forced(self) -> bool {
        Fault::forced().contains(&self)
    }

    /// What the agent is told of the forms of its hooks.
    pub fn agent_args(self) -> &'static [&'static str] {
        match self {
            Fault::ForcedTracepoint => {
                &["--avoid-form", "fexit", "--avoid-form", "typed_tracepoint"]
            }
            _ => &[],
        }
    }

    /// Whether it is played on this file system too: forms of hooks are the same on all.
    pub fn is_for(self, fs: FsKind) -> bool {
        fs == FsKind::Ext4 || !self.is_forced()
    }

    /// Those with something between the file system and the disk, in their order.
    pub fn stacked() -> &'static [Fault] {
        &[
            Fault::Partition,
            Fault::DmLinear,
            Fault::Md,
            Fault::DmDelay,
            Fault::DmError,
        ]
    }

    /// There is something between the file system and the disk.
    pub fn is_stacked(self) -> bool {
        Fault::stacked().contains(&self)
    }

    /// What is done to the disk itself.
    pub fn on_disk(self) -> Fault {
        match self {
            Fault::Partition | Fault::DmLinear | Fault::Md | Fault::LateModules => {
                Fault::WriteError
            }
            fault if fault.is_forced() => Fault::WriteError,
            fault => fault,
        }
    }

    /// Those under a real broker, in their order.
    pub fn broker() -> &'static [Fault] {
        &[Fault::BrokerHang, Fault::BrokerWriteError]
    }

    /// The log directory is a real broker's, not the writer's.
    pub fn is_brokers(self) -> bool {
        Fault::broker().contains(&self)
    }

    /// As it is typed, and named in tables.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Healthy => "healthy",
            Fault::BrokenFact => "broken-fact",
            Fault::WriteError => "write-error",
            Fault::LateError => "late-error",
            Fault::FlushError => "flush-error",
            Fault::Stall => "stall",
            Fault::NoSpace => "no-space",
            Fault::ForcedTracepoint => "forced-tracepoint",
            Fault::Reset => "reset",
            Fault::JournalError => "journal-error",
            Fault::Timeout => "timeout",
            Fault::Removed => "removed",
            Fault::BrokerHang => "broker-hang",
            Fault::BrokerWriteError => "broker-write-error",
            Fault::Partition => "partition",
            Fault::DmLinear => "dm-linear",
            Fault::Md => "md",
            Fault::DmDelay => "dm-delay",
            Fault::DmError => "dm-error",
            Fault::LateModules => "late-modules",
        }
    }

    /// After it nothing else can be tried in the same boot; after a reset, because an
    /// old kernel may hold what was in flight for minutes.
    pub fn is_fatal(self) -> bool {
        matches!(self, Fault::Reset | Fault::Timeout | Fault::Removed)
    }

    /// How long it may take at most on a slow, emulated machine; a guest that
    /// says nothing for longer is hung.
    pub fn limit_s(self) -> u64 {
        match self {
            Fault::LateError | Fault::Reset => 120,
            Fault::Timeout => 240,
            Fault::Removed => 120,
            // A JVM starts in up to a minute; each step is told.
            Fault::BrokerHang | Fault::BrokerWriteError => 300,
            _ => 90,
        }
    }
}

/// Which of these faults go into which boot: as few boots as possible, a fatal
/// one last in each, the others dealt evenly before them, so that no boot is long;
/// those of a broker, those on stacks and late modules by themselves.
pub fn deal_boots(faults: &[Fault]) -> Vec<Vec<Fault>> {
    let mut faults = faults.to_vec();
    faults.sort();
    faults.dedup();
    let (brokers, faults): (Vec<_>, Vec<_>) = faults.into_iter().partition(|f| f.is_brokers());
    let (stacked, faults): (Vec<_>, Vec<_>) = faults.into_iter().partition(|f| f.is_stacked());
    let (late, faults): (Vec<_>, Vec<_>) =
        (faults.into_iter()).partition(|f| *f == Fault::LateModules);
    let (fatal, others): (Vec<_>, Vec<_>) = faults.into_iter().partition(|f| f.is_fatal());
    let a_boot = others.len().div_ceil(fatal.len().max(1)).max(1);
    let mut boots: Vec<Vec<Fault>> = others.chunks(a_boot).map(<[_]>::to_vec).collect();
    boots.resize(boots.len().max(fatal.len()), Vec::new());
    for (boot, fault) in boots.iter_mut().zip(fatal) {
        boot.push(fault);
    }
    boots.extend(
        [brokers, stacked, late]
            .into_iter()
            .filter(|boot| !boot.is_empty()),
    );
    boots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_typed() {
        for fault in Fault::value_variants() {
            let typed = fault.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), fault.name());
            assert_eq!(
                serde_json::to_value(fault).unwrap(),
                serde_json::Value::from(fault.name())
            );
        }
    }

    #[test]
    fn a_fatal_fault_is_the_last_of_its_boot() {
        let boots = deal_boots(Fault::all());
        let fatal = [Fault::Reset, Fault::Timeout, Fault::Removed];
        assert_eq!(boots.len(), fatal.len());
        for (boot, fatal) in boots.iter().zip(fatal) {
            let (last, before) = boot.split_last().unwrap();
            assert_eq!(*last, fatal);
            assert!(before.iter().all(|fault| !fault.is_fatal()));
        }
        let mut played = boots.concat();
        played.sort();
        assert_eq!(played, Fault::all());
    }

    #[test]
    fn the_others_are_dealt_evenly_and_a_fatal_one_may_be_alone() {
        let sizes =
            |faults: &[Fault]| -> Vec<usize> { deal_boots(faults).iter().map(Vec::len).collect() };
        assert_eq!(sizes(Fault::all()), [4, 4, 4]);
        assert_eq!(sizes(&[Fault::Reset, Fault::Removed]), [1, 1]);
        assert_eq!(sizes(&[Fault::Stall, Fault::Reset, Fault::Removed]), [2, 1]);
    }

    #[test]
    fn what_is_not_of_the_matrix_has_boots_of_its_own() {
        let late = &[Fault::LateModules][..];
        let all: Vec<Fault> = [Fault::all(), Fault::broker(), Fault::stacked(), late].concat();
        assert_eq!(all, Fault::value_variants());
        let boots = deal_boots(&all);
        let matrix = deal_boots(Fault::all());
        assert_eq!(boots[..matrix.len()], matrix);
        assert_eq!(
            boots[matrix.len()..],
            [Fault::broker(), Fault::stacked(), late]
        );
    }

    #[test]
    fn faults_that_kill_nothing_share_one_boot_in_order() {
        let boots = deal_boots(&[Fault::FlushError, Fault::Healthy, Fault::Healthy]);
        assert_eq!(boots, [vec![Fault::Healthy, Fault::FlushError]]);
        assert_eq!(deal_boots(&[]), Vec::<Vec<Fault>>::new());
    }
}
