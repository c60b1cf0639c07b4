//! The least that watching requests can cost: a program of two instructions on
//! the raw tracepoints of issue and complete, loaded by hand because no peer
//! has one. Gone when the descriptors are closed.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::Context;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0; exit`, as the kernel's `struct bpf_insn`.
const RETURN_ZERO: [u64; 2] = [0xb7, 0x95];

/// The head of the kernel's `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The same for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// Programs and links, held open.
pub fn attach() -> anyhow::Result<Vec<File>> {
    let mut open = Vec::new();
    for name in [c"block_rq_issue", c"block_rq_complete"] {
        let program = load().context("load the empty program")?;
        let link = link(name, &program)
            .with_context(|| format!("attach the empty program to {name:?}"))?;
        open.extend([program, link]);
    }
    Ok(open)
}

fn load() -> anyhow::Result<File> {
    let license = c"GPL";
    let mut prog_name = [0; 16];
    prog_name[..5].copy_from_slice(b"empty");
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
        insn_cnt: RETURN_ZERO.len() as u32,
        insns: RETURN_ZERO.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
    };
    bpf(BPF_PROG_LOAD, &attr)
}

fn link(name: &CStr, program: &File) -> anyhow::Result<File> {
    let attr = RawTracepointOpen {
        name: name.as_ptr() as u64,
        prog_fd: program.as_raw_fd() as u32,
        padding: 0,
    };
    bpf(BPF_RAW_TRACEPOINT_OPEN, &attr)
}

/// A bpf(2) command that gives a descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> anyhow::Result<File> {
    // SAFETY: the attribute has the layout of its command, its size is given,
    // and all that it points to lives through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}
