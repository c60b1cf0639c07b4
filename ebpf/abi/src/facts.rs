//! What the agent learnt about the running kernel from its BTF, tracefs and
//! kallsyms, handed to the programs as one read-only global before load.
//!
//! Offsets are bytes from the start of the named structure. [`UNKNOWN`] marks
//! what could not be resolved; the agent does not load a hook whose required
//! facts are unknown, and the programs test optional ones.

/// An offset that is not known or does not exist in this kernel.
pub const UNKNOWN: u32 = u32::MAX;

/// Values of [`Facts::detail`]: what of a request is looked at.
pub mod detail {
    /// Its failure.
    pub const LOW: u32 = 0;
    /// Its completion.
    pub const NORMAL: u32 = 1;
    /// All that it goes through.
    pub const FULL: u32 = 2;
}

/// Facts and settings; a global named `FACTS` in the kernel object.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Threshold for a sync's own record, ns.
    pub slow_ns: u64,
    /// Threshold for a request's own record, ns.
    pub request_slow_ns: u64,
    /// Threshold for the flight recorder, ns.
    pub span_min_ns: u64,
    /// Address of `iomap_dio_bio_end_io`, 0 = unknown.
    pub iomap_dio_bio_end_io: u64,
    /// Address of `ext4_end_bio`, 0 = unknown.
    pub ext4_end_bio: u64,

    // struct request
    /// request.q
    pub request_q: u32,
    /// request.cmd_flags
    pub request_cmd_flags: u32,
    /// request.__data_len
    pub request_data_len: u32,
    /// request.__sector
    pub request_sector: u32,
    /// request.bio
    pub request_bio: u32,
    /// request.biotail
    pub request_biotail: u32,
    /// request.rq_disk (before 5.17), else UNKNOWN
    pub request_rq_disk: u32,
    /// request.start_time_ns
    pub request_start_time_ns: u32,
    /// request_queue.disk (from 5.15 or so), else UNKNOWN
    pub request_queue_disk: u32,
    /// sizeof(struct request): the driver's own part follows it
    pub request_size: u32,
    // struct nvme_request, that part of an NVMe request
    /// nvme_request.status
    pub nvme_request_status: u32,
    /// nvme_request.retries
    pub nvme_request_retries: u32,
    // struct gendisk
    /// gendisk.major
    pub gendisk_major: u32,
    /// gendisk.first_minor
    pub gendisk_first_minor: u32,
    /// gendisk.disk_name
    pub gendisk_disk_name: u32,
    // struct bio
    /// bio.bi_next
    pub bio_bi_next: u32,
    /// bio.bi_opf
    pub bio_bi_opf: u32,
    /// bio.bi_bdev (from 5.12), else UNKNOWN
    pub bio_bi_bdev: u32,
    /// bio.bi_disk (before 5.12), else UNKNOWN
    pub bio_bi_disk: u32,
    /// bio.bi_iter.bi_size
    pub bio_bi_size: u32,
    /// bio.bi_iter.bi_idx
    pub bio_bi_idx: u32,
    /// bio.bi_io_vec
    pub bio_bi_io_vec: u32,
    /// bio.bi_end_io
    pub bio_bi_end_io: u32,
    /// bio.bi_private
    pub bio_bi_private: u32,
    /// sizeof(struct bio_vec)
    pub bio_vec_size: u32,
    /// bio_vec.bv_page
    pub bio_vec_bv_page: u32,
    /// block_device.bd_disk
    pub block_device_bd_disk: u32,
    /// block_device.bd_dev
    pub block_device_bd_dev: u32,
    // pages
    /// page.compound_head or page.compound_info
    pub page_compound_head: u32,
    /// 1 if that word is `compound_info` (7.x), 0 for a pointer + 1
    pub page_compound_is_info: u32,
    /// sizeof(struct page)
    pub page_size: u32,
    /// folio.mapping, or page.mapping where there is no folio
    pub folio_mapping: u32,
    // struct address_space
    /// address_space.host
    pub address_space_host: u32,
    /// address_space.wb_err
    pub address_space_wb_err: u32,
    // struct inode
    /// inode.i_mode (u16)
    pub inode_i_mode: u32,
    /// inode.i_ino (8 bytes on all supported kernels)
    pub inode_i_ino: u32,
    /// inode.i_sb
    pub inode_i_sb: u32,
    /// inode.i_mapping
    pub inode_i_mapping: u32,
    /// inode.i_rdev
    pub inode_i_rdev: u32,
    /// inode.i_data, for &inode->i_data
    pub inode_i_data: u32,
    /// inode.i_dentry (hlist_head)
    pub inode_i_dentry: u32,
    /// super_block.s_dev
    pub super_block_s_dev: u32,
    // struct file
    /// file.f_inode
    pub file_f_inode: u32,
    /// file.f_path.dentry
    pub file_f_path_dentry: u32,
    /// file.f_wb_err
    pub file_f_wb_err: u32,
    // descriptors of the current task
    /// task_struct.files
    pub task_struct_files: u32,
    /// files_struct.fdt
    pub files_struct_fdt: u32,
    /// fdtable.max_fds
    pub fdtable_max_fds: u32,
    /// fdtable.fd
    pub fdtable_fd: u32,
    // struct dentry
    /// dentry.d_parent
    pub dentry_d_parent: u32,
    /// dentry.d_inode
    pub dentry_d_inode: u32,
    /// dentry.d_name.name
    pub dentry_d_name_name: u32,
    /// dentry.d_name.hash
    pub dentry_d_name_hash: u32,
    /// dentry.d_u.d_alias (hlist_node), for container_of
    pub dentry_d_alias: u32,
    // direct I/O
    /// iomap_dio.iocb
    pub iomap_dio_iocb: u32,
    /// kiocb.ki_filp
    pub kiocb_ki_filp: u32,
    /// ext4_io_end.inode, UNKNOWN where ext4's BTF is not to be had
    pub ext4_io_end_inode: u32,
    /// xfs_inode.i_vnode, UNKNOWN where xfs's BTF is not to be had
    pub xfs_inode_i_vnode: u32,
    // struct pt_regs: first three syscall arguments, for fentry and fexit
    /// pt_regs.di / pt_regs.regs[0]
    pub pt_regs_arg0: u32,
    /// pt_regs.si / pt_regs.regs[1]
    pub pt_regs_arg1: u32,
    /// pt_regs.dx / pt_regs.regs[2]
    pub pt_regs_arg2: u32,
    /// Byte offset of the first argument in the record of the classic
    /// tracepoints sys_enter_*; the others follow at 8 bytes each
    pub sys_enter_args: u32,
    /// Byte offset of `ret` in the record of sys_exit_*
    pub sys_exit_ret: u32,

    // records of classic tracepoints of jbd2 and ext4
    /// Offset of `dev`, the same in all that are used
    pub trace_journal_dev: u32,
    /// Offset of `transaction` in those of a commit
    pub trace_journal_tid: u32,
    /// Offset of `chp_time` in jbd2_checkpoint_stats
    pub trace_checkpoint_time: u32,

    // tracepoint arguments (index among the raw arguments, from 0)
    /// `rq` in block_rq_issue (1 before 5.10.137)
    pub arg_issue_rq: u32,
    /// `rq` in block_rq_requeue
    pub arg_requeue_rq: u32,
    /// `bio` in block_bio_queue (1 before 5.11)
    pub arg_bio_queue_bio: u32,
    /// 1 if block_rq_complete's second argument is an errno (int), 0 for blk_status_t
    pub complete_status_is_errno: u32,

    // enum req_flag_bits, as masks
    /// 1 << __REQ_PREFLUSH
    pub req_preflush: u32,
    /// 1 << __REQ_FUA
    pub req_fua: u32,
    /// 1 << __REQ_META
    pub req_meta: u32,
    /// 1 << __REQ_SYNC
    pub req_sync: u32,
    /// 1 = watch every process and disk, whatever TARGETS and DEVS say
    pub watch_all: u32,
    /// Pages a CPU of RQ_SPANS, a power of two
    pub request_span_pages: u32,
    /// Pages a CPU of WAIT_SPANS, a power of two
    pub wait_span_pages: u32,
    /// task_struct.flags
    pub task_flags: u32,
    /// task_struct.sched_info.run_delay
    pub task_run_delay: u32,
    /// One of [`detail`]
    pub detail: u32,
    /// Nonzero: the helper bpf_get_current_task_btf exists (5.11 and later)
    pub has_typed_task: u32,
    /// Zero
    pub pad: u32,
}

