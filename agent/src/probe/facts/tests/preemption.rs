//! How the kernel preempts its own code, on made-up /proc, /sys and /boot.

use super::super::preemption::{Preemption, read_preemption};
use super::live::Root;

const OLD: &str = "Linux version 5.10.0-32-cloud-amd64 (x@y) #1 SMP Debian 5.10.223-1\n";
const FULL: &str = "Linux version 5.10.0-rt (x@y) #1 SMP PREEMPT Debian 5.10.223-1\n";
const RT: &str = "Linux version 6.12.1-rt (x@y) #1 SMP PREEMPT_RT Debian 6.12.1-1\n";
const DYNAMIC: &str = "Linux version 6.12.117-cloud (x@y) #1 SMP PREEMPT_DYNAMIC Debian\n";

fn read(root: &Root) -> Preemption {
    let dir = root.path();
    read_preemption(&dir.join("sys"), &dir.join("proc"), dir)
}

#[test]
fn the_version_line_tells_what_was_built_in() {
    for (name, version, expected) in [
        ("old", OLD, Preemption::Never),
        ("full", FULL, Preemption::Anywhere("full".to_owned())),
        ("rt", RT, Preemption::Anywhere("PREEMPT_RT".to_owned())),
        ("dynamic", DYNAMIC, Preemption::Unknown),
        ("unread", "", Preemption::Unknown),
    ] {
        let root = Root::new(&format!("preempt-{name}"));
        root.write("proc/version", version.as_bytes());
        assert_eq!(read(&root), expected, "{name}");
    }
}

#[test]
fn a_choice_at_boot_is_read_where_it_can_be() {
    let root = Root::new("preempt-choice");
    root.write("proc/version", DYNAMIC.as_bytes());
    root.write("proc/sys/kernel/osrelease", b"6.12.117-cloud\n");
    let config =
        "# CONFIG_PREEMPT_NONE is not set\nCONFIG_PREEMPT_VOLUNTARY=y\nCONFIG_PREEMPT_DYNAMIC=y\n";
    root.write("boot/config-6.12.117-cloud", config.as_bytes());
    assert_eq!(read(&root), Preemption::Never);
    root.write("proc/cmdline", b"quiet preempt=none preempt=full\n");
    assert_eq!(read(&root), Preemption::Anywhere("full".to_owned()));
    root.write("sys/kernel/debug/sched/preempt", b"none (voluntary) full\n");
    assert_eq!(read(&root), Preemption::Never);
    root.write("sys/kernel/debug/sched/preempt", b"full (lazy) \n");
    assert_eq!(read(&root), Preemption::Anywhere("lazy".to_owned()));
}
