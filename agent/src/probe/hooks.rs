//! The table of hooks: what each is for, in which forms it can be attached
//! (best first), which facts it needs, and what is lost without it. Adding a
//! hook is a row here and a file in `ebpf/src/hooks`.

#[macro_use]
mod needs;
mod row;

use needs::{REQUEST_FILE, WRITEBACK, XFS_FILE};
pub use row::{Attach, Form, Hook};

use crate::detail::Detail;

/// Always.
const ALL: &[Detail] = &[Detail::Low, Detail::Normal, Detail::Full];
/// To tell why a sync was slow.
const FROM_NORMAL: &[Detail] = &[Detail::Normal, Detail::Full];
/// What costs most.
const FULL: &[Detail] = &[Detail::Full];
/// In place of a row of that name that costs more.
const BELOW_FULL: &[Detail] = &[Detail::Low, Detail::Normal];

/// The rows of a level.
pub fn hooks_at(detail: Detail) -> impl Iterator<Item = &'static Hook> {
    (TABLE.iter()).filter(move |hook| hook.levels.contains(&detail))
}

/// The hooks that a level leaves out.
pub fn hooks_left_out_at(detail: Detail) -> impl Iterator<Item = &'static Hook> {
    let is_there = move |name| hooks_at(detail).any(|hook| hook.name == name);
    hooks_at(Detail::Full).filter(move |hook| !is_there(hook.name))
}

macro_rules! sync_hook {
    ($call:literal, $required:literal, $lost:literal) => {
        Hook {
            name: $call,
            required: $required,
            purpose: concat!("when ", $call, " begins and ends, its errno"),
            driver: "",
            lost: $lost,
            levels: ALL,
            forms: &[
                Form {
                    name: "fexit",
                    programs: &[
                        (
                            concat!("fexit_", $call),
                            Attach::Fexit(&[
                                concat!("__x64_sys_", $call),
                                concat!("__arm64_sys_", $call),
                            ]),
                        ),
                        (
                            concat!("fentry_", $call),
                            Attach::Fentry(&[
                                concat!("__x64_sys_", $call),
                                concat!("__arm64_sys_", $call),
                            ]),
                        ),
                    ],
                    facts: &["pt_regs_arg0", "pt_regs_arg1", "pt_regs_arg2"],
                },
                Form {
                    name: "tracepoint",
                    programs: &[
                        (
                            concat!("exit_", $call),
                            Attach::Tracepoint("syscalls", concat!("sys_exit_", $call)),
                        ),
                        (
                            concat!("enter_", $call),
                            Attach::Tracepoint("syscalls", concat!("sys_enter_", $call)),
                        ),
                    ],
                    // The programs have these as constants: a context is read so.
                    facts: &["sys_enter_args=16", "sys_exit_ret=16"],
                },
            ],
        }
    };
}

macro_rules! raw_hook {
    ($driver:literal, $name:literal, $levels:expr, $purpose:literal, $lost:literal, $facts:expr) => {
        Hook {
            name: $name,
            required: false,
            purpose: $purpose,
            driver: $driver,
            lost: $lost,
            levels: $levels,
            forms: &[Form {
                name: "raw_tracepoint",
                programs: &[($name, Attach::Raw($name))],
                facts: $facts,
            }],
        }
    };
}

