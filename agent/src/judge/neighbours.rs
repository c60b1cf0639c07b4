//! Neighbours of a stalled sync in words and in the incident. In: what
//! `correlate` found of them. Out: names, `neighbours[]`.

use crate::correlate::case::Case;
use crate::correlate::neighbours::Neighbour;
use crate::correlate::world::{World, show_dev};
use crate::incident::IncidentNeighbour;

/// `fio (pid 77)`, else `the kernel (writing back backup.tar)`.
pub(crate) fn name_neighbour(one: &Neighbour, world: &World) -> String {
    match (one.pid, path_of(one, world)) {
        (0, Some(path)) => format!("the kernel (writing back {path})"),
        (0, None) => "the kernel (writing back a file without a name)".to_owned(),
        (pid, _) if one.comm.is_empty() => format!("process {pid}"),
        (pid, _) => format!("{} (pid {pid})", one.comm),
    }
}

fn path_of(one: &Neighbour, world: &World) -> Option<String> {
    if one.rdev != 0 {
        return Some(format!(
            "the journal or metadata of {}",
            world.disk_name(one.rdev)
        ));
    }
    if one.names.is_empty() {
        return (one.file.s_dev != 0)
            .then(|| format!("inode {} on {}", one.file.ino, show_dev(one.file.s_dev)));
    }
    let names = one.names.iter().rev().map(String::as_str);
    Some(names.collect::<Vec<_>>().join("/"))
}

/// Those of the longest stalled sync.
pub(super) fn show_neighbours(case: &Case, world: &World) -> Vec<IncidentNeighbour> {
    let longest = case
        .syncs
        .iter()
        .filter_map(|fact| Some((fact.duration_ns(), fact.stall.as_ref()?)))
        .filter(|(_, stall)| !stall.others.list.is_empty())
        .max_by_key(|(duration_ns, _)| *duration_ns);
    let Some((_, stall)) = longest else {
        return Vec::new();
    };
    let shown = stall.others.list.iter().map(|one| IncidentNeighbour {
        pid: (one.pid != 0).then_some(one.pid),
        comm: (!one.comm.is_empty()).then(|| one.comm.clone()),
        path: path_of(one, world),
        nr_requests: one.nr_requests,
        nr_bytes: one.nr_bytes,
        nr_flushes: one.nr_flushes,
        longest_ns: one.longest_ns,
    });
    shown.collect()
}
