//! Handles of the kernel maps, each with the type that the programs use.

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap, RingBuf},
};
use fsyncscope_abi::{
    block::{BlockHist, FlushState, InodeState, RqState},
    hist::{Hist, HistKey},
    keys::{InodeKey, Names, Target},
    span::{FsState, OpenWait, RequestSpan, SPANS_PER_PAGE, WaitSpan},
    sync::SyncState,
};

/// See `ebpf/src/maps` for who writes what.
#[expect(
    missing_docs,
    reason = "described where they are defined, in ebpf/src/maps"
)]
pub struct Maps {
    pub targets: HashMap<MapData, u32, Target>,
    pub ops: HashMap<MapData, u32, SyncState>,
    pub devs: HashMap<MapData, u32, u32>,
    pub heads: HashMap<MapData, u64, u32>,
    pub nvme_errors: HashMap<MapData, u64, u64>,
    pub roots: HashMap<MapData, InodeKey, u32>,
    pub filesystems: HashMap<MapData, u32, FsState>,
    pub rqs: HashMap<MapData, u64, RqState>,
    pub inodes: HashMap<MapData, InodeKey, InodeState>,
    pub names: HashMap<MapData, InodeKey, Names>,
    pub span_names: HashMap<MapData, InodeKey, Names>,
    pub hist: PerCpuHashMap<MapData, HistKey, Hist>,
    pub block_hist: PerCpuHashMap<MapData, u64, BlockHist>,
    pub flushes: HashMap<MapData, u32, FlushState>,
    pub rq_spans: PerCpuArray<MapData, [RequestSpan; SPANS_PER_PAGE]>,
    pub rq_span_head: PerCpuArray<MapData, u64>,
    pub wait_spans: PerCpuArray<MapData, [WaitSpan; SPANS_PER_PAGE]>,
    pub wait_span_head: PerCpuArray<MapData, u64>,
    pub fast_commits: HashMap<MapData, u32, OpenWait>,
    pub epoch: Array<MapData, u32>,
    pub watched_since: Array<MapData, u64>,
    pub loss: PerCpuArray<MapData, u64>,
    /// Histograms are allocated key by key, by programs as well (6.1 and later), which
    /// may find no memory at hand at that moment; else at load.
    pub are_hists_late: bool,
}

impl Maps {
    /// Takes the ring and the maps out of a loaded object.
    ///
    /// # Errors
    /// When the object lacks a map or has it with another type.
    pub fn take(ebpf: &mut Ebpf, are_hists_late: bool) -> anyhow::Result<(RingBuf<MapData>, Self)> {
        fn get<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<T>
        where
            T::Error: std::error::Error + Send + Sync + 'static,
        {
            let map = ebpf
                .take_map(name)
                .with_context(|| format!("find map {name}"))?;
            T::try_from(map).with_context(|| format!("open map {name}"))
        }
        let ring = get(ebpf, "RING")?;
        let maps = Maps {
            targets: get(ebpf, "TARGETS")?,
            ops: get(ebpf, "OPS")?,
            devs: get(ebpf, "DEVS")?,
            heads: get(ebpf, "HEADS")?,
            nvme_errors: get(ebpf, "NVME_ERRORS")?,
            roots: get(ebpf, "ROOTS")?,
            filesystems: get(ebpf, "FILESYSTEMS")?,
            rqs: get(ebpf, "RQS")?,
            inodes: get(ebpf, "INODES")?,
            names: get(ebpf, "NAMES")?,
            span_names: get(ebpf, "SPAN_NAMES")?,
            hist: get(ebpf, "HIST")?,
            block_hist: get(ebpf, "BLOCK_HIST")?,
            flushes: get(ebpf, "FLUSHES")?,
            rq_spans: get(ebpf, "RQ_SPANS")?,
            rq_span_head: get(ebpf, "RQ_SPAN_HEAD")?,
            wait_spans: get(ebpf, "WAIT_SPANS")?,
            wait_span_head: get(ebpf, "WAIT_SPAN_HEAD")?,
            fast_commits: get(ebpf, "FAST_COMMITS")?,
            epoch: get(ebpf, "EPOCH")?,
            watched_since: get(ebpf, "WATCHED_SINCE")?,
            loss: get(ebpf, "LOSS")?,
            are_hists_late,
        };
        Ok((ring, maps))
    }
}