/// All hooks, in the order in which they are attached: that in which an operation
/// meets them, but an end before its beginning, so that nothing begins whose end is
/// not seen.
pub static TABLE: &[Hook] = &[
    sync_hook!("fsync", true, "which fsync failed or hung, and its errno"),
    sync_hook!(
        "msync",
        true,
        "flushes of index files: they are mapped and never fsynced"
    ),
    sync_hook!(
        "fdatasync",
        false,
        "syncs by fdatasync; no Kafka version seen uses it"
    ),
    sync_hook!(
        "sync_file_range",
        false,
        "errors consumed by sync_file_range before an fsync sees them"
    ),
    sync_hook!("syncfs", false, "syncs of a whole file system"),
    // The exit first: a sync that is opened must be closed.
    Hook {
        name: "ext4_sync_file_enter",
        required: false,
        purpose: "which files a sync on ext4 reaches; syncs without a system call of their own",
        driver: "ext4",
        lost: "files of syncs on ext4: path, partition, request; syncs by O_DSYNC, io_uring, AIO",
        levels: FULL,
        forms: &[
            Form {
                name: "typed_tracepoint",
                programs: &[
                    (
                        "ext4_sync_file_exit_typed",
                        Attach::Typed("ext4_sync_file_exit"),
                    ),
                    (
                        "ext4_sync_file_enter_typed",
                        Attach::Typed("ext4_sync_file_enter"),
                    ),
                ],
                facts: file!(
                    "arg:ext4_sync_file_enter:0:struct file *",
                    "arg:ext4_sync_file_exit:1:int"
                ),
            },
            Form {
                name: "raw_tracepoint",
                programs: &[
                    ("ext4_sync_file_exit", Attach::Raw("ext4_sync_file_exit")),
                    ("ext4_sync_file_enter", Attach::Raw("ext4_sync_file_enter")),
                ],
                facts: file!(
                    "arg:ext4_sync_file_enter:0:struct file *",
                    "arg:ext4_sync_file_exit:1:int"
                ),
            },
        ],
    },
    // Without the exit no sync is opened here, so that none stays open.
    Hook {
        name: "ext4_sync_file_enter",
        required: false,
        purpose: "which files a sync on ext4 reaches",
        driver: "ext4",
        lost: "files of syncs on ext4: path, partition, request",
        levels: BELOW_FULL,
        forms: &[
            Form {
                name: "typed_tracepoint",
                programs: &[(
                    "ext4_sync_file_enter_typed",
                    Attach::Typed("ext4_sync_file_enter"),
                )],
                facts: file!("arg:ext4_sync_file_enter:0:struct file *"),
            },
            Form {
                name: "raw_tracepoint",
                programs: &[("ext4_sync_file_enter", Attach::Raw("ext4_sync_file_enter"))],
                facts: file!("arg:ext4_sync_file_enter:0:struct file *"),
            },
        ],
    },
    Hook {
        name: "xfs_file_fsync",
        required: false,
        purpose: "which file a sync on xfs reaches",
        driver: "xfs",
        lost: "files of syncs on xfs: path, partition, request",
        levels: ALL,
        forms: &[Form {
            name: "raw_tracepoint",
            programs: &[("xfs_file_fsync", Attach::Raw("xfs_file_fsync"))],
            facts: XFS_FILE,
        }],
    },
    Hook {
        name: "xfs_dir_fsync",
        required: false,
        purpose: "which directory a sync on xfs reaches",
        driver: "xfs",
        lost: "directories of syncs on xfs while they hang",
        levels: ALL,
        forms: &[Form {
            name: "raw_tracepoint",
            programs: &[("xfs_dir_fsync", Attach::Raw("xfs_dir_fsync"))],
            facts: XFS_FILE,
        }],
    },
    Hook {
        name: "btrfs_sync_file",
        required: false,
        purpose: "which file a sync on btrfs reaches",
        driver: "btrfs",
        lost: "files of syncs on btrfs: path, partition, request",
        levels: ALL,
        forms: &[
            Form {
                name: "raw_tracepoint",
                programs: &[("btrfs_sync_file", Attach::Raw("btrfs_sync_file"))],
                facts: file!("arg:btrfs_sync_file:0:struct file *"),
            },
            Form {
                name: "raw_tracepoint (7.x name)",
                programs: &[("btrfs_sync_file", Attach::Raw("btrfs_sync_file_enter"))],
                facts: file!("arg:btrfs_sync_file_enter:0:struct file *"),
            },
        ],
    },
    Hook {
        name: "block_bio_queue",
        required: false,
        purpose: "who asks the device to flush its cache",
        driver: "",
        lost: "who asked the device for a cache flush",
        levels: FULL,
        forms: &[
            Form {
                name: "typed_tracepoint",
                programs: &[("block_bio_queue_typed", Attach::Typed("block_bio_queue"))],
                facts: &[
                    "arg:block_bio_queue:0:struct bio *",
                    "bio_bi_opf",
                    "req_preflush",
                ],
            },
            Form {
                name: "raw_tracepoint",
                programs: &[("block_bio_queue", Attach::Raw("block_bio_queue"))],
                facts: &["bio_bi_opf", "req_preflush", "arg_bio_queue_bio"],
            },
        ],
    },
    Hook {
        name: "block_rq_complete",
        required: true,
        purpose: "how each request ends, when, and of which file it was",
        driver: "",
        lost: "which request failed, on which sector, with which status",
        levels: ALL,
        forms: &[
            Form {
                name: "typed_tracepoint",
                programs: &[(
                    "block_rq_complete_typed",
                    Attach::Typed("block_rq_complete"),
                )],
                facts: REQUEST_FILE,
            },
            Form {
                name: "raw_tracepoint",
                programs: &[("block_rq_complete", Attach::Raw("block_rq_complete"))],
                facts: REQUEST_FILE,
            },
        ],
    },
    Hook {
        name: "block_rq_issue",
        required: true,
        purpose: "when each request goes to the device, where, how large",
        driver: "",
        lost: "times of requests, and which are outstanding",
        levels: FULL,
        forms: &[
            Form {
                name: "typed_tracepoint",
                programs: &[("block_rq_issue_typed", Attach::Typed("block_rq_issue"))],
                facts: request!("arg:block_rq_issue:0:struct request *"),
            },
            Form {
                name: "raw_tracepoint",
                programs: &[("block_rq_issue", Attach::Raw("block_rq_issue"))],
                facts: request!("arg_issue_rq"),
            },
        ],
    },
    raw_hook!(
        "",
        "block_rq_requeue",
        FULL,
        "requests that the driver sends again",
        "retries of a request by the driver",
        &["arg_requeue_rq"]
    ),
    raw_hook!(
        "nvme_core",
        "nvme_complete_rq",
        FROM_NORMAL,
        "status and retries that an NVMe controller gives",
        "status and retries that an NVMe controller gave, beside the kernel's own status",
        &[
            "arg:nvme_complete_rq:0:struct request *",
            "request_size",
            "nvme_request_status",
            "nvme_request_retries"
        ]
    ),
    Hook {
        name: "jbd2_commit",
        required: false,
        purpose: "commits of ext4's journal",
        driver: "jbd2",
        lost: "which journal commit a slow sync waited for",
        levels: FROM_NORMAL,
        forms: &[Form {
            name: "tracepoint",
            programs: &[
                (
                    "jbd2_start_commit",
                    Attach::Tracepoint("jbd2", "jbd2_start_commit"),
                ),
                (
                    "jbd2_end_commit",
                    Attach::Tracepoint("jbd2", "jbd2_end_commit"),
                ),
            ],
            facts: &["trace_journal_dev", "trace_journal_tid"],
        }],
    },
    Hook {
        name: "jbd2_commit_phases",
        required: false,
        purpose: "phases of commits of ext4's journal",
        driver: "jbd2",
        lost: "how a journal's commit divides into locked, flushing and logging",
        levels: FULL,
        forms: &[Form {
            name: "tracepoint",
            programs: &[
                (
                    "jbd2_commit_flushing",
                    Attach::Tracepoint("jbd2", "jbd2_commit_flushing"),
                ),
                (
                    "jbd2_commit_logging",
                    Attach::Tracepoint("jbd2", "jbd2_commit_logging"),
                ),
            ],
            facts: &["trace_journal_dev"],
        }],
    },
    Hook {
        name: "jbd2_checkpoint",
        required: false,
        purpose: "checkpoints of ext4's journal",
        driver: "jbd2",
        lost: "checkpoints of a full journal that a slow sync waited for",
        levels: FROM_NORMAL,
        forms: &[Form {
            name: "tracepoint",
            programs: &[
                (
                    "jbd2_checkpoint",
                    Attach::Tracepoint("jbd2", "jbd2_checkpoint"),
                ),
                (
                    "jbd2_checkpoint_stats",
                    Attach::Tracepoint("jbd2", "jbd2_checkpoint_stats"),
                ),
            ],
            facts: &["trace_journal_dev", "trace_checkpoint_time"],
        }],
    },
    Hook {
        name: "ext4_fc_commit",
        required: false,
        purpose: "fast commits of ext4",
        driver: "ext4",
        lost: "fast commits that a slow sync waited for",
        levels: FROM_NORMAL,
        forms: &[Form {
            name: "tracepoint",
            programs: &[
                (
                    "ext4_fc_commit_start",
                    Attach::Tracepoint("ext4", "ext4_fc_commit_start"),
                ),
                (
                    "ext4_fc_commit_stop",
                    Attach::Tracepoint("ext4", "ext4_fc_commit_stop"),
                ),
            ],
            facts: &["trace_journal_dev"],
        }],
    },
    raw_hook!(
        "xfs",
        "xfs_log_force",
        FROM_NORMAL,
        "when a sync on xfs forces its log",
        "time that a slow sync on xfs waited for its log",
        &[]
    ),
    Hook {
        name: "lock_contention",
        required: false,
        purpose: "sleeping locks that a sync waits for",
        driver: "",
        lost: "locks that a slow sync waited for",
        levels: FULL,
        forms: &[Form {
            name: "raw_tracepoint",
            programs: &[
                ("contention_begin", Attach::Raw("contention_begin")),
                ("contention_end", Attach::Raw("contention_end")),
            ],
            facts: &[
                "arg:contention_begin:0:void *",
                "arg:contention_begin:1:unsigned int",
                "arg:contention_end:0:void *",
            ],
        }],
    },
    raw_hook!(
        "",
        "filemap_set_wb_err",
        ALL,
        "whose data could not be written back, and why",
        "writeback that failed before any sync",
        WRITEBACK
    ),
    raw_hook!(
        "",
        "file_check_and_advance_wb_err",
        ALL,
        "which caller is told of a failed writeback",
        "which caller was told of a writeback error",
        &[
            "arg:file_check_and_advance_wb_err:0:struct file *",
            "file_f_inode",
            "file_f_wb_err",
            "inode_i_ino",
            "inode_i_sb",
            "super_block_s_dev"
        ]
    ),
];
