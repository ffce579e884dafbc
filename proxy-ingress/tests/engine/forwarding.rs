//! Requests to backends and their responses back, over HTTP/1.1.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http::StatusCode;
use proxy_ingress::route::{
    Action, Balance, Cookie, Filter, HeaderEdits, HostMatch, PathMatch, Redirect, Route, Weighted,
};

use crate::common::{Plan, backend, endpoints, redirect, route, wait, with_filters, with_policy};
use crate::peers::Backing;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_request_arrives_with_what_we_say_of_its_client() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).start();
    let answer = front.says(
        "GET /a//b?c=d HTTP/1.1\r\nHost: A.example:8080\r\nX-Forwarded-For: 1.1.1.1\r\nX_Odd: 1\r\nAccept: */*\r\n\
         Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\r\n",
    );
    let port = front.clear().port();
    let head = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(head.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: A.example:8080",
        "accept: */*",
        "te: trailers",
        "x-forwarded-for: 127.0.0.1",
        "x-real-ip: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: A.example:8080",
        &format!("x-forwarded-port: {port}"),
        "x-request-id: ",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{line} is not in {head}");
    }
    for gone in ["x-hop", "1.1.1.1", "x_odd", "connection", "close"] {
        assert!(!head.contains(gone), "{gone} is in {head}");
    }
}

#[test]
fn requests_in_a_row_share_one_connection_on_both_sides() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address]).start();
    let mut raw = front.raw();
    for _ in 0..20 {
        raw.send(GET);
        assert!(raw.response(2).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let mut other = front.raw();
    other.send(GET);
    other.response(2);
    assert_eq!(backing.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).start();
    let answer = front.says(format!(
        "{}{}{LAST}",
        GET.replace(" / ", " /one "),
        GET.replace(" / ", " /two ")
    ));
    let order: Vec<_> = ["GET /one ", "GET /two ", "GET / "]
        .iter()
        .map(|text| answer.find(text).unwrap())
        .collect();
    assert!(order.is_sorted(), "{answer}");
}

#[test]
fn a_head_request_has_a_length_and_no_body() {
    let backing = Backing::always("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
    let front = Plan::to(&[backing.address]).start();
    let mut raw = front.raw();
    for _ in 0..2 {
        raw.send(GET.replace("GET", "HEAD"));
        assert!(raw.until("\r\n\r\n").contains("content-length: 1234"));
    }
    assert_eq!(backing.connections(), 1);
}

#[test]
fn chunks_and_bodies_without_length_come_through() {
    let chunked = Backing::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let front = Plan::to(&[chunked.address]).start();
    let mut raw = front.raw();
    for _ in 0..3 {
        raw.send(GET);
        let text = raw.until("0\r\n\r\n");
        assert!(text.contains("abc") && text.contains("de"), "{text}");
    }
    assert_eq!(chunked.connections(), 1);
    let until_end = Backing::raw(|session| {
        session.head();
        session.say("HTTP/1.1 200 OK\r\n\r\nall of it");
    });
    let front = Plan::to(&[until_end.address]).start();
    assert!(front.says(LAST).contains("all of it"));
}

#[test]
fn a_body_streams_before_it_is_whole_in_both_directions() {
    let backing = Backing::raw(|session| {
        session.head();
        session.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Each byte is answered before the next is sent.
        while let Some(line) = session.bytes(6) {
            session.say(&String::from_utf8(line).unwrap());
        }
    });
    let front = Plan::to(&[backing.address]).start();
    let mut raw = front.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for letter in ["a", "b", "c"] {
        raw.send(format!("1\r\n{letter}\r\n"));
        assert!(
            raw.until(&format!("{letter}\r\n"))
                .ends_with(&format!("1\r\n{letter}\r\n"))
        );
    }
}

#[test]
fn a_client_is_told_to_go_on_only_if_somebody_wants_its_body() {
    let backing = Backing::raw(|session| {
        let head = session.head().unwrap_or_default();
        assert!(!head.contains("expect"));
        session.bytes(4);
        session.say(OK);
    });
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let front = Plan::to(&[backing.address]).start();
    let mut raw = front.raw();
    raw.send(post);
    assert!(raw.until("\r\n\r\n").starts_with("HTTP/1.1 100 "));
    raw.send("body");
    assert!(raw.rest().starts_with("HTTP/1.1 200 "));
    assert!(backing.seen().ends_with("\r\n\r\nbody"));
    let front = Plan::to(&[]).start();
    assert!(front.says(post).starts_with("HTTP/1.1 503 "));
}

#[test]
fn nobody_there_is_said_with_different_words() {
    let gone = |plan: Plan| plan.start().says(LAST);
    let answer = gone(Plan::to(&[]));
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"),
        "{answer}"
    );
    assert!(gone(Plan::to(&[nobody()])).starts_with("HTTP/1.1 502 "));
    let other = Route {
        host: HostMatch::Exact("b.example".into()),
        ..route()
    };
    let answer = gone(Plan::to(&[]).route(other));
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\nNot Found"),
        "{answer}"
    );
    let refuse = Route {
        action: Action::Refuse {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            why: "a secret".into(),
        },
        ..route()
    };
    let answer = gone(Plan::to(&[]).route(refuse));
    assert!(
        answer.starts_with("HTTP/1.1 500 ") && !answer.contains("secret"),
        "{answer}"
    );
    let strange = Route {
        action: Action::Forward(vec![Weighted {
            weight: 1,
            backend: backend("unknown"),
        }]),
        ..route()
    };
    assert!(gone(Plan::to(&[]).route(strange)).starts_with("HTTP/1.1 503 "));
}

