//! What to do next, with this host's own values. In: the case and its verdict.
//! Out: steps, the warning first. Every command here only reads; none touches
//! the suspect file system. What makes things worse (restart onto a failing
//! volume, fsck on a mounted one, wiping) is warned of, never proposed.

use super::verdict::Judgement;
use crate::correlate::case::{Case, Origin};
use crate::correlate::world::World;
use crate::incident::{Cause, IncidentDevice, NextStep, Verdict};

/// Steps for `case`.
pub(super) fn next_steps(
    case: &Case,
    judgement: &Judgement,
    device: Option<&IncidentDevice>,
    world: &World,
) -> Vec<NextStep> {
    let mut steps = Steps { list: Vec::new() };
    let disk = device.map(|device| device.disk.as_str());
    let since = world.local_time(case.first_ns.saturating_sub(60_000_000_000));
    if case.is_index_only() {
        steps.tell("The broker keeps the directory online and treats this as no disk failure; kafka-log-dirs shows no error and producers get UnknownServerException. Take the disk for failing all the same.");
    }
    match (judgement.verdict, judgement.cause) {
        (Verdict::Stalled, cause) => {
            stalled(&mut steps, disk);
            if cause == Some(Cause::Neighbour) {
                steps.tell("The disk does what it is asked to, by somebody else: move that load to another disk or time, or bound it (ionice, io.max of its cgroup). A restart of the broker does not help.");
            }
        }
        (Verdict::NotTheDisk, _) => steps.tell(
            "The disk is not at fault. A directory that the broker took offline stays offline until it restarts.",
        ),
        (Verdict::Unknown, _) => unknown(&mut steps, case, disk),
        (_, Some(Cause::NoSpace | Cause::Quota)) => no_space(&mut steps, case, world),
        (_, Some(Cause::ReadOnly)) => {
            harm(&mut steps);
            steps.run("See why the file system turned read-only; ext4 may still say rw here, with emergency_ro appended", mounts_of(case, world));
        }
        _ => harm(&mut steps),
    }
    if judgement.verdict != Verdict::NotTheDisk {
        if let Some(disk) = disk {
            look_at_disk(&mut steps, disk, device);
        }
        steps.run(
            "Read what the kernel said at that time",
            format!("journalctl -k --since '{since}' --no-pager"),
        );
    }
    let node = world.node_id(case.broker);
    if let Some(node) = node {
        steps.run(
            "See which directories the broker itself holds to be offline (put in your listener)",
            format!(
                "kafka-log-dirs.sh --bootstrap-server HOST:PORT --describe --broker-list {node}"
            ),
        );
        steps.run(
            "Before any restart, wipe or replacement: see who else is in sync",
            "kafka-topics.sh --bootstrap-server HOST:PORT --describe --under-replicated-partitions"
                .to_owned(),
        );
    }
    steps.list
}

struct Steps {
    list: Vec<NextStep>,
}

impl Steps {
    fn tell(&mut self, text: &str) {
        self.list.push(NextStep {
            text: text.to_owned(),
            command: None,
            changes: false,
        });
    }

    fn run(&mut self, text: &str, command: String) {
        self.list.push(NextStep {
            text: text.to_owned(),
            command: Some(command),
            changes: false,
        });
    }
}

fn harm(steps: &mut Steps) {
    steps.tell("Do not restart the broker onto this volume yet, and stop what restarts it by itself (systemd, kubelet): recovery on a failing or unmounted volume truncates segments.");
    steps.tell("Where a partition has no other replica in sync, the page cache may hold the only good copy: copy its segments away first; no restart, no umount, no drop_caches.");
    steps.tell("Do not repair in place: no fsck or xfs_repair on the mounted or failing disk, no controller reset, no wiping of the directory. A KRaft voter's metadata directory never comes back empty under the same id.");
}

fn stalled(steps: &mut Steps, disk: Option<&str>) {
    steps.tell("The broker prints nothing about this; producers see latency. A restart does not help: recovery needs the same disk.");
    if let Some(disk) = disk {
        steps.run(
            "Watch the disk's queue and latency",
            format!("iostat -xy 1 5 {disk}"),
        );
    }
}

fn unknown(steps: &mut Steps, case: &Case, disk: Option<&str>) {
    match case.key.origin {
        Origin::History => steps.tell("Keep fsyncscope running: the next failure is then seen from both sides."),
        Origin::OtherException => steps.tell("See whether the topic was deleted or the replica moved at that time (KAFKA-15391, KAFKA-15572, KAFKA-17727, KAFKA-19571). The directory stays offline until the broker restarts; restart it only once the disk is known to be well."),
        Origin::Lines | Origin::Syncs => {}
    }
    if disk.is_none() {
        steps.tell("The device of this directory is not known.");
    }
    steps.tell("Until the disk is known to be well, treat it as failing: no restart onto it, no repair in place.");
}

fn no_space(steps: &mut Steps, case: &Case, world: &World) {
    if let Some(dir) = world.root_path(case.root) {
        steps.run(
            "See what is full: bytes, inodes, or a thin pool below (lvs)",
            format!("df -h {dir}; df -i {dir}"),
        );
    }
    steps.tell("Make room by retention or by moving replicas. Deleting segment files by hand corrupts logs.");
}

fn mounts_of(case: &Case, world: &World) -> String {
    let name = world.disk_name(world.dev_of_root(case.root));
    format!("grep -w {name} /proc/self/mountinfo")
}

fn look_at_disk(steps: &mut Steps, disk: &str, device: Option<&IncidentDevice>) {
    if disk.starts_with("nvme") {
        steps.run(
            "Read the device's own health",
            format!("nvme smart-log /dev/{disk}"),
        );
        steps.run("And its error log", format!("nvme error-log /dev/{disk}"));
    } else if let Some(backing) = device.and_then(|device| device.backing_file.as_deref()) {
        steps.run(
            &format!("{disk} is a loop device on {backing}: look at the disk below that file"),
            format!("losetup --list /dev/{disk}"),
        );
    } else if disk.starts_with("sd") || disk.starts_with("hd") {
        steps.run(
            "Read the device's own health",
            format!("smartctl -x /dev/{disk}"),
        );
    } else {
        steps.run(
            "Look at the device",
            format!("lsblk -o NAME,MODEL,SERIAL,STATE /dev/{disk}"),
        );
    }
}
