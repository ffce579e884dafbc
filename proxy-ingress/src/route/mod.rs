//! Routes as data: what a request must be like, and what is done with it.
//!
//! ```text
//!  Host ──▶ exact name ──▶ wildcard ──▶ any        host.rs    each may be asked in turn: the most specific first
//!              └──────────────┴─────────┘
//!  path ──▶ longest first, exact before prefix     trie.rs    on the one canonical form of it (path.rs)
//!              │
//!  method, headers, query                          predicate.rs
//!              ▼
//!  Route ──▶ filters, then forward, redirect or answer
//! ```
//!
//! What no route is for may have a default backend ([`PathMatch::Rest`]): those are asked when no host is left.
//!
//! Made for Ingress and for Gateway API's HTTPRoute alike, so it can say more than an Ingress can: methods, headers,
//! queries, several weighted backends.

#[cfg(test)]
mod agree;
pub mod explain;
pub mod host;
#[cfg(test)]
mod naive;
pub mod path;
pub mod predicate;
pub(crate) mod shards;
pub mod table;
#[cfg(test)]
mod tests;
mod trie;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proxy_model::ObjectName;

pub use table::{Asked, Found, Table};

/// A way for requests that look alike.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// Where it is written.
    pub origin: Origin,
    /// Names that it is for.
    pub host: HostMatch,
    /// Paths that it is for.
    pub path: PathMatch,
    /// What else a request must have; all of it.
    pub predicates: Vec<Predicate>,
    /// What is changed on the way, in this order.
    pub filters: Vec<Filter>,
    /// What is done with the request.
    pub action: Action,
    /// Limits and manners, shared by the routes of an object.
    pub policy: Arc<Policy>,
}

/// Where a route is written, and what decides between equals: the older object, then namespace and name, then the order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// Seconds since 1970 at which the object was created.
    pub created: i64,
    /// The object.
    pub object: ObjectName,
    /// Number of the rule in it.
    pub rule: u32,
    /// Number of the path or match in the rule.
    pub entry: u32,
}

/// The names that a route is for. Names are in lower case, without a final dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HostMatch {
    /// This name.
    Exact(Box<str>),
    /// All names that end in a dot and this.
    Wildcard {
        /// What follows `*.`.
        suffix: Box<str>,
        /// How much the star may stand for.
        depth: WildcardDepth,
    },
    /// Every name, and none.
    Any,
}

/// How many labels a `*` stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WildcardDepth {
    /// One: Ingress.
    One,
    /// One or more: Gateway API.
    Many,
}

/// The paths that a route is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathMatch {
    /// This one, byte by byte.
    Exact(Box<str>),
    /// This one and what is below it, element by element.
    Prefix(Box<str>),
    /// Whatever no route of another sort is for, of any host: a default backend.
    Rest,
}

/// Where an ACME server looks for answers, over clear text: RFC 8555, 8.3.
const ACME: &str = "/.well-known/acme-challenge/";

impl PathMatch {
    /// Whether it is for answers to an ACME server only.
    pub(crate) fn is_acme(&self) -> bool {
        self.text().starts_with(ACME)
    }
}

/// What a request must have beside host and path.
#[derive(Clone, PartialEq, Debug)]
pub enum Predicate {
    /// Its method.
    Method(http::Method),
    /// A header with a value.
    Header(http::HeaderName, ValueMatch),
    /// A query parameter with a value.
    Query(Box<str>, ValueMatch),
}

/// What a value must be like.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// These bytes.
    Exact(Box<[u8]>),
    /// An expression that fits somewhere in it, in linear time.
    Regex(regex::bytes::Regex),
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// What is changed in a request or its response.
#[derive(Clone, PartialEq, Debug)]
pub enum Filter {
    /// Headers of the request.
    RequestHeaders(HeaderEdits),
    /// Headers of the response.
    ResponseHeaders(HeaderEdits),
    /// The path that the backend sees: this instead of what matched.
    RewritePrefix(Box<str>),
    /// The path that the backend sees, as a whole.
    RewritePath(Box<str>),
    /// The host that the backend sees.
    RewriteHost(Box<str>),
}

/// Headers to remove, set and add, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderEdits {
    /// Removed.
    pub remove: Vec<http::HeaderName>,
    /// Set, whatever was there.
    pub set: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Added to what is there.
    pub add: Vec<(http::HeaderName, http::HeaderValue)>,
}

/// What is done with a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// It goes to one of these, as often as their weights say.
    Forward(Vec<Weighted>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here: a backend that cannot be, and what is wrong with it.
    Refuse {
        /// The status.
        status: http::StatusCode,
        /// Why, for `explain` and the access log; clients do not see it.
        why: Box<str>,
    },
}

