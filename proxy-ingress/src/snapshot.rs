//! What the ingress serves at a moment: one immutable value that workers read without a lock, and that is replaced as a
//! whole. Endpoints change far more often than routes; they are swapped inside [`Upstream`], and the snapshot stays.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::certificates::Certificates;
use crate::route::{Backend, Route};
use crate::settings::Settings;
use crate::upstream::Upstream;

/// Routes, and where they lead.
pub struct Snapshot {
    /// Who is asked for what.
    pub routes: Box<dyn Routing>,
    /// What is behind the backends that routes name.
    pub backends: HashMap<Backend, Arc<Upstream>>,
    /// For HTTPS.
    pub certificates: Arc<Certificates>,
    /// The limits of new connections and requests.
    pub settings: Arc<Settings>,
}

/// What a request is matched by.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The name, in its canonical form.
    pub host: Option<&'a str>,
    /// The path, in its canonical form.
    pub path: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The headers, as they came.
    pub headers: &'a HeaderMap,
    /// What follows `?`.
    pub query: Option<&'a str>,
}

/// The table of routes, as the proxy sees it.
pub trait Routing: Send + Sync {
    /// The route for such a request.
    fn find(&self, asked: &Asked<'_>) -> Option<Arc<Route>>;

    /// The one form of a path in which it is matched and forwarded; none if it has no such form, and is refused.
    fn canonical_path<'a>(&self, path: &'a str) -> Option<Cow<'a, str>>;

    /// The name in a `Host` header or `:authority`, without its port; none if it is no name, and is refused.
    fn canonical_host<'a>(&self, host: &'a str) -> Option<Cow<'a, str>>;
}
