//! Why a request is not answered by a backend, and what the client is told: the status and its words, no more. A page
//! with names in it would tell strangers what runs here.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::body::ResponseBody;

/// Why.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// No `Host`, several, or one that is no name.
    Host,
    /// `Host` is not what the request line or `:authority` says.
    TwoHosts,
    /// A path without a canonical form.
    Path,
    /// Longer than [`crate::settings::Settings::uri_bytes`].
    LongUri,
    /// `transfer-encoding` that is not just `chunked`.
    Framing,
    /// `connection` names a header that is not the client's to remove.
    Nomination,
    /// CONNECT: this is no forward proxy.
    Connect,
    /// The connection was made for other names, or its client has not shown what this one wants to see.
    Misdirected,
    /// Nothing is at this name and path.
    NoRoute,
    /// The route says so.
    Route(StatusCode),
    /// The backend is not known, or has no endpoint that could be asked.
    NoEndpoint,
    /// No connection to any endpoint.
    Unreachable,
    /// The backend spoke no HTTP, or hung up before it answered.
    BadAnswer,
    /// The backend took too long.
    SlowAnswer,
    /// The client took too long to send its body.
    SlowBody,
    /// The body is longer than the route allows.
    LongBody,
    /// The client's body ended in an error.
    BrokenBody,
    /// More requests at work than [`crate::settings::Settings::requests`].
    Busy,
    /// Memory is short.
    Memory,
}

impl Refusal {
    /// What the client is told.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Host
            | Self::TwoHosts
            | Self::Path
            | Self::Framing
            | Self::Nomination
            | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::LongUri => StatusCode::URI_TOO_LONG,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Route(status) => status,
            Self::NoEndpoint | Self::Busy | Self::Memory => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::SlowAnswer => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::LongBody => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::TwoHosts => "two_hosts",
            Self::Path => "path",
            Self::LongUri => "long_uri",
            Self::Framing => "framing",
            Self::Nomination => "nomination",
            Self::Connect => "connect",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no_route",
            Self::Route(_) => "route",
            Self::NoEndpoint => "no_endpoint",
            Self::Unreachable => "unreachable",
            Self::BadAnswer => "bad_answer",
            Self::SlowAnswer => "slow_answer",
            Self::SlowBody => "slow_body",
            Self::LongBody => "long_body",
            Self::BrokenBody => "broken_body",
            Self::Busy => "busy",
            Self::Memory => "memory",
        }
    }

    /// After these the connection's next bytes may not be what they seem, so there are none.
    pub(crate) fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::TwoHosts
                | Self::Framing
                | Self::Nomination
                | Self::BrokenBody
                | Self::SlowBody
                | Self::LongBody
        )
    }

    /// The response.
    pub(crate) fn answer(self) -> Response<ResponseBody> {
        let status = self.status();
        let mut response = Response::new(ResponseBody::text(words(status)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn words(status: StatusCode) -> Bytes {
    Bytes::from_static(status.canonical_reason().unwrap_or_default().as_bytes())
}
