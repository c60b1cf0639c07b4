//! What the machine itself waits for when a cell did not end as wanted: threads in D
//! state with their kernel stacks, states of the NVMe controllers, lines of their
//! driver. In: proc, sysfs, the kernel's log. Out: text for the console.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::effect;

/// Lines of the driver that are shown, the last ones.
const MAX_LINES: usize = 40;

/// All of it, of the machine that runs.
pub fn report() -> String {
    let (proc, sys) = (Path::new("/proc"), Path::new("/sys"));
    let mut text = String::new();
    for (name, state) in controllers(sys) {
        let _ = writeln!(text, "controller {name}: {state}");
    }
    for thread in threads(proc) {
        let _ = writeln!(text, "{thread}");
    }
    let log = effect::read_kernel_log().unwrap_or_default();
    let of_driver: Vec<&str> = log.lines().filter(|line| line.contains("nvme")).collect();
    let first = of_driver.len().saturating_sub(MAX_LINES);
    for line in &of_driver[first..] {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Whether a reset of an NVMe controller waits for something: the work of that is named so
/// in every kernel since 5.10 (drivers/nvme/host/pci.c).
pub fn is_in_reset(proc: &Path) -> bool {
    let threads = threads(proc);
    threads.iter().any(|text| text.contains("nvme_reset_work"))
}

/// Names and states, as sysfs has them.
fn controllers(sys: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(sys.join("class/nvme")).into_iter().flatten();
    let mut found: Vec<(String, String)> = entries
        .flatten()
        .map(|entry| {
            let state = fs::read_to_string(entry.path().join("state")).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, state.trim().to_owned())
        })
        .collect();
    found.sort();
    found
}

/// A thread in D state a paragraph: pid, name, kernel stack.
fn threads(proc: &Path) -> Vec<String> {
    let numbered = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
    };
    let tasks = numbered(proc.to_owned()).flat_map(|process| numbered(process.path().join("task")));
    tasks
        .filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            if !rest.trim_start().starts_with('D') {
                return None;
            }
            let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
            Some(format!("blocked: {name})\n{}", stack.trim_end()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_wait_for_a_disk_are_shown_with_their_stacks() {
        let dir = std::env::temp_dir().join(format!("fsyncscope-blocked-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/7/task/7/stat", "7 (a) b) S 1 7");
        write("proc/7/task/8/stat", "8 (kworker/0:1) D 1 7");
        write("proc/7/task/8/stack", "[<0>] nvme_reset_work+0x1/0x2\n");
        write("proc/self/task/9/stat", "9 (x) D 1 7");
        write("sys/class/nvme/nvme0/state", "resetting\n");
        assert_eq!(
            threads(&dir.join("proc")),
            ["blocked: 8 (kworker/0:1)\n[<0>] nvme_reset_work+0x1/0x2"]
        );
        assert!(is_in_reset(&dir.join("proc")));
        assert!(!is_in_reset(&dir.join("sys")));
        assert_eq!(
            controllers(&dir.join("sys")),
            [("nvme0".to_owned(), "resetting".to_owned())]
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
