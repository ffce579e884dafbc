//! What is behind a backend: its endpoints, how one is chosen, and the connections to it.
//!
//! ```text
//!  Upstream ── EndpointSet (swapped as a whole when endpoints change)
//!                 └── Endpoint: health, load, and per protocol a pool with a slot per worker
//! ```
//!
//! An endpoint that stays keeps its value, and with it connections and health, whatever becomes of its neighbours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};

pub use self::connect::UpstreamTls;
use self::health::{Health, Share};
use self::pool::Pool;
pub(crate) use self::pool::{Lease, Sent};
use crate::clock;
use crate::mix;
use crate::route::{self, Backend, HealthCheck, UpstreamProtocol};
use crate::settings::Upstreams;

pub(crate) mod balance;
pub(crate) mod check;
pub(crate) mod connect;
mod health;
mod pool;
pub(crate) mod retry;

/// What is behind a [`Backend`].
pub struct Upstream {
    /// Which.
    pub backend: Backend,
    /// What it speaks, if its port says so.
    pub protocol: Option<UpstreamProtocol>,
    /// How it is spoken to over TLS.
    pub tls: UpstreamTls,
    workers: usize,
    set: ArcSwap<EndpointSet>,
    /// How endpoints are asked how they are.
    check: ArcSwapOption<HealthCheck>,
}

/// The endpoints at a moment.
#[derive(Default)]
pub(crate) struct EndpointSet {
    /// Those that get requests: those that stay, or, if all are going, all.
    usable: Vec<Arc<Endpoint>>,
    /// All.
    all: Vec<Arc<Endpoint>>,
    /// Whose turn it is.
    next: AtomicUsize,
}

/// An endpoint, for who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it gets requests, in words.
    pub state: String,
    /// Requests at work.
    pub requests: u32,
}

/// An endpoint, and what is kept for it.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Its name in cookies, and where it stands in a consistent hash.
    pub(crate) key: u64,
    pub(crate) health: Health,
    pub(crate) load: Load,
    probe: check::Probe,
    /// No longer an endpoint: its connections are not kept.
    gone: AtomicBool,
    clear: Pool,
    h2c: Pool,
    tls: Pool,
}

/// How much an endpoint has to do.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Requests at work.
    active: AtomicU32,
    /// Microseconds until responses begin: peaks count at once, and are forgotten slowly.
    latency: AtomicU64,
}

impl Upstream {
    /// Without endpoints; `workers` as many as the engine has.
    pub fn new(
        backend: Backend,
        protocol: Option<UpstreamProtocol>,
        tls: UpstreamTls,
        workers: usize,
    ) -> Self {
        Self {
            backend,
            protocol,
            tls,
            workers,
            set: ArcSwap::default(),
            check: ArcSwapOption::empty(),
        }
    }

    /// Puts other endpoints in the place of those there are.
    pub fn set_endpoints(&self, endpoints: &[route::Endpoint]) {
        let old = self.set.load_full();
        let known = |address: SocketAddr| old.all.iter().find(|there| there.address == address);
        let keep = |endpoint: &route::Endpoint| match known(endpoint.address) {
            Some(there) => Arc::clone(there),
            None => Arc::new(Endpoint::new(endpoint.address, self.workers)),
        };
        let all: Vec<Arc<Endpoint>> = endpoints.iter().map(keep).collect();
        let staying = endpoints
            .iter()
            .zip(&all)
            .filter(|(endpoint, _)| !endpoint.terminating);
        let mut usable: Vec<Arc<Endpoint>> = staying.map(|(_, kept)| Arc::clone(kept)).collect();
        if usable.is_empty() {
            usable.clone_from(&all);
        }
        for endpoint in &all {
            endpoint.gone.store(false, Ordering::Relaxed);
        }
        let next = AtomicUsize::new(old.next.load(Ordering::Relaxed));
        let new = Arc::new(EndpointSet { usable, all, next });
        self.set.store(Arc::clone(&new));
        for endpoint in &old.all {
            if !new.all.iter().any(|there| Arc::ptr_eq(there, endpoint)) {
                endpoint.leave();
            }
        }
    }

    /// What is known of its endpoints, for who asks.
    pub fn look(&self, limits: &Upstreams) -> Vec<Seen> {
        let set = self.set.load();
        let seen = set.all.iter().map(|endpoint| {
            let used = set.usable.iter().any(|usable| Arc::ptr_eq(usable, endpoint));
            let share = endpoint.health.share(clock::now, limits.slow_return);
            let state = match share {
                _ if !used => "terminating: no new requests".to_owned(),
                Share::Full => "ready".to_owned(),
                Share::None => "left alone after failed connects".to_owned(),
                Share::Part(part) => format!("coming back: {}% of its turns", u32::from(part) * 100 / 256),
            };
            Seen {
                address: endpoint.address,
                state,
                requests: endpoint.load.active(),
            }
        });
        seen.collect()
    }

    /// Endpoints, those of them that are left alone, and connections to all of them.
    pub(crate) fn census(&self, now: u64) -> (usize, usize, usize) {
        let set = self.set.load();
        let ejected = set.all.iter().filter(|endpoint| endpoint.health.is_ejected(now));
        let pools = set.all.iter().flat_map(|one| [&one.clear, &one.h2c, &one.tls]);
        let connections = pools.map(|pool| pool.open.load(Ordering::Relaxed)).sum();
        (set.all.len(), ejected.count(), connections)
    }

    /// Closes what a worker has kept for too long.
    pub(crate) fn sweep(&self, worker: usize, older_than: Duration) {
        for endpoint in &self.set.load().all {
            for pool in [&endpoint.clear, &endpoint.h2c, &endpoint.tls] {
                pool.sweep(worker, older_than);
            }
        }
    }
}

impl Endpoint {
    fn new(address: SocketAddr, workers: usize) -> Self {
        Self {
            address,
            key: mix::hash(address.to_string().as_bytes()),
            health: Health::default(),
            load: Load::default(),
            probe: check::Probe::default(),
            gone: AtomicBool::new(false),
            clear: Pool::new(workers),
            h2c: Pool::new(workers),
            tls: Pool::new(workers),
        }
    }

    fn pool(&self, protocol: UpstreamProtocol) -> &Pool {
        match protocol {
            UpstreamProtocol::Http1 => &self.clear,
            UpstreamProtocol::H2c => &self.h2c,
            UpstreamProtocol::Https => &self.tls,
        }
    }

    fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
        for pool in [&self.clear, &self.h2c, &self.tls] {
            pool.clear();
        }
    }
}

/// Something that an endpoint has to do, beside requests.
pub(crate) struct Busy(Arc<Endpoint>);

impl Busy {
    pub(crate) fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.load.begin();
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.load.end();
    }
}

impl Load {
    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// A response began after this long. A lost update is one sample less.
    pub(crate) fn answered(&self, after: Duration) {
        let now = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let old = self.latency.load(Ordering::Relaxed);
        let new = if now > old { now } else { old - (old - now) / 8 };
        self.latency.store(new, Ordering::Relaxed);
    }

    /// What the next request is likely to cost there.
    fn cost(&self) -> u64 {
        let latency = self.latency.load(Ordering::Relaxed).max(1);
        latency.saturating_mul(u64::from(self.active()) + 1)
    }
}
