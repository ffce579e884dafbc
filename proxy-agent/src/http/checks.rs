//! Health check node ports: a server for each, as the Services ask for them.
//!
//! ```text
//!  the loop ──sockets──▶ Keeper ──▶ listen, answer, close
//!     ▲                    └─ cannot listen ─▶ a sentence about that one Service, and a new try after 1 s, 2 s, … 5 s
//!     └────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use proxy_daemon::http::{Page, Pages, accept, is_without_ipv6, listen_only};
use proxy_model::{Kind, LocalEndpoints, ObjectName, Problem, Reason};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::health::Health;

const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A program that leaves the port to us, kube-proxy for one, shall not be missed for long.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How many endpoints a load balancer finds here.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Where to listen, and what to tell there.
pub type Sockets = BTreeMap<SocketAddr, LocalEndpoints>;
/// Why Services are not answered for.
pub type Refused = BTreeMap<ObjectName, String>;

/// The loop's side.
#[derive(Debug)]
pub struct ServiceChecks {
    wanted: watch::Sender<Sockets>,
    refused: watch::Receiver<Refused>,
}

impl ServiceChecks {
    /// All that Services ask for, in place of what they asked for before.
    pub fn want(&self, sockets: Sockets) {
        self.wanted.send_if_modified(|wanted| {
            let different = *wanted != sockets;
            *wanted = sockets;
            different
        });
    }

    /// What went wrong.
    pub fn problems(&self) -> Vec<Problem> {
        let refused = self.refused.borrow();
        let problem = |(service, what): (&ObjectName, &String)| {
            Problem::new(Kind::Service, service, what).because(Reason::FailedToStartServiceHealthcheck)
        };
        refused.iter().map(problem).collect()
    }

    /// Tells when something else goes wrong, or something no longer does.
    pub fn news(&self) -> watch::Receiver<Refused> {
        self.refused.clone()
    }
}

/// Both sides; the second does the work once it is run.
pub fn service_checks(health: Arc<Health>) -> (ServiceChecks, Keeper) {
    let (wanted, asked) = watch::channel(Sockets::new());
    let (told, refused) = watch::channel(Refused::new());
    let keeper = Keeper {
        asked,
        told,
        health,
        open: BTreeMap::new(),
        failed: BTreeMap::new(),
    };
    (ServiceChecks { wanted, refused }, keeper)
}

/// The servers' side.
#[derive(Debug)]
pub struct Keeper {
    asked: watch::Receiver<Sockets>,
    told: watch::Sender<Refused>,
    health: Arc<Health>,
    open: BTreeMap<SocketAddr, Server>,
    failed: BTreeMap<SocketAddr, Failure>,
}

#[derive(Debug)]
struct Server {
    check: Arc<Check>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Failure {
    why: String,
    wait: Duration,
    due: Instant,
}

/// What one server tells.
#[derive(Debug)]
struct Check {
    health: Arc<Health>,
    local: Mutex<LocalEndpoints>,
}

/// Whatever the path: the local endpoints of the Service.
impl Pages for Check {
    fn page(&self, _path: &str) -> impl Future<Output = Page> + Send {
        let (local, works) = self.answer();
        let code = if works && local.count > 0 { 200 } else { 503 };
        let page = Page::json(code, body(&local, works));
        ready(page.with(WEIGHT, HeaderValue::from(local.count)))
    }
}

impl Check {
    /// The endpoints, and whether the proxy works.
    fn answer(&self) -> (LocalEndpoints, bool) {
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        (local.clone(), self.health.works(clock::monotonic()))
    }

    fn set(&self, local: &LocalEndpoints) {
        self.local
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(local);
    }
}

/// kube-proxy's words, to the tab.
fn body(local: &LocalEndpoints, works: bool) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let (namespace, name) = (text(&local.service.namespace), text(&local.service.name));
    let count = local.count;
    format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace},\n\t\t\"name\": {name}\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {works}\n}}"
    )
}

impl Keeper {
    /// Keeps the servers for as long as somebody can ask for any.
    pub(super) async fn forever(mut self) {
        loop {
            let sockets = self.asked.borrow_and_update().clone();
            self.keep(&sockets, Instant::now()).await;
            self.tell(&sockets);
            let due = self.failed.values().map(|failure| failure.due).min();
            tokio::select! {
                changed = self.asked.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    async fn keep(&mut self, sockets: &Sockets, now: Instant) {
        self.failed.retain(|at, _| sockets.contains_key(at));
        let gone = self.open.extract_if(.., |at, _| !sockets.contains_key(at));
        // Only with its task is a listener gone, and its port free for another address.
        for (at, server) in gone.collect::<Vec<_>>() {
            server.task.abort();
            drop(server.task.await);
            tracing::debug!("no longer answering at the health check node port {at}");
        }
        for (at, local) in sockets {
            if let Some(server) = self.open.get(at) {
                server.check.set(local);
            } else if self.failed.get(at).is_none_or(|failure| failure.due <= now) {
                self.open(*at, local, now);
            }
        }
    }

    fn open(&mut self, at: SocketAddr, local: &LocalEndpoints, now: Instant) {
        match listen_only(at) {
            Ok(listener) => {
                tracing::debug!(
                    "answering at the health check node port {at} of {}",
                    local.service
                );
                let server = self.serve(listener, local);
                self.open.insert(at, server);
                self.failed.remove(&at);
            }
            // Where nobody can ask, nobody has to be told.
            Err(error) if at.ip().is_unspecified() && is_without_ipv6(&error) => {}
            Err(error) => {
                let before = self.failed.get(&at).map(|failure| failure.wait * 2);
                let wait = before.unwrap_or(FIRST_WAIT).min(LONGEST_WAIT);
                let failure = Failure {
                    why: complaint(at, &error),
                    wait,
                    due: now + wait,
                };
                self.failed.insert(at, failure);
            }
        }
    }

    fn serve(&self, listener: TcpListener, local: &LocalEndpoints) -> Server {
        let check = Arc::new(Check {
            health: Arc::clone(&self.health),
            local: Mutex::new(local.clone()),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&check)));
        Server { check, task }
    }

    fn tell(&self, sockets: &Sockets) {
        let mut refused = Refused::new();
        for (at, failure) in &self.failed {
            if let Some(local) = sockets.get(at) {
                // Its other addresses have most likely the same trouble.
                refused
                    .entry(local.service.clone())
                    .or_insert_with(|| failure.why.clone());
            }
        }
        self.told.send_if_modified(|told| {
            let different = *told != refused;
            *told = refused;
            different
        });
    }
}

fn complaint(at: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "end the program that listens there (kube-proxy?), or choose another healthCheckNodePort"
        }
        _ => "choose another healthCheckNodePort",
    };
    format!(
        "healthCheckNodePort {} cannot be answered at {} of this node ({error}): load balancers take the node for one \
         without endpoints, and it is tried again; {hint}",
        at.port(),
        at.ip(),
    )
}

#[cfg(test)]
mod tests;
