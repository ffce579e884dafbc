//! What is seen of a request, from its head to the last piece of the response, and then told: to the worker's tally, and to
//! the access log.
//!
//! It goes where the request's [`crate::tend::Work`] goes, and ends with it, however that comes: whole, refused, given up by
//! the client, or broken off by the backend.

mod details;

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use self::details::Details;
use crate::access::line::Facts;
use crate::body::{ResponseBody, Transfer};
use crate::clock;
use crate::metrics::tally::{self, ABORTS, class};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::serve::Client;
use crate::upstream::Lease;
use crate::upstream::connect::ConnectError;

/// What a client that left before it was answered gets in the books: nobody sees it, and everybody knows it from nginx.
const GONE: u16 = 499;

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// All of the response was handed on.
    Whole,
    /// The client left.
    Client,
    /// The backend broke off.
    Backend,
    /// It took too long, or nothing came for too long.
    Timeout,
}

impl End {
    /// Its place in [`ABORTS`].
    fn place(self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Client => Some(0),
            Self::Backend => Some(1),
            Self::Timeout => Some(2),
        }
    }
}

/// A request.
pub(crate) struct Seen {
    client: Rc<Client>,
    begun: Instant,
    http2: bool,
    /// 0 until there is one.
    status: Cell<u16>,
    end: Cell<End>,
    sent: Cell<u64>,
    received: Cell<u64>,
    transfer: OnceCell<Arc<Transfer>>,
    /// Only if somebody wants to know.
    route: OnceCell<Arc<Route>>,
    /// What only a line or a span tells.
    details: Option<Box<Details>>,
}

impl Seen {
    /// A head was read.
    pub(crate) fn begin(client: &Rc<Client>, request: &mut Request<Incoming>) -> Self {
        let worker = &client.worker;
        let tracer = worker.telling.tracer.as_ref();
        let part = tracer.and_then(|tracer| tracer.part(request.headers_mut(), &worker.random));
        let sampled = part.filter(|part| part.context.is_sampled());
        let wanted = sampled.is_some() || worker.telling.log.is_some();
        let details = wanted.then(|| Box::new(Details::of(request, sampled)));
        Self {
            client: Rc::clone(client),
            begun: Instant::now(),
            http2: request.version() > Version::HTTP_11,
            status: Cell::new(0),
            end: Cell::new(End::Whole),
            sent: Cell::new(0),
            received: Cell::new(0),
            transfer: OnceCell::new(),
            route: OnceCell::new(),
            details,
        }
    }

    /// The client sends a body.
    pub(crate) fn uploads(&self, transfer: Option<&Arc<Transfer>>) {
        if let Some(transfer) = transfer {
            let _first = self.transfer.set(Arc::clone(transfer));
        }
    }

    /// This is what is done with it.
    pub(crate) fn routed(&self, route: &Arc<Route>) {
        if self.details.is_some() || self.client.worker.shared.hosts.is_some() {
            let _first = self.route.set(Arc::clone(route));
        }
    }

    /// These headers go to the backend.
    pub(crate) fn sends(&self, headers: &HeaderMap) {
        if let Some(details) = &self.details {
            details.sends(headers);
        }
    }

    /// An endpoint is asked.
    pub(crate) fn asks(&self, endpoint: SocketAddr) {
        if let Some(details) = &self.details {
            details.endpoint.set(Some(endpoint));
            let (random, begun) = (&self.client.worker.random, self.begun);
            details.trace(|trace| trace.asks(endpoint, begun, random));
        }
    }

    /// There is a connection to it, on which this is sent.
    pub(crate) fn names_parent(&self, headers: &mut HeaderMap) {
        if let Some(details) = &self.details {
            details.trace(|trace| trace.names_parent(headers));
        }
    }

    /// It did not answer.
    pub(crate) fn fails(&self, why: &'static str) {
        if let Some(details) = &self.details {
            details.trace(|trace| trace.over(self.begun.elapsed(), Err(why)));
        }
    }

