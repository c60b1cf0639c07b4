//! The exporter against a source made by hand: exact text, monotonic counters,
//! restarts of brokers, and the answers over HTTP.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use fsyncscope_abi::{
    block::req_op,
    hist::{Hist, HistKey, bucket_of},
    keys::SLOT_NONE,
    sync::op,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use super::*;
use crate::{
    detail::Detail,
    histogram::fold,
    incident::{Cause, Verdict},
};

struct Fake<F>(F);

impl<F: FnMut() -> anyhow::Result<Snapshot> + Send> Source for Fake<F> {
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        (self.0)()
    }
}

fn exporter(source: impl FnMut() -> anyhow::Result<Snapshot> + Send + 'static) -> Exporter {
    Exporter::without_process(Fake(source), "0.0.0-test").unwrap()
}

const DEV: u32 = 259 << 20 | 1;
const DISK: u32 = 259 << 20;
const KEY: HistKey = HistKey {
    s_dev: DEV,
    broker: 0,
    root: 0,
    op: op::FSYNC as u32,
};

fn hist(values_ns: &[u64], nr_errors: u32) -> Hist {
    let mut hist = fold(&[]);
    for ns in values_ns {
        hist.buckets[bucket_of(*ns)] += 1;
        hist.sum_ns += ns;
    }
    hist.nr_errors = nr_errors;
    hist
}

/// One broker with one directory on one disk.
fn host() -> Snapshot {
    Snapshot {
        brokers: vec![BrokerRow {
            slot: 0,
            cluster_id: Some("kraft".into()),
            node_id: Some("1".into()),
            pid: 4242,
            version: Some("3.9.2".into()),
        }],
        roots: vec![RootRow {
            slot: 0,
            broker: 0,
            log_dir: "/data/\"a\"\\b".into(),
            s_dev: DEV,
            is_readonly: Some(false),
        }],
        devices: vec![
            DeviceRow {
                dev: DEV,
                name: "nvme0n1".into(),
                ..DeviceRow::default()
            },
            DeviceRow {
                dev: DISK,
                name: "nvme0n1".into(),
                is_watched_disk: true,
                serial: Some("S1".into()),
                ..DeviceRow::default()
            },
        ],
        log_event_kinds: vec!["flush_failed".into()],
        ..Snapshot::default()
    }
}

#[test]
fn a_level_leaves_out_what_it_does_not_measure() {
    let text = |detail| {
        let source = move || Ok(Snapshot { detail, ..full() });
        exporter(source).render().unwrap()
    };
    let has = |text: &str, series: &str| text.lines().any(|line| line.starts_with(series));
    let stages = |text: &str| {
        let all = ["queue", "device", "total"];
        let is_there = |stage: &&str| text.contains(&format!("stage=\"{stage}\""));
        all.into_iter().filter(is_there).collect::<Vec<_>>()
    };
    let (low, normal) = (text(Detail::Low), text(Detail::Normal));
    assert_eq!(stages(&text(Detail::Full)), ["queue", "device"]);
    assert_eq!(stages(&normal), ["total"]);
    assert_eq!(stages(&low), [""; 0]);
    for (series, at_normal) in [
        ("fsyncscope_flush_duration_seconds", true),
        ("fsyncscope_block_in_flight", false),
    ] {
        assert!(has(&text(Detail::Full), series), "{series}");
        assert_eq!(has(&normal, series), at_normal, "{series}");
        assert!(!has(&low, series), "{series}");
    }
    // What failed is known at every level.
    assert!(has(&low, "fsyncscope_block_errors_total"), "{low}");
    assert!(has(&low, "fsyncscope_sync_duration_seconds_count"), "{low}");
}

