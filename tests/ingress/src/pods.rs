//! Pods: servers of HTTP/1.1 and HTTP/2 that do what the path says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::edge;

type Reply = Response<BoxBody<Bytes, std::io::Error>>;

/// Bytes of `/large`.
pub const LARGE: usize = 8 << 20;

/// A server. Dropping it closes its port and all its connections.
pub struct Pod {
    /// Where it is.
    pub address: SocketAddr,
    requests: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Pod {
    /// The pod with this number: it says `pod NUMBER`.
    pub async fn start(number: u8) -> Result<Self> {
        let address = edge::pod(number);
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("the pod at {address}"))?;
        let requests = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, format!("pod {number}"), Arc::clone(&requests)));
        Ok(Self {
            address,
            requests,
            _tasks: tasks,
        })
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, name: String, requests: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    let name: Arc<str> = name.into();
    while let Ok((stream, peer)) = listener.accept().await {
        let _tuned = stream.set_nodelay(true);
        let (name, requests) = (Arc::clone(&name), Arc::clone(&requests));
        let service = service_fn(move |request| {
            requests.fetch_add(1, Ordering::Relaxed);
            let name = Arc::clone(&name);
            async move { answer(&name, peer, request).await }
        });
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            // How a connection ends is for the tests to judge, at its other end.
            let _end = served.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// `/slow/MS` takes its time, `/large` is long, `/half` breaks off, `/ws` sends back what it gets, `/grpc` has trailers,
/// `/head` says what came; all others are answered at once. An error ends the connection.
async fn answer(name: &str, peer: SocketAddr, request: Request<Incoming>) -> Result<Reply, std::io::Error> {
    let path = request.uri().path().to_owned();
    if let Some(time) = path.strip_prefix("/slow/") {
        tokio::time::sleep(Duration::from_millis(time.parse().unwrap_or(0))).await;
    }
    Ok(match path.as_str() {
        "/ws" => websocket(request),
        "/large" => Response::new(large()),
        "/half" => Response::new(half()),
        "/grpc" => grpc(request).await,
        "/head" => Response::new(text(format!(
            "{peer} {:?} {:?}",
            request.uri(),
            request.headers()
        ))),
        "/body" => {
            let length = request
                .into_body()
                .collect()
                .await
                .map_or(0, |body| body.to_bytes().len());
            Response::new(text(format!("{length} bytes")))
        }
        _ => Response::new(text(name.to_owned())),
    })
}

fn text(text: String) -> BoxBody<Bytes, std::io::Error> {
    Full::from(text).map_err(infallible).boxed()
}

fn infallible(error: Infallible) -> std::io::Error {
    match error {}
}

fn large() -> BoxBody<Bytes, std::io::Error> {
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    let pieces = (0..LARGE / piece.len()).map(move |_| Ok(Frame::data(piece.clone())));
    StreamBody::new(stream::iter(pieces)).boxed()
}

fn half() -> BoxBody<Bytes, std::io::Error> {
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"the first half"))),
        Err(std::io::Error::other("killed")),
    ];
    // What was said is sent before the connection breaks.
    let frames = stream::unfold(frames.into_iter(), |mut frames| async {
        let frame = frames.next()?;
        if frame.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some((frame, frames))
    });
    StreamBody::new(SyncStream(Box::pin(frames))).boxed()
}

/// A stream that only its owner polls, for bodies that must be `Sync`.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: stream::Stream> stream::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

async fn grpc(request: Request<Incoming>) -> Reply {
    let said = request.into_body().collect().await;
    let mut trailers = HeaderMap::new();
    trailers.insert(
        "grpc-status",
        HeaderValue::from_static(if said.is_ok() { "0" } else { "13" }),
    );
    let frames = [
        Frame::data(said.map(http_body_util::Collected::to_bytes).unwrap_or_default()),
        Frame::trailers(trailers),
    ];
    let mut reply = Response::new(StreamBody::new(stream::iter(frames.map(Ok))).boxed());
    let kind = HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert("content-type", kind);
    reply
}

fn websocket(request: Request<Incoming>) -> Reply {
    let mut reply = Response::new(text(String::new()));
    *reply.status_mut() = StatusCode::BAD_REQUEST;
    if !request.headers().contains_key(UPGRADE) {
        return reply;
    }
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        let mut piece = vec![0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            let said = piece.get(..count).unwrap_or_default();
            if stream.write_all(said).await.is_err() {
                return;
            }
        }
    });
    reply
}
