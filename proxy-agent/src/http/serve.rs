//! Connections in, answers out.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounterVec;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::checks::{self, Check};
use super::listen;
use crate::clock;
use crate::health::{Health, Probe};
use crate::metrics::{Metrics, Scraper};

/// A taken port is tried again after this; whoever has it may be an agent that is just ending.
const RETRY: Duration = Duration::from_secs(2);
/// A client that asks nothing, or does not read, is cut off.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients at the same time; further ones wait.
const CLIENTS: usize = 64;

/// How many endpoints a load balancer finds here.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// One port.
pub(super) struct Port {
    /// For the log.
    pub(super) what: &'static str,
    /// What the user can change.
    pub(super) flag: &'static str,
    /// Where; none if it is off.
    pub(super) at: Option<SocketAddr>,
    pub(super) routes: Routes,
}

/// What is answered at one port.
#[derive(Clone)]
pub(super) enum Routes {
    /// `/healthz` and `/livez`.
    Health(Arc<Health>, Arc<Metrics>),
    /// `/metrics`, and what else kube-proxy answers there.
    Metrics(Arc<Scraper>),
    /// Whatever the path: the local endpoints of a Service.
    Check(Arc<Check>),
}

/// An answer before it is HTTP.
struct Page {
    code: u16,
    kind: &'static str,
    body: String,
    /// Of a Service's health check.
    weight: Option<usize>,
}

impl Port {
    /// Listens for as long as the process lives.
    pub(super) async fn forever(self) {
        if let Some(at) = self.at {
            accept(listener(self.what, self.flag, at).await, self.routes).await;
        }
    }
}

/// Answers for as long as it is run.
pub(super) async fn accept(listener: TcpListener, routes: Routes) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    // A client that goes away, or sends nonsense, is its own business.
                    drop(timeout(PATIENCE, converse(stream, routes)).await);
                    drop(place);
                });
            }
            // Out of descriptors, or a client that has gone already.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits for the port if somebody has it.
async fn listener(what: &str, flag: &str, at: SocketAddr) -> TcpListener {
    match listen::listen(at) {
        Ok(listener) => return listener,
        Err(error) => tracing::warn!("{}", complaint(what, flag, at, &error)),
    }
    loop {
        sleep(RETRY).await;
        if let Ok(listener) = listen::listen(at) {
            tracing::info!("{what} are answered at {at} now");
            return listener;
        }
    }
}

fn complaint(what: &str, flag: &str, at: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "end the program that listens there (kube-proxy?), or choose another with"
        }
        _ => "choose another with",
    };
    format!("cannot answer {what} at {at}: {error}; Services are served all the same; {hint} {flag}")
}

async fn converse(stream: TcpStream, routes: Routes) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(respond(&routes, &request).await) }
    });
    // One request for each connection: probes and scrapes are rare, and idle clients shall not keep others out.
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond(routes: &Routes, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = http(Page::text(405, "only GET and HEAD\n"));
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    http(routes.page(request.uri().path()).await)
}

impl Routes {
    async fn page(&self, path: &str) -> Page {
        match self {
            Self::Health(health, metrics) => match path {
                "/healthz" => probe(health, Probe::Healthy, &metrics.healthz),
                "/livez" => probe(health, Probe::Live, &metrics.livez),
                _ => Page::text(404, "try /healthz or /livez\n"),
            },
            Self::Metrics(scraper) => match path {
                "/metrics" => scrape(Arc::clone(scraper)).await,
                // What kube-proxy answers at this port: that it does, and what it is.
                "/healthz" => Page::text(200, "ok"),
                "/proxyMode" => Page::text(200, "weir"),
                _ => Page::text(404, "try /metrics, /healthz or /proxyMode\n"),
            },
            Self::Check(check) => endpoints(check),
        }
    }
}

fn probe(health: &Health, probe: Probe, counter: &IntCounterVec) -> Page {
    let answer = health.answer(probe, clock::monotonic());
    counter.with_label_values(&[answer.code().to_string()]).inc();
    Page {
        code: answer.code(),
        kind: "application/json",
        body: serde_json::to_string(&answer).unwrap_or_default(),
        weight: None,
    }
}

fn endpoints(check: &Check) -> Page {
    let (local, works) = check.answer();
    Page {
        code: if works && local.count > 0 { 200 } else { 503 },
        kind: "application/json",
        body: checks::body(&local, works),
        weight: Some(local.count),
    }
}

/// Beside this thread, which has probes to answer.
async fn scrape(scraper: Arc<Scraper>) -> Page {
    match tokio::task::spawn_blocking(move || scraper.text()).await {
        Ok(Ok(body)) => Page {
            code: 200,
            kind: prometheus::TEXT_FORMAT,
            body,
            weight: None,
        },
        Ok(Err(error)) => Page::text(500, &format!("{error}\n")),
        Err(error) => Page::text(500, &format!("{error}\n")),
    }
}

impl Page {
    fn text(code: u16, body: &str) -> Self {
        Self {
            code,
            kind: "text/plain; charset=utf-8",
            body: body.to_owned(),
            weight: None,
        }
    }
}

fn http(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = StatusCode::from_u16(page.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(page.weight.map(|weight| (WEIGHT, HeaderValue::from(weight))));
    response
}

#[cfg(test)]
mod tests;
