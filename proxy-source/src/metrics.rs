//! What is counted about API servers.

use prometheus::{Error, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Counters and gauges of the sources: client-go's name where it has one, `weir_` before the others.
#[derive(Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    watches: IntGaugeVec,
}

impl Metrics {
    /// All at zero, in this registry. An error would be a mistake in this file.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let requests = Opts::new("rest_client_requests_total", "Requests to API servers");
        let watches = Opts::new(
            "weir_watch_up",
            "Whether a kind of object is being followed at the API server: 0 means that what weir knows of it may be old",
        );
        let metrics = Self {
            requests: IntCounterVec::new(requests, &["code", "method", "host"])?,
            watches: IntGaugeVec::new(watches, &["resource"])?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.watches.clone()))?;
        Ok(metrics)
    }

    /// A server has answered, or has not.
    pub fn requested(&self, [code, method, host]: [&str; 3]) {
        self.requests.with_label_values(&[code, method, host]).inc();
    }

    /// Whether a kind is being followed.
    pub fn watching(&self, plural: &str, up: bool) {
        self.watches.with_label_values(&[plural]).set(up.into());
    }
}
