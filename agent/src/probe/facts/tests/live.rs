//! The reader of the running kernel, on made-up /proc, /sys and tracefs.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::resolve_live;
use super::extract;

/// A temporary directory, removed at the end.
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(name: &str) -> Self {
        let root =
            std::env::temp_dir().join(format!("fsyncscope-facts-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Root(root)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, path: &str, content: &[u8]) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn resolve(&self, tracefs: bool) -> super::super::ResolvedFacts {
        let tracefs = tracefs.then(|| self.0.join("tracing"));
        resolve_live(
            &self.0.join("sys"),
            &self.0.join("proc"),
            tracefs.as_deref(),
            None,
        )
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn format(field: &str, offset: u32) -> String {
    format!(
        "\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\tfield:long {field};\toffset:{offset};\tsize:8;\n"
    )
}

#[test]
fn all_sources_are_joined() {
    let root = Root::new("joined");
    root.write("sys/kernel/btf/vmlinux", &extract("6.12.101-amd64"));
    root.write("proc/sys/kernel/osrelease", b"6.12.101-amd64\n");
    root.write(
        "proc/kallsyms",
        b"ffffffff81000010 t ext4_end_bio\nffffffff81000020 T iomap_dio_bio_end_io\n",
    );
    root.write(
        "tracing/events/syscalls/sys_enter_fsync/format",
        format("fd", 24).as_bytes(),
    );
    root.write(
        "tracing/events/syscalls/sys_exit_fsync/format",
        format("ret", 32).as_bytes(),
    );
    root.write("tracing/events/xfs/xfs_file_fsync/format", b"");
    let facts = root.resolve(true);
    assert_eq!(facts.kernel, "6.12.101-amd64");
    assert_eq!(facts.facts.ext4_end_bio, 0xffff_ffff_8100_0010);
    assert_eq!(facts.facts.iomap_dio_bio_end_io, 0xffff_ffff_8100_0020);
    assert_eq!(
        (facts.get("sys_enter_args"), facts.get("sys_exit_ret")),
        (Some(24), Some(32))
    );
    let needs = [
        "ext4_end_bio",
        "iomap_dio_bio_end_io",
        "event:xfs_file_fsync",
        "event:sys_enter_fsync",
    ];
    assert_eq!(facts.missing_for(&needs), []);
    assert_eq!(facts.missing_for(&["event:sys_enter_msync"]).len(), 1);
    assert!(facts.notes.is_empty(), "{:?}", facts.notes);
}

#[test]
fn formats_that_disagree_keep_the_offset_of_btf() {
    let root = Root::new("disagree");
    root.write("sys/kernel/btf/vmlinux", &extract("6.12.101-amd64"));
    root.write(
        "tracing/events/syscalls/sys_enter_fsync/format",
        format("fd", 24).as_bytes(),
    );
    root.write(
        "tracing/events/syscalls/sys_enter_msync/format",
        format("start", 32).as_bytes(),
    );
    let facts = root.resolve(true);
    assert_eq!(facts.get("sys_enter_args"), Some(16));
    assert_eq!(facts.notes.len(), 1);
    assert!(
        facts.notes[0].ends_with("sys_enter_msync/format: differs from the others"),
        "{:?}",
        facts.notes
    );
}

#[test]
fn fields_of_the_journals_records_are_read_where_btf_has_none() {
    let root = Root::new("journal");
    root.write("sys/kernel/btf/vmlinux", &extract("6.12.101-amd64"));
    let commit = "\tfield:dev_t dev;\toffset:12;\tsize:4;\tsigned:0;
\tfield:tid_t transaction;\toffset:20;\tsize:4;\tsigned:0;\n";
    for event in ["jbd2_start_commit", "jbd2_end_commit"] {
        root.write(
            &format!("tracing/events/jbd2/{event}/format"),
            commit.as_bytes(),
        );
    }
    let facts = root.resolve(true);
    assert_eq!(
        (
            facts.get("trace_journal_dev"),
            facts.get("trace_journal_tid"),
            facts.get("trace_checkpoint_time")
        ),
        (Some(12), Some(20), Some(16))
    );
}

#[test]
fn hidden_addresses_are_missing_with_the_likely_reason() {
    let root = Root::new("hidden");
    root.write("sys/kernel/btf/vmlinux", &extract("6.12.101-amd64"));
    root.write(
        "proc/kallsyms",
        b"0000000000000000 t ext4_end_bio\n0000000000000000 T iomap_dio_bio_end_io\n",
    );
    let facts = root.resolve(false);
    assert_eq!(facts.facts.ext4_end_bio, 0);
    let unmet = facts.missing_for(&["ext4_end_bio"]);
    assert!(
        unmet[0].why.ends_with("kallsyms (kernel.kptr_restrict?)"),
        "{}",
        unmet[0].why
    );
}

#[test]
fn a_broken_module_is_noted_and_the_image_counts() {
    let root = Root::new("module");
    root.write("sys/kernel/btf/vmlinux", &extract("6.12.101-amd64"));
    root.write("sys/kernel/btf/xfs", b"no BTF");
    let facts = root.resolve(false);
    assert_eq!(facts.get("request_bio"), Some(56));
    assert!(
        facts.notes[0].ends_with("kernel/btf/xfs: bad magic 0x6f6e"),
        "{:?}",
        facts.notes
    );
}

#[test]
fn without_btf_everything_is_missing_and_says_which_file() {
    let facts = resolve_live(
        Path::new("/nonexistent/sys"),
        Path::new("/nonexistent/proc"),
        None,
        None,
    );
    let unmet = facts.missing_for(&["request_bio", "ext4_end_bio"]);
    assert_eq!(unmet.len(), 2);
    assert!(
        unmet[0]
            .why
            .starts_with("read /nonexistent/sys/kernel/btf/vmlinux: "),
        "{}",
        unmet[0].why
    );
    assert!(
        unmet[1]
            .why
            .starts_with("read /nonexistent/proc/kallsyms: "),
        "{}",
        unmet[1].why
    );
    assert_eq!(facts.get("request_bio"), None);
}
