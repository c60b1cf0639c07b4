//! Facts without which a form reads garbage, where several hooks need the same.
//! Used by the table in `hooks`, which macros of this file spare repetition.

/// Facts for a file, its names, and the directory that it lies under.
macro_rules! file {
    ($($argument:literal),*) => {
        &[
            $($argument,)*
            "inode_i_ino",
            "inode_i_sb",
            "super_block_s_dev",
            "file_f_inode",
            "file_f_path_dentry",
            "dentry_d_parent",
            "dentry_d_inode",
            "dentry_d_name_name",
        ]
    };
}

/// Facts for a file of xfs, by its events' first argument.
pub const XFS_FILE: &[&str] = &[
    "arg:xfs_file_fsync:0:struct xfs_inode *",
    "arg:xfs_dir_fsync:0:struct xfs_inode *",
    "xfs_inode_i_vnode",
    "inode_i_dentry",
    "dentry_d_alias",
    "inode_i_ino",
    "inode_i_sb",
    "super_block_s_dev",
    "dentry_d_parent",
    "dentry_d_inode",
    "dentry_d_name_name",
];

/// Facts for a mapping, its file and the names of that.
pub const WRITEBACK: &[&str] = &[
    "arg:filemap_set_wb_err:0:struct address_space *",
    "address_space_host",
    "address_space_wb_err",
    "inode_i_ino",
    "inode_i_sb",
    "inode_i_dentry",
    "super_block_s_dev",
    "dentry_d_alias",
    "dentry_d_parent",
    "dentry_d_inode",
    "dentry_d_name_name",
];

/// Facts for the fields of a request, when it is issued.
macro_rules! request {
    ($argument:literal) => {
        &[
            $argument,
            "request_rq_disk|request_queue_disk",
            "request_cmd_flags",
            "request_data_len",
            "request_sector",
            "request_bio",
            "gendisk_major",
            "gendisk_first_minor",
        ]
    };
}

/// Facts from a request to its file.
pub const REQUEST_FILE: &[&str] = &[
    "complete_status_is_errno",
    "request_rq_disk|request_queue_disk",
    "request_cmd_flags",
    "request_data_len",
    "request_sector",
    "request_bio",
    "request_biotail",
    "gendisk_major",
    "gendisk_first_minor",
    "bio_bi_next",
    "bio_bi_size",
    "bio_bi_idx",
    "bio_bi_io_vec",
    "bio_bi_end_io",
    "bio_bi_private",
    "bio_vec_size",
    "bio_vec_bv_page",
    "page_compound_head",
    "folio_mapping",
    "address_space_host",
    "inode_i_mode",
    "inode_i_ino",
    "inode_i_sb",
    "inode_i_mapping",
    "inode_i_rdev",
    "inode_i_data",
    "inode_i_dentry",
    "super_block_s_dev",
    "dentry_d_parent",
    "dentry_d_inode",
    "dentry_d_name_name",
    "dentry_d_alias",
];
