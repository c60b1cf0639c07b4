//! Facts that are broken on purpose, in the BTF that the agent is told to believe: a
//! member elsewhere, an event renamed, an argument shifted. The hook that depends on
//! it must be `failed` with a reason, and no event may be wrong. `FSYNCSCOPE_BIN`
//! names the agent's binary.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fsyncscope_tests::btf::Btf;
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;
use serde_json::Value;

use common::{Watch, binary};

const KERNEL: &str = "/sys/kernel/btf/vmlinux";

fn lab() -> Lab {
    Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap()
}

/// This kernel's BTF after a change.
fn changed(lab: &Lab, change: impl FnOnce(&mut Btf)) -> PathBuf {
    let mut btf = Btf::new(fs::read(KERNEL).unwrap()).unwrap();
    change(&mut btf);
    let path = lab.dir().join("changed.btf");
    fs::write(&path, btf.into_bytes()).unwrap();
    path
}

/// What check says of it, and with which code.
fn check(btf: &Path) -> (Value, i32) {
    let output = Command::new(binary())
        .args(["check", "--json", "--test-btf"])
        .arg(btf)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text);
    let report = report.unwrap_or_else(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("{error} in {text}; stderr {stderr}")
    });
    (report, output.status.code().unwrap())
}

fn hook<'r>(report: &'r Value, name: &str) -> &'r Value {
    let hooks = report["hooks"].as_array().unwrap();
    hooks.iter().find(|hook| hook["name"] == name).unwrap()
}

fn assert_failed(report: &Value, name: &str, words: &[&str]) {
    let hook = hook(report, name);
    assert_eq!(hook["state"], "failed", "{hook}");
    assert_eq!(hook["form"], "", "{hook}");
    let reason = hook["reason"].as_str().unwrap();
    for word in words {
        assert!(reason.contains(word), "{word} is not in {reason}");
    }
}

fn assert_attached(report: &Value, name: &str) {
    let hook = hook(report, name);
    assert_eq!(hook["state"], "attached", "{hook}");
}

fn is_sync(line: &Value) -> bool {
    line["type"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("_sync"))
}

/// Syncs of this process while the agent believes that BTF: all are seen with their
/// result, and none with a file that it was not. Returns how many named their file.
fn watch_own_syncs(lab: &Lab, btf: &Path) -> usize {
    const SYNCS: usize = 5;
    let btf = btf.to_str().unwrap();
    let args = ["--slow", "1us", "--test-btf", btf];
    let mut watch = Watch::start(lab, std::process::id(), &args);
    watch.wait_for("process", |line| (line["type"] == "broker").then_some(()));
    let path = lab.dir().join("own");
    let file = fs::File::create(&path).unwrap();
    let meta = file.metadata().unwrap();
    for nth in 0..SYNCS {
        file.write_all_at(b"x", nth as u64).unwrap();
        file.sync_all().unwrap();
    }
    for _ in 0..SYNCS {
        watch.wait_for("sync", |line| is_sync(line).then_some(()));
    }
    let lines = watch.finish();
    let syncs: Vec<&Value> = lines.iter().filter(|line| is_sync(line)).collect();
    assert!(syncs.len() >= SYNCS, "{syncs:?}");
    let mut named = 0;
    for sync in syncs {
        assert_eq!(sync.get("errno"), None, "{sync}");
        if let Some(ino) = sync.get("ino") {
            assert_eq!(ino, meta.ino(), "{sync}");
            named += 1;
        }
        if let Some(path) = sync["path"].as_str() {
            assert!(path.ends_with("own"), "{sync}");
        }
    }
    for line in lines.iter().filter(|line| line["type"] == "request") {
        let size = line["nr_bytes"].as_u64().unwrap();
        assert!(size % 512 == 0 && size < 1 << 24, "{line}");
    }
    named
}

#[test]
fn nothing_is_refuted_of_the_kernels_own_btf() {
    let lab = lab();
    let btf = changed(&lab, |_| ());
    let (report, code) = check(&btf);
    assert_eq!(code, 0);
    for name in ["fsync", "msync", "block_rq_issue", "block_rq_complete"] {
        assert_attached(&report, name);
    }
    assert!(watch_own_syncs(&lab, &btf) > 0);
}

#[test]
fn an_inode_number_elsewhere_is_noticed_by_a_sync_of_its_own() {
    let lab = lab();
    let btf = changed(&lab, |btf| btf.shift_member("inode", "i_ino", 8).unwrap());
    let (report, code) = check(&btf);
    assert_eq!(code, 3);
    let words = ["inode_i_ino is not as BTF says: a sync of inode "];
    assert_failed(&report, "ext4_sync_file_enter", &words);
    assert_failed(&report, "block_rq_complete", &words);
    assert_failed(&report, "filemap_set_wb_err", &words);
    assert_attached(&report, "fsync");
    assert_eq!(watch_own_syncs(&lab, &btf), 0);
}

#[test]
fn a_file_systems_device_elsewhere_is_noticed() {
    let lab = lab();
    let shift = |btf: &mut Btf| btf.shift_member("super_block", "s_dev", 4).unwrap();
    let (report, code) = check(&changed(&lab, shift));
    assert_eq!(code, 3);
    let words = ["super_block_s_dev is not as BTF says: a sync of inode "];
    assert_failed(&report, "block_rq_complete", &words);
    assert_attached(&report, "fsync");
}

