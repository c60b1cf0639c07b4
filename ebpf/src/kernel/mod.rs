//! Everything that differs between kernels. Offsets come as [`FACTS`], resolved
//! by the agent from the running kernel's BTF; no hook tests a version.

pub mod fd;
pub mod file;
pub mod page;
pub mod read;
pub mod request;
pub mod task;

use aya_ebpf::{EbpfContext as _, programs::RawTracePointContext};
use fsyncscope_abi::facts::Facts;

/// Filled by the agent before load; lives in `.rodata`, frozen after load, so
/// the verifier sees constants and prunes what does not apply.
#[unsafe(no_mangle)]
pub static FACTS: Facts = Facts::unknown();

/// Reads one fact. Volatile, or the compiler would fold in the placeholder.
macro_rules! fact {
    ($field:ident) => {{
        // SAFETY: a plain read of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::FACTS.$field) }
    }};
}
pub(crate) use fact;

/// The first or the second argument of a raw tracepoint. The second must not be read
/// where there is none, and 5.10 lets nobody reckon with the context's address: each
/// is a load of its own, which the compiler cannot make one of.
#[inline(always)]
pub fn arg0_or_1(ctx: &RawTracePointContext, is_second: bool) -> u64 {
    let args = ctx.as_ptr();
    let arg: u64;
    // SAFETY: loads from the context of a raw tracepoint with that many arguments.
    unsafe {
        if is_second {
            core::arch::asm!("{0} = *(u64 *)({1} + 8)", out(reg) arg, in(reg) args);
        } else {
            core::arch::asm!("{0} = *(u64 *)({1} + 0)", out(reg) arg, in(reg) args);
        }
    }
    arg
}
