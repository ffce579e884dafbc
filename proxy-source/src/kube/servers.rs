//! The API servers of one cluster: one is asked until it fails, then the next.
//!
//! ```text
//!  named by the user ─────────────────────────┐
//!  told by the EndpointSlice `kubernetes` ────┼──▶ known, in this order ──▶ one is asked
//!  the ClusterIP, if nothing else is named ───┘
//! ```
//!
//! A request that fails goes to the next server at once, and a watch is resumed there where it was: all servers of a
//! cluster count versions alike. So as long as one answers, nobody notices. The one that answered last stays: nobody
//! returns to the first by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use kube::client::Body;
use kube::{Client, Config, Error};
use proxy_model::api::ApiEndpointSlice;
use proxy_model::{Change, Kind, Object, ObjectName};
use tokio::time::timeout;
use tower::{BoxError, Service};

use super::connection;
use crate::Metrics;
use crate::error::chain;

/// In every API server's certificate: pods know it by this name.
const NAME: &str = "kubernetes.default.svc";
/// The first byte of an answer; a server that takes longer is left, if there is another.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// All of them; clones are the same.
#[derive(Clone)]
pub(super) struct Servers {
    shared: Arc<Shared>,
}

struct Shared {
    /// How to talk to each; the address is each one's own.
    template: Config,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    /// In the order in which they are tried; never empty.
    known: Vec<Server>,
    /// Position of the one that is asked.
    current: usize,
    /// What each slice tells.
    told: BTreeMap<ObjectName, Vec<SocketAddr>>,
}

#[derive(Clone)]
struct Server {
    rank: Rank,
    /// Host and port.
    host: String,
    client: Client,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Named,
    Told,
    /// A ClusterIP is served by weir itself: nobody mends that but through another address.
    LastResort,
}

type Answer = Result<Response<Body>, Error>;

