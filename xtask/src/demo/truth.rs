//! What really happened, as the lab knows it: the disk's own log, the files by
//! sector, the broker. In: lab. Out: plain data for `compare`.

use fsyncscope_tests::faultdisk::{Op, TruthRequest};

/// A file and the sectors that hold it, both ends included.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// As the broker names it.
    pub path: String,
    /// First and last.
    pub sectors: Vec<(u64, u64)>,
}

/// A process that is not the broker's, and its file on the same disk.
#[derive(Clone, Debug, Default)]
pub struct Outsider {
    /// Process.
    pub pid: u32,
    /// As the process names it, with its sectors.
    pub file: Placed,
}

/// The known truth of one run.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Process of the broker.
    pub broker_pid: u32,
    /// Its log directory on the disk that was made to fail.
    pub log_dir: String,
    /// That disk's name, like loop0.
    pub disk: String,
    /// All that its rules touched.
    pub requests: Vec<TruthRequest>,
    /// Files on it.
    pub files: Vec<Placed>,
    /// The broker's log, whole.
    pub broker_log: Vec<String>,
    /// Who else wrote to the disk.
    pub outsider: Option<Outsider>,
}

impl Truth {
    /// The touched request that covers this one, with the same answer.
    pub fn find(&self, op: Op, sector: u64, nr_bytes: u64) -> Option<&TruthRequest> {
        let end = sector + nr_bytes / 512;
        self.requests.iter().find(|request| {
            let request_end = request.sector + request.bytes / 512;
            // The loop driver may split or merge: one lies within the other.
            let is_within = sector >= request.sector && end <= request_end;
            let is_around = sector <= request.sector && end >= request_end;
            request.op == op && (is_within || is_around)
        })
    }

    /// The requests that were answered with an error.
    pub fn failed(&self) -> impl Iterator<Item = &TruthRequest> {
        let all = self.requests.iter();
        all.filter(|request| request.errno != 0)
    }

    /// The file that holds this sector.
    pub fn file_at(&self, sector: u64) -> Option<&str> {
        let holds = |file: &&Placed| {
            file.sectors
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&sector))
        };
        self.files.iter().find(holds).map(|file| file.path.as_str())
    }
}

/// The name of an errno that the lab uses.
pub fn errno_name(errno: i32) -> &'static str {
    match errno {
        0 => "OK",
        libc::EIO => "EIO",
        libc::ENODATA => "ENODATA",
        libc::ENOSPC => "ENOSPC",
        libc::ETIMEDOUT => "ETIMEDOUT",
        _ => "another errno",
    }
}
