//! Bodies on their way through. Nothing is kept: a piece is asked for when the other side has room for it, which is all
//! the back pressure there is to it. An enum and no box, because most requests have no body at all.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::clock;
use crate::refusal::Refusal;
use crate::seen::End;
use crate::tend::Work;
use crate::upstream::Lease;
use crate::worker::Admitted;

/// Why a body ends before its end. The connection or stream that it is sent on is then reset: nobody may take a part for
/// the whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The route's limit.
    #[error("the request's body is longer than its route allows")]
    Long,
    /// The client stalls.
    #[error("the client sends its body too slowly")]
    Slow,
    /// Neither side sent anything.
    #[error("nothing was sent for the route's idle time-out")]
    Idle,
    /// The request took too long as a whole.
    #[error("the response was not whole within the route's request time-out")]
    Late,
    /// The side that sends it.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
}

/// What the two directions of a request with a body know of each other.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    /// When the client last sent something.
    moved: AtomicU64,
    /// The backend's response has begun: from then on the idle time-out counts, in both directions.
    answered: AtomicBool,
    fault: AtomicU8,
    /// Bytes that the client sent.
    received: AtomicU64,
}

impl Transfer {
    /// Milliseconds by [`clock`] at which the client last sent something.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Bytes that the client sent so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// What was wrong with the client's body.
    pub(crate) fn fault(&self) -> Option<Refusal> {
        match self.fault.load(Ordering::Relaxed) {
            1 => Some(Refusal::LongBody),
            2 => Some(Refusal::SlowBody),
            3 => Some(Refusal::BrokenBody),
            _ => None,
        }
    }

    fn fail(&self, error: BodyError) -> BodyError {
        let fault = match error {
            BodyError::Long => 1,
            BodyError::Slow | BodyError::Idle | BodyError::Late => 2,
            BodyError::Broken(_) => 3,
        };
        self.fault.store(fault, Ordering::Relaxed);
        error
    }
}

/// How long a client may let us wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// At once, and in all if it sends nothing.
    pub(crate) grace: Duration,
    /// Bytes that earn a second more.
    pub(crate) rate: u64,
}

/// A request's body, towards the backend.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// What the client sends.
    Upload(Box<Upload>),
}

/// What the client sends.
#[derive(Debug)]
pub(crate) struct Upload {
    incoming: Incoming,
    left: Option<u64>,
    received: u64,
    waited: Duration,
    /// Since when we wait.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    transfer: Arc<Transfer>,
}

impl RequestBody {
    /// With what the two directions know of each other, if there is a body.
    pub(crate) fn new(
        incoming: Incoming,
        limit: Option<u64>,
        patience: Patience,
    ) -> (Self, Option<Arc<Transfer>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let transfer = Arc::new(Transfer::default());
        transfer.moved.store(clock::now(), Ordering::Relaxed);
        let upload = Upload {
            incoming,
            left: limit,
            received: 0,
            waited: Duration::ZERO,
            since: None,
            timer: None,
            patience,
            transfer: Arc::clone(&transfer),
        };
        (Self::Upload(Box::new(upload)), Some(transfer))
    }
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.arrived(frame))),
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(self.transfer.fail(BodyError::Broken(error)))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.wait(cx),
        }
    }

    fn arrived(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.transfer.moved.store(clock::now(), Ordering::Relaxed);
        let size = frame.data_ref().map_or(0, Bytes::len);
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        self.received = self.received.saturating_add(size);
        self.transfer.received.store(self.received, Ordering::Relaxed);
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(size)
                .ok_or_else(|| self.transfer.fail(BodyError::Long))?;
        }
        Ok(frame)
    }

    /// The client sends nothing. That is its right once it has an answer, streams may be silent; before, it only costs.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.transfer.answered.load(Ordering::Relaxed) {
            self.timer = None;
            return Poll::Pending;
        }
        let now = Instant::now();
        if self.since.is_none() {
            self.since = Some(now);
            let earned = Duration::from_secs(self.received / self.patience.rate.max(1));
            let left = (self.patience.grace + earned).saturating_sub(self.waited);
            let until = now + left.min(self.patience.grace);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
        let timer = self.timer.as_mut().map(|timer| timer.as_mut().poll(cx));
        if timer.is_some_and(|timer| timer.is_ready()) {
            return Poll::Ready(Some(Err(self.transfer.fail(BodyError::Slow))));
        }
        Poll::Pending
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Upload(upload) => upload.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(upload) => upload.incoming.size_hint(),
        }
    }
}

/// A response's body, towards the client.
pub(crate) struct ResponseBody(Inner);

enum Inner {
    Empty,
    Text(Bytes),
    Relay(Relay),
}

impl ResponseBody {
    /// None.
    pub(crate) fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// Our own words.
    pub(crate) fn text(text: Bytes) -> Self {
        Self(if text.is_empty() {
            Inner::Empty
        } else {
            Inner::Text(text)
        })
    }

    /// What a backend sends.
    pub(crate) fn relay(relay: Relay) -> Self {
        Self(Inner::Relay(relay))
    }
}

/// What a backend sends.
pub(crate) struct Relay {
    pub(crate) incoming: Incoming,
    /// Goes back to the pool with the last piece.
    pub(crate) lease: Option<Lease>,
    pub(crate) work: Work,
    pub(crate) _admitted: Admitted,
    pub(crate) idle: Duration,
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer counts from the last piece on.
    pub(crate) armed: bool,
    /// When the whole of it must be over.
    pub(crate) until: Option<Pin<Box<Sleep>>>,
    pub(crate) transfer: Option<Arc<Transfer>>,
}

impl Relay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let late = self.until.as_mut().map(|until| until.as_mut().poll(cx));
        if late.is_some_and(|late| late.is_ready()) {
            self.broken(End::Timeout);
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.armed = false;
                self.work.piece(frame.data_ref().map_or(0, Bytes::len));
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.broken(End::Backend);
                Poll::Ready(Some(Err(BodyError::Broken(error))))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => self.wait(cx),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.work.waits(true);
        let mut from = Instant::now();
        loop {
            let idle = self.idle;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(from + idle)));
            if !self.armed {
                timer.as_mut().reset(from + idle);
                self.armed = true;
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Nothing came back; but the client may be sending.
            let moved = self.transfer.as_ref().map_or(0, |transfer| transfer.moved());
            let silent = Duration::from_millis(clock::now().saturating_sub(moved));
            if self.transfer.is_none() || silent >= idle {
                self.broken(End::Timeout);
                return Poll::Ready(Some(Err(BodyError::Idle)));
            }
            from = Instant::now() - silent;
            self.armed = false;
        }
    }

    /// It ends before its end, and the client is not to blame.
    fn broken(&mut self, end: End) {
        self.work.ends(end);
        self.lease = None;
    }

    fn finish(&mut self) {
        self.work.done();
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // With a known length nobody asks for what follows the last piece.
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Text(text) => {
                let text = std::mem::take(text);
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Inner::Relay(relay) => relay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Text(_) => false,
            Inner::Relay(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Text(text) => SizeHint::with_exact(u64::try_from(text.len()).unwrap_or(0)),
            Inner::Relay(relay) => relay.incoming.size_hint(),
        }
    }
}
