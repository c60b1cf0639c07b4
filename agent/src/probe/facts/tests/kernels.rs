//! What the facts must be on each kernel, 5.10 to 7.3, x86_64 and arm64. The
//! values were compared, every one on every kernel, with a second resolver over
//! `bpftool -j btf dump` of the full BTF (`dump format c` is no reference: one-byte
//! enums such as 6.12's `rw_hint` compile to four and move what follows).

use fsyncscope_abi::facts::Facts;

use super::super::{ResolvedFacts, btf::Btf, resolve_btf, table};
use super::extract;

/// An extract and its column in [`EXPECTED`].
const KERNELS: &[(&str, usize)] = &[
    ("5.10.218-amd64", 0),
    ("5.10.218-arm64", 0),
    ("5.10.262-amd64", 0),
    ("5.15.0-amd64", 1),
    ("6.1.192-amd64", 2),
    ("6.1.192-arm64", 2),
    ("6.12.101-amd64", 3),
    ("6.12.101-arm64", 3),
    ("6.18.44-amd64", 4),
    ("7.3-rc7-amd64", 5),
    ("7.3-rc7-arm64", 5),
];

const NONE: u32 = u32::MAX;

/// 5.10, 5.15, 6.1, 6.12, 6.18, 7.3.
#[rustfmt::skip]
const EXPECTED: &[(&str, [u32; 6])] = &[
    ("request_q", [0; 6]),
    ("request_cmd_flags", [24; 6]),
    ("request_data_len", [40, 40, 44, 44, 44, 44]),
    ("request_sector", [48; 6]),
    ("request_bio", [56; 6]),
    ("request_biotail", [64; 6]),
    ("request_rq_disk", [160, 160, NONE, NONE, NONE, NONE]),
    ("request_queue_disk", [NONE, 120, 160, 104, 104, 96]),
    ("request_size", [280, 296, 272, 248, 248, 272]),
    ("nvme_request_status", [20; 6]),
    ("nvme_request_retries", [17; 6]),
    ("request_start_time_ns", [184, 184, 104, 104, 104, 104]),
    ("gendisk_major", [0; 6]),
    ("gendisk_first_minor", [4; 6]),
    ("gendisk_disk_name", [12; 6]),
    ("bio_bi_next", [0; 6]),
    ("bio_bi_opf", [16; 6]),
    ("bio_bi_bdev", [NONE, 8, 8, 8, 8, 8]),
    ("bio_bi_disk", [8, NONE, NONE, NONE, NONE, NONE]),
    ("bio_bi_size", [40, 40, 40, 40, 40, 48]),
    ("bio_bi_idx", [44, 44, 44, 44, 44, 52]),
    ("bio_bi_io_vec", [112, 120, 112, 112, 104, 32]),
    ("bio_bi_end_io", [56, 56, 56, 56, 56, 64]),
    ("bio_bi_private", [64, 64, 64, 64, 64, 72]),
    ("block_device_bd_dev", [0, 28, 36, 52, 52, 52]),
    ("bio_vec_size", [16; 6]),
    ("bio_vec_bv_page", [0; 6]),
    ("page_compound_head", [8; 6]),
    ("page_compound_is_info", [0, 0, 0, 0, 0, 1]),
    ("page_size", [64; 6]),
    ("folio_mapping", [24; 6]),
    ("address_space_host", [0; 6]),
    ("address_space_wb_err", [128, 160, 160, 120, 120, 112]),
    ("inode_i_mode", [0; 6]),
    ("inode_i_ino", [64; 6]),
    ("inode_i_sb", [40; 6]),
    ("inode_i_mapping", [48; 6]),
    ("inode_i_rdev", [76; 6]),
    ("inode_i_data", [376, 376, 376, 368, 376, 360]),
    ("inode_i_dentry", [312, 312, 312, 304, 312, 296]),
    ("super_block_s_dev", [16; 6]),
    ("file_f_inode", [32, 32, 32, 40, 32, 32]),
    ("file_f_path_dentry", [24, 24, 24, 72, 72, 72]),
    ("file_f_wb_err", [248, 224, 224, 136, 128, 120]),
    ("files_struct_fdt", [32; 6]),
    ("fdtable_max_fds", [0; 6]),
    ("fdtable_fd", [8; 6]),
    ("dentry_d_parent", [24; 6]),
    ("dentry_d_inode", [48; 6]),
    ("dentry_d_name_name", [40; 6]),
    ("dentry_d_name_hash", [32; 6]),
    ("dentry_d_alias", [176; 6]),
    ("iomap_dio_iocb", [0; 6]),
    ("kiocb_ki_filp", [0; 6]),
    ("ext4_io_end_inode", [24; 6]),
    // A module everywhere but in the development kernel.
    ("xfs_inode_i_vnode", [NONE, NONE, NONE, NONE, 312, NONE]),
    ("sys_enter_args", [16; 6]),
    ("sys_exit_ret", [16; 6]),
    ("trace_journal_dev", [8; 6]),
    ("trace_journal_tid", [16; 6]),
    ("trace_checkpoint_time", [16; 6]),
    ("arg_issue_rq", [0; 6]),
    ("arg_requeue_rq", [0; 6]),
    ("arg_bio_queue_bio", [1, 0, 0, 0, 0, 0]),
    ("complete_status_is_errno", [1, 1, 0, 0, 0, 0]),
    ("req_preflush", [1 << 18; 6]),
    ("req_fua", [1 << 17; 6]),
    ("req_meta", [1 << 12; 6]),
    ("req_sync", [1 << 11; 6]),
];

