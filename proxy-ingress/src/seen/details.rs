//! What is kept of a request for a line or a span. Copies of headers share their bytes with the request.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::{Method, Request, Uri, Version};
use rustls::ProtocolVersion;

use crate::access::line::Facts;
use crate::trace::Part;
use crate::trace::context::{self, Came};
use crate::trace::spans::Trace;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is kept.
pub(super) struct Details {
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    /// The client's, or the one that was made for the backend.
    request_id: OnceCell<HeaderValue>,
    /// Who was asked last.
    pub(super) endpoint: Cell<Option<SocketAddr>>,
    /// When it answered, since the head, and what.
    pub(super) answered: Cell<Option<(Duration, u16)>>,
    pub(super) retries: Cell<u32>,
    pub(super) refusal: Cell<Option<&'static str>>,
    /// The trace that it belongs to.
    trace_id: Option<u128>,
    /// If spans of it are wanted.
    trace: Option<RefCell<Trace>>,
}

impl Details {
    /// Of a request as it came.
    pub(super) fn of<B>(request: &Request<B>, sampled: Option<Part>) -> Self {
        let headers = request.headers();
        let came = match context::of(headers) {
            Came::Of(context) => Some(context.trace),
            Came::Nothing | Came::Nonsense => None,
        };
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: headers.get(HOST).cloned(),
            user_agent: headers.get(USER_AGENT).cloned(),
            referer: headers.get(REFERER).cloned(),
            request_id: headers
                .get(REQUEST_ID)
                .cloned()
                .map_or_else(OnceCell::new, OnceCell::from),
            endpoint: Cell::new(None),
            answered: Cell::new(None),
            retries: Cell::new(0),
            refusal: Cell::new(None),
            trace_id: came,
            trace: sampled.map(|part| RefCell::new(Trace::new(part, headers))),
        }
    }

    /// These headers go to the backend.
    pub(super) fn sends(&self, headers: &HeaderMap) {
        if let Some(id) = headers.get(REQUEST_ID) {
            let _first = self.request_id.set(id.clone());
        }
    }

    /// Does something with the trace, if there is one to be told of.
    pub(super) fn trace(&self, with: impl FnOnce(&mut Trace)) {
        if let Some(trace) = &self.trace {
            with(&mut trace.borrow_mut());
        }
    }

    /// What it comes to.
    pub(super) fn facts(&self) -> Facts<'_> {
        let authority = self
            .uri
            .authority()
            .map(|authority| authority.as_str().as_bytes());
        let answered = self.answered.get();
        Facts {
            method: self.method.as_str(),
            host: authority.or(self.host.as_ref().map(HeaderValue::as_bytes)),
            path: self.uri.path(),
            query: self.uri.query(),
            protocol: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            endpoint: self.endpoint.get(),
            answered: answered.map(|(after, _)| after),
            upstream_status: answered.map(|(_, status)| status),
            retries: self.retries.get(),
            request_id: self.request_id.get().map(HeaderValue::as_bytes),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            refusal: self.refusal.get(),
            trace: self.trace_id,
            ..Facts::default()
        }
    }
}

/// A version of TLS, as it is written in a line.
pub(super) fn version(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        _ => None,
    }
}
