//! A client's connection below HTTP: what was read ahead comes first, heads and frames are watched, and a write that does not
//! move is noted for [`crate::tend`]. No timer of its own: a timer per request costs more than the look at a head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frames::Frames;
use crate::head::Scanner;

/// What a connection lets be seen of itself, without a clock: whoever looks twice knows what has moved.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// A head has begun, and is not whole.
    pub(crate) in_head: AtomicBool,
    /// The peer takes nothing.
    pub(crate) stuck: AtomicBool,
    /// Writes that it took.
    pub(crate) writes: AtomicU32,
    /// It sent too much that carries nothing, and is not read.
    pub(crate) held: AtomicBool,
    /// Frames that time makes up for, since they were last counted.
    pub(crate) forgiven: AtomicU32,
    /// Who waits to read on.
    pub(crate) reader: AtomicWaker,
}

/// What a client speaks, and how that is watched.
pub(crate) enum Speech {
    Http1(Scanner),
    /// With so many frames that carry nothing it is held.
    Http2(Frames, u32),
}

/// The connection.
pub(crate) struct Wire<S> {
    stream: S,
    ahead: Vec<u8>,
    taken: usize,
    speech: Speech,
    vitals: Arc<Vitals>,
}

impl<S> Wire<S> {
    /// `ahead` was read from it before.
    pub(crate) fn new(stream: S, ahead: Vec<u8>, speech: Speech, vitals: Arc<Vitals>) -> Self {
        Self {
            stream,
            ahead,
            taken: 0,
            speech,
            vitals,
        }
    }

    /// Whether it is not to be read now; whoever tends it wakes who asks.
    fn holds(&mut self, cx: &Context<'_>) -> bool {
        let Speech::Http2(frames, most) = &mut self.speech else {
            return false;
        };
        frames.forget(self.vitals.forgiven.swap(0, Ordering::Relaxed));
        let held = frames.idle() >= *most;
        if held {
            self.vitals.reader.register(cx.waker());
        }
        self.vitals.held.store(held, Ordering::Relaxed);
        held
    }

    fn look(&mut self, bytes: &mut [u8]) {
        match &mut self.speech {
            Speech::Http1(scanner) => {
                scanner.look(bytes);
                self.vitals.in_head.store(scanner.in_head(), Ordering::Relaxed);
            }
            Speech::Http2(frames, _) => frames.look(bytes),
        }
    }

    /// Hands on what was read ahead; whether there was any.
    fn replay(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.ahead.get(self.taken..).unwrap_or_default();
        if rest.is_empty() || buf.remaining() == 0 {
            return false;
        }
        let (now, _) = rest.split_at(rest.len().min(buf.remaining()));
        buf.put_slice(now);
        self.taken += now.len();
        if self.taken == self.ahead.len() {
            self.ahead = Vec::new();
            self.taken = 0;
        }
        true
    }

    fn note(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Speech::Http2(frames, _), Poll::Ready(Ok(bytes))) = (&mut self.speech, &result) {
            frames.sent(*bytes);
        }
        let stuck = result.is_pending();
        self.vitals.stuck.store(stuck, Ordering::Relaxed);
        if !stuck {
            let writes = self.vitals.writes.load(Ordering::Relaxed);
            self.vitals
                .writes
                .store(writes.wrapping_add(1), Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.holds(cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if !this.replay(buf) {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        }
        this.look(buf.filled_mut().get_mut(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS takes what is written, and shows only here that it cannot get rid of it.
        self.vitals.stuck.store(result.is_pending(), Ordering::Relaxed);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.vitals.stuck.store(result.is_pending(), Ordering::Relaxed);
        result
    }
}
