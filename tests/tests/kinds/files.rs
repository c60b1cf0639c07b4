//! Files that are hard to name, synced by ordinary calls: directories, several
//! mappings at once, renamed and deleted ones, those whose data lies in large
//! folios or goes past the page cache.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use fsyncscope_tests::faultdisk::{FaultDisk, FsKind};
use serde_json::Value;

use crate::agent::{syncs, watch};
use crate::common::Watch;
use crate::{fail_next_write, hold_flushes, lab, of_file, show_speed, stage};

const BLOCK: usize = 4096;

fn create(path: &Path, bytes: usize) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true);
    let file = options.open(path).unwrap();
    file.write_all_at(&vec![1; bytes], 0).unwrap();
    file.sync_all().unwrap();
    file
}

/// Makes a call hang at a flush, does something meanwhile, and gives what was said
/// of the sync while it hung and when it had returned.
fn hang(
    disk: &FaultDisk,
    agent: &mut Watch,
    ino: u64,
    call: impl FnOnce() + Send,
    meanwhile: impl FnOnce(),
) -> (Value, Value) {
    let find = |line: &Value, is_in_flight: bool| {
        let mut of_inode = syncs(line).filter(|sync| sync["ino"] == ino);
        of_inode
            .find(|sync| (sync["in_flight"] == true) == is_in_flight)
            .cloned()
    };
    hold_flushes(disk);
    thread::scope(|scope| {
        let calling = scope.spawn(call);
        let (_, during) = agent.wait_for("hanging sync", |line| find(line, true));
        disk.clear().unwrap();
        meanwhile();
        let (_, after) = agent.wait_for("its end", |line| find(line, false));
        calling.join().unwrap();
        (during, after)
    })
}

fn ino(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().ino()
}

#[test]
fn a_sync_in_flight_has_the_name_of_its_file_and_no_other() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Ext4);
    let partition = dir.join("orders-0");
    let (kept, renamed) = (partition.join("a.log"), partition.join("a.log.deleted"));
    let gone = partition.join("b.log");
    let files = [create(&kept, BLOCK), create(&gone, BLOCK)];
    let mut agent = watch(&lab, &dir);
    show_speed(&dir);
    // A directory, which has something to commit.
    fs::write(partition.join("new"), "x").unwrap();
    let directory = File::open(&partition).unwrap();
    let call = || directory.sync_all().unwrap();
    let (during, after) = hang(&disk, &mut agent, ino(&partition), call, || ());
    for sync in [&during, &after] {
        assert_eq!(sync["path"], partition.to_str().unwrap(), "{sync}");
        assert_eq!(sync["op"], "fsync", "{sync}");
    }
    // Overwritten, so that only the flush is waited for and the journal is free.
    let overwrite = |file: &File| {
        file.write_all_at(&[2; BLOCK], 0).unwrap();
        file.sync_data().unwrap();
    };
    let number = ino(&kept);
    let rename = || fs::rename(&kept, &renamed).unwrap();
    let (during, after) = hang(&disk, &mut agent, number, || overwrite(&files[0]), rename);
    assert_eq!(during["path"], kept.to_str().unwrap(), "{during}");
    let names = [kept.to_str().unwrap(), renamed.to_str().unwrap()];
    assert!(names.contains(&after["path"].as_str().unwrap()), "{after}");
    let number = ino(&gone);
    let delete = || fs::remove_file(&gone).unwrap();
    let (during, after) = hang(&disk, &mut agent, number, || overwrite(&files[1]), delete);
    assert_eq!(during["path"], gone.to_str().unwrap(), "{during}");
    assert_eq!(after["path"], gone.to_str().unwrap(), "{after}");
    agent.finish();
}

