//! Is there a broker on this host that is not ours? In: the root of /proc.
//! Out: its pid. Read before the demo starts one, so any is foreign.

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
        is_broker(&cmdline).then_some(pid)
    })
}

fn is_broker(cmdline: &[u8]) -> bool {
    let mut words = cmdline.split(|byte| *byte == 0);
    words.any(|word| MAIN_CLASSES.contains(&word))
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
    fn a_host_without_processes_has_none() {
        assert_eq!(find_broker(Path::new("/nowhere")), None);
    }
}
