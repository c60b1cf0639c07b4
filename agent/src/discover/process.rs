//! Reads one process and, if it is a broker, all that discovery wants of it.
//! In: proc root and pid. Out: a [`Broker`], or nothing. Never fails: what
//! cannot be read becomes a note. Each step that may block is announced.

use std::{
    fs, io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::{Broker, DiscoverRequest, LogDir, cmdline, logconf, properties};
use crate::enrich::device::encode_dev;
use crate::enrich::mountinfo::{Mount, find_mount, parse_mountinfo};
use crate::helper::rootfs::Root;
use crate::messages::plain;

/// A class path is some 10 KiB; no command line of a broker is near this.
const MAX_CMDLINE_BYTES: u64 = 256 * 1024;
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
/// Descriptors looked at for a log file: a broker may hold a million segments,
/// and its log is among the first that it opens.
const MAX_FDS: usize = 4096;

/// Clears what may hold passwords before the memory is given back.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

/// Reads the process `pid`. `by_hand`: it is a broker because the user said so.
pub(super) fn read_broker(
    request: &DiscoverRequest,
    pid: u32,
    by_hand: bool,
    progress: &mut dyn FnMut(u32, &str),
) -> Option<Broker> {
    let dir = request.proc_root.join(pid.to_string());
    // comm needs no mmap_lock; cmdline does, and hangs with a hung broker.
    let comm = fs::read_to_string(dir.join("comm"))
        .ok()?
        .trim_end()
        .to_owned();
    if !by_hand && !may_be_kafka(&comm) {
        return None;
    }
    progress(pid, "cmdline");
    let mut raw = read_bounded(&dir.join("cmdline"), MAX_CMDLINE_BYTES).unwrap_or_default();
    let command = {
        let argv: Vec<_> = raw
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .collect();
        let words: Vec<&str> = argv
            .iter()
            .map(AsRef::as_ref)
            .filter(|word| !word.is_empty())
            .collect();
        cmdline::parse_cmdline(&words)
    };
    wipe(&mut raw);
    let (command, mut notes) = match command {
        Some(command) => (command, Vec::new()),
        None if by_hand => (
            cmdline::KafkaCommand::default(),
            vec!["command line is not a broker's, given by hand".to_owned()],
        ),
        None => return None,
    };
    notes.extend(command.notes.iter().cloned());
    let mut broker = Broker {
        pid,
        start_time_ticks: read_start_time(&dir).unwrap_or(0),
        mnt_ns: read_mnt_ns(&dir).unwrap_or(0),
        comm,
        version: command.version.clone(),
        timezone: command.timezone.clone(),
        settings: command.overrides.clone(),
        notes,
        ..Broker::default()
    };
    let root_path = dir.join("root");
    let root = match Root::open(Some(&root_path)) {
        Ok(root) => root,
        Err(error) => {
            let needed = if error.kind() == io::ErrorKind::PermissionDenied {
                "; its log.dirs and log need CAP_SYS_PTRACE, or --log-dir and --follow-log"
            } else {
                ""
            };
            broker.notes.push(plain(&format!(
                "open {}: {error}{needed}",
                root_path.display()
            )));
            return Some(broker);
        }
    };
    let place = Place {
        pid,
        cwd: read_cwd(&dir),
        dir: &dir,
        root: &root,
    };
    place.read_settings(&mut broker, command.properties_file.as_deref(), progress);
    place.read_dirs(&mut broker, &request.log_dirs, progress);
    place.find_log(&mut broker, &command, progress);
    if broker.timezone.is_none() {
        broker.timezone = read_zone(&root_path);
    }
    Some(broker)
}

fn may_be_kafka(comm: &str) -> bool {
    let lower = comm.to_ascii_lowercase();
    lower.contains("java") || lower.contains("kafka") || lower == "jsvc"
}

struct Place<'a> {
    pid: u32,
    cwd: PathBuf,
    dir: &'a Path,
    root: &'a Root,
}

