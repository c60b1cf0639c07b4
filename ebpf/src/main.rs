//! Kernel programs of fsyncscope.
//!
//! Comes in: tracepoints. Goes out: records of `fsyncscope-abi` through one
//! ring, and maps that the agent reads. `hooks` has a file per group of hooks,
//! `kernel` everything that differs between kernels, `maps` all maps. What the
//! watched processes are is no business of this crate: the agent says which
//! processes, directories and disks count.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod hooks;
mod kernel;
mod maps;

/// The kernel lets only programs under a GPL-compatible licence call
/// `bpf_probe_read_kernel`; "Dual MIT/GPL" is one of the spellings that it
/// knows (include/linux/license.h), and covers this crate's MIT.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