impl Facts {
    /// Nothing known.
    pub const fn unknown() -> Self {
        Facts {
            slow_ns: 100_000_000,
            request_slow_ns: 25_000_000,
            span_min_ns: 1_000_000,
            iomap_dio_bio_end_io: 0,
            ext4_end_bio: 0,
            request_q: UNKNOWN,
            request_cmd_flags: UNKNOWN,
            request_data_len: UNKNOWN,
            request_sector: UNKNOWN,
            request_bio: UNKNOWN,
            request_biotail: UNKNOWN,
            request_rq_disk: UNKNOWN,
            request_start_time_ns: UNKNOWN,
            request_queue_disk: UNKNOWN,
            request_size: UNKNOWN,
            nvme_request_status: UNKNOWN,
            nvme_request_retries: UNKNOWN,
            gendisk_major: UNKNOWN,
            gendisk_first_minor: UNKNOWN,
            gendisk_disk_name: UNKNOWN,
            bio_bi_next: UNKNOWN,
            bio_bi_opf: UNKNOWN,
            bio_bi_bdev: UNKNOWN,
            bio_bi_disk: UNKNOWN,
            bio_bi_size: UNKNOWN,
            bio_bi_idx: UNKNOWN,
            bio_bi_io_vec: UNKNOWN,
            bio_bi_end_io: UNKNOWN,
            bio_bi_private: UNKNOWN,
            bio_vec_size: UNKNOWN,
            bio_vec_bv_page: UNKNOWN,
            block_device_bd_disk: UNKNOWN,
            block_device_bd_dev: UNKNOWN,
            page_compound_head: UNKNOWN,
            page_compound_is_info: 0,
            page_size: UNKNOWN,
            folio_mapping: UNKNOWN,
            address_space_host: UNKNOWN,
            address_space_wb_err: UNKNOWN,
            inode_i_mode: UNKNOWN,
            inode_i_ino: UNKNOWN,
            inode_i_sb: UNKNOWN,
            inode_i_mapping: UNKNOWN,
            inode_i_rdev: UNKNOWN,
            inode_i_data: UNKNOWN,
            inode_i_dentry: UNKNOWN,
            super_block_s_dev: UNKNOWN,
            file_f_inode: UNKNOWN,
            file_f_path_dentry: UNKNOWN,
            file_f_wb_err: UNKNOWN,
            task_struct_files: UNKNOWN,
            files_struct_fdt: UNKNOWN,
            fdtable_max_fds: UNKNOWN,
            fdtable_fd: UNKNOWN,
            dentry_d_parent: UNKNOWN,
            dentry_d_inode: UNKNOWN,
            dentry_d_name_name: UNKNOWN,
            dentry_d_name_hash: UNKNOWN,
            dentry_d_alias: UNKNOWN,
            iomap_dio_iocb: UNKNOWN,
            kiocb_ki_filp: UNKNOWN,
            ext4_io_end_inode: UNKNOWN,
            xfs_inode_i_vnode: UNKNOWN,
            pt_regs_arg0: UNKNOWN,
            pt_regs_arg1: UNKNOWN,
            pt_regs_arg2: UNKNOWN,
            sys_enter_args: 16,
            sys_exit_ret: 16,
            trace_journal_dev: UNKNOWN,
            trace_journal_tid: UNKNOWN,
            trace_checkpoint_time: UNKNOWN,
            arg_issue_rq: UNKNOWN,
            arg_requeue_rq: UNKNOWN,
            arg_bio_queue_bio: UNKNOWN,
            complete_status_is_errno: 0,
            req_preflush: 0,
            req_fua: 0,
            req_meta: 0,
            req_sync: 0,
            watch_all: 0,
            request_span_pages: 1,
            wait_span_pages: 1,
            task_flags: UNKNOWN,
            task_run_delay: UNKNOWN,
            detail: detail::FULL,
            has_typed_task: 0,
            pad: 0,
        }
    }
}

const _: () = assert!(size_of::<Facts>().is_multiple_of(8));
const _: () = assert!(align_of::<Facts>() == 8);
