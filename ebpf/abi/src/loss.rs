//! Losses: one counter per class (LOSS, a per-CPU array).

/// Index into LOSS.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The ring was full: a record was not sent.
    RingFull = 0,
    /// OPS was full: a sync was not seen.
    OpsFull = 1,
    /// RQS was full: a request was not timed.
    RqsFull = 2,
    /// INODE could not take a new file.
    InodeFull = 3,
    /// HIST was full, or the kernel had no memory at hand for a new key: an operation
    /// was not counted.
    HistFull = 4,
    /// A sync returned that was not seen to start (agent started in between).
    UnmatchedExit = 5,
    /// A sync started on a thread that had one open: the first was lost.
    LostExit = 6,
    /// A request completed on a watched disk that was not seen to be issued.
    UnmatchedComplete = 7,
    /// A probe read faulted.
    ReadFault = 8,
    /// A walk over bios was cut off.
    WalkCut = 9,
    /// A request was issued anew whose last completion was not seen.
    MissedComplete = 10,
}

impl Loss {
    /// Number of classes.
    pub const COUNT: usize = 11;
    /// All classes in index order.
    pub const ALL: [Loss; Self::COUNT] = [
        Loss::RingFull,
        Loss::OpsFull,
        Loss::RqsFull,
        Loss::InodeFull,
        Loss::HistFull,
        Loss::UnmatchedExit,
        Loss::LostExit,
        Loss::UnmatchedComplete,
        Loss::ReadFault,
        Loss::WalkCut,
        Loss::MissedComplete,
    ];

    /// The class as metrics and reports spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::RingFull => "ring_full",
            Loss::OpsFull => "ops_full",
            Loss::RqsFull => "rqs_full",
            Loss::InodeFull => "inode_full",
            Loss::HistFull => "hist_full",
            Loss::UnmatchedExit => "unmatched_exit",
            Loss::LostExit => "lost_exit",
            Loss::UnmatchedComplete => "unmatched_complete",
            Loss::ReadFault => "read_fault",
            Loss::WalkCut => "walk_cut",
            Loss::MissedComplete => "missed_complete",
        }
    }
}

/// Class of what a hook missed because it was interrupted by itself on one CPU:
/// `recursion_misses` of the kernel's account of programs (5.12 and later). Not
/// in LOSS, since the program does not run then.
pub const RECURSION: &str = "recursion";
