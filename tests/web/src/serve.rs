//! A server that says its name, as a well-behaved pod: told to end, it goes on for a while, and then ends politely.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Header that has the name of who answered, in calls and in handshakes of WebSockets.
pub const POD: &str = "x-pod";

/// How a pod serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it says of itself.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// After SIGTERM it serves for this long: until the news has reached everybody.
    pub linger: Duration,
}

/// Serves until SIGTERM, and for a while after.
pub async fn serve(options: Options) -> Result<()> {
    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.with_context(|| format!("listening at {}", options.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (leave, leaving) = watch::channel(false);
    let name: Arc<str> = options.name.into();
    let ended = async {
        terminate.recv().await;
        sleep(options.linger).await;
    };
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    begin(stream, Arc::clone(&name), leaving.clone());
                }
            }
            () = &mut ended => break,
        }
    }
    drop((listener, leaving));
    leave.send_replace(true);
    // Requests are short; tunnels end between two messages.
    let _late = timeout(Duration::from_secs(5), leave.closed()).await;
    Ok(())
}

fn begin(stream: TcpStream, name: Arc<str>, leaving: watch::Receiver<bool>) {
    let _tuned = stream.set_nodelay(true);
    let ends = leaving.clone();
    let service = service_fn(move |request| {
        let (name, leaving) = (Arc::clone(&name), leaving.clone());
        async move { Ok::<_, Infallible>(answer(&name, leaving, request).await) }
    });
    tokio::spawn(async move {
        let mut leaving = ends;
        let builder = auto::Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        // How a connection ends is for the client to judge.
        let polite = tokio::select! {
            _ = connection.as_mut() => false,
            _ = leaving.wait_for(|leaving| *leaving) => true,
        };
        if polite {
            connection.as_mut().graceful_shutdown();
            let _end = connection.await;
        }
    });
}

/// Calls get what they said, WebSockets too; all others the name, the host and the path.
async fn answer(name: &str, leaving: watch::Receiver<bool>, request: Request<Incoming>) -> Reply {
    let mut reply = if is_call(&request) {
        call(request).await
    } else if request.headers().contains_key(UPGRADE) {
        tunnel(request, leaving)
    } else {
        let host = request.headers().get("host").and_then(|host| host.to_str().ok());
        let host = host.or_else(|| request.uri().host()).unwrap_or_default();
        text(format!("{name} {host} {}\n", request.uri().path()))
    };
    if let Ok(name) = HeaderValue::try_from(name) {
        reply.headers_mut().insert(POD, name);
    }
    reply
}

fn text(text: String) -> Reply {
    Response::new(Full::from(text).boxed())
}

fn is_call(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn call(request: Request<Incoming>) -> Reply {
    let said = request.into_body().collect().await;
    let (said, status) = match said {
        Ok(said) => (said.to_bytes(), "0"),
        Err(_) => (Bytes::new(), "13"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let body = Full::from(said).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut reply = Response::new(body.boxed());
    let kind = HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// A WebSocket as a proxy sees it: bytes in both directions after the handshake.
fn tunnel(request: Request<Incoming>, mut leaving: watch::Receiver<bool>) -> Reply {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        let mut piece = vec![0; 4096];
        loop {
            let count = tokio::select! {
                biased;
                read = stream.read(&mut piece) => read.unwrap_or(0),
                _ = leaving.wait_for(|leaving| *leaving) => 0,
            };
            let said = piece.get(..count).unwrap_or_default();
            if said.is_empty() || stream.write_all(said).await.is_err() {
                break;
            }
        }
        let _gone = stream.shutdown().await;
    });
    let mut reply = text(String::new());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    reply
}
