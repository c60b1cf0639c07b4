//! Claims about the follower, on real files in a temporary folder.

use std::fs;

use super::*;
use crate::helper::testdir::TestDir;

struct Case {
    dir: TestDir,
    follower: Follower<Vec<u8>>,
}

impl Case {
    fn new(name: &str, history_bytes: u64, before: &[u8]) -> Self {
        let dir = TestDir::new(name);
        let file = dir.path().join("server.log");
        if !before.is_empty() {
            fs::write(&file, before).unwrap();
        }
        let follower = Follower::new(
            FollowOptions {
                file,
                history_bytes,
                ..FollowOptions::default()
            },
            Vec::new(),
        );
        Self { dir, follower }
    }

    fn append(&self, bytes: &[u8]) {
        let path = self.dir.path().join("server.log");
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }

    fn poll(&mut self) -> Vec<String> {
        self.follower.poll().unwrap();
        let out = std::mem::take(&mut self.follower.out);
        out.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .filter_map(|line| match serde_json::from_slice(line).unwrap() {
                FollowEvent::Line {
                    text,
                    truncated,
                    stamp,
                    ..
                } => {
                    let text = if text.len() > 99 {
                        format!("<{}>", text.len())
                    } else {
                        text
                    };
                    Some(format!(
                        "{text}{}{}",
                        if truncated { " cut" } else { "" },
                        if stamp.history { " history" } else { "" }
                    ))
                }
                FollowEvent::Opened { .. } => Some("OPENED".into()),
                FollowEvent::Rotated => Some("ROTATED".into()),
                FollowEvent::Truncated => Some("TRUNCATED".into()),
                FollowEvent::Missing { .. } => Some("MISSING".into()),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn begins_at_the_end_and_sees_new_lines_only() {
    let mut case = Case::new("end", 0, b"old\nolder");
    assert_eq!(case.poll(), ["OPENED"]);
    case.append(b" rest\nnew\npart");
    assert_eq!(case.poll(), ["new"]);
    case.append(b"ial\n");
    assert_eq!(case.poll(), ["partial"]);
}

#[test]
fn history_is_flagged_and_begins_with_a_whole_line() {
    let mut case = Case::new("history", 9, b"first\nsecond\n");
    assert_eq!(case.poll(), ["OPENED", "second history"]);
    case.append(b"third\n");
    assert_eq!(case.poll(), ["third"]);
}

#[test]
fn rename_and_create_loses_nothing() {
    let mut case = Case::new("rotate", 0, b"a\n");
    case.poll();
    let path = case.dir.path().join("server.log");
    let old = case.dir.path().join("server.log.1");
    fs::rename(&path, &old).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&old)
        .unwrap()
        .write_all(b"late\n")
        .unwrap();
    assert_eq!(case.poll(), ["late", "MISSING"]);
    fs::OpenOptions::new()
        .append(true)
        .open(&old)
        .unwrap()
        .write_all(b"later\n")
        .unwrap();
    case.append(b"new\n");
    assert_eq!(case.poll(), ["later", "ROTATED", "OPENED", "new"]);
}

#[test]
fn copytruncate_is_noticed_also_after_regrowth() {
    let mut case = Case::new("truncate", 0, b"a\nb\n");
    case.poll();
    let path = case.dir.path().join("server.log");
    case.append(b"c\n");
    assert_eq!(case.poll(), ["c"]);
    fs::write(&path, b"x\n").unwrap();
    assert_eq!(case.poll(), ["TRUNCATED", "x"]);
    fs::write(&path, b"longer than it was\n").unwrap();
    assert_eq!(case.poll(), ["TRUNCATED", "longer than it was"]);
}

#[test]
fn late_file_is_read_from_its_first_byte() {
    let mut case = Case::new("late", 0, b"");
    assert_eq!(case.poll(), ["MISSING"]);
    assert_eq!(case.poll(), [] as [&str; 0]);
    case.append(b"hello\n");
    assert_eq!(case.poll(), ["OPENED", "hello"]);
}

#[test]
fn ten_megabyte_line_and_binary_are_survived() {
    let mut case = Case::new("long", 0, b"a\n");
    case.poll();
    case.append(&vec![b'x'; 10_000_000]);
    assert_eq!(case.poll(), [] as [&str; 0]);
    case.append(b"\n\xff\0\xfe\nend\n");
    assert_eq!(case.poll(), ["<65536> cut", "\u{fffd}\0\u{fffd}", "end"]);
}

#[test]
fn resumes_where_an_earlier_helper_stopped() {
    let mut case = Case::new("resume", 0, b"a\nb\nc\n");
    let ino = fs::metadata(case.dir.path().join("server.log"))
        .unwrap()
        .ino();
    case.follower.options.resume = Some((ino, 2));
    assert_eq!(case.poll(), ["OPENED", "b", "c"]);
}