#[test]
fn another_endpoint_is_tried_when_one_is_dead_and_soon_nobody_asks_it() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[nobody(), backing.address]).start();
    for _ in 0..20 {
        assert!(front.says(LAST).starts_with("HTTP/1.1 200 "));
    }
    // After three failures it is left alone.
    front.counts("weir_ingress_backend_connects_total{result=\"tcp\"}", 3.0);
    front.counts("weir_ingress_ejections_total", 1.0);
    front.counts("weir_ingress_endpoints_ejected", 1.0);
}

#[test]
fn what_a_backend_may_have_seen_is_not_sent_twice_unless_it_does_no_harm() {
    let dying = Backing::raw(|session| {
        session.head();
    });
    let backing = Backing::always(OK);
    let front = Plan::to(&[dying.address, backing.address]).start();
    for _ in 0..4 {
        assert!(
            front.says(LAST).starts_with("HTTP/1.1 200 "),
            "GET may be repeated"
        );
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
    let answers: Vec<_> = (0..4).map(|_| front.says(post)).collect();
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer.starts_with("HTTP/1.1 502 "))
            .count(),
        2,
        "{answers:?}"
    );
    assert_eq!(
        dying.seen().matches("POST").count() + backing.seen().matches("POST").count(),
        4
    );
}