fn full() -> Snapshot {
    Snapshot {
        hists: vec![(KEY, hist(&[30_000, 4_000_000, 45_000_000_000], 1))],
        block_hists: vec![BlockHistRow {
            dev: DISK,
            op: req_op::FLUSH,
            queue: fold(&[]),
            device: hist(&[1_500_000_000], 0),
        }],
        in_flight: vec![InFlightRow {
            broker: 0,
            root: 0,
            s_dev: 0,
            op: op::MSYNC,
            count: 2,
            oldest_seconds: 1.5,
        }],
        block_in_flight: vec![(DISK, 3)],
        sync_errors: vec![SyncErrorRow {
            broker: 0,
            root: 0,
            s_dev: DEV,
            op: op::FSYNC,
            errno: "EIO".into(),
            total: 1,
        }],
        block_errors: vec![BlockErrorRow {
            dev: DISK,
            op: req_op::WRITE,
            status: "blk_status(17)".into(),
            total: 4,
        }],
        nvme_errors: vec![NvmeErrorRow {
            dev: DISK,
            sct: 2,
            sc: 0x80,
            total: 3,
        }],
        writeback_errors: vec![WritebackErrorRow {
            root: SLOT_NONE,
            s_dev: DEV,
            errno: "EIO".into(),
            total: 2,
        }],
        losses: vec![("ring_full".into(), 5)],
        hooks: vec![HookRow {
            name: "fsync".into(),
            form: "fexit".into(),
            is_attached: true,
            is_required: true,
        }],
        bpf_memory_bytes: 1 << 20,
        bpf_run_ns: vec![("fsync".into(), 1_500_000_000)],
        log_events: vec![LogEventRow {
            broker: 0,
            event: "flush_failed".into(),
            total: 1,
        }],
        incidents: vec![(Verdict::Confirmed, Some(Cause::DeviceError), 1)],
        open_incidents: vec![OpenIncidentRow {
            broker: "1".into(),
            log_dir: "/data/a".into(),
            device: "nvme0n1".into(),
            verdict: Verdict::Confirmed,
            cause: Some(Cause::DeviceError),
        }],
        ..host()
    }
}

fn series(text: &str) -> HashMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let pairs: Vec<(String, f64)> = samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series.into(), value.parse().unwrap()))
        .collect();
    let nr = pairs.len();
    let map: HashMap<_, _> = pairs.into_iter().collect();
    assert_eq!(map.len(), nr, "a series comes twice");
    map
}

fn value(text: &str, name: &str) -> f64 {
    let all = series(text);
    *all.get(name).unwrap_or_else(|| panic!("no series {name}"))
}

const SYNC_LABELS: &str =
    r#"cluster_id="kraft",broker="1",log_dir="/data/\"a\"\\b",device="nvme0n1",op="fsync""#;

