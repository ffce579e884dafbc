//! HTTP/2 on both sides.

use std::convert::Infallible;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy_ingress::route::UpstreamProtocol;

use crate::common::{Front, Plan, wait};
use crate::peers::{Backing, Raw, Reply, full, h2c, runtime};

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) type Sender = SendRequest<Full<Bytes>>;

pub(crate) async fn client(front: &Front) -> Sender {
    let stream = tokio::net::TcpStream::connect(front.clear()).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[test]
fn http2_in_clear_text_reaches_an_http1_backend() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).start();
    runtime().block_on(async {
        let mut sender = client(&front).await;
        let response = sender.send_request(get("http://a.example/x?y")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("connection"));
        let head = text(response).await;
        assert!(
            head.starts_with("GET /x?y HTTP/1.1\r\n") && head.contains("host: a.example\r\n"),
            "{head}"
        );
    });
}

#[test]
fn grpc_goes_through_with_its_trailers() {
    let answer = |request: Request<Incoming>| async move {
        assert_eq!(request.headers().get("te").unwrap(), "trailers");
        assert_eq!(request.uri().authority().unwrap(), "a.example");
        let sent = request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Frame::data(sent.to_bytes()), Frame::trailers(trailers)];
        let frames = futures::stream::iter(frames.map(Ok::<_, Infallible>));
        let reply: Reply = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        reply
    };
    let backing = h2c(answer, 100);
    let mut plan = Plan::to(&[backing.address]);
    plan.protocol = Some(UpstreamProtocol::H2c);
    let front = plan.start();
    runtime().block_on(async {
        let mut sender = client(&front).await;
        let request = Request::post("http://a.example/grpc").header("te", "trailers");
        let request = request.body(Full::from("message")).unwrap();
        let whole = sender
            .send_request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
        assert_eq!(whole.trailers().unwrap().get("grpc-status").unwrap(), "0");
        assert_eq!(whole.to_bytes(), "message");
    });
}

#[test]
fn requests_share_a_connection_to_an_http2_backend_and_open_another_when_it_is_full() {
    // Nobody is answered before so many are there in all.
    let (there, expected) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, most) = (Arc::clone(&there), Arc::clone(&expected));
    let answer = move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let (count, most) = (Arc::clone(&count), Arc::clone(&most));
        async move {
            while count.load(Ordering::SeqCst) < most.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Response::new(full("ok"))
        }
    };
    let backing = h2c(answer, 4);
    let mut plan = Plan::to(&[backing.address]);
    plan.protocol = Some(UpstreamProtocol::H2c);
    let front = plan.start();
    let together = |requests: usize| {
        expected.fetch_add(requests, Ordering::SeqCst);
        runtime().block_on(async {
            let sender = client(&front).await;
            let requests = (0..requests).map(|_| {
                let mut sender = sender.clone();
                async move { sender.send_request(get("http://a/")).await.unwrap().status() }
            });
            let all = futures::future::join_all(requests);
            let all = tokio::time::timeout(Duration::from_secs(5), all).await;
            let state = (
                there.load(Ordering::SeqCst),
                expected.load(Ordering::SeqCst),
                backing.connections(),
                front.engine.requests(),
                front.engine.connections(),
            );
            let all = all.unwrap_or_else(|_| panic!("requests and connections there: {state:?}"));
            assert!(all.iter().all(|status| *status == 200), "{all:?}");
        });
        backing.connections()
    };
    assert_eq!(together(1), 1);
    assert_eq!(together(4), 1);
    assert_eq!(together(12), 3);
    assert_eq!(together(12), 3);
}

/// A body that breaks off.
struct Broken(u8);

impl Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0 += 1;
        Poll::Ready(Some(match self.0 {
            1 => Ok(Frame::data("part".into())),
            _ => Err(std::io::Error::other("broken")),
        }))
    }
}

#[test]
fn a_backend_that_dies_in_its_answer_resets_the_stream_and_not_the_connection() {
    let backing = Backing::raw(|session| {
        while let Some(head) = session.head() {
            if head.contains("/dies") {
                session.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
                return;
            }
            session.say(OK);
        }
    });
    let front = Plan::to(&[backing.address]).start();
    runtime().block_on(async {
        let mut sender = client(&front).await;
        let response = sender.send_request(get("http://a/dies")).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert!(format!("{error:?}").contains("Reset"), "{error:?}");
        assert_eq!(sender.send_request(get("http://a/")).await.unwrap().status(), 200);
    });
}

#[test]
fn a_client_that_breaks_off_its_body_leaves_no_whole_request_behind() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address]).start();
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(front.clear()).await.unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/").body(Broken(0)).unwrap();
        // The backend answers at once, so either may come first.
        let _either = sender.send_request(request).await;
    });
    wait("the end", || front.engine.requests() == 0);
    assert!(!backing.seen().ends_with("0\r\n\r\n"), "{}", backing.seen());
}

pub(crate) fn preface(front: &Front) -> Raw {
    let mut raw = front.raw();
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw.send(frame(4, 0, 0, &[]));
    raw
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Literal fields, not indexed, not compressed.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

pub(crate) const PSEUDO: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];

/// The frames that come, as kind and payload, until the connection ends.
pub(crate) fn frames(raw: &mut Raw) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        if raw.0.read_exact(&mut head).is_err() {
            return frames;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if raw.0.read_exact(&mut payload).is_err() {
            return frames;
        }
        frames.push((head[3], payload));
    }
}

/// A good head, without these fields and with those.
fn bent(without: &[&str], with: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = PSEUDO.into_iter().filter(|(name, _)| !without.contains(name));
    kept.chain(with.iter().copied()).collect()
}

#[test]
fn l3_malformed_requests_are_reset_and_no_backend_sees_them() {
    let cases = [
        bent(&[":path"], &[]),
        bent(&[], &[(":method", "GET")]),
        bent(&[":path"], &[(":path", "/ HTTP/1.1")]),
        bent(&[], &[("connection", "close")]),
        bent(&[], &[("transfer-encoding", "chunked")]),
        bent(&[], &[("te", "gzip")]),
        bent(&[], &[("x", "a\r\nb: c")]),
        bent(&[], &[("x:y", "z")]),
        bent(&[":authority"], &[("x", "y"), (":authority", "a")]),
    ];
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address]).start();
    for case in cases {
        let mut raw = preface(&front);
        raw.send(frame(1, 5, 1, &fields(&case)));
        // Whatever comes, a PING's answer ends it.
        raw.send(frame(6, 0, 0, b"12345678"));
        raw.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let kinds: Vec<u8> = frames(&mut raw).iter().map(|(kind, _)| *kind).collect();
        assert!(
            kinds.contains(&3) || kinds.contains(&7) || kinds.contains(&1),
            "{case:?}: {kinds:?}"
        );
        assert_eq!(backing.seen(), "", "{case:?}");
    }
}

#[test]
fn l3_host_that_is_not_the_authority() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address]).start();
    let mut raw = preface(&front);
    let mut case = PSEUDO.to_vec();
    case.push(("host", "b"));
    raw.send(frame(1, 5, 1, &fields(&case)));
    front.counts(
        "weir_ingress_refused_total{code=\"400\",reason=\"two_hosts\"}",
        1.0,
    );
    assert_eq!(backing.seen(), "");
}
