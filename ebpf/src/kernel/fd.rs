//! From a descriptor of the current task to its file. Used where no event of the
//! file system names the file: sync_file_range, syncfs, directories on xfs, file
//! systems without hooks, calls that fail before they reach one.
//!
//! The table may change meanwhile: another thread can close the descriptor while
//! the call runs. Reads are by probe, so the worst is a name of another file of
//! the same process, and only for a program that closes what it syncs.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use fsyncscope_abi::facts::UNKNOWN;

use crate::kernel::{
    fact,
    read::{Addr, Mem as _, Probe},
};

/// Descriptors that are looked at: fs.nr_open's default (fs/file.c).
const MAX_FD: u64 = 1024 * 1024;

/// `struct file *` of a descriptor of the current task; 0 = none, or unknown.
#[inline(always)]
pub fn file_of_fd(fd: u64) -> Addr {
    let is_unknown = fact!(task_struct_files) == UNKNOWN
        || fact!(files_struct_fdt) == UNKNOWN
        || fact!(fdtable_max_fds) == UNKNOWN
        || fact!(fdtable_fd) == UNKNOWN
        || !is_file_known();
    if fd >= MAX_FD || is_unknown {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let task: Addr = unsafe { bpf_get_current_task() };
    let files = Probe::u64(task, fact!(task_struct_files));
    if files == 0 {
        return 0;
    }
    let table = Probe::u64(files, fact!(files_struct_fdt));
    if table == 0 || fd >= u64::from(Probe::u32(table, fact!(fdtable_max_fds))) {
        return 0;
    }
    let array = Probe::u64(table, fact!(fdtable_fd));
    if array == 0 {
        return 0;
    }
    Probe::u64(array + fd * 8, 0)
}

/// Whether a file's identity and names can be read from it.
#[inline(always)]
fn is_file_known() -> bool {
    fact!(file_f_inode) != UNKNOWN
        && fact!(file_f_path_dentry) != UNKNOWN
        && fact!(inode_i_ino) != UNKNOWN
        && fact!(inode_i_sb) != UNKNOWN
        && fact!(super_block_s_dev) != UNKNOWN
        && fact!(dentry_d_inode) != UNKNOWN
        && fact!(dentry_d_parent) != UNKNOWN
        && fact!(dentry_d_name_name) != UNKNOWN
}
