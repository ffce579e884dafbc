//! Active health checks: endpoints are asked how they are, on one worker, each over a connection of its own. What is found out
//! goes into the same [`super::health::Health`] that failed connects go into.
//!
//! An endpoint is well until it has failed several times in a row, and then gets nothing until it has passed several times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode, Uri, Version};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::{Endpoint, Upstream, connect};
use crate::body::RequestBody;
use crate::clock;
use crate::local::Local;
use crate::mix::below;
use crate::route::{HealthCheck, UpstreamProtocol};
use crate::worker::{Counters, Shared, Worker};

/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_millis(50);

/// What checks have found out about an endpoint.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// When it is asked next, by [`clock`]; 0: it was never asked.
    due: AtomicU64,
    /// It is being asked.
    busy: AtomicBool,
    passed: AtomicU32,
    failed: AtomicU32,
    ill: AtomicBool,
}

/// Checks endpoints until a drain begins.
pub(crate) async fn run(worker: &Worker) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*worker.shared.draining.borrow() {
        ticks.tick().await;
        let now = clock::now();
        for upstream in worker.shared.snapshot.load().backends.values() {
            let Some(check) = upstream.check.load_full() else {
                continue;
            };
            for endpoint in &upstream.set.load().all {
                if endpoint.probe.is_due(now, check.interval, worker) {
                    let (upstream, endpoint) = (Arc::clone(upstream), Arc::clone(endpoint));
                    let (check, shared) = (Arc::clone(&check), Arc::clone(&worker.shared));
                    tokio::task::spawn_local(async move {
                        examine(&upstream, &endpoint, &check, &shared).await;
                    });
                }
            }
        }
    }
}

impl Probe {
    /// Whether it is its turn; if so, it begins. The first turns are spread, and with them all others.
    fn is_due(&self, now: u64, interval: Duration, worker: &Worker) -> bool {
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let due = self.due.load(Ordering::Relaxed);
        if due == 0 {
            let within = below(
                usize::try_from(interval).unwrap_or(usize::MAX),
                worker.random.next(),
            );
            let first = now.saturating_add(u64::try_from(within).unwrap_or(0));
            self.due.store(first.max(1), Ordering::Relaxed);
            return false;
        }
        if now < due || self.busy.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.due.store(now.saturating_add(interval), Ordering::Relaxed);
        true
    }

    /// One more answer; says whether it is ill now, if that is news.
    fn learn(&self, well: bool, check: &HealthCheck) -> Option<bool> {
        let (more, none) = if well {
            (&self.passed, &self.failed)
        } else {
            (&self.failed, &self.passed)
        };
        none.store(0, Ordering::Relaxed);
        let row = more.load(Ordering::Relaxed).saturating_add(1);
        more.store(row, Ordering::Relaxed);
        let enough = if well { check.healthy } else { check.unhealthy };
        let ill = self.ill.load(Ordering::Relaxed);
        if row < enough || ill != well {
            return None;
        }
        self.ill.store(!well, Ordering::Relaxed);
        Some(!well)
    }

