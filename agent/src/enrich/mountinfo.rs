//! Parses /proc/PID/mountinfo and finds the mount that holds a path. In: its
//! text. Out: [`Mount`]s. Pure; whoever reads the file names the process whose
//! mount namespace counts.

use serde::{Deserialize, Serialize};

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Mount id, as in /proc/self/fdinfo.
    pub id: u64,
    /// Major number of the super block's s_dev; 0 for anonymous devices.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Folder of the file system that is mounted.
    pub root: String,
    /// Where, in the process's own root.
    pub mount_point: String,
    /// Options of this mount.
    pub options: Vec<String>,
    /// File system type.
    pub fs_type: String,
    /// Device or name.
    pub source: String,
    /// Options of the super block; `emergency_ro` stands here.
    pub super_options: Vec<String>,
}

impl Mount {
    /// The option that says that the super block takes no writes.
    #[must_use]
    pub fn read_only(&self) -> Option<&str> {
        // `rw` stays where `emergency_ro` stands: the sign comes first.
        let says = |sign: &str| self.super_options.iter().any(|option| option == sign);
        ["emergency_ro", "ro"].into_iter().find(|sign| says(sign))
    }
}

/// Parses the whole file; lines that do not fit are left out.
#[must_use]
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // The optional fields between options and ` - ` vary in number.
    let (before, after) = line.split_once(" - ")?;
    let mut left = before.split(' ');
    let mut right = after.split(' ');
    let id = left.next()?.parse().ok()?;
    let _parent = left.next()?;
    let (major, minor) = left.next()?.split_once(':')?;
    Some(Mount {
        id,
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        root: unescape(left.next()?),
        mount_point: unescape(left.next()?),
        options: list(left.next()?),
        fs_type: right.next()?.to_owned(),
        source: unescape(right.next()?),
        super_options: list(right.next().unwrap_or("")),
    })
}

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|option| !option.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The kernel writes blank, tab, newline and backslash as `\040` and so on.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|digits| {
            bytes[at] == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        });
        if let Some(digits) = digits {
            let code = digits
                .iter()
                .fold(0u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
            out.push((code & 0xff) as u8);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The mount with the longest mount point above `path`; of several on the same
/// point the last, which covers the others. Symlinks must be resolved before.
#[must_use]
pub fn find_mount<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    let is_above = |point: &str| {
        point == "/"
            || path
                .strip_prefix(point)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts
        .iter()
        .filter(|mount| is_above(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
        30 22 7:0 / /data/my\\040kafka rw,noatime - ext4 /dev/loop0 rw,emergency_ro\n\
        31 22 0:45 /sub /data rw master:3 propagate_from:2 - btrfs /dev/sdb rw\nrubbish\n";

    #[test]
    fn fields_escapes_and_optional_fields_are_read() {
        let mounts = parse_mountinfo(TEXT);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].mount_point, "/data/my kafka");
        assert_eq!(mounts[1].super_options, ["rw", "emergency_ro"]);
        assert_eq!(mounts[1].read_only(), Some("emergency_ro"));
        assert_eq!(mounts[0].read_only(), None);
        assert_eq!(
            (mounts[2].major, mounts[2].minor, mounts[2].fs_type.as_str()),
            (0, 45, "btrfs")
        );
        assert_eq!(mounts[2].root, "/sub");
    }

    #[test]
    fn longest_mount_point_wins_by_whole_names() {
        let mounts = parse_mountinfo(TEXT);
        let id = |path| find_mount(&mounts, path).map(|mount| mount.id);
        assert_eq!(id("/data/my kafka/orders-0"), Some(30));
        assert_eq!(id("/data/my kafka2"), Some(31));
        assert_eq!(id("/database"), Some(22));
    }
}