#[test]
fn a_failed_write_is_of_its_file_however_it_was_written() {
    let lab = lab();
    let (disk, dir) = stage(&lab, FsKind::Ext4);
    let partition = dir.join("orders-0");
    let paths = ["a.index", "b.index"].map(|name| partition.join(name));
    let maps = Maps::new(&paths);
    let large = partition.join("large.log");
    let big = create(&large, 16 << 20);
    let direct_path = partition.join("direct.log");
    create(&direct_path, BLOCK);
    let mut agent = watch(&lab, &dir);
    // One msync over two files: the second is the one that fails.
    maps.store(7);
    fail_next_write(&disk, &paths[1]);
    assert_eq!(maps.sync(), libc::EIO);
    let (_, sync) = agent.wait_for("failed msync", |line| of_file(line, &paths[1]));
    assert_eq!(
        (&sync["op"], &sync["errno"]),
        (&"msync".into(), &"EIO".into()),
        "{sync}"
    );
    // Large writes make large folios.
    big.write_all_at(&vec![3; 16 << 20], 0).unwrap();
    let (first, last) = disk.file_sectors(&large).unwrap()[0];
    let middle = first + (last - first) / 2;
    fail_sector(&disk, middle);
    let failed = big.sync_all().unwrap_err().raw_os_error();
    assert_eq!(failed, Some(libc::EIO));
    let (incident, _) = agent.wait_for("failed fsync", |line| of_file(line, &large));
    let request = request_of(&incident, &large);
    let start = request["sector"].as_u64().unwrap();
    let end = start + request["nr_bytes"].as_u64().unwrap() / 512;
    assert!((start..end).contains(&middle), "{middle}: {request}");
    // Past the page cache there is no sync: the request alone names the file.
    let mut options = File::options();
    let direct = options.write(true).custom_flags(libc::O_DIRECT);
    let direct = direct.open(&direct_path).unwrap();
    fail_next_write(&disk, &direct_path);
    let block = Block([4; BLOCK]);
    let failed = direct.write_all_at(&block.0, 0).unwrap_err().raw_os_error();
    assert_eq!(failed, Some(libc::EIO));
    let wanted = direct_path.to_str().unwrap();
    agent.wait_for("failed direct write", |line| {
        let requests = line["requests"].as_array()?;
        requests
            .iter()
            .find(|request| request["path"] == wanted)
            .cloned()
    });
    agent.finish();
}

fn fail_sector(disk: &FaultDisk, sector: u64) {
    use fsyncscope_tests::faultdisk::{Rule, RuleOp};
    let rule = Rule::on(RuleOp::Write).sectors(sector, sector);
    disk.set_rules(&[rule.errno(libc::EIO).count(1)]).unwrap();
}

fn request_of(incident: &Value, path: &Path) -> Value {
    let requests = incident["requests"].as_array().unwrap();
    let path = path.to_str().unwrap();
    let found = requests.iter().find(|request| request["path"] == path);
    found.unwrap_or_else(|| panic!("{incident}")).clone()
}

#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// One page of each of two files, mapped side by side.
struct Maps(*mut libc::c_void);

impl Maps {
    fn new(paths: &[std::path::PathBuf; 2]) -> Maps {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, then one
        // file over each of its two pages.
        unsafe {
            let nowhere = std::ptr::null_mut();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(nowhere, 2 * BLOCK, protection, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            for (nth, path) in paths.iter().enumerate() {
                let file = create(path, BLOCK);
                let at = start.byte_add(nth * BLOCK);
                let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                let done = libc::mmap(at, BLOCK, protection, flags, file.as_raw_fd(), 0);
                assert_eq!(done, at);
            }
            Maps(start)
        }
    }

    fn store(&self, value: u8) {
        // SAFETY: both pages are mapped and writable.
        unsafe { std::ptr::write_bytes(self.0.cast::<u8>(), value, 2 * BLOCK) };
    }

    fn sync(&self) -> i32 {
        // SAFETY: the range is the mapping's own.
        let done = unsafe { libc::msync(self.0, 2 * BLOCK, libc::MS_SYNC) };
        if done == 0 {
            return 0;
        }
        io::Error::last_os_error().raw_os_error().unwrap()
    }
}

impl Drop for Maps {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody borrows from it.
        unsafe { libc::munmap(self.0, 2 * BLOCK) };
    }
}
