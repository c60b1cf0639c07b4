//! What the agent says where it cannot run, or only half: one line with what, on
//! what, why and what to do, and the documented exit code. In: hosts with a part
//! taken away (in a mount namespace of their own), bad files, bad logs.
//! `FSYNCSCOPE_BIN` names the agent's binary.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;
use fsyncscope_tests::writer::{Writer, WriterConfig};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const BINARY_VARIABLE: &str = "FSYNCSCOPE_BIN";

fn lab() -> Lab {
    Lab::open_with_helper(Path::new(env!("CARGO_BIN_EXE_lab"))).unwrap()
}

fn binary() -> PathBuf {
    let path = PathBuf::from(env::var_os(BINARY_VARIABLE).unwrap_or_default());
    assert!(
        path.is_file(),
        "set {BINARY_VARIABLE} to a built fsyncscope: {path:?} is no file"
    );
    path
}

/// Runs it to its end.
fn run(words: &[&str]) -> Output {
    Command::new(binary()).args(words).output().unwrap()
}

/// Runs it after `change` in a mount namespace of its own. `$BIN` is the binary.
fn run_changed(change: &str) -> Output {
    Command::new("unshare")
        .args(["--mount", "sh", "-ec", change])
        .env("BIN", binary())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It could not run, and said why in one line that holds all of `words`.
fn assert_refused(output: &Output, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(
        !["os error", "panicked", "Error("]
            .iter()
            .any(|w| text.contains(w)),
        "{text}"
    );
    for word in words {
        assert!(errors[0].contains(word), "{word} is not in {text}");
    }
}

/// It ran without a required hook, and said once what that means.
fn assert_handicapped(output: &Output, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    let mut lines = text.lines().filter(|l| l.starts_with("warn: without "));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no warning in {text}"));
    assert_eq!(lines.next(), None, "{text}");
    for word in words {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("silence proves nothing"), "{out}");
}

#[test]
fn without_rights_it_names_the_capabilities() {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(binary())
        .args(["watch", "--duration", "1s"])
        .output()
        .unwrap();
    assert_refused(&output, &["not permitted", "CAP_BPF and CAP_PERFMON"]);
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(binary())
        .arg("check")
        .output()
        .unwrap();
    assert_refused(&output, &["load kernel programs", "user namespace"]);
}

#[test]
fn without_proc_or_sysfs_it_says_what_to_mount() {
    let output = run_changed("mount -t tmpfs none /proc; exec $BIN watch --duration 1s");
    assert_refused(&output, &["/proc/self/status", "mount -t proc"]);
    let output = run_changed("mount -t tmpfs none /sys; exec $BIN watch --duration 1s");
    assert_refused(&output, &["/sys/devices", "mount -t sysfs"]);
}

#[test]
fn an_unknown_kernel_is_watched_with_that_part_marked_as_lost() {
    let watch = "exec $BIN watch --duration 1s --pid $PPID";
    let output = run_changed(&format!("mount -t tmpfs none /sys/kernel/btf; {watch}"));
    let words = [
        "block_rq_complete",
        "/sys/kernel/btf/vmlinux",
        "CONFIG_DEBUG_INFO_BTF",
    ];
    assert_handicapped(&output, &words);
    // Another kernel's, or half a file: parsed, never trusted.
    let lab = lab();
    let btf = lab.dir().join("btf");
    let real = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let mut renamed = real.clone();
    let at = real
        .windows(11)
        .position(|w| w == b"\0cmd_flags\0")
        .unwrap();
    renamed[at + 1] = b'x';
    let cases: [(&[u8], &str); 3] = [
        (&real[..100_000], "truncated"),
        (&[], "truncated"),
        (&renamed, "no cmd_flags in struct request"),
    ];
    for (content, why) in cases {
        fs::write(&btf, content).unwrap();
        let bind = format!("mount --bind {} /sys/kernel/btf/vmlinux", btf.display());
        let output = run_changed(&format!("{bind}; {watch}"));
        assert_handicapped(&output, &["block_rq_complete", why]);
    }
}

#[test]
fn without_tracefs_it_says_how_to_mount_it() {
    let hide = "mount -t tmpfs none /sys/kernel/tracing; mount -t tmpfs none /sys/kernel/debug";
    let drop = "exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin";
    let output = run_changed(&format!(
        "{hide}; {drop} $BIN watch --duration 1s --pid $PPID"
    ));
    assert_handicapped(
        &output,
        &["fsync", "mount -t tracefs tracefs /sys/kernel/tracing"],
    );
}

#[test]
fn without_a_broker_it_does_not_say_that_nothing_was_found() {
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(binary())
        .args(["watch", "--duration", "1s"])
        .output()
        .unwrap();
    assert_refused(
        &output,
        &["look for brokers", "nothing was watched", "--pid"],
    );
    let output = run(&["watch", "--duration", "1s", "--pid", "4194305"]);
    assert_refused(&output, &["pid 4194305", "no such process"]);
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for words in [
        &["wacht"][..],
        &["watch", "--pid", "x"],
        &["watch", "--slow", "5"],
        &["watch", "--slow", "2s"],
        &["watch", "--from", "a", "--record", "b"],
        &["export", "--listen", "here"],
    ] {
        let output = run(words);
        assert_refused(&output, &[]);
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn what_is_no_capture_is_not_replayed() {
    let lab = lab();
    let file = lab.dir().join("file");
    let name = file.to_str().unwrap();
    let from = |path: &str| run(&["watch", "--from", path]);
    assert_refused(&from(name), &[name, "no such file"]);
    assert_refused(&from(lab.dir().to_str().unwrap()), &["is a directory"]);
    assert_refused(&from("/dev/null"), &["not a capture"]);
    for content in [
        &b""[..],
        b"\x28\xb5\x2f\xfdgarbage",
        b"\xff\0\xfe\n",
        b"{}\n",
    ] {
        fs::write(&file, content).unwrap();
        assert_refused(&from(name), &[name]);
    }
    fs::write(&file, "{\"fsyncscope_capture\":99,\"version\":\"9.0.0\"}\n").unwrap();
    assert_refused(&from(name), &["version 99"]);
}

#[test]
fn a_capture_is_never_overwritten() {
    let lab = lab();
    let file = lab.dir().join("evidence.zst");
    let name = file.to_str().unwrap();
    let record = |path: &str| run(&["watch", "--duration", "1s", "--record", path]);
    fs::write(&file, "of last night").unwrap();
    assert_refused(&record(name), &[name, "it exists"]);
    assert_eq!(fs::read(&file).unwrap(), b"of last night");
    let missing = lab.dir().join("none/evidence.zst");
    assert_refused(&record(missing.to_str().unwrap()), &["no such file"]);
    assert_refused(&record("/dev/null"), &["not a regular file"]);
}

#[test]
fn a_full_disk_costs_the_capture_and_not_the_run() {
    let output = run_changed(
        "mount -t tmpfs -o size=64k none /mnt; head -c 65536 /dev/zero >/mnt/full || true; \
         exec $BIN watch --duration 1s --pid $PPID --record /mnt/evidence.zst",
    );
    let text = stderr(&output);
    assert!(
        text.contains("error: write capture /mnt/evidence.zst: write "),
        "{text}"
    );
    assert!(text.contains("no space left on device"), "{text}");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("stopped (duration is over)"), "{out}");
}

#[test]
fn an_output_that_nobody_takes_ends_the_run_in_order() {
    let pid = std::process::id().to_string();
    let words = ["watch", "--pid", &pid, "--duration", "20s"];
    let mut command = Command::new(binary());
    command
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut agent = proc::spawn(command).unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(agent.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    drop(reader);
    let status = proc::wait(&mut agent, Duration::from_secs(15)).unwrap();
    assert_eq!(status.and_then(|s| s.code()), Some(0));
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(binary());
    let output = command.arg("check").stdout(full()).output().unwrap();
    assert_refused(&output, &["write to stdout: no space left on device"]);
    let mut command = Command::new(binary());
    let status = command.arg("check").stdout(full()).stderr(full()).status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn a_second_run_says_so_and_a_second_listener_is_refused() {
    let listen = ["export", "--listen", "127.0.0.1:0"];
    let mut command = Command::new(binary());
    command
        .args(listen)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut first = proc::spawn(command).unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("http://")?.1.split('/').next()?.to_owned()))
        .unwrap();
    let second = run(&["export", "--listen", &address]);
    assert_refused(&second, &[&address, "address in use", "--listen"]);
    let own = std::process::id().to_string();
    let second = run(&["watch", "--pid", &own, "--duration", "1s"]);
    let text = stderr(&second);
    assert_eq!(second.status.code(), Some(0), "{text}");
    let said = format!("export, pid {}", first.id());
    assert!(
        text.contains("runs here already") && text.contains(&said),
        "{text}"
    );
    // Killed, it leaves nothing that hinders the next.
    proc::end(&mut first, libc::SIGKILL, LIMIT).unwrap();
    let mut command = Command::new(binary());
    command
        .args(["export", "--listen", &address])
        .stderr(Stdio::piped());
    let mut again = proc::spawn(command).unwrap();
    let mut lines = BufReader::new(again.stderr.take().unwrap()).lines();
    assert!(
        lines
            .by_ref()
            .map_while(Result::ok)
            .any(|l| l.contains("serving"))
    );
    proc::end(&mut again, libc::SIGTERM, LIMIT).unwrap();
}

/// `watch --json` of a process, read line by line.
struct Watch {
    process: Child,
    lines: std::sync::mpsc::Receiver<Value>,
}

impl Watch {
    fn start(pid: u32) -> Watch {
        let mut command = Command::new(binary());
        command
            .args([
                "watch",
                "--json",
                "--pid",
                &pid.to_string(),
                "--duration",
                "60s",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = proc::spawn(command).unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Watch { process, lines }
    }

    fn wait_for(&self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LIMIT;
        let mut seen = String::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {what} in\n{seen}");
            };
            if is_wanted(&line) {
                return line;
            }
            seen += &format!("{line}\n");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.process, libc::SIGTERM, Duration::from_secs(10));
    }
}

fn flush_error(dir: &Path, offset: u32) -> String {
    let now = proc::run(Command::new("date").arg("+%F %T,%3N")).unwrap();
    format!(
        "[{}] ERROR Error while flushing log for orders-0 in dir {} with offset {offset} (exclusive) and recovery point {offset} (org.apache.kafka.storage.internals.log.LogDirFailureChannel)\njava.io.IOException: Input/output error\n\tat java.base/sun.nio.ch.FileDispatcherImpl.force0(Native Method)\n[{}] INFO next (kafka)\n",
        now.trim(),
        dir.display(),
        now.trim()
    )
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(bytes).unwrap();
}

fn has_line(line: &Value, offset: u32) -> bool {
    let events = line["log_events"].as_array();
    line["schema"] == 1 && events.is_some_and(|all| all.iter().any(|e| e["offset"] == offset))
}

/// A log.dir without a disk, and a log that is garbage, too long, gone and back:
/// the line of each stage is found, and none gets more than UNKNOWN.
#[test]
fn a_directory_in_memory_and_a_broken_log_give_unknown() {
    let lab = lab();
    let dir = PathBuf::from(format!("/dev/shm/fsyncscope-test-{}", std::process::id()));
    let dirs = vec![dir.join("kafka")];
    fs::create_dir_all(&dirs[0]).unwrap();
    let config = WriterConfig::new(lab.dir().join("writer"), dirs.clone());
    let mut writer = Writer::start(&lab, config).unwrap();
    let watch = Watch::start(writer.pid());
    let broker = watch.wait_for("broker", |line| line["type"] == "broker");
    let notes = broker["notes"].to_string();
    assert!(
        notes.contains("is on tmpfs, which is not ext4, xfs or btrfs"),
        "{broker}"
    );
    let log = writer.server_log();
    let stages: [(u32, Vec<u8>); 3] = [
        (101, Vec::new()),
        (
            102,
            (0..=255u8).cycle().take(300_000).chain(*b"\n").collect(),
        ),
        (103, [vec![b'x'; 10 << 20], b"\n".to_vec()].concat()),
    ];
    for (offset, before) in stages {
        append(&log, &before);
        append(&log, flush_error(&dirs[0], offset).as_bytes());
        let incident = watch.wait_for("incident", |line| has_line(line, offset));
        assert_eq!(incident["verdict"], "UNKNOWN", "{incident}");
    }
    fs::remove_file(&log).unwrap();
    watch.wait_for("word of the missing log", |line| {
        line["type"] == "notice" && line["text"].as_str().is_some_and(|t| t.contains("missing"))
    });
    append(&log, flush_error(&dirs[0], 104).as_bytes());
    let incident = watch.wait_for("incident", |line| has_line(line, 104));
    assert_eq!(incident["verdict"], "UNKNOWN", "{incident}");
    drop(watch);
    writer.finish().unwrap();
    fs::remove_dir_all(&dir).unwrap();
}
