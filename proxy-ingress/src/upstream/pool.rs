//! Connections that are kept for an endpoint. Each worker has a slot of its own; another's is only looked into where many
//! connections are open already, because a borrowed one wakes two threads per request.
//!
//! What comes back: an HTTP/1.1 connection whose response was read to its end and that hyper calls ready, and never one
//! that saw an upgrade (CVE-2026-2833: the next request on it would be somebody else's bytes). HTTP/2 connections are shared
//! while they last.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::Endpoint;
use crate::body::RequestBody;
use crate::route::UpstreamProtocol;

/// A connection that has not become ready so long after its response was whole is not worth the wait.
const READY: Duration = Duration::from_secs(1);

/// The connections of one protocol.
pub(super) struct Pool {
    slots: Box<[Slot]>,
    /// Connections that are open, idle or not.
    pub(super) open: AtomicUsize,
    /// Whether a TLS endpoint chose HTTP/2, as far as is known.
    pub(super) chose_http2: AtomicBool,
}

/// Of a worker. On a cache line of its own: the lock is taken for each request, and nearly always by that worker.
#[repr(align(128))]
#[derive(Default)]
struct Slot {
    idle: Mutex<VecDeque<Idle>>,
    shared: Mutex<Vec<Shared>>,
    /// One opens an HTTP/2 connection, the others wait for it. Whoever holds it has a deadline.
    opening: tokio::sync::Mutex<()>,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// An HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) streams: Arc<Streams>,
}

/// The streams of an HTTP/2 connection.
pub(super) struct Streams {
    open: AtomicUsize,
    /// What the endpoint allows; the task of the connection keeps it.
    pub(super) limit: AtomicUsize,
}

impl Shared {
    pub(super) fn new(sender: http2::SendRequest<RequestBody>, limit: usize) -> Self {
        let streams = Streams {
            open: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        };
        Self {
            sender,
            streams: Arc::new(streams),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            slots: (0..workers.max(1)).map(|_| Slot::default()).collect(),
            open: AtomicUsize::new(0),
            chose_http2: AtomicBool::new(false),
        }
    }

    /// An idle connection, and whose it is.
    pub(super) fn take(
        &self,
        worker: usize,
        borrow_above: usize,
    ) -> Option<(http1::SendRequest<RequestBody>, usize)> {
        if let Some(own) = self.slots.get(worker).and_then(Slot::take) {
            return Some((own, worker));
        }
        if self.open.load(Ordering::Relaxed) < borrow_above {
            return None;
        }
        let others = self
            .slots
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != worker);
        others
            .into_iter()
            .find_map(|(other, slot)| Some((slot.take()?, other)))
    }

    /// A stream on a connection that has room, the fullest first, so that the others can end.
    pub(super) fn join(&self, worker: usize, streams: usize) -> Option<Shared> {
        let mut shared = lock(&self.slots.get(worker)?.shared);
        shared.retain(|connection| !connection.sender.is_closed());
        let room = |connection: &&Shared| {
            let limit = connection
                .streams
                .limit
                .load(Ordering::Relaxed)
                .min(streams)
                .max(1);
            connection.streams.open.load(Ordering::Relaxed) < limit
        };
        let found = shared.iter().find(room)?.clone();
        found.streams.open.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// Keeps a new HTTP/2 connection, with a stream taken on it; not if there are that many.
    pub(super) fn share(&self, worker: usize, connection: &Shared, most: usize) {
        connection.streams.open.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.slots.get(worker) {
            let mut shared = lock(&slot.shared);
            if shared.len() < most {
                shared.push(connection.clone());
            }
        }
    }

    /// The right to open an HTTP/2 connection.
    pub(super) async fn opening(&self, worker: usize) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        Some(self.slots.get(worker)?.opening.lock().await)
    }

    fn keep(&self, worker: usize, sender: http1::SendRequest<RequestBody>, most: usize) {
        let Some(slot) = self.slots.get(worker) else {
            return;
        };
        let since = Instant::now();
        let mut idle = lock(&slot.idle);
        if idle.len() < most {
            idle.push_back(Idle { sender, since });
        }
    }

    /// Closes what a worker has kept for longer than this.
    pub(super) fn sweep(&self, worker: usize, older_than: Duration) {
        let Some(slot) = self.slots.get(worker) else {
            return;
        };
        let mut idle = lock(&slot.idle);
        while idle
            .front()
            .is_some_and(|oldest| oldest.since.elapsed() > older_than || oldest.sender.is_closed())
        {
            idle.pop_front();
        }
        lock(&slot.shared).retain(|connection| !connection.sender.is_closed());
    }

    pub(super) fn clear(&self) {
        for slot in &self.slots {
            lock(&slot.idle).clear();
            lock(&slot.shared).clear();
        }
    }
}

