//! HTTP for the exporter: /metrics, /healthz, /readyz, by GET and HEAD.
//!
//! Comes in: a bound listener and an [`Exporter`]. Goes out: answers, until the
//! shutdown future is done. Connections are bounded in number and in time. The
//! maps are read on tokio's blocking pool, so that the loop that drains the ring
//! goes on. Not here: TLS, compression, authentication (loopback by default).

use std::{
    convert::Infallible, io::ErrorKind, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use anyhow::anyhow;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::Exporter;

/// Where `export` listens unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9797);

const MAX_CONNECTIONS: usize = 16;
/// A client has that long to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Whole life of a connection; there is one request on each.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Prometheus gives up after 10 s by default.
const READ_TIMEOUT: Duration = Duration::from_secs(9);
/// How long answers under way may take after shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Half of [`crate::histogram::MAX_INTERVAL`].
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// /readyz reads hooks again if they are older.
const READY_AGE: Duration = Duration::from_secs(5);
const MAX_HEADER_BYTES: usize = 16 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Binds the listener; the error says what to do.
pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => anyhow!(
                "listen on {addr}: address in use; stop the program that listens there (ss -ltnp), \
             or choose another address by --listen"
            ),
            ErrorKind::AddrNotAvailable => anyhow!(
                "listen on {addr}: not an address of this host; choose one that `ip addr` shows by \
             --listen"
            ),
            ErrorKind::PermissionDenied => anyhow!(
                "listen on {addr}: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, \
             choose another by --listen"
            ),
            _ => anyhow!("listen on {addr}: {error}"),
        })
}

/// Serves until `shutdown` is done, then lets answers under way finish.
pub async fn serve(listener: TcpListener, exporter: Exporter, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let reads = Arc::new(Semaphore::new(1));
    let mut refresh = interval(REFRESH_INTERVAL);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = refresh.tick() => {
                let (exporter, reads) = (exporter.clone(), reads.clone());
                connections.spawn(async move {
                    // An error shows at the next scrape, and as not ready.
                    let _ = read(&reads, move || exporter.collector().refresh()).await;
                });
            }
            // Beyond the bound, clients wait in the kernel's backlog.
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, exporter.clone(), reads.clone()));
                }
                // Out of descriptors, mostly: accept would fail again at once.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(DRAIN_TIMEOUT, drained).await;
}

async fn serve_one(stream: TcpStream, exporter: Exporter, reads: Arc<Semaphore>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (exporter, reads) = (exporter.clone(), reads.clone());
        async move { Ok::<_, Infallible>(answer(&request, exporter, &reads).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client that went away or spoke no HTTP concerns nobody else.
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

async fn answer<B: Body>(
    request: &Request<B>,
    exporter: Exporter,
    reads: &Arc<Semaphore>,
) -> Answer {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        return text(
            StatusCode::NOT_FOUND,
            "not found; there are /metrics, /healthz, /readyz\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            match read(reads, move || exporter.collector().missing_hooks(READY_AGE)).await {
                Ok(missing) if missing.is_empty() => text(StatusCode::OK, "ready\n"),
                Ok(missing) => {
                    let names: Vec<_> = missing.into_iter().map(|hook| hook.name).collect();
                    let body = format!("required hooks not attached: {}\n", names.join(", "));
                    text(StatusCode::SERVICE_UNAVAILABLE, body)
                }
                Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")),
            }
        }
        _ => match read(reads, move || exporter.render()).await {
            Ok(body) => {
                let mut answer = text(StatusCode::OK, body);
                let kind = hyper::header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
        },
    }
}

/// Runs `work` on the blocking pool, one at a time: readers that do not come
/// back must not take a thread each.
async fn read<T: Send + 'static>(
    reads: &Arc<Semaphore>,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let run = async {
        let permit = reads.clone().acquire_owned().await?;
        let work = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        work.await?
    };
    match timeout(READ_TIMEOUT, run).await {
        Ok(result) => result,
        Err(_) => Err(anyhow!(
            "read metrics: no answer within {} s",
            READ_TIMEOUT.as_secs()
        )),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(TEXT));
    headers.insert(
        CACHE_CONTROL,
        hyper::header::HeaderValue::from_static("no-store"),
    );
    answer
}
