//! Limits of bodies and requests, and clients that keep us waiting.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::common::{Plan, SOON, wait, with_policy};
use crate::peers::Backing;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Reads a body in chunks to its end, then says ok.
fn reader() -> Backing {
    Backing::raw(|session| {
        while session.head().is_some() {
            let mut last = Vec::new();
            while !last.ends_with(b"0\r\n\r\n") {
                match session.byte() {
                    Some(byte) => last.push(byte),
                    None => return,
                }
            }
            session.say(OK);
        }
    })
}

#[test]
fn a_body_that_is_too_long_is_refused_before_and_while_it_comes() {
    let backing = reader();
    let front = Plan::to(&[backing.address])
        .route(with_policy(|policy| policy.body_limit = Some(10)))
        .start();
    let answer = front.says("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(backing.seen(), "");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = front.says(format!("{chunked}6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(!backing.seen().ends_with("0\r\n\r\n"), "{}", backing.seen());
    let mut raw = front.raw();
    raw.send(format!("{chunked}5\r\nabcde\r\n5\r\nabcde\r\n0\r\n\r\n"));
    assert!(raw.response(2).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_client_that_promises_a_body_and_sends_none_is_told_so() {
    let backing = reader();
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.body_timeout = Duration::from_millis(200))
        .start();
    let answer = front.says("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(!backing.seen().ends_with("0\r\n\r\n"));
}

#[test]
fn drops_of_a_body_do_not_buy_time_for_ever() {
    let backing = reader();
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.body_timeout = Duration::from_millis(300))
        .start();
    let mut raw = front.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let begun = Instant::now();
    raw.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut answer = [0; 12];
    while raw.0.read(&mut answer).is_err() {
        assert!(begun.elapsed() < SOON);
        raw.send("1\r\nx\r\n");
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[test]
fn a_client_that_takes_nothing_is_left() {
    let backing = Backing::raw(|session| {
        session.head();
        session.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = "x".repeat(100_000);
        for _ in 0..10_000 {
            session.say(&piece);
        }
    });
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.write_timeout = Duration::from_millis(300))
        .start();
    let mut raw = front.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait("the request", || front.engine.requests() == 1);
    wait("the end of the connection", || front.engine.connections() == 0);
}

#[test]
fn more_requests_than_there_is_room_for_are_told_to_come_back() {
    let backing = Backing::raw(|session| while session.head().is_some() {});
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.requests = 2)
        .start();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut raw = front.raw();
            raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            raw
        })
        .collect();
    wait("two requests", || front.engine.requests() == 2);
    let answer = front.says("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after"),
        "{answer}"
    );
    drop(waiting);
    wait("room", || front.engine.requests() == 0);
}
