//! Other protocols through the ingress.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Plan, wait, with_policy};
use crate::peers::{Backing, Session, runtime};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn shout(session: &mut Session) {
    while let Some(byte) = session.byte() {
        let _sent = session.stream.write_all(&[byte.to_ascii_uppercase()]);
    }
}

fn shouting() -> Backing {
    Backing::raw(|session| {
        let head = session.head().unwrap_or_default();
        if head.contains("upgrade: websocket\r\n") {
            session.say(YES);
            shout(session);
        } else {
            session.say("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n");
        }
    })
}

#[test]
fn a_websocket_goes_both_ways_and_both_ends_end() {
    let backing = shouting();
    let front = Plan::to(&[backing.address]).start();
    let mut raw = front.raw();
    raw.send(ASK);
    let head = raw.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
        "{head}"
    );
    // Not lines, not HTTP, and none of our business.
    for text in ["hello\n", "\0\n\r", "#x\n"] {
        raw.send(text);
        let mut echo = vec![0; text.len()];
        raw.0.read_exact(&mut echo).unwrap();
        assert_eq!(echo, text.to_ascii_uppercase().as_bytes());
    }
    raw.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(raw.rest(), "");
    wait("the end", || {
        front.engine.requests() == 0 && front.engine.connections() == 0
    });
}

#[test]
fn not_a_byte_goes_to_a_backend_that_has_not_said_101() {
    let backing = Backing::raw(|session| {
        while session.head().is_some() {
            session.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    let front = Plan::to(&[backing.address]).start();
    let answer = front.says(format!("{ASK}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(
        answer.matches("HTTP/1.1").count(),
        1,
        "the connection ends: {answer}"
    );
    assert!(!backing.seen().contains("smuggled"), "{}", backing.seen());
}

#[test]
fn a_connection_that_was_upgraded_serves_nobody_else() {
    let backing = shouting();
    let front = Plan::to(&[backing.address]).start();
    for number in 1..4 {
        let mut raw = front.raw();
        raw.send(ASK);
        raw.until("\r\n\r\n");
        drop(raw);
        wait("the end", || front.engine.requests() == 0);
        assert_eq!(backing.connections(), number);
    }
}

#[test]
fn a_101_that_nobody_asked_for_or_for_something_else_is_a_bad_gateway() {
    let other = Backing::raw(|session| {
        session.head();
        session.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nGET");
    });
    let front = Plan::to(&[other.address]).start();
    assert!(front.says(ASK).starts_with("HTTP/1.1 502 "));
    let front = Plan::to(&[other.address]).start();
    let answer = front.says("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[test]
fn an_upgrade_that_connection_does_not_name_is_none() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).start();
    let answer = front.says(ASK.replace("Connection: Upgrade", "Connection: keep-alive"));
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && !answer.contains("websocket"),
        "{answer}"
    );
    let answer = front.says(ASK.replace("websocket", "h2c"));
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && !answer.contains("h2c"),
        "{answer}"
    );
}

#[test]
fn a_silent_tunnel_is_closed() {
    let backing = shouting();
    let front = Plan::to(&[backing.address])
        .route(with_policy(|policy| {
            policy.idle_timeout = Duration::from_millis(100);
        }))
        .start();
    let mut raw = front.raw();
    raw.send(ASK);
    raw.until("\r\n\r\n");
    assert_eq!(raw.rest(), "");
}

#[test]
fn a_websocket_over_http2_is_one_over_http1_behind_us() {
    let backing = shouting();
    let front = Plan::to(&[backing.address]).start();
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(front.clear()).await.unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        // The server's settings must have come: they allow it.
        let plain = Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(plain).await.unwrap().status(), 400);
        let mut request = Request::connect("http://a/ws")
            .body(Empty::<Bytes>::new())
            .unwrap();
        request
            .extensions_mut()
            .insert(Protocol::from_static("websocket"));
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        tunnel.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        tunnel.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"HELLO");
    });
    assert!(backing.seen().contains("sec-websocket-key: "));
}
