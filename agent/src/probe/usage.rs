//! What the programs and maps cost: kernel memory, and run time where the
//! operator enabled BPF statistics (kernel.bpf_stats_enabled=1). Reads
//! /proc/self/fdinfo, which needs no rights beyond our own.

use std::fs;

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

/// How often programs of this process were not run because they would have
/// interrupted themselves on one CPU. 0 on kernels that do not count it (before
/// 5.12).
pub fn recursion_misses() -> u64 {
    let Ok(dir) = fs::read_dir("/proc/self/fdinfo") else {
        return 0;
    };
    dir.flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
        })
        .fold(0, u64::saturating_add)
}