fn resolved(name: &str) -> ResolvedFacts {
    resolve_btf(&extract(name), &[], name).unwrap()
}

#[test]
fn facts_are_as_read_from_each_kernel() {
    for &(kernel, column) in KERNELS {
        let facts = resolved(kernel);
        for (name, values) in EXPECTED {
            let expected = Some(values[column]).filter(|&value| value != NONE);
            assert_eq!(facts.get(name), expected, "{name} on {kernel}");
        }
    }
}

#[test]
fn facts_that_depend_on_the_architecture() {
    for &(kernel, _) in KERNELS {
        let facts = resolved(kernel);
        let args =
            ["pt_regs_arg0", "pt_regs_arg1", "pt_regs_arg2"].map(|name| facts.get(name).unwrap());
        if kernel.ends_with("arm64") {
            assert_eq!((facts.arch, args), ("aarch64", [0, 8, 16]), "{kernel}");
            assert!(
                facts.has_function("__arm64_sys_fsync") && !facts.has_function("__x64_sys_fsync"),
                "{kernel}"
            );
        } else {
            assert_eq!((facts.arch, args), ("x86_64", [112, 104, 96]), "{kernel}");
            assert!(
                facts.has_function("__x64_sys_fsync") && !facts.has_function("__arm64_sys_fsync"),
                "{kernel}"
            );
        }
    }
    for (kernel, files) in [
        ("5.10.218-amd64", 2808),
        ("5.10.218-arm64", 1824),
        ("5.15.0-amd64", 3072),
        ("6.1.192-amd64", 3048),
        ("6.1.192-arm64", 1984),
        ("6.12.101-amd64", 3048),
        ("6.12.101-arm64", 1992),
        ("6.18.44-amd64", 1824),
        ("7.3-rc7-amd64", 3488),
        ("7.3-rc7-arm64", 2496),
    ] {
        let found = resolved(kernel).get("task_struct_files");
        assert_eq!(found, Some(files), "{kernel}");
    }
    assert_eq!(
        resolved("6.1.192-amd64").get("block_device_bd_disk"),
        Some(848)
    );
    assert_eq!(
        resolved("6.1.192-arm64").get("block_device_bd_disk"),
        Some(864)
    );
    for (kernel, flags) in [
        ("5.10.218-amd64", 36),
        ("5.10.218-arm64", 44),
        ("5.15.0-amd64", 44),
        ("6.1.192-arm64", 44),
        ("6.18.44-amd64", 44),
        ("7.3-rc7-amd64", 44),
        ("7.3-rc7-arm64", 52),
    ] {
        let flags = (kernel, Some(flags));
        assert_eq!((kernel, resolved(kernel).get("task_flags")), flags);
    }
    for (kernel, run_delay) in [
        ("5.10.218-amd64", 1952),
        ("5.10.218-arm64", 1024),
        ("5.15.0-amd64", 2208),
        ("6.1.192-arm64", 1104),
        ("6.18.44-amd64", 1016),
        ("7.3-rc7-amd64", 2608),
        ("7.3-rc7-arm64", 1616),
    ] {
        let run_delay = (kernel, Some(run_delay));
        assert_eq!((kernel, resolved(kernel).get("task_run_delay")), run_delay);
    }
}

