//! The helper's side of requests: reads one a line, answers one a line. In:
//! stdin. Out: stdout. Runs in the child only; may block for ever, the parent
//! has the deadline.

use std::{
    fs,
    io::{self, BufRead, Write},
    os::unix::fs::MetadataExt,
};

use super::mapped::find_mapped;
use super::protocol::{Answer, Asked, PathStat, Progress, Request, Told};
use super::rootfs::Root;
use super::thread::read_thread;
use crate::discover::discover;
use crate::enrich::device::encode_dev;
use crate::enrich::{parse_mountinfo, resolve_device};

/// Answers until `input` ends.
pub(super) fn serve(input: impl BufRead, mut out: impl Write) -> io::Result<()> {
    for line in input.lines() {
        let line = line?;
        let told = match serde_json::from_str::<Asked>(&line) {
            Ok(asked) => {
                let id = asked.id;
                let result = answer(&asked.request, &mut |pid, step| {
                    let progress = Progress {
                        pid,
                        step: step.to_owned(),
                    };
                    // A parent that is gone shows at the answer's write.
                    let _ = tell(
                        &mut out,
                        &Told {
                            id,
                            progress: Some(progress),
                            result: None,
                        },
                    );
                });
                Told {
                    id,
                    progress: None,
                    result: Some(result),
                }
            }
            Err(error) => {
                let why = format!("read request: {error}");
                Told {
                    id: 0,
                    progress: None,
                    result: Some(Answer::Failed { why }),
                }
            }
        };
        tell(&mut out, &told)?;
    }
    Ok(())
}

fn tell(out: &mut impl Write, told: &Told) -> io::Result<()> {
    serde_json::to_writer(&mut *out, told)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Answers one request.
pub(super) fn answer(request: &Request, progress: &mut dyn FnMut(u32, &str)) -> Answer {
    match request {
        Request::Discover(request) => Answer::Discovered(discover(request, progress)),
        Request::ResolveDevice {
            sys_root,
            proc_root,
            major,
            minor,
        } => {
            let text = fs::read(proc_root.join("self/mountinfo")).unwrap_or_default();
            let mounts = parse_mountinfo(&String::from_utf8_lossy(&text));
            match resolve_device(sys_root, *major, *minor, &mounts) {
                Ok(info) => Answer::Device(info),
                Err(error) => Answer::Failed {
                    why: error.to_string(),
                },
            }
        }
        Request::StatPath { root, path } => {
            match Root::open(root.as_deref()).and_then(|root| root.stat(path)) {
                Ok(meta) => Answer::Stat(PathStat {
                    st_dev: encode_dev(libc::major(meta.dev()), libc::minor(meta.dev())),
                    ino: meta.ino(),
                    mode: meta.mode(),
                    size_bytes: meta.len(),
                }),
                Err(error) => Answer::Failed {
                    why: format!("stat {}: {error}", path.display()),
                },
            }
        }
        Request::Space { root, path } => {
            match Root::open(root.as_deref()).and_then(|root| root.space(path)) {
                Ok(space) => Answer::Space(space),
                Err(error) => Answer::Failed {
                    why: format!("statfs {}: {error}", path.display()),
                },
            }
        }
        Request::ThreadState {
            proc_root,
            pid,
            tid,
        } => Answer::Thread(read_thread(proc_root, *pid, *tid)),
        Request::MappedFile {
            proc_root,
            pid,
            address,
        } => match find_mapped(proc_root, *pid, *address) {
            Ok(file) => Answer::Mapped { file },
            Err(error) => Answer::Failed {
                why: format!("read {}/{pid}/maps: {error}", proc_root.display()),
            },
        },
        Request::FdPath { proc_root, pid, fd } => {
            let path = proc_root.join(format!("{pid}/fd/{fd}"));
            match fs::read_link(&path) {
                Ok(target) => Answer::FdPath {
                    path: target.to_string_lossy().into_owned(),
                },
                Err(error) => Answer::Failed {
                    why: format!("read {}: {error}", path.display()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::testdir::TestDir;

    #[test]
    fn each_line_gets_an_answer_with_its_id() {
        let dir = TestDir::new("serve");
        dir.write("f", "12345");
        let stat = Request::StatPath {
            root: Some(dir.path().to_owned()),
            path: "/f".into(),
        };
        let asked = serde_json::to_string(&Asked {
            id: 7,
            request: stat,
        })
        .unwrap();
        let mut out = Vec::new();
        serve(format!("{asked}\nrubbish\n").as_bytes(), &mut out).unwrap();
        let told: Vec<Told> = out
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(told[0].id, 7);
        assert!(
            matches!(&told[0].result, Some(Answer::Stat(stat)) if stat.size_bytes == 5 && stat.ino > 0)
        );
        assert!(
            matches!(&told[1].result, Some(Answer::Failed { why }) if why.starts_with("read request: "))
        );
    }

    #[test]
    fn failures_name_act_and_object() {
        let dir = TestDir::new("serve-fail");
        let root = dir.path().to_owned();
        for (request, start) in [
            (
                Request::StatPath {
                    root: None,
                    path: "/nonexistent/x".into(),
                },
                "stat /nonexistent/x: ",
            ),
            (
                Request::FdPath {
                    proc_root: root.clone(),
                    pid: 1,
                    fd: 2,
                },
                "read ",
            ),
            (
                Request::ResolveDevice {
                    sys_root: root.clone(),
                    proc_root: root,
                    major: 1,
                    minor: 2,
                },
                "open ",
            ),
        ] {
            let Answer::Failed { why } = answer(&request, &mut |_, _| {}) else {
                panic!("{request:?}")
            };
            assert!(why.starts_with(start), "{why}");
        }
    }
}
