//! What the programs and maps cost: kernel memory, and run time where the
//! operator enabled BPF statistics (kernel.bpf_stats_enabled=1). Reads
//! /proc/self/fdinfo, which needs no rights beyond our own.

use std::{collections::BTreeMap, fs};

/// Kernel memory of all maps and programs of this process in bytes, and run time
/// by program in ns (empty unless statistics are enabled).
pub fn usage(programs: &[(String, u32)]) -> (u64, Vec<(String, u64)>) {
    let mut memory = 0;
    let mut run_ns = Vec::new();
    let stats = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")
        .is_ok_and(|text| text.trim() == "1");
    let Ok(dir) = fs::read_dir("/proc/self/fdinfo") else {
        return (0, run_ns);
    };
    for entry in dir.flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        if let Some(bytes) = field("memlock:") {
            memory += bytes;
        }
    }
    if stats {
        for info in aya::programs::loaded_programs().flatten() {
            if let Some((hook, _)) = programs.iter().find(|(_, id)| *id == info.id()) {
                let name = format!("{hook}/{}", info.name_as_str().unwrap_or(""));
                run_ns.push((name, info.run_time().as_nanos() as u64));
            }
        }
    }
    (memory, run_ns)
}

/// How often programs of this process were not run because one had not ended on that
/// CPU: it had interrupted itself, or had been preempted. 0 on kernels that do not count
/// it (before 5.12).
pub fn recursion_misses() -> u64 {
    let Ok(dir) = fs::read_dir("/proc/self/fdinfo") else {
        return 0;
    };
    let texts = dir
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok());
    sum_misses(texts)
}

/// A program may have several descriptors, and counts once.
fn sum_misses(texts: impl Iterator<Item = String>) -> u64 {
    let of_programs = texts.filter_map(|text| {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        Some((field("prog_id:")?, field("recursion_misses:")?))
    });
    let by_program: BTreeMap<u64, u64> = of_programs.collect();
    by_program.values().fold(0, |sum, n| sum.saturating_add(*n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_two_descriptors_counts_once() {
        let program = |id, misses| {
            format!("pos:\t0\nprog_type:\t17\nprog_id:\t{id}\nrecursion_misses:\t{misses}\n")
        };
        let link = "link_type:\traw_tracepoint\nprog_id:\t7\n".to_owned();
        let texts = [program(7, 2), program(7, 2), link, program(8, 1)];
        assert_eq!(sum_misses(texts.into_iter()), 3);
    }
}