#[test]
fn every_fact_is_in_the_table_and_tested() {
    // Five u64 and six u32 that are settings, symbols or zero are not from BTF.
    let fields = (size_of::<Facts>() - 5 * 8 - 6 * 4) / 4;
    assert_eq!(table::ROWS.len(), fields);
    let elsewhere = [
        "block_device_bd_disk",
        "task_struct_files",
        "pt_regs_arg0",
        "pt_regs_arg1",
        "pt_regs_arg2",
        "task_flags",
        "task_run_delay",
    ];
    for row in table::ROWS {
        let tested =
            EXPECTED.iter().any(|(name, _)| *name == row.name) || elsewhere.contains(&row.name);
        assert!(tested, "{} has no expected values", row.name);
    }
}

/// What [`table::LAYOUTS`] says where BTF is silent is what BTF says elsewhere.
#[test]
fn layouts_of_modules_are_those_that_btf_tells() {
    let mut told = Vec::new();
    for &(kernel, _) in KERNELS {
        let blob = extract(kernel);
        let btf = Btf::parse(&blob, None).unwrap();
        let mut facts = ResolvedFacts::unknown(kernel, "not in the kernel's BTF");
        facts.add_kernel(&btf).unwrap();
        let known: Vec<_> = table::LAYOUTS
            .iter()
            .filter_map(|(name, layout)| Some((facts.get(name)?, *layout)))
            .collect();
        assert!(known.iter().all(|(btf, layout)| btf == layout), "{kernel}");
        told.extend((!known.is_empty()).then_some(kernel));
    }
    for kernel in ["5.10.218-amd64", "6.1.192-arm64", "7.3-rc7-amd64"] {
        assert!(
            told.contains(&kernel),
            "{kernel} has no nvme_request: {told:?}"
        );
    }
}

#[test]
fn events_come_and_go() {
    let present = |kernel: &str, event: &str| resolved(kernel).has_event(event);
    for &(kernel, _) in KERNELS {
        for event in [
            "block_rq_issue",
            "block_rq_complete",
            "filemap_set_wb_err",
            "ext4_sync_file_exit",
        ] {
            assert!(present(kernel, event), "{event} on {kernel}");
        }
    }
    assert!(
        !present("5.15.0-amd64", "block_rq_error") && present("6.1.192-amd64", "block_rq_error")
    );
    assert!(
        !present("6.1.192-amd64", "block_io_done") && present("6.12.101-amd64", "block_io_done")
    );
}

#[test]
fn only_what_a_module_or_the_running_kernel_holds_is_missing() {
    for &(kernel, column) in KERNELS {
        let facts = resolved(kernel);
        let lost: Vec<_> = facts
            .missing
            .iter()
            .filter(|m| m.replaced_by.is_none())
            .map(|m| m.name.as_str())
            .collect();
        let mut expected = vec!["xfs_inode_i_vnode", "iomap_dio_bio_end_io", "ext4_end_bio"];
        if column == 4 {
            expected.remove(0);
        }
        assert_eq!(lost, expected, "{kernel}");
    }
}

#[test]
fn a_hook_is_told_which_of_its_needs_are_unmet_and_why() {
    let facts = resolved("6.12.101-amd64");
    let needs = [
        "request_bio",
        "request_rq_disk|request_queue_disk",
        "event:block_rq_issue",
        "func:ext4_sync_file",
    ];
    assert_eq!(facts.missing_for(&needs), []);
    let unmet = facts.missing_for(&[
        "xfs_inode_i_vnode",
        "event:xfs_file_fsync",
        "func:do_fsync",
        "request_nonsense",
    ]);
    let lines: Vec<_> = unmet
        .iter()
        .map(|m| format!("{}: {}", m.name, m.why))
        .collect();
    assert_eq!(
        lines,
        [
            "xfs_inode_i_vnode: no struct xfs_inode",
            "event:xfs_file_fsync: this kernel has no event xfs_file_fsync",
            "func:do_fsync: no function do_fsync in the kernel's BTF",
            "request_nonsense: request_nonsense is not a fact",
        ]
    );
}