    /// A connection to it was wanted.
    pub(crate) fn connected(&self, result: &Result<Lease, ConnectError>) {
        let tally = &self.client.worker.tally;
        match result {
            Ok(lease) if lease.is_reused() => tally.reused.one(),
            Ok(_) => tally.connected(None),
            Err(error) => {
                tally.connected(Some(error));
                self.fails("connect");
            }
        }
    }

    /// It is sent once more.
    pub(crate) fn retried(&self) {
        self.client.worker.tally.retries.one();
        if let Some(details) = &self.details {
            details.retries.set(details.retries.get() + 1);
        }
    }

    /// The backend's head is there.
    pub(crate) fn answered(&self, status: StatusCode) {
        let after = self.begun.elapsed();
        self.client.worker.tally.answered.observe(after);
        if let Some(details) = &self.details {
            details.answered.set(Some((after, status.as_u16())));
            details.trace(|trace| trace.over(after, Ok(status.as_u16())));
        }
        self.status(status);
    }

    /// The ingress answers it itself, with an error.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.client.worker.tally.refuse(refusal);
        if let Some(details) = &self.details {
            details.refusal.set(Some(refusal.name()));
        }
    }

    /// What the client gets from us, as a whole.
    pub(crate) fn answers(&self, status: StatusCode, body: &ResponseBody) {
        self.status(status);
        let length = http_body::Body::size_hint(body).exact();
        self.sent.set(length.unwrap_or(0));
    }

    /// What the client is told.
    pub(crate) fn status(&self, status: StatusCode) {
        self.status.set(status.as_u16());
    }

    /// So much of a body is handed to the client's connection.
    pub(crate) fn sent(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.sent.set(self.sent.get().saturating_add(bytes));
    }

    /// A tunnel carried this from the client, and this to it.
    pub(crate) fn carried(&self, (received, sent): (u64, u64)) {
        self.received.set(received);
        self.sent.set(sent);
    }

    /// It does not end well.
    pub(crate) fn ends(&self, end: End) {
        self.end.set(end);
    }

    /// The client left before the end.
    pub(crate) fn given_up(&self, too_often: bool) {
        self.end.set(End::Client);
        if too_often {
            self.client.worker.tally.limited(tally::Limit::GivenUp);
        }
    }

    fn count(&self, took: Duration, facts: (u16, u64, u64)) {
        let (status, received, sent) = facts;
        let worker = &self.client.worker;
        let tally = &worker.tally;
        let class = class(status);
        if let Some(count) = tally.requests(self.http2, self.client.shown.is_some(), class) {
            count.one();
        }
        tally.duration.observe(took);
        tally.received.add(received);
        tally.sent.add(sent);
        if let Some(place) = self.end.get().place() {
            tally::one(&tally.aborted, place);
        }
        if let Some(hosts) = &worker.shared.hosts {
            let host = self.route.get().map(|route| &route.host);
            hosts.count(worker.id, host, class);
        }
    }

    fn facts<'a>(&'a self, details: &'a Details, took: Duration) -> Facts<'a> {
        let shown = self.client.shown.as_ref();
        let aborted = self
            .end
            .get()
            .place()
            .and_then(|place| ABORTS.get(place).copied());
        Facts {
            time: clock::wall().saturating_sub(took),
            took,
            client: Some(self.client.address),
            scheme: if shown.is_some() { "https" } else { "http" },
            route: self.route.get().map(AsRef::as_ref),
            tls: shown.and_then(|shown| shown.version).and_then(details::version),
            sni: shown.and_then(|shown| shown.name()),
            aborted,
            ..details.facts()
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let status = match self.status.get() {
            0 => GONE,
            status => status,
        };
        let uploaded = self.transfer.get().map_or(0, |transfer| transfer.received());
        let (received, sent) = (self.received.get() + uploaded, self.sent.get());
        self.count(took, (status, received, sent));
        let Some(details) = &self.details else {
            return;
        };
        let facts = Facts {
            status,
            received,
            sent,
            ..self.facts(details, took)
        };
        let worker = &self.client.worker;
        if let Some(log) = &worker.telling.log {
            log.tell(&facts, &worker.random);
        }
        if let Some(tracer) = &worker.telling.tracer {
            details.trace(|trace| tracer.tell(trace.spans(&facts)));
        }
    }
}
