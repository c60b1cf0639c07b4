//! What the kernel keeps of the running thread. In: the current task. Out:
//! whether it is the kernel's own, how long it has waited for a CPU.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf};
use fsyncscope_abi::facts::{UNKNOWN, detail};

use crate::kernel::{
    fact,
    read::{Mem as _, Probe, Typed},
};

/// PF_KTHREAD (include/linux/sched.h, 5.10 to 7.3).
const PF_KTHREAD: u32 = 0x0020_0000;

/// A thread of the kernel alone; where that cannot be told, false.
#[inline(always)]
pub fn is_kernel_thread() -> bool {
    if fact!(task_flags) == UNKNOWN {
        return false;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    Probe::u32(task, fact!(task_flags)) & PF_KTHREAD != 0
}

/// How long this thread has waited for a CPU since its start, ns: ready to run,
/// and another ran (`sched_info.run_delay`). 0 where the kernel does not keep it,
/// and at the level `low`, which divides no sync's time.
#[inline(always)]
pub fn run_delay_ns() -> u64 {
    if fact!(task_run_delay) == UNKNOWN || fact!(detail) == detail::LOW {
        return 0;
    }
    if fact!(has_typed_task) != 0 {
        // SAFETY: the helper has no preconditions.
        let task = unsafe { bpf_get_current_task_btf() };
        return Typed::u64(task as u64, fact!(task_run_delay));
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    Probe::u64(task, fact!(task_run_delay))
}
