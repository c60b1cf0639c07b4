//! The one table of kernel differences that BTF decides: for every field of
//! [`Facts`], where to look, in order; the first source that exists wins. Also
//! the events and functions whose existence is recorded. To add a fact: a field
//! in the abi crate and a row here. Nothing here tests a kernel version.

use fsyncscope_abi::facts::Facts;

use Source::{ErrnoArg, Flag, Function, If, Offset, PtrArg, Size};

/// A place where a fact may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Offset of a member, written `struct.path`, and the number of bytes that
    /// the programs read there (0: the programs take its address).
    Offset(&'static str, u32),
    /// Size of a struct.
    Size(&'static str),
    /// `1 << value` of an enumerator.
    Flag(&'static str, &'static str),
    /// A number, if `struct.path` exists.
    If(&'static str, u32),
    /// Index of the raw argument of an event that points to a struct.
    PtrArg(&'static str, &'static str),
    /// 1 if that raw argument of the event is an int (an errno), 0 if it is a
    /// blk_status_t; the first must be a struct request.
    ErrnoArg(&'static str, usize),
    /// 1, if the function exists.
    Function(&'static str),
}

/// One fact.
pub struct Row {
    /// The field's name in [`Facts`].
    pub name: &'static str,
    /// Where to look, in order.
    pub sources: &'static [Source],
    /// Reads the field.
    pub get: fn(&Facts) -> u32,
    /// Writes the field.
    pub set: fn(&mut Facts, u32),
}

macro_rules! rows {
    ($($field:ident: $($source:expr),+;)*) => {
        /// Every fact that comes from BTF.
        pub static ROWS: &[Row] = &[$(Row {
            name: stringify!($field),
            sources: &[$($source),+],
            get: |facts| facts.$field,
            set: |facts, value| facts.$field = value,
        }),*];
    };
}

rows! {
    request_q: Offset("request.q", 8);
    request_cmd_flags: Offset("request.cmd_flags", 4);
    request_data_len: Offset("request.__data_len", 4);
    request_sector: Offset("request.__sector", 8);
    request_bio: Offset("request.bio", 8);
    request_biotail: Offset("request.biotail", 8);
    // f3fa33acca9f (5.17) removed rq_disk; d152c682f03c (5.15) added queue->disk.
    request_rq_disk: Offset("request.rq_disk", 8);
    request_queue_disk: Offset("request_queue.disk", 8);
    request_size: Size("request");
    // Where nvme_core is a module its own BTF has these (from 5.11); see LAYOUTS.
    nvme_request_status: Offset("nvme_request.status", 2);
    nvme_request_retries: Offset("nvme_request.retries", 1);
    request_start_time_ns: Offset("request.start_time_ns", 8);
    gendisk_major: Offset("gendisk.major", 4);
    gendisk_first_minor: Offset("gendisk.first_minor", 4);
    gendisk_disk_name: Offset("gendisk.disk_name", 32);
    bio_bi_next: Offset("bio.bi_next", 8);
    bio_bi_opf: Offset("bio.bi_opf", 4);
    // 309dca309fc3 (5.12) replaced bi_disk and bi_partno by bi_bdev.
    bio_bi_bdev: Offset("bio.bi_bdev", 8);
    bio_bi_disk: Offset("bio.bi_disk", 8);
    bio_bi_size: Offset("bio.bi_iter.bi_size", 4);
    bio_bi_idx: Offset("bio.bi_iter.bi_idx", 4);
    bio_bi_io_vec: Offset("bio.bi_io_vec", 8);
    bio_bi_end_io: Offset("bio.bi_end_io", 8);
    bio_bi_private: Offset("bio.bi_private", 8);
    bio_vec_size: Size("bio_vec");
    bio_vec_bv_page: Offset("bio_vec.bv_page", 8);
    block_device_bd_disk: Offset("block_device.bd_disk", 8);
    block_device_bd_dev: Offset("block_device.bd_dev", 4);
    // 7.x: compound_info, a mask or a pointer + 1; the programs decide which.
    page_compound_head: Offset("page.compound_head", 8), Offset("page.compound_info", 8);
    page_compound_is_info: If("page.compound_head", 0), If("page.compound_info", 1);
    page_size: Size("page");
    // Same offset in both where both exist; 7.x is taking it out of struct page.
    folio_mapping: Offset("folio.mapping", 8), Offset("page.mapping", 8);
    address_space_host: Offset("address_space.host", 8);
    address_space_wb_err: Offset("address_space.wb_err", 4);
    inode_i_mode: Offset("inode.i_mode", 2);
    // unsigned long, u64 from 7.x: 8 bytes either way.
    inode_i_ino: Offset("inode.i_ino", 8);
    inode_i_sb: Offset("inode.i_sb", 8);
    inode_i_mapping: Offset("inode.i_mapping", 8);
    inode_i_rdev: Offset("inode.i_rdev", 4);
    inode_i_data: Offset("inode.i_data", 0);
    inode_i_dentry: Offset("inode.i_dentry", 8);
    super_block_s_dev: Offset("super_block.s_dev", 4);
    file_f_inode: Offset("file.f_inode", 8);
    // 6.18: a const f_path in an anonymous union with a writable __f_path.
    file_f_path_dentry: Offset("file.f_path.dentry", 8), Offset("file.__f_path.dentry", 8);
    file_f_wb_err: Offset("file.f_wb_err", 4);
    task_struct_files: Offset("task_struct.files", 8);
    files_struct_fdt: Offset("files_struct.fdt", 8);
    fdtable_max_fds: Offset("fdtable.max_fds", 4);
    fdtable_fd: Offset("fdtable.fd", 8);
    dentry_d_parent: Offset("dentry.d_parent", 8);
    dentry_d_inode: Offset("dentry.d_inode", 8);
    // 6.16: a const d_name in an anonymous union with a writable __d_name.
    dentry_d_name_name: Offset("dentry.d_name.name", 8), Offset("dentry.__d_name.name", 8);
    dentry_d_name_hash: Offset("dentry.d_name.hash", 4), Offset("dentry.__d_name.hash", 4);
    dentry_d_alias: Offset("dentry.d_u.d_alias", 16), Offset("dentry.d_alias", 16);
    iomap_dio_iocb: Offset("iomap_dio.iocb", 8);
    kiocb_ki_filp: Offset("kiocb.ki_filp", 8);
    ext4_io_end_inode: Offset("ext4_io_end.inode", 8);
    xfs_inode_i_vnode: Offset("xfs_inode.i_vnode", 0);
    // x86_64, then arm64 (through the anonymous copy of user_pt_regs).
    pt_regs_arg0: Offset("pt_regs.di", 8), Offset("pt_regs.regs[0]", 8);
    pt_regs_arg1: Offset("pt_regs.si", 8), Offset("pt_regs.regs[1]", 8);
    pt_regs_arg2: Offset("pt_regs.dx", 8), Offset("pt_regs.regs[2]", 8);
    // Tracefs, where it can be read, overrules these two.
    sys_enter_args: Offset("syscall_trace_enter.args", 0);
    sys_exit_ret: Offset("syscall_trace_exit.ret", 8);
    // Where jbd2 is a module only tracefs knows these; it overrules anyway.
    trace_journal_dev: Offset("trace_event_raw_jbd2_commit.dev", 4);
    trace_journal_tid: Offset("trace_event_raw_jbd2_commit.transaction", 4);
    trace_checkpoint_time: Offset("trace_event_raw_jbd2_checkpoint_stats.chp_time", 8);
    // a54895fa057c (5.11, and in 5.10.137) dropped the queue before the request.
    arg_issue_rq: PtrArg("block_rq_issue", "request");
    arg_requeue_rq: PtrArg("block_rq_requeue", "request");
    // e8a676d61c07 (5.11) dropped the queue before the bio.
    arg_bio_queue_bio: PtrArg("block_bio_queue", "bio");
    complete_status_is_errno: ErrnoArg("block_rq_complete", 1);
    req_preflush: Flag("req_flag_bits", "__REQ_PREFLUSH");
    req_fua: Flag("req_flag_bits", "__REQ_FUA");
    req_meta: Flag("req_flag_bits", "__REQ_META");
    req_sync: Flag("req_flag_bits", "__REQ_SYNC");
    task_flags: Offset("task_struct.flags", 4);
    // Only with CONFIG_SCHED_INFO, which schedstats and delay accounting select.
    task_run_delay: Offset("task_struct.sched_info.run_delay", 8);
}

/// Facts of which a kernel has one or the other: the absence of the first is
/// no loss where the second is known.
pub const STAND_INS: &[(&str, &str)] = &[
    ("request_rq_disk", "request_queue_disk"),
    ("request_queue_disk", "request_rq_disk"),
    ("bio_bi_disk", "bio_bi_bdev"),
    ("bio_bi_bdev", "bio_bi_disk"),
];

/// Facts whose struct is a module's, and what every kernel that was looked at has
/// there (drivers/nvme/host/nvme.h; BTF of 5.10.218 to 7.3, x86_64 and arm64, see the
/// test): taken where neither the image nor the module tells, as before 5.11. A
/// kernel without `genctr` (older 5.10) has padding at the status: nothing is told.
pub const LAYOUTS: &[(&str, u32)] = &[("nvme_request_status", 20), ("nvme_request_retries", 17)];

/// Tracepoints whose presence is recorded: directory in tracefs and name.
pub const EVENTS: &[(&str, &str)] = &[
    ("block", "block_bio_queue"),
    ("block", "block_bio_remap"),
    ("block", "block_rq_issue"),
    ("block", "block_rq_requeue"),
    ("block", "block_rq_complete"),
    ("block", "block_rq_error"),
    ("block", "block_io_start"),
    ("block", "block_io_done"),
    ("block", "block_split"),
    ("filemap", "filemap_set_wb_err"),
    ("filemap", "file_check_and_advance_wb_err"),
    ("ext4", "ext4_sync_file_enter"),
    ("ext4", "ext4_sync_file_exit"),
    ("ext4", "ext4_error"),
    ("ext4", "ext4_shutdown"),
    ("ext4", "ext4_fc_commit_start"),
    ("ext4", "ext4_fc_commit_stop"),
    ("jbd2", "jbd2_start_commit"),
    ("jbd2", "jbd2_commit_locking"),
    ("jbd2", "jbd2_commit_flushing"),
    ("jbd2", "jbd2_commit_logging"),
    ("jbd2", "jbd2_end_commit"),
    ("jbd2", "jbd2_checkpoint"),
    ("jbd2", "jbd2_checkpoint_stats"),
    ("lock", "contention_begin"),
    ("lock", "contention_end"),
    ("xfs", "xfs_file_fsync"),
    ("xfs", "xfs_dir_fsync"),
    ("xfs", "xfs_log_force"),
    ("xfs", "xfs_force_shutdown"),
    ("btrfs", "btrfs_sync_file"),
    ("btrfs", "btrfs_sync_file_enter"),
    ("btrfs", "btrfs_sync_file_exit"),
    ("nvme", "nvme_setup_cmd"),
    ("nvme", "nvme_complete_rq"),
    ("syscalls", "sys_enter_fsync"),
    ("syscalls", "sys_exit_fsync"),
    ("syscalls", "sys_enter_fdatasync"),
    ("syscalls", "sys_exit_fdatasync"),
    ("syscalls", "sys_enter_msync"),
    ("syscalls", "sys_exit_msync"),
    ("syscalls", "sys_enter_syncfs"),
    ("syscalls", "sys_exit_syncfs"),
    ("syscalls", "sys_enter_sync_file_range"),
    ("syscalls", "sys_exit_sync_file_range"),
];

/// What decides how maps are made, not what the programs read: name, and a source
/// that has an answer on such a kernel only.
pub const TRAITS: &[(&str, Source)] = &[
    // 7c8199e24fa0 (6.1): maps that allocate on first use do so safely in programs.
    ("bpf_mem_alloc", Size("bpf_mem_alloc")),
    // 80ee81e0403c (5.11) charges maps to the cgroup, not to RLIMIT_MEMLOCK.
    ("memlock_charged", Offset("bpf_map.memory", 0)),
    // 763e34e74bb7 (5.3), on arm64 from 6.4; its only way to fentry and fexit there.
    ("ftrace_direct", Function("register_ftrace_direct")),
];

/// Facts that are the offset of a field in the records of these events, where all
/// of them that exist agree: fact, field, its size, events.
pub const FIELDS: &[(&str, &str, u32, &[&str])] = &[
    (
        "trace_journal_dev",
        "dev",
        4,
        &[
            "jbd2_start_commit",
            "jbd2_commit_flushing",
            "jbd2_commit_logging",
            "jbd2_end_commit",
            "jbd2_checkpoint",
            "jbd2_checkpoint_stats",
            "ext4_fc_commit_start",
        ],
    ),
    (
        "trace_journal_tid",
        "transaction",
        4,
        &["jbd2_start_commit", "jbd2_end_commit"],
    ),
    (
        "trace_checkpoint_time",
        "chp_time",
        8,
        &["jbd2_checkpoint_stats"],
    ),
];

/// Functions that fexit may be attached to: they are reached through a pointer
/// or from another unit only, so no compiler inlines them away.
pub const FUNCTIONS: &[&str] = &[
    "__x64_sys_fsync",
    "__x64_sys_fdatasync",
    "__x64_sys_msync",
    "__x64_sys_syncfs",
    "__x64_sys_sync_file_range",
    "__arm64_sys_fsync",
    "__arm64_sys_fdatasync",
    "__arm64_sys_msync",
    "__arm64_sys_syncfs",
    "__arm64_sys_sync_file_range",
    "ext4_sync_file",
    "xfs_file_fsync",
    "btrfs_sync_file",
];

/// Modules whose own BTF may hold what the kernel image's does not.
pub const MODULES: &[&str] = &["jbd2", "ext4", "xfs", "btrfs", "nvme_core"];

/// Splits `struct.path` at its first dot.
pub fn split_struct(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or((path, ""))
}

/// Names of the structs that the table looks into.
pub fn struct_names() -> impl Iterator<Item = &'static str> {
    sources().filter_map(|source| match source {
        Offset(path, _) | If(path, _) => Some(split_struct(path).0),
        Size(name) => Some(name),
        _ => None,
    })
}

/// Names of the enums that the table looks into.
pub fn enum_names() -> impl Iterator<Item = &'static str> {
    sources().filter_map(|source| {
        if let Flag(name, _) = source {
            Some(name)
        } else {
            None
        }
    })
}

/// Names of the functions that are looked for.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    let of_traits = sources().filter_map(|source| {
        if let Function(name) = source {
            Some(name)
        } else {
            None
        }
    });
    FUNCTIONS.iter().copied().chain(of_traits)
}

/// All sources of all rows and traits.
pub fn sources() -> impl Iterator<Item = Source> {
    let rows = ROWS.iter().flat_map(|row| row.sources.iter().copied());
    rows.chain(TRAITS.iter().map(|&(_, source)| source))
}