impl Place<'_> {
    fn read_settings(
        &self,
        broker: &mut Broker,
        file: Option<&str>,
        progress: &mut dyn FnMut(u32, &str),
    ) {
        let Some(file) = file else {
            broker
                .notes
                .push("no properties file on the command line".to_owned());
            return;
        };
        let path = self.cwd.join(file);
        progress(self.pid, "properties file");
        match self.root.read(&path, MAX_CONFIG_BYTES) {
            Ok(mut text) => {
                let mut settings = properties::parse_properties(&text);
                wipe(&mut text);
                // --override on the command line wins over the file.
                settings.append(&mut broker.settings);
                broker.settings = settings;
            }
            Err(error) => broker
                .notes
                .push(plain(&format!("open {}: {error}", path.display()))),
        }
        broker.properties_file = Some(path);
    }

    fn read_dirs(
        &self,
        broker: &mut Broker,
        by_hand: &[PathBuf],
        progress: &mut dyn FnMut(u32, &str),
    ) {
        let settings = &broker.settings;
        let known = settings.get("log.dirs").or_else(|| settings.get("log.dir"));
        let mut names: Vec<PathBuf> = match known {
            _ if !by_hand.is_empty() => by_hand.to_vec(),
            Some(list) => list
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(PathBuf::from)
                .collect(),
            // Kafka's own default, which counts only if the file was read.
            None if !settings.is_empty() => vec![PathBuf::from("/tmp/kafka-logs")],
            None => Vec::new(),
        };
        if names
            .iter()
            .any(|name| name.to_string_lossy().contains("${"))
        {
            broker
                .notes
                .push("log.dirs comes from a config provider, give it with --log-dir".to_owned());
            names.retain(|name| !name.to_string_lossy().contains("${"));
        }
        let metadata = settings
            .get("metadata.log.dir")
            .map(PathBuf::from)
            .filter(|dir| !names.contains(dir));
        broker.node_id = settings
            .get("node.id")
            .or_else(|| settings.get("broker.id"))
            .filter(|id| *id != "-1")
            .cloned();
        let mounts = fs::read(self.dir.join("mountinfo")).map_or_else(
            |error| {
                broker.notes.push(format!("read mountinfo: {error}"));
                Vec::new()
            },
            |text| parse_mountinfo(&String::from_utf8_lossy(&text)),
        );
        broker.log_dirs = names
            .iter()
            .map(|name| self.read_dir(name, &mounts, progress))
            .collect();
        broker.metadata_log_dir = metadata.map(|name| self.read_dir(&name, &mounts, progress));
        let dirs = broker.log_dirs.iter().chain(&broker.metadata_log_dir);
        let notes: Vec<String> = dirs.filter_map(blind_spot).collect();
        broker.notes.extend(notes);
        for dir in broker.log_dirs.iter().chain(&broker.metadata_log_dir) {
            if dir.error.is_some() {
                continue;
            }
            progress(self.pid, "meta.properties");
            let Ok(text) = self.root.read(&dir.path.join("meta.properties"), 64 * 1024) else {
                continue;
            };
            let meta = properties::parse_properties(&text);
            broker.cluster_id = broker
                .cluster_id
                .take()
                .or_else(|| meta.get("cluster.id").cloned());
            broker.node_id = broker.node_id.take().or_else(|| {
                meta.get("node.id")
                    .or_else(|| meta.get("broker.id"))
                    .cloned()
            });
            if broker.cluster_id.is_some() && broker.node_id.is_some() {
                break;
            }
        }
    }

    fn read_dir(
        &self,
        name: &Path,
        mounts: &[Mount],
        progress: &mut dyn FnMut(u32, &str),
    ) -> LogDir {
        let path = self.cwd.join(name);
        progress(self.pid, "log.dir");
        let mut dir = LogDir {
            host_path: self.root.join(&path),
            path,
            ..LogDir::default()
        };
        let file = match self
            .root
            .open_path(&dir.path)
            .and_then(|file| Ok((file.metadata()?, file)))
        {
            Ok((meta, file)) => {
                dir.ino = meta.ino();
                dir.st_dev = encode_dev(libc::major(meta.dev()), libc::minor(meta.dev()));
                if !meta.is_dir() {
                    dir.error = Some("not a directory".to_owned());
                }
                Some(file)
            }
            Err(error) => {
                dir.error = Some(format!("open {}: {error}", dir.path.display()));
                None
            }
        };
        // The mount id is exact; the path is not where symlinks are in it.
        let id = file
            .as_ref()
            .and_then(|file| read_mount_id(file.as_raw_fd()));
        let mount = mounts
            .iter()
            .find(|mount| Some(mount.id) == id)
            .or_else(|| find_mount(mounts, &dir.path.to_string_lossy()));
        dir.s_dev = dir.st_dev;
        if let Some(mount) = mount {
            // btrfs gives each subvolume an st_dev of its own, while events of
            // the kernel carry the super block's number, as mountinfo does.
            dir.s_dev = encode_dev(mount.major, mount.minor);
            dir.fs_type.clone_from(&mount.fs_type);
            dir.source.clone_from(&mount.source);
            dir.mount_point.clone_from(&mount.mount_point);
            dir.read_only = mount.read_only().unwrap_or_default().to_owned();
            dir.fs_dev_major_minor = format!("{}:{}", mount.major, mount.minor);
        }
        dir
    }

    fn find_log(
        &self,
        broker: &mut Broker,
        command: &cmdline::KafkaCommand,
        progress: &mut dyn FnMut(u32, &str),
    ) {
        let logs_dir = command
            .logs_dir
            .as_ref()
            .map(|dir| self.cwd.join(dir).to_string_lossy().into_owned());
        let mut wanted: Vec<PathBuf> = Vec::new();
        if let Some(config) = &command.log_config {
            let path = self.cwd.join(config);
            progress(self.pid, "logging configuration");
            match self.root.read(&path, MAX_CONFIG_BYTES) {
                Ok(mut text) => {
                    let files =
                        logconf::log_files(&String::from_utf8_lossy(&text), logs_dir.as_deref());
                    wanted.extend(files.into_iter().map(PathBuf::from));
                    wipe(&mut text);
                }
                Err(error) => broker
                    .notes
                    .push(format!("open {}: {error}", path.display())),
            }
        }
        wanted.extend(logs_dir.map(|dir| Path::new(&dir).join("server.log")));
        progress(self.pid, "descriptors");
        let fds = self.read_fds();
        broker.version = broker.version.take().or_else(|| {
            fds.iter()
                .find_map(|(_, path)| cmdline::version_in(&path.to_string_lossy()))
        });
        // A file that the process holds open is beyond doubt.
        let open = |path: &PathBuf| fds.iter().any(|(_, held)| held == path);
        let found = wanted
            .iter()
            .find(|path| open(path))
            .cloned()
            .or_else(|| {
                fds.iter()
                    .find(|(_, path)| path.ends_with("server.log"))
                    .map(|(_, path)| path.clone())
            })
            .or_else(|| {
                wanted
                    .iter()
                    .find(|path| self.root.stat(path).is_ok())
                    .cloned()
            })
            .or_else(|| self.stdout_file(&fds))
            .or_else(|| wanted.first().cloned());
        if found.is_none() {
            broker
                .notes
                .push("no log file found, give it with --follow-log".to_owned());
        }
        broker.server_log = found;
    }

    /// stdout, where it is a regular file.
    fn stdout_file(&self, fds: &[(u32, PathBuf)]) -> Option<PathBuf> {
        let (_, path) = fds.iter().find(|(fd, _)| *fd == 1)?;
        self.root
            .stat(path)
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|_| path.clone())
    }

    fn read_fds(&self) -> Vec<(u32, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.dir.join("fd")) else {
            return Vec::new();
        };
        let links = entries.flatten().take(MAX_FDS).filter_map(|entry| {
            let fd = entry.file_name().to_str()?.parse().ok()?;
            let path = fs::read_link(entry.path()).ok()?;
            (path.is_absolute() && !path.to_string_lossy().ends_with(" (deleted)"))
                .then_some((fd, path))
        });
        links.collect()
    }
}

