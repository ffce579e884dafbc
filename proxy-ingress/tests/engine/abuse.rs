//! What nobody sends who means well (the hard cases L1 to L9). Each is answered with its status, and the backend has not
//! seen a request.

use std::time::{Duration, Instant};

use crate::common::{Front, Plan, wait};
use crate::peers::{Backing, Raw};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn front() -> (Backing, Front) {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address]).start();
    (backing, front)
}

/// Sent alone, it is refused like that; and the engine still serves others.
fn refused(status: u16, request: &str) {
    let (backing, front) = front();
    let answer = front.says(request);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{request:?} was answered {answer:?}"
    );
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(backing.seen(), "", "{request:?}");
    let answer = front.says("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn l1_content_length_and_transfer_encoding_in_either_order() {
    let smuggled = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 0",
    ] {
        refused(
            400,
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{smuggled}"),
        );
    }
}

#[test]
fn l1_transfer_encodings_that_somebody_may_not_see() {
    for line in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding : chunked",
    ] {
        refused(
            400,
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n0\r\n\r\n"),
        );
    }
}

#[test]
fn l1_content_lengths_that_two_would_read_differently() {
    for lines in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: +2",
        "Content-Length: 2, 2",
        "Content-Length:",
        "Content-Length: 0x2",
        "Content-Length: 18446744073709551617",
    ] {
        refused(400, &format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nab"));
    }
}

#[test]
fn l1_lines_that_end_or_go_on_in_odd_ways() {
    for request in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: yes\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        refused(400, request);
    }
}

#[test]
fn l1_transfer_encoding_in_http_1_0() {
    refused(
        400,
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
}

#[test]
fn l1_a_chunk_that_lies_about_its_size_never_becomes_a_whole_request() {
    for chunk in [
        "fffffffffffffffff\r\nx",
        "1\r\nxy\r\n0\r\n\r\n",
        "-1\r\n",
        "1\nx\r\n0\r\n\r\n",
    ] {
        let (backing, front) = front();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = front.says(format!("{head}{chunk}"));
        assert!(
            !answer.contains(" 200 ") || !backing.seen().ends_with("0\r\n\r\n"),
            "{chunk:?}: {answer}"
        );
        assert!(
            !backing.seen().ends_with("0\r\n\r\n"),
            "{chunk:?}: {:?}",
            backing.seen()
        );
    }
}

#[test]
fn l1_a_smuggled_second_request_stays_a_body() {
    let (backing, front) = front();
    let second = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let first = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        second.len()
    );
    let answer = front.says(format!("{first}{second}"));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1);
    wait("the body", || backing.seen().ends_with(second));
    assert!(
        backing
            .seen()
            .contains(&format!("content-length: {}\r\n", second.len()))
    );
}

#[test]
fn l3_hosts_that_disagree() {
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    ] {
        refused(400, request);
    }
}

#[test]
fn l4_connection_must_not_take_our_headers_away() {
    for name in ["X-Forwarded-For", "x-real-ip", "HOST", "Cookie"] {
        refused(
            400,
            &format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, {name}\r\n\r\n"),
        );
    }
}

#[test]
fn l5_paths_without_a_canonical_form() {
    refused(400, "GET /a%00b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    refused(400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn l2_connect_is_no_way_through() {
    refused(
        405,
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    );
}

#[test]
fn l7_a_head_that_comes_too_slowly() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.header_timeout = Duration::from_millis(300))
        .start();
    for beginning in ["", "GET / HTTP/1.1\r\nHost: a\r\n", "GET"] {
        let begun = Instant::now();
        assert_eq!(front.says(beginning), "");
        assert!(begun.elapsed() >= Duration::from_millis(250), "{beginning:?}");
    }
    // Drop by drop is no faster.
    let mut raw = front.raw();
    let begun = Instant::now();
    raw.send("GET / HTTP/1.1\r\n");
    while begun.elapsed() < Duration::from_secs(5) && raw.0.take_error().unwrap().is_none() {
        raw.send("X: y\r\n");
        std::thread::sleep(Duration::from_millis(20));
        if front.engine.connections() == 0 {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(backing.seen(), "");
}

#[test]
fn l7_a_connection_without_requests_is_closed_after_its_time_and_not_before() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address])
        .settings(|settings| {
            settings.header_timeout = Duration::from_millis(100);
            settings.keep_alive = Duration::from_millis(600);
        })
        .start();
    let mut raw = front.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.response(2);
    let begun = Instant::now();
    assert_eq!(raw.rest(), "");
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn l8_heads_that_are_too_large() {
    let many = "X-1: y\r\n".repeat(150);
    refused(431, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"));
    let long = "y".repeat(40_000);
    refused(431, &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"));
    let uri = "u".repeat(17_000);
    refused(
        414,
        &format!("GET /{uri} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    );
}

#[test]
fn connections_of_one_address_are_limited_and_others_of_it_go_on() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.connections_per_client = 3)
        .start();
    let mut kept: Vec<Raw> = (0..3).map(|_| front.raw()).collect();
    wait("three connections", || front.engine.connections() == 3);
    assert_eq!(front.says("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    kept[0].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(kept[0].response(2).starts_with("HTTP/1.1 200"));
    kept.pop();
    wait("room", || front.engine.connections() == 2);
    let mut another = front.raw();
    another.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(another.response(2).starts_with("HTTP/1.1 200"));
}

#[test]
fn with_no_room_left_clients_wait_until_there_is() {
    let backing = Backing::always(OK);
    let mut plan = Plan::to(&[backing.address]);
    // One of them waits at the other door.
    plan.settings.connections = 2;
    let front = plan.start();
    let first = front.raw();
    wait("the first", || front.engine.connections() == 1);
    let mut second = front.raw();
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(front.engine.connections(), 1);
    drop(first);
    assert!(second.response(2).starts_with("HTTP/1.1 200"));
}