#[test]
fn a_kept_connection_that_died_costs_no_request() {
    let backing = Backing::raw(|session| {
        // One request per connection, and no word about it.
        session.head();
        session.say(OK);
    });
    let front = Plan::to(&[backing.address]).start();
    for _ in 0..30 {
        assert!(front.says(LAST).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_backend_that_dies_in_its_answer_leaves_no_clean_end() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n");
        let backing = Backing::raw(move |session| {
            session.head();
            session.say(&text);
        });
        let front = Plan::to(&[backing.address]).start();
        let answer = front.says(GET);
        assert!(answer.contains("abc"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
        assert_eq!(backing.seen().matches("GET").count(), 1, "it is not asked again");
    }
}

#[test]
fn an_answer_that_is_no_http_is_a_bad_gateway() {
    let backing = Backing::raw(|session| {
        session.head();
        session.say("SSH-2.0-OpenSSH\r\n\r\n");
    });
    let front = Plan::to(&[backing.address]).start();
    assert!(front.says(LAST).starts_with("HTTP/1.1 502 "));
}

#[test]
fn a_response_that_is_not_read_to_its_end_takes_its_connection_along() {
    let backing = Backing::raw(|session| {
        while session.head().is_some() {
            session.say("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\nonly a part");
        }
    });
    let front = Plan::to(&[backing.address]).start();
    for number in 1..4 {
        let mut raw = front.raw();
        raw.send(GET);
        raw.until("only a part");
        drop(raw);
        wait("the end of the request", || front.engine.requests() == 0);
        assert_eq!(backing.connections(), number);
    }
}

#[test]
fn endpoints_change_under_an_open_connection() {
    let (one, two) = (Backing::always(OK), Backing::always(OK));
    let front = Plan::to(&[one.address]).start();
    let mut raw = front.raw();
    raw.send(GET);
    raw.response(2);
    front.upstream.set_endpoints(&endpoints(&[two.address]));
    raw.send(GET);
    raw.response(2);
    assert_eq!((one.connections(), two.connections()), (1, 1));
}

#[test]
fn redirects_go_where_the_route_says() {
    let front = Plan::to(&[])
        .route(redirect(Redirect {
            status: StatusCode::FOUND,
            scheme: None,
            host: Some("b.example".into()),
            port: None,
            path: None,
        }))
        .start();
    let answer = front.says(LAST.replace(" / ", " /x?y=z "));
    assert!(
        answer.starts_with("HTTP/1.1 302 ") && answer.contains("location: http://b.example/x?y=z\r\n"),
        "{answer}"
    );
    let front = Plan::to(&[])
        .route(with_policy(|policy| {
            policy.https_redirect = Some(StatusCode::PERMANENT_REDIRECT);
        }))
        .start();
    let answer = front.says(LAST);
    assert!(
        answer.starts_with("HTTP/1.1 308 ") && answer.contains("location: https://a.example/\r\n"),
        "{answer}"
    );
}

#[test]
fn filters_change_what_both_sides_see() {
    let edits = |name: &str| HeaderEdits {
        remove: vec!["accept".parse().unwrap()],
        set: vec![(name.parse().unwrap(), "1".parse().unwrap())],
        add: Vec::new(),
    };
    let mut changed = with_filters(vec![
        Filter::RequestHeaders(edits("x-in")),
        Filter::ResponseHeaders(edits("x-out")),
        Filter::RewritePrefix("/new".into()),
        Filter::RewriteHost("inner".into()),
    ]);
    changed.path = PathMatch::Prefix("/old".into());
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).route(changed).start();
    let answer = front.says("GET /old/x?q HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    let (head, seen) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("x-out: 1"), "{head}");
    assert!(
        seen.starts_with("GET /new/x?q ") && seen.contains("host: inner\r\n") && seen.contains("x-in: 1"),
        "{seen}"
    );
    assert!(!seen.contains("accept"), "{seen}");
    assert!(seen.contains("x-forwarded-host: a\r\n"), "{seen}");
}

#[test]
fn a_cookie_brings_a_client_back() {
    let (one, two) = (Backing::always(OK), Backing::always(OK));
    let cookie = Cookie {
        name: "at".into(),
        max_age: None,
        path: "/".into(),
        secure: false,
    };
    let front = Plan::to(&[one.address, two.address])
        .route(with_policy(|policy| policy.balance = Balance::Cookie(cookie)))
        .start();
    let answer = front.says(LAST);
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    let pair = line.split(';').next().unwrap();
    let seen = |backing: &Backing| backing.seen().matches("GET").count();
    let first = if seen(&one) == 1 { &one } else { &two };
    for number in 2..8 {
        let answer = front.says(LAST.replace("\r\nConn", &format!("\r\nCookie: {pair}\r\nConn")));
        assert!(!answer.contains("set-cookie"), "{answer}");
        assert_eq!(seen(first), number);
    }
}

#[test]
fn a_response_that_drips_for_ever_ends_with_the_requests_time() {
    let backing = Backing::raw(|session| {
        session.head();
        session.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while session.stream.take_error().is_ok_and(|error| error.is_none()) {
            session.say("1\r\nx\r\n");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let front = Plan::to(&[backing.address])
        .route(with_policy(|policy| {
            policy.request_timeout = Some(Duration::from_millis(200));
        }))
        .start();
    let answer = front.says(GET);
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains('x'),
        "{answer}"
    );
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[test]
fn a_slow_backend_and_a_silent_one_are_given_up() {
    let silent = Backing::raw(|session| while session.head().is_some() {});
    let quick = |policy: &mut proxy_ingress::route::Policy| {
        policy.response_timeout = Some(Duration::from_millis(100));
        policy.retry.on_timeout = false;
    };
    let front = Plan::to(&[silent.address]).route(with_policy(quick)).start();
    assert!(front.says(LAST).starts_with("HTTP/1.1 504 "));
    let whole =
        |policy: &mut proxy_ingress::route::Policy| policy.request_timeout = Some(Duration::from_millis(100));
    let front = Plan::to(&[silent.address]).route(with_policy(whole)).start();
    assert!(front.says(LAST).starts_with("HTTP/1.1 504 "));
    let half = Backing::raw(|session| {
        session.head();
        session.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        while session.head().is_some() {}
    });
    let idle = |policy: &mut proxy_ingress::route::Policy| policy.idle_timeout = Duration::from_millis(100);
    let front = Plan::to(&[half.address]).route(with_policy(idle)).start();
    assert!(front.says(LAST).ends_with("\r\n\r\nhalf"));
}
