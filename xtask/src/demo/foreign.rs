//! Is there a broker on this host that belongs to no lab? In: the root of
//! /proc. Out: its pid. Brokers of other labs do not count: what the agent says
//! of them is told apart by their pid.

use std::fs;
use std::path::Path;

const MAIN_CLASSES: [&[u8]; 3] = [
    b"kafka.Kafka",
    b"io.confluent.support.metrics.SupportedKafka",
    b"kafka.docker.KafkaDockerWrapper",
];

/// The first that is found.
pub fn find_broker(proc_root: &Path) -> Option<u32> {
    let entries = fs::read_dir(proc_root).ok()?;
    entries.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let cmdline = fs::read(entry.path().join("cmdline")).ok()?;
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        (is_broker(&cmdline) && !is_of_lab(&environ)).then_some(pid)
    })
}

fn is_broker(cmdline: &[u8]) -> bool {
    let mut words = cmdline.split(|byte| *byte == 0);
    words.any(|word| MAIN_CLASSES.contains(&word))
}

fn is_of_lab(environ: &[u8]) -> bool {
    let mut variables = environ.split(|byte| *byte == 0);
    variables.any(|variable| variable.starts_with(b"FSYNCSCOPE_LAB_MEMBER="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_known_by_its_main_class_and_not_by_a_word() {
        assert!(is_broker(b"java\0-Xmx1g\0kafka.Kafka\0server.properties\0"));
        assert!(!is_broker(b"vi\0kafka.Kafka.txt\0"));
        assert!(!is_broker(b"java\0kafka.tools.StorageTool\0"));
    }

    #[test]
    fn a_broker_of_a_lab_is_known_by_its_environment() {
        assert!(is_of_lab(b"PATH=/bin\0FSYNCSCOPE_LAB_MEMBER=/tmp/x\0"));
        assert!(!is_of_lab(b"PATH=FSYNCSCOPE_LAB_MEMBER=\0"));
    }

    #[test]
    fn a_host_without_processes_has_none() {
        assert_eq!(find_broker(Path::new("/nowhere")), None);
    }
}
