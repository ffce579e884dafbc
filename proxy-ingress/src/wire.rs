//! A client's connection below HTTP: what was read ahead comes first, heads are watched, and a write that does not move
//! is noted for [`crate::tend`]. No timer of its own: a timer per request costs more than the look at a head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
}

/// The connection.
pub(crate) struct Wire<S> {
    stream: S,
    ahead: Vec<u8>,
    taken: usize,
    scanner: Option<Scanner>,
    vitals: Arc<Vitals>,
}

impl<S> Wire<S> {
    /// `ahead` was read from it before; the scanner is for HTTP/1.1.
    pub(crate) fn new(stream: S, ahead: Vec<u8>, scanner: Option<Scanner>, vitals: Arc<Vitals>) -> Self {
        Self {
            stream,
            ahead,
            taken: 0,
            scanner,
            vitals,
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

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
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
        let before = buf.filled().len();
        if !this.replay(buf) {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        }
        if let Some(scanner) = &mut this.scanner {
            scanner.look(buf.filled_mut().get_mut(before..).unwrap_or_default());
            this.vitals.in_head.store(scanner.in_head(), Ordering::Relaxed);
        }
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
