//! Connections in, answers out.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Page, Pages, listen};

/// A taken port is tried again after this; whoever has it may be a daemon that is just ending.
const RETRY: Duration = Duration::from_secs(2);
/// A client that asks nothing, or does not read, is cut off.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients at the same time; further ones wait.
const CLIENTS: usize = 64;

/// One port.
#[derive(Debug)]
pub struct Port<P> {
    /// For the log.
    pub what: &'static str,
    /// What the user can change.
    pub flag: &'static str,
    /// Where; none if it is off.
    pub at: Option<SocketAddr>,
    /// The program that most likely has the port if it is taken.
    pub rival: &'static str,
    /// How bad it is if nobody is answered.
    pub consequence: &'static str,
    /// What is answered.
    pub pages: P,
}

impl<P: Pages> Port<P> {
    /// Listens for as long as the process lives.
    pub async fn forever(self) {
        if let Some(at) = self.at {
            accept(self.listener(at).await, Arc::new(self.pages)).await;
        }
    }

    /// Waits for the port if somebody has it.
    async fn listener(&self, at: SocketAddr) -> TcpListener {
        match listen(at) {
            Ok(listener) => return listener,
            Err(error) => tracing::warn!("{}", self.complaint(at, &error)),
        }
        loop {
            sleep(RETRY).await;
            if let Ok(listener) = listen(at) {
                tracing::info!("{} are answered at {at} now", self.what);
                return listener;
            }
        }
    }

    fn complaint(&self, at: SocketAddr, error: &io::Error) -> String {
        let Self {
            what,
            flag,
            rival,
            consequence,
            ..
        } = self;
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("end the program that listens there ({rival}?), or choose another with")
            }
            _ => "choose another with".to_owned(),
        };
        format!("cannot answer {what} at {at}: {error}; {consequence}; {hint} {flag}")
    }
}

/// Answers for as long as it is run.
pub async fn accept<P: Pages>(listener: TcpListener, pages: Arc<P>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    // A client that goes away, or sends nonsense, is its own business.
                    drop(timeout(PATIENCE, converse(stream, pages)).await);
                    drop(place);
                });
            }
            // Out of descriptors, or a client that has gone already.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn converse<P: Pages>(stream: TcpStream, pages: Arc<P>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(respond(&*pages, &request).await) }
    });
    // One request for each connection: probes and scrapes are rare, and idle clients shall not keep others out.
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond<P: Pages>(pages: &P, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return http(pages.page(request.uri().path()).await);
    }
    let refusal = Page::text(405, "only GET and HEAD\n");
    http(refusal.with(ALLOW, HeaderValue::from_static("GET, HEAD")))
}

fn http(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = StatusCode::from_u16(page.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(page.headers);
    response
}

#[cfg(test)]
mod tests;
