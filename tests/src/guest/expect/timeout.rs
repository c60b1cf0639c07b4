//! What must be told of a command that timed out, beside what any failed sync wants.

use super::*;

impl Sheet<'_> {
    /// The write that was held is among those told of; where the journal heads the
    /// answer, a request of it failed.
    pub(super) fn check_given_up(&mut self, incident: &Incident) {
        if cause_of(incident) == "journal" {
            let is_there = (incident.requests.iter()).any(|request| request.errno.is_some());
            self.put("failed request", is_there, "one", "none");
        } else {
            self.check_held_sector(incident);
        }
    }

    /// The kernel did not come out of its own reset of the controller (seen on 6.12, 7.0 and
    /// 7.3; on the last with its stacks: the reset waits in nvme_wait_freeze, and the time-out
    /// of a request for completions in nvme_dev_disable). The caller was told nothing, so nothing failed, and the write is
    /// outstanding to the end.
    pub(super) fn check_never_returned(&mut self) {
        let told = || self.evidence.told.iter().map(|told| &told.last);
        let all: Vec<String> = told().map(headline).collect();
        let is_answer = |last: &&Incident| headline(last) == "STALLED device-stall";
        let answer = told().find(is_answer).cloned();
        let wanted = "STALLED device-stall, since the caller was told nothing";
        let got = list(&all, "nothing");
        self.put("verdict and cause", answer.is_some(), wanted, &got);
        self.put("errno of the caller", false, "one", "none printed");
        let Some(answer) = answer else { return };
        self.check_device(&answer);
        let in_flight = answer.syncs.iter().filter(|sync| sync.in_flight);
        let paths: Vec<String> = in_flight.filter_map(|sync| sync.path.clone()).collect();
        let victim = self.evidence.victim.clone();
        let got = list(&paths, "none");
        self.put("file in flight", paths.contains(&victim), &victim, &got);
        let held = self
            .evidence
            .truth
            .iter()
            .filter(|truth| truth.delay_ms > 0);
        let held: Vec<TruthRequest> = held.cloned().collect();
        let outstanding = || answer.requests.iter().filter(|request| request.in_flight);
        let is_held = |request: &Request| held.iter().any(|truth| overlaps(truth, request));
        let show = |sector: Option<u64>| sector.map_or("none".to_owned(), |it| it.to_string());
        let wanted: Vec<String> = held.iter().map(|truth| truth.sector.to_string()).collect();
        let got: Vec<String> = outstanding().map(|request| show(request.sector)).collect();
        self.put(
            "outstanding sector",
            outstanding().any(is_held),
            &list(&wanted, "none held"),
            &list(&got, "none"),
        );
    }
}
