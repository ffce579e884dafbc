//! Answers over HTTP, to probes and scrapes: few clients, one short question each.
//!
//! ```text
//!  BindAddress ──▶ Port ──listen──▶ accept ──▶ one connection, one request ──▶ Pages ──▶ Page
//! ```
//!
//! A port that is taken costs its answers and nothing else: it is tried again.

mod listen;
mod serve;

pub use listen::{BindAddress, BindAddressError, is_without_ipv6, listen, listen_only};
pub use serve::{Port, accept};

use hyper::header::{HeaderName, HeaderValue};

/// What is answered at one port.
pub trait Pages: Send + Sync + 'static {
    /// The answer to GET, and without its body to HEAD. The path has no query.
    fn page(&self, path: &str) -> impl Future<Output = Page> + Send;
}

/// An answer before it is HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status.
    pub code: u16,
    /// `content-type`
    pub kind: &'static str,
    /// Headers beside that.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is shown.
    pub body: String,
}

impl Page {
    /// Plain text, for people.
    pub fn text(code: u16, body: impl Into<String>) -> Self {
        Self::new(code, "text/plain; charset=utf-8", body.into())
    }

    /// JSON, which the body is already.
    pub fn json(code: u16, body: String) -> Self {
        Self::new(code, "application/json", body)
    }

    /// What a scrape reads.
    pub fn metrics(body: String) -> Self {
        Self::new(200, prometheus::TEXT_FORMAT, body)
    }

    /// The page with one header more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn new(code: u16, kind: &'static str, body: String) -> Self {
        Self {
            code,
            kind,
            headers: Vec::new(),
            body,
        }
    }
}