#[test]
fn the_text_is_exact() {
    let text = exporter(|| Ok(full())).render().unwrap();
    let text = text.replace(std::env::consts::ARCH, "ARCH");
    series(&text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/testdata/metrics.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (nr, (want, got)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(want, got, "line {}", nr + 1);
    }
    assert_eq!(golden.lines().count(), text.lines().count());
}

#[test]
fn counters_exist_at_zero_before_anything_happened() {
    let text = exporter(|| Ok(host())).render().unwrap();
    let all = series(&text);
    for name in [
        format!("fsyncscope_sync_failures_total{{{SYNC_LABELS}}}"),
        format!("fsyncscope_sync_duration_seconds_count{{{SYNC_LABELS}}}"),
        format!("fsyncscope_sync_errors_total{{{SYNC_LABELS},errno=\"EROFS\"}}"),
        r#"fsyncscope_block_errors_total{device="nvme0n1",op="write",status="IOERR"}"#.into(),
        r#"fsyncscope_broker_log_events_total{broker="1",event="flush_failed"}"#.into(),
        r#"fsyncscope_incidents_total{verdict="CONFIRMED",cause="device-error"}"#.into(),
        r#"fsyncscope_events_lost_total{class="walk_cut"}"#.into(),
        r#"fsyncscope_flush_duration_seconds_count{device="nvme0n1"}"#.into(),
    ] {
        assert_eq!(all.get(&name), Some(&0.0), "{name}");
    }
}

#[test]
fn a_restarted_broker_continues_its_series_and_the_gone_slot_keeps_its_share() {
    let step = Arc::new(AtomicU32::new(0));
    let now = step.clone();
    let exporter = exporter(move || {
        let mut snapshot = host();
        snapshot.hists = vec![(KEY, hist(&[1_000_000; 7], 0))];
        if now.load(Ordering::Relaxed) == 1 {
            // Same node.id and directory, new process, new slots.
            snapshot.brokers[0].slot = 1;
            snapshot.brokers[0].pid = 4343;
            snapshot.roots[0].slot = 1;
            snapshot.roots[0].broker = 1;
            snapshot.hists = vec![
                (KEY, hist(&[1_000_000; 9], 0)),
                (
                    HistKey {
                        broker: 1,
                        root: 1,
                        ..KEY
                    },
                    hist(&[2_000_000; 5], 0),
                ),
            ];
        }
        Ok(snapshot)
    });
    let name = format!("fsyncscope_sync_duration_seconds_count{{{SYNC_LABELS}}}");
    assert_eq!(value(&exporter.render().unwrap(), &name), 7.0);
    step.store(1, Ordering::Relaxed);
    assert_eq!(value(&exporter.render().unwrap(), &name), 14.0);
    assert_eq!(value(&exporter.render().unwrap(), &name), 14.0);
}

#[test]
fn a_retired_slot_is_counted_from_zero_under_its_new_name() {
    let step = Arc::new(AtomicU32::new(0));
    let now = step.clone();
    let exporter = exporter(move || {
        let mut snapshot = host();
        let is_new = now.load(Ordering::Relaxed) == 1;
        if is_new {
            snapshot.brokers[0].node_id = Some("2".into());
        }
        // More than before: only forgetting the old reading gives the right count.
        let nr = if is_new { 20 } else { 12 };
        snapshot.hists = vec![(KEY, hist(&vec![1_000_000; nr], 0))];
        Ok(snapshot)
    });
    exporter
        .collector()
        .retire_broker(0, || step.store(1, Ordering::Relaxed))
        .unwrap();
    let text = exporter.render().unwrap();
    let name = format!("fsyncscope_sync_duration_seconds_count{{{SYNC_LABELS}}}");
    assert_eq!(value(&text, &name), 12.0);
    assert_eq!(
        value(&text, &name.replace("broker=\"1\"", "broker=\"2\"")),
        20.0
    );
}

#[test]
fn syncs_of_an_unknown_slot_wait_until_it_has_a_name() {
    let step = Arc::new(AtomicU32::new(0));
    let now = step.clone();
    let exporter = exporter(move || {
        let mut snapshot = host();
        snapshot.hists = vec![(KEY, hist(&[1_000_000; 3], 0))];
        if now.load(Ordering::Relaxed) == 0 {
            snapshot.brokers.clear();
            snapshot.roots.clear();
        }
        Ok(snapshot)
    });
    assert!(
        !exporter
            .render()
            .unwrap()
            .contains("fsyncscope_sync_duration_seconds_count")
    );
    step.store(1, Ordering::Relaxed);
    let name = format!("fsyncscope_sync_duration_seconds_count{{{SYNC_LABELS}}}");
    assert_eq!(value(&exporter.render().unwrap(), &name), 3.0);
}

#[test]
fn two_scrapers_see_counters_that_only_grow_and_lose_nothing() {
    let kernel = Arc::new(AtomicU32::new(u32::MAX - 500));
    let counter = kernel.clone();
    let mut sum_ns = 0;
    let mut first = None;
    let exporter = exporter(move || {
        let mut snapshot = host();
        let mut hist = fold(&[]);
        let n = counter.fetch_add(7, Ordering::SeqCst);
        let base = *first.get_or_insert(n);
        sum_ns += 7000;
        hist.buckets[30] = n.wrapping_sub(base);
        hist.buckets[31] = n;
        hist.sum_ns = sum_ns;
        snapshot.hists = vec![(KEY, hist)];
        Ok(snapshot)
    });
    let name = format!("fsyncscope_sync_duration_seconds_count{{{SYNC_LABELS}}}");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0.0;
                for _ in 0..100 {
                    let now = value(&exporter.render().unwrap(), &name);
                    assert!(now >= last, "{now} after {last}");
                    last = now;
                }
            });
        }
    });
    // Reading i (from 0) sees 7 i in one bucket and its start plus 7 i in the
    // other, which wraps on the way.
    let want = f64::from(u32::MAX - 500) + 2.0 * 7.0 * 200.0;
    assert_eq!(value(&exporter.render().unwrap(), &name), want);
}

#[test]
fn a_source_that_fails_fails_the_scrape_and_the_next_one_is_whole_again() {
    let mut nr = 0;
    let exporter = exporter(move || {
        nr += 1;
        if nr == 2 {
            Err(anyhow::anyhow!("read map HIST: out of memory"))
        } else {
            Ok(full())
        }
    });
    let first = exporter.render().unwrap();
    let error = exporter.render().unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "read metrics: read map HIST: out of memory"
    );
    assert_eq!(exporter.render().unwrap(), first);
}

async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn paths_and_methods_get_their_status_and_shutdown_ends_it() {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let exporter = exporter(|| {
        let mut snapshot = full();
        snapshot.hooks[0].is_attached = false;
        Ok(snapshot)
    });
    let server = tokio::spawn(serve(listener, exporter, async {
        stopped.await.unwrap_or(())
    }));

    let metrics = ask(addr, "GET /metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4\r\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\nfsyncscope_brokers 1\n"), "{metrics}");
    let head = ask(addr, "HEAD /metrics").await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(ask(addr, "GET /healthz").await.ends_with("\r\n\r\nok\n"));
    let ready = ask(addr, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(
        ready.ends_with("required hooks not attached: fsync\n"),
        "{ready}"
    );
    assert!(ask(addr, "GET /").await.starts_with("HTTP/1.1 404 "));
    let post = ask(addr, "POST /metrics").await;
    assert!(
        post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"),
        "{post}"
    );

    let busy = bind(addr).await.unwrap_err().to_string();
    assert!(
        busy.starts_with(&format!("listen on {addr}: address in use; ")),
        "{busy}"
    );
    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}
