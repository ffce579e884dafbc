//! What the agent answers over HTTP, in a thread of its own: neither does the agent's loop wait for a client, nor a
//! client for the loop.
//!
//! ```text
//!  0.0.0.0:10256     /healthz  /livez                        the kubelet, load balancers
//!  127.0.0.1:10249   /metrics  /healthz  /proxyMode          Prometheus
//!  each healthCheckNodePort                                  the load balancer of that Service: checks.rs
//! ```
//!
//! Ports, paths and answers are kube-proxy's. A port that is taken costs its answers and nothing else: it is tried again.

mod checks;
mod pages;

pub use checks::{Keeper, Refused, ServiceChecks, Sockets, service_checks};

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;

use proxy_daemon::http::{BindAddress, Port};

use crate::health::Health;
use crate::metrics::Scraper;
use pages::{Probes, Scrapes};

/// kube-proxy's default for health checks.
pub const HEALTHZ: BindAddress = BindAddress::v4(Ipv4Addr::UNSPECIFIED, 10256);
/// kube-proxy's default for metrics.
pub const METRICS: BindAddress = BindAddress::v4(Ipv4Addr::LOCALHOST, 10249);

/// Of a port that somebody else has.
const RIVAL: &str = "kube-proxy";
/// Of a port that nobody answers at.
const CONSEQUENCE: &str = "Services are served all the same";

/// Where to answer, and from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// For `/healthz` and `/livez`.
    pub healthz: BindAddress,
    /// For `/metrics`.
    pub metrics: BindAddress,
}

/// Answers until the process ends.
pub fn start(options: Options, health: Arc<Health>, scraper: Scraper, checks: Keeper) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // One scrape of the maps at a time.
        .max_blocking_threads(1)
        .build()?;
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        let probes = Port {
            what: "health checks",
            flag: "--healthz-bind-address",
            at: options.healthz.socket_or(HEALTHZ),
            rival: RIVAL,
            consequence: CONSEQUENCE,
            pages: Probes {
                health,
                metrics: scraper.shared_metrics(),
            },
        };
        let metrics = Port {
            what: "metrics",
            flag: "--metrics-bind-address",
            at: options.metrics.socket_or(METRICS),
            rival: RIVAL,
            consequence: CONSEQUENCE,
            pages: Scrapes(Arc::new(scraper)),
        };
        runtime.block_on(async { tokio::join!(probes.forever(), metrics.forever(), checks.forever()) });
    })?;
    Ok(())
}