    /// Nobody asks any more.
    fn forget(&self) -> bool {
        self.due.store(0, Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        self.ill.swap(false, Ordering::Relaxed)
    }
}

impl Upstream {
    /// Endpoints are asked like this from now on, or not at all.
    pub fn set_check(&self, check: Option<HealthCheck>) {
        let none = check.is_none();
        self.check.store(check.map(Arc::new));
        if none {
            for endpoint in &self.set.load().all {
                endpoint.forget_checks();
            }
        }
    }
}

impl Endpoint {
    fn forget_checks(&self) {
        if self.probe.forget() {
            self.health.well(clock::now());
        }
    }
}

async fn examine(upstream: &Upstream, endpoint: &Endpoint, check: &HealthCheck, shared: &Shared) {
    let asked = tokio::time::timeout(check.timeout, ask(upstream, endpoint, check)).await;
    let well = matches!(asked, Ok(Ok(true)));
    endpoint.probe.busy.store(false, Ordering::Relaxed);
    let counters = &shared.counters;
    Counters::count(if well {
        &counters.checks
    } else {
        &counters.check_failures
    });
    let Some(ill) = endpoint.probe.learn(well, check) else {
        return;
    };
    let service = &upstream.backend.service;
    tracing::info!(endpoint = %endpoint.address, %service, ill, ?asked, "a health check has found out");
    if ill {
        endpoint.health.ill();
    } else {
        endpoint.health.well(clock::now());
    }
    // Checks may have been called off in between.
    if upstream.check.load().is_none() {
        endpoint.forget_checks();
    }
}

/// Why an endpoint could not be asked.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("connecting")]
    Connect(#[from] std::io::Error),
    #[error("TLS")]
    Tls(#[from] connect::ConnectError),
    #[error("speaking HTTP")]
    Http(#[from] hyper::Error),
    #[error("making the request")]
    Request(#[from] http::Error),
}

/// Whether the answer is a good one.
async fn ask(upstream: &Upstream, endpoint: &Endpoint, check: &HealthCheck) -> Result<bool, CheckError> {
    let stream = TcpStream::connect(endpoint.address).await?;
    let Some(path) = check.path.as_deref() else {
        return Ok(true);
    };
    let status = match upstream.protocol.or(check.protocol) {
        None | Some(UpstreamProtocol::Http1) => over_http1(stream, endpoint, path).await?,
        Some(UpstreamProtocol::H2c) => over_http2(stream, endpoint, path, "http").await?,
        Some(UpstreamProtocol::Https) => {
            let stream = connect::tls(&upstream.tls, endpoint.address, stream, false).await?;
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                over_http2(stream, endpoint, path, "https").await?
            } else {
                over_http1(stream, endpoint, path).await?
            }
        }
    };
    let accepts = |(first, last): &(u16, u16)| (*first..=*last).contains(&status.as_u16());
    Ok(check.status.iter().any(accepts))
}

async fn over_http1<S>(stream: S, endpoint: &Endpoint, path: &str) -> Result<StatusCode, CheckError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driven = Driven(tokio::task::spawn_local(async move {
        // How it ends is told to the request on it.
        let _ended = connection.await;
    }));
    let mut request = request(Uri::try_from(path).map_err(http::Error::from)?);
    let host = HeaderValue::try_from(endpoint.address.to_string()).map_err(http::Error::from)?;
    request.headers_mut().insert(HOST, host);
    Ok(sender.send_request(request).await?.status())
}

async fn over_http2<S>(
    stream: S,
    endpoint: &Endpoint,
    path: &str,
    scheme: &str,
) -> Result<StatusCode, CheckError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http2::handshake(Local, TokioIo::new(stream)).await?;
    let _driven = Driven(tokio::task::spawn_local(async move {
        let _ended = connection.await;
    }));
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(endpoint.address.to_string())
        .path_and_query(path)
        .build()?;
    let mut request = request(uri);
    *request.version_mut() = Version::HTTP_2;
    Ok(sender.send_request(request).await?.status())
}

fn request(uri: Uri) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::Empty);
    *request.uri_mut() = uri;
    let agent = HeaderValue::from_static("weir-health-check");
    request.headers_mut().insert(USER_AGENT, agent);
    request
}

/// Ends with whoever waits for it.
struct Driven(JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_in_a_row_make_it_ill_and_well_again() {
        let (probe, check) = (Probe::default(), HealthCheck::default());
        let learn = |well: &[bool]| {
            well.iter()
                .map(|well| probe.learn(*well, &check))
                .collect::<Vec<_>>()
        };
        assert_eq!(learn(&[true, false, false, true]), [None; 4]);
        assert_eq!(learn(&[false, false, false]), [None, None, Some(true)]);
        assert_eq!(learn(&[false, true, false, true]), [None; 4]);
        assert_eq!(learn(&[true, true]), [Some(false), None]);
    }
}
