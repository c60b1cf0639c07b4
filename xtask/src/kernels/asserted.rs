//! What a cell of each fault asserts, as docs/KERNELS.md says it. In: nothing. Out:
//! text. What is asserted is in the tests' crate, `guest::expect` and `guest::hooks`:
//! the sentences are of that code, and change with it.

use fsyncscope_tests::guest::fault::Fault;

/// A section with a row for each fault of the matrix.
pub fn section() -> String {
    let mut text = String::from(
        "\n## What a cell asserts\n\n\
         In each but broken-fact: nothing is said that is not true, no required hook is missing,\n\
         no event is lost (but ends of syncs that had begun before the agent was there, two at\n\
         most; and a few, by name, where the kernel preempts its own code), the agent lives, and\n\
         its exit code is that of what it said. Each answer names the disk as the user knows it\n\
         (`nvme0n1`, no path of it) and its serial number. Where the machine itself shows that a\n\
         fault was not made, the cell is not played. Beside that:\n\n\
         | fault | made so | asserted |\n|---|---|---|\n",
    );
    for fault in Fault::all() {
        let (made, asserted) = of(*fault);
        text.push_str(&format!("| {} | {made} | {asserted} |\n", fault.name()));
    }
    text
}

/// How it is made, and what is asserted.
fn of(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::Healthy => (
            "a writer at work",
            "no incident; fsync's hook has its best form; `check --btf` says of the kernel's BTF \
             what `check` says of the kernel: all facts and traits, and the form of each hook \
             but those of a module without BTF; whether the kernel preempts its own code",
        ),
        Fault::BrokenFact => (
            "`check` is told to believe a BTF with a member elsewhere, an event renamed, two \
             arguments exchanged; then one whose fsync is another function",
            "each hook that depends on it is `failed` for its own reason, no other, exit code 3; \
             fexit that attaches and does not fire gives way to the tracepoint",
        ),
        Fault::WriteError => (
            "EIO for writes to a segment's sectors",
            "CONFIRMED device-error: file, errno as the caller was told, sector, request's file, \
             block status, NVMe status, the broker's line",
        ),
        Fault::LateError => (
            "the same, while the kernel writes back by itself",
            "the same but for the line; told before any sync failed, and how late the caller was \
             told",
        ),
        Fault::FlushError => (
            "EIO for cache flushes",
            "CONFIRMED device-error: errno as the caller was told, files of the writer's, the \
             flush with block status and NVMe status",
        ),
        Fault::Stall => (
            "a write is held for 7 s",
            "STALLED device-stall, told in flight: file, sector, time in the device",
        ),
        Fault::NoSpace => (
            "all blocks are allocated",
            "CONFIRMED no-space, the broker's line; the caller was told ENOSPC; no request is \
             blamed",
        ),
        Fault::ForcedTracepoint => (
            "as write-error, without fexit and typed tracepoints",
            "as write-error; no hook has a form that was forbidden",
        ),
        Fault::Reset => (
            "a write is held, and the controller reset by sysfs",
            "STALLED device-stall: file, sector of a request that was held; the reset came back",
        ),
        Fault::JournalError => (
            "EIO for writes to the journal's sectors",
            "CONFIRMED journal: errno as the caller was told, sector, block status, NVMe status; \
             the file system takes no new file any more",
        ),
        Fault::Timeout => (
            "writes to a segment are held for 9 s, the driver's limit is 3 s",
            "CONFIRMED device-error (or journal, where its own request is given up first): file, \
             errno as the caller was told, sector of the write that was held, or a failed request \
             of the journal; the driver's own line of the time-out",
        ),
        Fault::Removed => (
            "QEMU unplugs the disk",
            "CONFIRMED device-gone: errno as the caller was told, files of the writer's; the \
             controller is gone or dead",
        ),
        // Those have sections of their own.
        Fault::BrokerHang
        | Fault::BrokerWriteError
        | Fault::Partition
        | Fault::DmLinear
        | Fault::Md
        | Fault::DmDelay
        | Fault::DmError
        | Fault::LateModules => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_the_matrix_has_its_row() {
        for fault in Fault::all() {
            let (made, asserted) = of(*fault);
            assert!(!made.is_empty() && !asserted.is_empty(), "{}", fault.name());
            assert!(section().contains(&format!("| {} | {made} |", fault.name())));
        }
    }
}
