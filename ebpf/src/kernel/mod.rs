//! Everything that differs between kernels. Offsets come as [`FACTS`], resolved
//! by the agent from the running kernel's BTF; no hook tests a version.

pub mod fd;
pub mod file;
pub mod page;
pub mod read;
pub mod request;
pub mod task;

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
