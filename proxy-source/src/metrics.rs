//! What is counted about API servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use prometheus::{Error, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Counters and gauges of the sources: client-go's name where it has one, `weir_` before the others.
#[derive(Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    watches: IntGaugeVec,
    /// What cannot be followed now, by plural: a kind may be followed in several namespaces.
    down: Mutex<BTreeMap<String, BTreeSet<String>>>,
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
            down: Mutex::default(),
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.watches.clone()))?;
        Ok(metrics)
    }

    /// A server has answered, or has not.
    pub fn requested(&self, [code, method, host]: [&str; 3]) {
        self.requests.with_label_values(&[code, method, host]).inc();
    }

    /// Whether a part of a kind is being followed. The kind is, if all its parts are.
    pub fn watching(&self, plural: &str, part: &str, up: bool) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = down.entry(plural.to_owned()).or_default();
        if up {
            of_kind.remove(part);
        } else {
            of_kind.insert(part.to_owned());
        }
        let up = of_kind.is_empty();
        self.watches.with_label_values(&[plural]).set(up.into());
    }
}
