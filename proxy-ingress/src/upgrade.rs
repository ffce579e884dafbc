//! Other protocols through the ingress: WebSocket and whatever else begins with `Upgrade`, over HTTP/1.1 and, as extended
//! CONNECT (RFC 8441), over HTTP/2.
//!
//! Not a byte of the new protocol goes either way before the backend has said 101, and its connection carries no other
//! request afterwards: what a client sends too early would be the next client's request (CVE-2026-2833).

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::body::ResponseBody;
use crate::headers;
use crate::metrics::tally::Held;
use crate::mix::{Random, below};
use crate::refusal::Refusal;
use crate::seen::Seen;
use crate::serve::Client;
use crate::tend::{Fate, Work};
use crate::upstream::Lease;
use crate::worker::Admitted;

/// What a client wants to speak instead.
pub(crate) struct Wish {
    protocol: HeaderValue,
    on: OnUpgrade,
    http2: bool,
}

/// The wish of a request, if it has one that can be granted.
pub(crate) fn wish(head: &mut Parts) -> Option<Wish> {
    let http2 = head.extensions.remove::<Protocol>();
    let protocol = match &http2 {
        Some(protocol) => HeaderValue::from_str(protocol.as_str()).ok()?,
        None if head.version == Version::HTTP_11 => head.headers.get(UPGRADE)?.clone(),
        None => return None,
    };
    // An upgrade to HTTP/2 is between the client and us, and nobody does that any more (RFC 9113 3.1). A body would have to
    // be sent first.
    let ours = protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
    let body = head.headers.contains_key(TRANSFER_ENCODING)
        || headers::declared_length(&head.headers).is_some_and(|length| length > 0);
    if ours || body {
        return None;
    }
    Some(Wish {
        protocol,
        on: head.extensions.remove::<OnUpgrade>()?,
        http2: http2.is_some(),
    })
}

impl Wish {
    /// Whether it came as an extended CONNECT.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2
    }

    /// Puts it into the request for the backend, which is spoken to in HTTP/1.1.
    pub(crate) fn ask(&self, head: &mut Parts, random: &Random) {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, self.protocol.clone());
        head.headers.remove(CONTENT_LENGTH);
        if self.http2 {
            head.method = Method::GET;
            let key = HeaderValue::try_from(websocket_key(random));
            head.headers.insert(
                SEC_WEBSOCKET_KEY,
                key.unwrap_or_else(|_| HeaderValue::from_static("")),
            );
        }
    }
}

/// Sixteen random bytes in base 64. It proves that the backend read the request, and is no secret.
fn websocket_key(random: &Random) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |from: &[u8]| {
        char::from(
            from.get(below(from.len(), random.next()))
                .copied()
                .unwrap_or(b'A'),
        )
    };
    let mut key: String = (0..21).map(|_| letter(LETTERS)).collect();
    // The last letter has but two bits.
    key.push(letter(b"AQgw"));
    key.push_str("==");
    key
}

/// The backend has said 101: so do we, and join the two.
pub(crate) fn grant(
    (client, seen): (&Rc<Client>, &Rc<Seen>),
    (work, admitted): (&mut Option<Work>, Admitted),
    wish: Wish,
    (mut head, body): (http::response::Parts, Incoming),
    (lease, idle): (Lease, Duration),
) -> Result<Response<ResponseBody>, Refusal> {
    drop(body);
    let agreed = head.headers.get(UPGRADE);
    if !agreed.is_some_and(|agreed| agreed.as_bytes().eq_ignore_ascii_case(wish.protocol.as_bytes())) {
        return Err(Refusal::BadAnswer);
    }
    let backend = head.extensions.remove::<OnUpgrade>().ok_or(Refusal::BadAnswer)?;
    headers::strip_response(&mut head.headers);
    head.headers.remove(CONTENT_LENGTH);
    if wish.http2 {
        head.status = StatusCode::OK;
        head.headers.remove(SEC_WEBSOCKET_ACCEPT);
    } else {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, wish.protocol);
        head.headers.remove(HeaderName::from_static("http2-settings"));
    }
    let (client, seen, work) = (Rc::clone(client), Rc::clone(seen), work.take());
    seen.status(head.status);
    client.worker.tally.upgrades.one();
    let open = Held::new(&client.worker, |tally| &tally.tunnels);
    tokio::task::spawn_local(async move {
        let _places = (admitted, lease, open);
        let carried = Carried::default();
        tunnel(&client, (wish.on, wish.http2), (backend, idle), &carried).await;
        seen.carried((carried.up.get(), carried.down.get()));
        if let Some(mut work) = work {
            work.done();
        }
    });
    Ok(Response::from_parts(head, ResponseBody::empty()))
}

/// Joins the two, until a drain is over.
async fn tunnel(
    client: &Client,
    (one, http2): (OnUpgrade, bool),
    (two, idle): (OnUpgrade, Duration),
    carried: &Carried,
) {
    let both = async { tokio::try_join!(one, two) };
    let Ok(Ok((one, two))) = tokio::time::timeout(client.settings.handshake_timeout, both).await else {
        return;
    };
    // A stream ends with its connection, which asks for itself.
    let over = |waker: &Waker| !http2 && client.tended.fate(waker) == Fate::Close;
    carry((TokioIo::new(one), TokioIo::new(two)), idle, over, carried).await;
}

/// Carries bytes until both sides have ended, one of them breaks off, neither says anything for between one and two idle
/// time-outs, or it is over for another reason.
pub(crate) async fn carry(
    (one, two): (
        impl AsyncRead + AsyncWrite + Unpin,
        impl AsyncRead + AsyncWrite + Unpin,
    ),
    idle: Duration,
    over: impl Fn(&Waker) -> bool,
    carried: &Carried,
) {
    let mut one = Counted(one, &carried.up, &carried.reads);
    let mut two = Counted(two, &carried.down, &carried.reads);
    let mut copying = pin!(copy_bidirectional(&mut one, &mut two));
    loop {
        let before = carried.reads.get();
        let over = std::future::poll_fn(|cx| {
            if over(cx.waker()) {
                return Poll::Ready(());
            }
            copying.as_mut().poll(cx).map(|_| ())
        });
        if tokio::time::timeout(idle, over).await.is_ok() || carried.reads.get() == before {
            return;
        }
    }
}

/// What went through a tunnel.
#[derive(Default)]
pub(crate) struct Carried {
    /// Bytes from the client.
    up: Cell<u64>,
    /// Bytes to it.
    down: Cell<u64>,
    /// Reads on both sides, so that silence is noticed.
    reads: Cell<u64>,
}

/// Counts bytes and reads of a side.
struct Counted<'a, S>(S, &'a Cell<u64>, &'a Cell<u64>);

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        if read.is_ready() {
            let bytes = buf.filled().len().saturating_sub(before);
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.1.set(self.1.get().saturating_add(bytes));
            self.2.set(self.2.get().wrapping_add(1));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
