//! What must be told of the request that failed.

use super::*;

impl Sheet<'_> {
    /// The write that failed: on the right disk, of a sector that really failed,
    /// with the status that an NVMe write fault has.
    pub(super) fn check_write(&mut self, incident: &Incident, is_data: bool) {
        let evidence = self.evidence;
        let failed = evidence.truth.iter().filter(|truth| truth.errno != 0);
        let sectors: Vec<String> = failed
            .clone()
            .map(|truth| truth.sector.to_string())
            .collect();
        let request = incident
            .requests
            .iter()
            .find(|request| request.errno.is_some());
        let Some(request) = request else {
            self.put("failed request", false, "one", "none");
            return;
        };
        let sector = request
            .sector
            .map_or("none".to_owned(), |sector| sector.to_string());
        let is_real = failed.clone().any(|truth| overlaps(truth, request));
        self.put("sector", is_real, &list(&sectors, "none failed"), &sector);
        self.check_request(request, (2, 0x80), "MEDIUM");
        if is_data {
            let path = request.path.as_deref().unwrap_or("no file");
            self.is("request's file", &evidence.victim, path);
        }
    }

    pub(super) fn check_flush(&mut self, incident: &Incident) {
        let is_flush = |request: &&Request| request.op == "flush" && request.errno.is_some();
        match incident.requests.iter().find(is_flush) {
            Some(request) => self.check_request(request, (2, 0x80), "MEDIUM"),
            None => self.put("failed flush", false, "one", "none"),
        }
    }

    pub(super) fn check_request(&mut self, request: &Request, (sct, sc): (u8, u8), status: &str) {
        let disk = self.evidence.disk.clone();
        self.is("request's disk", &disk, &request.disk);
        let show = |status: &str, is_derived: bool| {
            let how = if is_derived { ", derived" } else { "" };
            format!("{status}{how}")
        };
        let got = request.status.as_deref().unwrap_or("none");
        let wanted = show(status, gives_errnos(&self.evidence.kernel));
        self.is("block status", &wanted, &show(got, request.status_derived));
        let nvme = match &request.nvme {
            Some(nvme) => format!("SCT {:X}h, SC {:02X}h", nvme.sct, nvme.sc),
            None => "none".to_owned(),
        };
        self.is("NVMe status", &format!("SCT {sct:X}h, SC {sc:02X}h"), &nvme);
    }
}

/// block_rq_complete tells an errno, and not the block layer's own status: before 5.16.
fn gives_errnos(kernel: &str) -> bool {
    let mut numbers = kernel.split(['.', '-', '+']).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    matches!(version, (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (5, 16))
}
