//! When another endpoint is tried: only if the first cannot have done anything, or doing it twice is no harm.

use http::{HeaderMap, Method, Request, Uri, Version};

use super::Endpoint;
use crate::body::RequestBody;
use crate::route::Retry;

/// The tries of a request.
pub(crate) struct Tries<'a> {
    policy: &'a Retry,
    made: u32,
    tried: Vec<u64>,
    /// The same endpoint was asked again, after a kept connection turned out to be dead.
    renewed: bool,
    /// A second time does no harm.
    repeatable: bool,
}

/// What a request is made of, to be sent once more.
pub(crate) struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(policy: &'a Retry, method: &Method, has_body: bool) -> Self {
        Self {
            policy,
            made: 0,
            tried: Vec::new(),
            renewed: false,
            // A body may have been read, and is not kept for a second time.
            repeatable: !has_body && (method.is_idempotent() || policy.non_idempotent),
        }
    }

    /// Endpoints that failed.
    pub(crate) fn tried(&self) -> &[u64] {
        &self.tried
    }

    /// What it takes to send the request again after it was sent, if that is allowed.
    pub(crate) fn spare(&self, request: &Request<RequestBody>, reused: bool) -> Option<Spare> {
        let may = self.made + 1 < self.policy.tries || reused && !self.renewed;
        (self.repeatable && may).then(|| Spare {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    /// The endpoint failed; whether another may be tried.
    pub(crate) fn failed(&mut self, endpoint: &Endpoint) -> bool {
        self.made += 1;
        self.tried.push(endpoint.key);
        self.made < self.policy.tries
    }

    /// The endpoint took too long; whether another may be tried.
    pub(crate) fn timed_out(&mut self, endpoint: &Endpoint) -> bool {
        self.policy.on_timeout && self.failed(endpoint)
    }

    /// A kept connection was closed by the endpoint before it said anything: that is a race and no fault, so a new
    /// connection to the same endpoint is tried, once.
    pub(crate) fn renew(&mut self) -> bool {
        !std::mem::replace(&mut self.renewed, true)
    }
}

impl Spare {
    /// The request once more.
    pub(crate) fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        *request.version_mut() = Version::HTTP_11;
        request
    }
}