impl Servers {
    /// Those that the user names, in an order that `turn` begins; without any, the one of the configuration.
    pub(super) fn new(
        template: Config,
        named: &[Uri],
        last_resort: bool,
        turn: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let rank = if last_resort {
            Rank::LastResort
        } else {
            Rank::Named
        };
        let mut known = Vec::new();
        for url in named {
            known.push(server(Rank::Named, &at(&template, url))?);
        }
        if known.is_empty() {
            known.push(server(rank, &template)?);
        }
        let state = State {
            current: turn % known.len(),
            known,
            told: BTreeMap::new(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                template,
                metrics,
                state: Mutex::new(state),
            }),
        })
    }

    /// A client whose requests go to whichever server answers.
    pub(super) fn client(&self) -> Client {
        Client::new(self.clone(), self.shared.template.default_namespace.clone())
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let state = self.state();
        let hosts: Vec<&str> = state.known.iter().map(|server| server.host.as_str()).collect();
        hosts.join(", ")
    }

    /// Remembers where the API servers are, if this tells it.
    pub(super) fn learn(&self, changes: &[Change]) {
        let mut state = self.state();
        let before = state.told.clone();
        for change in changes {
            state.hear(change);
        }
        if state.told != before {
            self.shared.admit(&mut state);
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        // All that weir writes may be sent again: an Event or a status says the same, and a Lease names the version that
        // it replaces.
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let servers = self.beginning_with_current();
        let alone = servers.len() == 1;
        let mut failed: Option<Answer> = None;
        let mut reasons: Vec<String> = Vec::new();
        for server in servers {
            let answer = self.ask(&server, (&parts, &body), alone).await;
            if let Some(why) = failure(&answer) {
                tracing::debug!("API server {}: {why}", server.host);
                failed = failed.or(Some(answer));
                reasons.push(format!("{}: {why}", server.host));
                continue;
            }
            if let Some(why) = reasons.first() {
                self.settle_on(&server.host, why);
            }
            return answer;
        }
        match failed {
            // With the address: whoever reads it must know which way to look.
            Some(Err(_)) => Err(Error::Service(reasons.join("; ").into())),
            Some(answer) => answer,
            None => Err(Error::Service("no API server is known".into())),
        }
    }

    async fn ask(&self, server: &Server, (parts, body): (&Parts, &Bytes), alone: bool) -> Answer {
        let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let request = server.client.send(request);
        let limit = if alone { Duration::MAX } else { ANSWERS_WITHIN };
        let silence = |_| Err(Error::Service(format!("no answer within {limit:?}").into()));
        let answer = timeout(limit, request).await.unwrap_or_else(silence);
        self.count(server, &parts.method, &answer);
        answer
    }

    fn count(&self, server: &Server, method: &Method, answer: &Answer) {
        let code = match answer {
            Ok(response) => response.status().as_str().to_owned(),
            Err(_) => "<error>".to_owned(),
        };
        let labels = [code.as_str(), method.as_str(), server.host.as_str()];
        self.shared.metrics.requested(labels);
    }

    /// The one that is asked, and those that come after it.
    fn beginning_with_current(&self) -> Vec<Server> {
        let state = self.state();
        let (before, from) = state.known.split_at(state.current.min(state.known.len()));
        from.iter().chain(before).cloned().collect()
    }

    fn settle_on(&self, host: &str, why: &str) {
        let mut state = self.state();
        let before = state.host().to_owned();
        // Another request may have found it first.
        if before != host && state.make_current(host) {
            tracing::info!("the API server does not answer ({why}): asking {host}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Request<Body>> for Servers {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let servers = self.clone();
        Box::pin(async move { servers.send(request).await.map_err(Into::into) })
    }
}

impl Shared {
    /// Makes the list new. Addresses that were told stay until others are: when all API servers are gone, so is the
    /// slice, and these are where they will come back.
    fn admit(&self, state: &mut State) {
        let mut told: Vec<SocketAddr> = state.told.values().flatten().copied().collect();
        told.sort_unstable();
        told.dedup();
        if told.is_empty() {
            return;
        }
        let scheme = self.template.cluster_url.scheme_str().unwrap_or("https");
        let mut known: Vec<Server> = Vec::new();
        for server in &state.known {
            let still = told.iter().any(|address| address.to_string() == server.host);
            if server.rank != Rank::Told || still {
                known.push(server.clone());
            }
        }
        for address in told {
            if known.iter().all(|server| server.host != address.to_string())
                && let Ok(url) = format!("{scheme}://{address}").parse()
                && let Ok(new) = server(Rank::Told, &at(&self.template, &url))
            {
                known.push(new);
            }
        }
        known.sort_by_key(|server| server.rank);
        let host = state.host().to_owned();
        state.known = known;
        if !state.make_current(&host) {
            state.current = 0;
        }
        tracing::debug!("the API servers are {:?}", state.told);
    }
}

impl State {
    fn host(&self) -> &str {
        self.known.get(self.current).map_or("", |server| &server.host)
    }

    /// Whether it is known.
    fn make_current(&mut self, host: &str) -> bool {
        let position = self.known.iter().position(|server| server.host == host);
        self.current = position.unwrap_or(self.current);
        position.is_some()
    }

    fn hear(&mut self, change: &Change) {
        match change {
            Change::Put(object) => self.hear_object(object),
            Change::Replace(Kind::EndpointSlice, list) => {
                self.told.clear();
                for object in list {
                    self.hear_object(object);
                }
            }
            Change::Delete(Kind::EndpointSlice, name) => drop(self.told.remove(name)),
            _ => {}
        }
    }

    fn hear_object(&mut self, object: &Object) {
        if let Object::EndpointSlice(slice) = object {
            let name = object.name();
            if name.namespace == "default"
                && slice.metadata.label("kubernetes.io/service-name") == Some("kubernetes")
            {
                self.told.insert(name, addresses(slice));
            }
        }
    }
}

/// Where the ready endpoints of a slice are.
fn addresses(slice: &ApiEndpointSlice) -> Vec<SocketAddr> {
    let mut ports = slice.ports.iter().flatten();
    let https = ports.find(|port| matches!(port.name.as_deref(), Some("https") | None));
    let Some(port) = https.and_then(|port| u16::try_from(port.port?).ok()) else {
        return Vec::new();
    };
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let parse = |address: &String| Some(SocketAddr::new(address.parse().ok()?, port));
    ready
        .filter_map(|endpoint| parse(endpoint.addresses.as_ref()?.first()?))
        .collect()
}

/// The same configuration for another address. A name must be in the certificate; an address need not be, as the
/// certificate of every API server has [`NAME`].
fn at(template: &Config, url: &Uri) -> Config {
    let mut config = template.clone();
    config.cluster_url = url.clone();
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    if host.parse::<std::net::IpAddr>().is_ok() && config.tls_server_name.is_none() {
        config.tls_server_name = Some(NAME.to_owned());
    }
    config
}

fn server(rank: Rank, config: &Config) -> Result<Server, Error> {
    let url = &config.cluster_url;
    let host = url.host().unwrap_or_default();
    let port = url
        .port_u16()
        .unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    Ok(Server {
        rank,
        host: format!("{host}:{port}"),
        client: connection::client(config)?,
    })
}

/// Why another server should be asked, if this one's answer says so.
fn failure(answer: &Answer) -> Option<String> {
    match answer {
        Err(error) => Some(chain(error)),
        Ok(response) => {
            let unable = [
                StatusCode::INTERNAL_SERVER_ERROR,
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ];
            let status = response.status();
            unable.contains(&status).then(|| status.to_string())
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls;
