//! What the tests of the engine stand on: a table of routes in order, and an engine on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{Registry, TextEncoder};
use proxy_ingress::certificates::{Certificates, Maker};
use proxy_ingress::client_auth::ClientAuth;
use proxy_ingress::engine::{Engine, EngineError, Listen};
use proxy_ingress::metrics::Metrics;
use proxy_ingress::passthrough::Passthrough;
use proxy_ingress::route::path::PathOptions;
use proxy_ingress::route::{
    Action, Backend, Endpoint, Filter, HostMatch, Origin, PathMatch, Policy, Redirect, Route, Table,
    UpstreamProtocol, Weighted,
};
use proxy_ingress::settings::Settings;
use proxy_ingress::snapshot::{Routes, Snapshot};
use proxy_ingress::telemetry::Telemetry;
use proxy_ingress::upstream::{Upstream, UpstreamTls};
use proxy_model::ObjectName;

use crate::peers::Raw;

/// Nothing here takes longer.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Waits until it is so.
pub(crate) fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < SOON, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn backend(name: &str) -> Backend {
    Backend {
        service: ObjectName::new("test", name),
        port: "http".into(),
    }
}

/// Everything to the backend "web".
pub(crate) fn route() -> Route {
    Route {
        origin: Origin {
            created: 0,
            object: ObjectName::new("test", "ingress"),
            rule: 0,
            entry: 0,
        },
        host: HostMatch::Any,
        path: PathMatch::Prefix("/".into()),
        predicates: Vec::new(),
        filters: Vec::new(),
        action: Action::Forward(vec![Weighted {
            weight: 1,
            backend: backend("web"),
        }]),
        policy: Arc::new(Policy::default()),
    }
}

pub(crate) fn with_policy(change: impl FnOnce(&mut Policy)) -> Route {
    let mut policy = Policy::default();
    change(&mut policy);
    Route {
        policy: Arc::new(policy),
        ..route()
    }
}

pub(crate) fn with_filters(filters: Vec<Filter>) -> Route {
    Route { filters, ..route() }
}

pub(crate) fn redirect(to: Redirect) -> Route {
    Route {
        action: Action::Redirect(to),
        ..route()
    }
}

/// Settings in which nobody waits long.
pub(crate) fn quick() -> Settings {
    Settings {
        tick: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// What is to be built.
pub(crate) struct Plan {
    pub(crate) routes: Vec<Route>,
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) protocol: Option<UpstreamProtocol>,
    pub(crate) settings: Settings,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) passthrough: Passthrough,
    pub(crate) client_auth: ClientAuth,
    pub(crate) workers: usize,
    pub(crate) telemetry: Telemetry,
}

impl Plan {
    pub(crate) fn to(endpoints: &[SocketAddr]) -> Self {
        Self {
            routes: vec![route()],
            endpoints: endpoints.to_vec(),
            protocol: None,
            settings: quick(),
            certificates: None,
            passthrough: Passthrough::default(),
            client_auth: ClientAuth::default(),
            workers: 1,
            telemetry: Telemetry::default(),
        }
    }

    pub(crate) fn route(mut self, route: Route) -> Self {
        self.routes = vec![route];
        self
    }

    pub(crate) fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub(crate) fn start(self) -> Front {
        self.try_start().unwrap()
    }

    pub(crate) fn try_start(self) -> Result<Front, EngineError> {
        let upstream = Upstream::new(
            backend("web"),
            self.protocol,
            UpstreamTls::unverified().unwrap(),
            self.workers,
        );
        upstream.set_endpoints(&endpoints(&self.endpoints));
        let upstream = Arc::new(upstream);
        let certificates = self.certificates.unwrap_or_else(|| {
            let own = Maker::new().unwrap().self_signed().unwrap();
            Certificates::new(Arc::new(own))
        });
        let snapshot = Snapshot {
            routes: Routes {
                table: Table::build(self.routes),
                paths: PathOptions::default(),
            },
            backends: Arc::new(HashMap::from([(backend("web"), Arc::clone(&upstream))])),
            certificates: Arc::new(certificates),
            passthrough: Arc::new(self.passthrough),
            client_auth: Arc::new(self.client_auth),
            settings: Arc::new(self.settings),
        };
        let snapshot = Arc::new(snapshot);
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let doors = [false, true].map(|tls| Listen { address: any, tls });
        let snapshot_too = Arc::clone(&snapshot);
        let engine = Engine::start_telling(&doors, self.workers, snapshot_too, self.telemetry)?;
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.show(&engine.view());
        Ok(Front {
            registry,
            metrics,
            upstream,
            snapshot,
            engine,
        })
    }
}

pub(crate) fn endpoints(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: *address,
        zone: None,
        terminating: false,
    };
    addresses.iter().map(endpoint).collect()
}

/// A running engine.
pub(crate) struct Front {
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) engine: Engine,
}

impl Front {
    pub(crate) fn clear(&self) -> SocketAddr {
        self.engine.addresses()[0]
    }

    pub(crate) fn tls(&self) -> SocketAddr {
        self.engine.addresses()[1]
    }

    /// What a scrape shows.
    pub(crate) fn scrape(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }

    /// The value of a sample: its name, with labels as they are written; 0 if it is not there.
    pub(crate) fn sample(&self, series: &str) -> f64 {
        let text = self.scrape();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits for a sample's value.
    pub(crate) fn counts(&self, series: &str, value: f64) {
        wait(&format!("{series} {value} in\n{}", self.scrape()), || {
            (self.sample(series) - value).abs() < 1e-9
        });
    }

    /// A connection in clear text.
    pub(crate) fn raw(&self) -> Raw {
        Raw::to(self.clear())
    }

    /// Sends this on a connection of its own, and reads to its end.
    pub(crate) fn says(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = self.raw();
        raw.send(bytes);
        raw.rest()
    }
}
