//! What must be told of the syncs of a fault, of the requests that held them, and of the
//! broker's line.

use std::path::Path;

use super::*;

/// A request in the device for less was not held by the fault: it is, for seconds.
const HELD_NS: u64 = 1_000_000_000;

impl Sheet<'_> {
    /// A sync of the writer failed with what its caller was told.
    pub(super) fn check_failed_sync(&mut self, incident: &Incident) {
        let evidence = self.evidence;
        let is_ours = |sync: &&Sync| sync.pid == evidence.writer_pid && sync.errno.is_some();
        let syncs: Vec<&Sync> = incident.syncs.iter().filter(is_ours).collect();
        let errnos: Vec<String> = syncs.iter().filter_map(|sync| sync.errno.clone()).collect();
        let is_mute = evidence.caller_errnos.is_empty()
            && (evidence.broker.as_ref()).is_some_and(BrokerTruth::is_mute);
        let wanted: Vec<String> = match is_mute {
            true => (incident.requests.iter())
                .filter_map(|request| request.errno.clone())
                .collect(),
            false => evidence.caller_errnos.clone(),
        };
        let is_told = wanted.iter().any(|errno| errnos.contains(errno));
        self.put(
            "errno of the caller",
            is_told,
            &list(&wanted, "none printed"),
            &list(&errnos, "no failed sync"),
        );
        let of_victim = [Fault::WriteError, Fault::LateError, Fault::DmError];
        if of_victim.contains(&evidence.fault.on_disk()) {
            let paths: Vec<String> = syncs.iter().filter_map(|sync| sync.path.clone()).collect();
            let is_named = paths.contains(&evidence.victim);
            self.put("file", is_named, &evidence.victim, &list(&paths, "no file"));
        }
    }

    pub(super) fn check_line(&mut self, incident: &Incident) {
        let texts: Vec<String> = incident
            .log_events
            .iter()
            .map(|event| event.text.clone())
            .collect();
        let is_there = texts
            .iter()
            .any(|text| text.contains("Error while flushing log"));
        self.put(
            "line of the broker",
            is_there,
            "Error while flushing log",
            &list(&texts, "none"),
        );
    }

    /// Told before any sync failed, and then by a sync that says how old it is.
    pub(super) fn check_late(&mut self, answer: &Told) {
        let early = answer.first.syncs.iter().all(|sync| sync.errno.is_none());
        let got = if early { "yes" } else { "no" };
        self.is("told before a sync failed", "yes", got);
        let late = (answer.last.syncs.iter()).find_map(|sync| sync.told_late_by_ns);
        let got = late.map_or("none".to_owned(), |ns| format!("{} ms", ns / 1_000_000));
        self.put(
            "age of the failure",
            late.is_some_and(|ns| ns > 500_000_000),
            "seconds",
            &got,
        );
    }

    /// Told in flight, and in the end with the delay that the disk applied.
    pub(super) fn check_held(&mut self, answer: &Told) {
        let in_flight = if answer.was_in_flight { "yes" } else { "no" };
        self.is("told in flight", "yes", in_flight);
        if let Some((held, request)) = self.check_held_sector(&answer.last) {
            let disk = self.evidence.disk.clone();
            self.is("request's disk", &disk, &request.disk);
            let device_ms = request.device_ns.unwrap_or(0) / 1_000_000;
            // The emulated device takes time of its own; it never takes less.
            let is_right = (held.delay_ms..held.delay_ms * 3 / 2).contains(&(device_ms + 50));
            self.put(
                "time in the device",
                is_right,
                &format!("{} ms", held.delay_ms),
                &format!("{device_ms} ms"),
            );
        }
        self.check_sync_file(&answer.last);
    }

    /// The request that the disk held is among those told of, and not one that was sent
    /// there later.
    pub(super) fn check_held_sector<'i>(
        &mut self,
        incident: &'i Incident,
    ) -> Option<(TruthRequest, &'i Request)> {
        let held = self.evidence.truth.iter().filter(|it| it.delay_ms > 0);
        let held: Vec<TruthRequest> = held.cloned().collect();
        let found = held.iter().find_map(|held| {
            let is_held = |it: &&Request| it.device_ns.is_some_and(|ns| ns >= HELD_NS);
            let mut requests = incident.requests.iter().filter(is_held);
            let request = requests.find(|it| overlaps(held, it))?;
            Some((held.clone(), request))
        });
        let wanted: Vec<String> = held.iter().map(|it| it.sector.to_string()).collect();
        let got: Vec<String> = (incident.requests.iter())
            .map(|it| it.sector.map_or("none".to_owned(), |it| it.to_string()))
            .collect();
        let (wanted, got) = (list(&wanted, "none held"), list(&got, "no request"));
        self.put("sector", found.is_some(), &wanted, &got);
        found
    }

    /// All syncs that failed are of the writer's files, and files are named.
    pub(super) fn check_files(&mut self, incident: &Incident) {
        let evidence = self.evidence;
        let failed = || incident.syncs.iter().filter(|it| it.errno.is_some());
        let paths: Vec<String> = failed().filter_map(|it| it.path.clone()).collect();
        let log_dir = Path::new(&evidence.victim).ancestors().nth(2);
        let log_dir = log_dir.unwrap_or(Path::new(&evidence.victim));
        let are_ours = paths.iter().all(|it| Path::new(it).starts_with(log_dir));
        self.put(
            "files",
            are_ours && !paths.is_empty(),
            &format!("in {}", log_dir.display()),
            &list(&paths, "no file"),
        );
    }

    /// The broker's own line says it, and no disk is to blame.
    pub(super) fn check_no_space(&mut self, incident: &Incident) {
        const WORDS: &str = "Error while appending records";
        let texts = incident.log_events.iter().map(|event| event.text.clone());
        let texts: Vec<String> = texts.collect();
        let is_there = texts.iter().any(|text| text.contains(WORDS));
        self.put("line of the broker", is_there, WORDS, &list(&texts, "none"));
        let errnos = self.evidence.caller_errnos.clone();
        let is_told = errnos.iter().any(|errno| errno == "ENOSPC");
        let got = list(&errnos, "none printed");
        self.put("errno of the caller", is_told, "ENOSPC", &got);
        self.check_no_request(incident);
    }

    /// A sync of the file that was hit is among those told of.
    pub(super) fn check_sync_file(&mut self, incident: &Incident) {
        let victim = self.evidence.victim.clone();
        let mut paths = incident.syncs.iter().filter_map(|sync| sync.path.clone());
        let longest = incident.syncs.iter().max_by_key(|sync| sync.duration_ns);
        let is_named = paths.any(|path| path == victim);
        let got = longest.and_then(|sync| sync.path.clone());
        self.put(
            "file",
            is_named,
            &victim,
            got.as_deref().unwrap_or("no file"),
        );
    }
}
