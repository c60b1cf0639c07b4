//! What must be told where something stands between the file system and the disk.

use std::path::Path;

use super::*;

impl Sheet<'_> {
    /// From the mount to the disk, all layers by name.
    pub(super) fn check_layers(&mut self, path: &[String]) {
        if self.evidence.layers.is_empty() {
            return;
        }
        let wanted = [
            self.evidence.layers.as_slice(),
            std::slice::from_ref(&self.evidence.disk),
        ]
        .concat();
        // `dm-0 (kafka, linear)`: what else is said of a layer stands behind its name.
        let names = path.iter().map(|step| {
            let name = step.split_whitespace().next();
            name.unwrap_or_default().to_owned()
        });
        let got: Vec<String> = names.collect();
        self.is("layers", &wanted.join(" → "), &got.join(" → "));
    }

    /// A layer held all writes: in flight, of the writer's files, and no request of the
    /// disk is blamed.
    pub(super) fn check_held_above(&mut self, answer: &Told) {
        let in_flight = if answer.was_in_flight { "yes" } else { "no" };
        self.is("told in flight", "yes", in_flight);
        let log_dir = Path::new(&self.evidence.victim).ancestors().nth(2);
        let paths = answer
            .last
            .syncs
            .iter()
            .filter_map(|sync| sync.path.clone());
        let paths: Vec<String> = paths.collect();
        let is_ours = |path: &String| log_dir.is_some_and(|dir| Path::new(path).starts_with(dir));
        let wanted = format!("in {}", log_dir.unwrap_or(Path::new("")).display());
        self.put(
            "files",
            !paths.is_empty() && paths.iter().all(is_ours),
            &wanted,
            &list(&paths, "no file"),
        );
        self.check_no_request(&answer.last);
    }

    /// A layer failed the write: caller and file are right, and no request of the disk
    /// is blamed.
    pub(super) fn check_failed_above(&mut self, incident: &Incident) {
        self.check_failed_sync(incident);
        self.check_line(incident);
        self.check_no_request(incident);
    }

    pub(super) fn check_no_request(&mut self, incident: &Incident) {
        let blamed = incident.requests.iter().filter(|request| {
            let is_slow = request.device_ns.is_some_and(|ns| ns > 1_000_000_000);
            request.errno.is_some() || is_slow
        });
        let blamed: Vec<String> = blamed
            .map(|request| format!("{} {}", request.op, request.disk))
            .collect();
        self.is("requests blamed", "none", &list(&blamed, "none"));
    }
}