/// A backend with its share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weighted {
    /// Share; none gets a request at 0.
    pub weight: u32,
    /// The port of a Service.
    pub backend: Backend,
}

/// A port of a Service, by its name there: the key of the endpoints ([`Self::port`] may differ from pod to pod).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Backend {
    /// The Service.
    pub service: ObjectName,
    /// Name of the port, as EndpointSlices have it; empty if it has none.
    pub port: Box<str>,
}

/// Where a client is sent. What is missing stays as it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: http::StatusCode,
    /// `http` or `https`.
    pub scheme: Option<http::uri::Scheme>,
    /// Another name.
    pub host: Option<Box<str>>,
    /// Another port; none is written where it is the scheme's own.
    pub port: Option<u16>,
    /// Another path.
    pub path: Option<Box<str>>,
}

/// Limits and manners of a route.
#[derive(Clone, PartialEq, Debug)]
pub struct Policy {
    /// Where TLS is declared, clear text is sent to it with this status.
    pub https_redirect: Option<http::StatusCode>,
    /// What backends speak, if their port does not say it (`appProtocol`).
    pub protocol: Option<UpstreamProtocol>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Until a connection to an endpoint stands, TLS included.
    pub connect_timeout: Duration,
    /// From the request's first byte sent to the response's first byte; none means for ever.
    pub response_timeout: Option<Duration>,
    /// Without a byte in either direction, once a response has begun.
    pub idle_timeout: Duration,
    /// The whole of it; none means for ever.
    pub request_timeout: Option<Duration>,
    /// When another endpoint is tried.
    pub retry: Retry,
    /// Bytes of a request's body; none means any number.
    pub body_limit: Option<u64>,
    /// Backends are given the certificate that a client has shown.
    pub pass_certificate: bool,
    /// How endpoints are asked how they are; of all routes to a backend the oldest that wants it says so.
    pub check: Option<HealthCheck>,
}

/// How endpoints are asked how they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// The path and query that is got; none: it is enough that they take a connection.
    pub path: Option<Box<str>>,
    /// What they speak, if their port does not say it.
    pub protocol: Option<UpstreamProtocol>,
    /// From one time to the next.
    pub interval: Duration,
    /// How long they may take.
    pub timeout: Duration,
    /// Good answers: the first and last status of each range.
    pub status: Vec<(u16, u16)>,
    /// So many good answers in a row, and it is well again.
    pub healthy: u32,
    /// So many bad ones in a row, and it is ill.
    pub unhealthy: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: None,
            protocol: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            status: vec![(200, 399)],
            healthy: 2,
            unhealthy: 3,
        }
    }
}

/// What a backend speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 in clear text.
    Http1,
    /// HTTP/2 in clear text, without an upgrade.
    H2c,
    /// TLS, and in it what both sides agree on.
    Https,
}

/// How an endpoint is chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests at work, of two drawn.
    LeastRequests,
    /// The one that answers fastest, of two drawn: peak EWMA.
    PeakEwma,
    /// By something that a request has.
    Hash(HashOn),
    /// Who came once comes back, by a cookie.
    Cookie(Cookie),
}

/// What is hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashOn {
    /// The client's address.
    Client,
    /// A header.
    Header(http::HeaderName),
    /// The path and query.
    Uri,
}

/// A cookie that names an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cookie {
    /// Its name.
    pub name: Box<str>,
    /// How long it lives; none means as long as the browser runs.
    pub max_age: Option<Duration>,
    /// `Path`.
    pub path: Box<str>,
    /// `Secure`.
    pub secure: bool,
}

/// When a request is tried again, at another endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retry {
    /// Tries in all.
    pub tries: u32,
    /// Also after a time-out, where nothing has come back.
    pub on_timeout: bool,
    /// Also for requests that are not idempotent and may have been seen by a backend.
    pub non_idempotent: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            https_redirect: None,
            protocol: None,
            balance: Balance::default(),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Some(Duration::from_secs(60)),
            idle_timeout: Duration::from_secs(60),
            request_timeout: None,
            retry: Retry {
                tries: 3,
                on_timeout: true,
                non_idempotent: false,
            },
            body_limit: None,
            pass_certificate: false,
            check: None,
        }
    }
}

/// What is known of an endpoint of a [`Backend`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Address and port of the pod.
    pub address: SocketAddr,
    /// Its zone.
    pub zone: Option<Box<str>>,
    /// It is going away, and gets requests only while all others are.
    pub terminating: bool,
}