#[test]
fn a_files_inode_elsewhere_costs_only_what_goes_by_files() {
    let lab = lab();
    let shift = |btf: &mut Btf| btf.shift_member("file", "f_inode", 8).unwrap();
    let btf = changed(&lab, shift);
    let (report, code) = check(&btf);
    let words = ["file_f_inode is not as BTF says"];
    assert_failed(&report, "ext4_sync_file_enter", &words);
    // Pages lead to their file all the same.
    assert_attached(&report, "block_rq_complete");
    assert_eq!(code, 0);
    assert_eq!(watch_own_syncs(&lab, &btf), 0);
}

#[test]
fn a_requests_size_or_disk_elsewhere_is_noticed_by_a_read_of_its_own() {
    let lab = lab();
    let shift = |btf: &mut Btf| btf.shift_member("request", "__data_len", -4).unwrap();
    let btf = changed(&lab, shift);
    let (report, code) = check(&btf);
    assert_eq!(code, 3);
    let words = [
        "request_data_len",
        "is not as BTF says: a read of 4096 to 16384 bytes",
    ];
    assert_failed(&report, "block_rq_issue", &words);
    assert_attached(&report, "ext4_sync_file_enter");
    assert!(watch_own_syncs(&lab, &btf) > 0);
    let shift = |btf: &mut Btf| btf.shift_member("gendisk", "first_minor", 4).unwrap();
    let (report, code) = check(&changed(&lab, shift));
    assert_eq!(code, 3);
    let words = ["gendisk_first_minor is not as BTF says: a read on disk "];
    assert_failed(&report, "block_rq_issue", &words);
    assert_failed(&report, "block_rq_complete", &words);
}

#[test]
fn a_renamed_event_is_said_to_be_unknown() {
    let lab = lab();
    let rename = |btf: &mut Btf| {
        btf.rename_event("block_rq_complete", "block_rq_conclude")
            .unwrap();
    };
    let btf = changed(&lab, rename);
    let (report, code) = check(&btf);
    assert_eq!(code, 3);
    let words = ["no event block_rq_complete"];
    assert_failed(&report, "block_rq_complete", &words);
    assert_attached(&report, "fsync");
    assert_attached(&report, "block_rq_issue");
    assert!(watch_own_syncs(&lab, &btf) > 0);
}

#[test]
fn a_shifted_argument_is_not_taken_for_the_one_that_was_there() {
    let lab = lab();
    let swap = |btf: &mut Btf| btf.swap_arguments("ext4_sync_file_enter", 0, 1).unwrap();
    let btf = changed(&lab, swap);
    let (report, code) = check(&btf);
    assert_eq!(code, 0);
    let words = ["argument 0 of ext4_sync_file_enter is int, not struct file *"];
    assert_failed(&report, "ext4_sync_file_enter", &words);
    // The descriptor names the file instead.
    assert!(watch_own_syncs(&lab, &btf) > 0);
    let insert = |btf: &mut Btf| {
        btf.insert_argument("block_rq_issue", "request_queue")
            .unwrap();
    };
    let (report, code) = check(&changed(&lab, insert));
    assert_eq!(code, 3);
    let words = ["argument 0 of block_rq_issue is struct request_queue *"];
    assert_failed(&report, "block_rq_issue", &words);
}

/// Flags and entries of the maps of a process, by the size of a value.
fn maps_of(pid: u32) -> Vec<(u64, u64, u64)> {
    let mut maps = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let line = line.trim();
            match line.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None => line.parse().ok(),
            }
        };
        if let (Some(value), Some(flags), Some(entries)) = (
            field("value_size:"),
            field("map_flags:"),
            field("max_entries:"),
        ) {
            maps.push((value, flags, entries));
        }
    }
    maps
}

#[test]
fn a_kernel_that_cannot_allocate_in_programs_gets_maps_that_are_allocated() {
    const NO_PREALLOC: u64 = 1;
    let lab = lab();
    for (is_old, new_name) in [(false, "bpf_mem_alloc"), (true, "bpf_mem_xxxxx")] {
        let btf = changed(&lab, |btf| {
            btf.rename_struct("bpf_mem_alloc", new_name).unwrap();
        });
        let mut command = Command::new(binary());
        command
            .args([
                "watch",
                "--json",
                "--all",
                "--duration",
                "60s",
                "--test-btf",
            ])
            .arg(&btf)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut agent = proc::spawn(command).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        // The last of its maps is there.
        while maps_of(agent.id()).len() < 20 {
            assert!(Instant::now() < until, "{:?}", maps_of(agent.id()));
            std::thread::sleep(Duration::from_millis(50));
        }
        let growing = maps_of(agent.id());
        let growing = growing
            .iter()
            .filter(|(_, flags, _)| flags & NO_PREALLOC != 0);
        assert_eq!(growing.count() == 0, is_old, "{:?}", maps_of(agent.id()));
        proc::end(&mut agent, libc::SIGTERM, Duration::from_secs(10)).unwrap();
    }
}