impl Slot {
    /// The one that was used last: it is the least likely to be closed by now.
    fn take(&self) -> Option<http1::SendRequest<RequestBody>> {
        let mut idle = lock(&self.idle);
        while let Some(last) = idle.pop_back() {
            if last.sender.is_ready() {
                return Some(last.sender);
            }
        }
        None
    }
}

/// A connection to an endpoint, for one request.
pub(crate) struct Lease {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) protocol: UpstreamProtocol,
    /// Whose slot it goes back to.
    pub(super) home: usize,
    /// How many that slot keeps.
    pub(super) most: usize,
    sender: Sender,
    reused: bool,
}

pub(super) enum Sender {
    One(http1::SendRequest<RequestBody>),
    Many(Shared),
    /// It went back.
    None,
}

/// What became of a request.
pub(crate) enum Sent {
    /// A response begins.
    Answer(Response<Incoming>),
    /// Nothing of it was sent; here it is.
    Not(Box<Request<RequestBody>>),
    /// It was sent, and nothing came back.
    Lost(hyper::Error),
}

impl Lease {
    pub(super) fn new(
        endpoint: &Arc<Endpoint>,
        protocol: UpstreamProtocol,
        (home, most): (usize, usize),
        sender: Sender,
        reused: bool,
    ) -> Self {
        endpoint.load.begin();
        Self {
            endpoint: Arc::clone(endpoint),
            protocol,
            home,
            most,
            sender,
            reused,
        }
    }

    /// The endpoint at its other end.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it has served requests before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether it speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Many(_))
    }

    /// Sends the request, and waits until its response begins.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Sent {
        let result = match &mut self.sender {
            Sender::One(sender) => sender.try_send_request(request).await,
            Sender::Many(shared) => shared.sender.try_send_request(request).await,
            Sender::None => return Sent::Not(Box::new(request)),
        };
        match result {
            Ok(response) => Sent::Answer(response),
            Err(mut failed) => match failed.take_message() {
                Some(request) => Sent::Not(Box::new(request)),
                None => Sent::Lost(failed.into_error()),
            },
        }
    }

    /// The response was read to its end: the connection can take another request.
    pub(crate) fn give_back(mut self) {
        let mut sender = match std::mem::replace(&mut self.sender, Sender::None) {
            Sender::One(sender) => sender,
            // A stream of an HTTP/2 connection ends with its lease.
            other => {
                self.sender = other;
                return;
            }
        };
        if sender.is_ready() {
            self.keep(sender);
        } else if !sender.is_closed() {
            // The request's body may not be sent to its end yet.
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = tokio::time::timeout(READY, sender.ready()).await {
                    self.keep(sender);
                }
            });
        }
    }

    fn keep(&self, sender: http1::SendRequest<RequestBody>) {
        let pool = self.endpoint.pool(self.protocol);
        if !self.endpoint.gone.load(Ordering::Relaxed) {
            pool.keep(self.home, sender, self.most);
            // It may have gone in between.
            if self.endpoint.gone.load(Ordering::Relaxed) {
                pool.clear();
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.load.end();
        if let Sender::Many(shared) = &self.sender {
            shared.streams.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