/// What is not seen of a directory, and why.
fn blind_spot(dir: &LogDir) -> Option<String> {
    let name = dir.path.display();
    if let Some(error) = &dir.error {
        return Some(plain(&format!("log.dir {name} is not watched: {error}")));
    }
    let why = match dir.fs_type.as_str() {
        "" | "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" => {
            let sign = Some(&dir.read_only).filter(|sign| !sign.is_empty())?;
            return Some(format!(
                "log.dir {name} is read-only ({sign}): its file system takes no writes"
            ));
        }
        "tmpfs" | "ramfs" => " and has no disk",
        _ => "",
    };
    Some(format!(
        "log.dir {name} is on {}, which is not ext4, xfs or btrfs{why}: its syncs are counted, not explained",
        dir.fs_type
    ))
}

fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::Read::read_to_end(
        &mut io::Read::take(fs::File::open(path)?, max_bytes),
        &mut content,
    )?;
    Ok(content)
}

/// Field 22 of stat; comm may hold blanks and brackets, so count from its end.
fn read_start_time(dir: &Path) -> Option<u64> {
    let text = fs::read_to_string(dir.join("stat")).ok()?;
    text.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

fn read_mnt_ns(dir: &Path) -> Option<u64> {
    let link = fs::read_link(dir.join("ns/mnt")).ok()?;
    link.to_str()?
        .strip_prefix("mnt:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn read_cwd(dir: &Path) -> PathBuf {
    let link = fs::read_link(dir.join("cwd")).unwrap_or_else(|_| PathBuf::from("/"));
    // A directory outside our own root is shown with this prefix.
    let text = link.to_string_lossy();
    PathBuf::from(text.strip_prefix("(unreachable)").unwrap_or(&text))
}

/// Mount id of an open file; our own /proc, whatever the root asked for.
fn read_mount_id(fd: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim()
        .parse()
        .ok()
}

/// The zone that the process's root is set to. The TZ variable would win, but
/// /proc/PID/environ holds passwords and is not read.
fn read_zone(root: &Path) -> Option<String> {
    let link = fs::read_link(root.join("etc/localtime")).ok()?;
    link.to_str()?
        .split_once("zoneinfo/")
        .map(|(_, zone)| zone.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_whose_syncs_are_not_explained_says_so() {
        let mut dir = LogDir {
            path: "/data".into(),
            fs_type: "xfs".to_owned(),
            ..LogDir::default()
        };
        assert_eq!(blind_spot(&dir), None);
        "overlay".clone_into(&mut dir.fs_type);
        let note = blind_spot(&dir).unwrap();
        assert!(note.starts_with("log.dir /data is on overlay, "), "{note}");
        dir.error = Some("open /data: No such file or directory (os error 2)".to_owned());
        assert_eq!(
            blind_spot(&dir).unwrap(),
            "log.dir /data is not watched: open /data: no such file or directory"
        );
    }
}
