//! TLS that is not ours: connections that go to a backend by the name that their clients ask for.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proxy_ingress::passthrough::Target;
use proxy_ingress::route::{Balance, HashOn, HostMatch, Policy, WildcardDepth};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConnection, StreamOwned};

use crate::common::{Front, Plan, backend, endpoints, wait};
use crate::peers::{Backing, Raw};
use crate::tls::{self, Site};

fn exact(name: &str) -> HostMatch {
    HostMatch::Exact(name.into())
}

fn to(service: &str, change: impl FnOnce(&mut Policy)) -> Target {
    let mut policy = Policy::default();
    change(&mut policy);
    Target {
        backend: Some(backend(service)),
        policy: Arc::new(policy),
    }
}

/// A site that is terminated, and "pass.site.test", which goes to the backend "web" unopened.
fn site(backends: &[SocketAddr], change: impl FnOnce(&mut Plan)) -> Site {
    tls::site_of(|plan| {
        plan.endpoints = backends.to_vec();
        plan.passthrough.add(&exact("pass.site.test"), to("web", |_| ()));
        change(plan);
    })
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The bytes of a hello for a name.
fn hello(name: &str) -> (ClientConnection, Vec<u8>) {
    let config = tls::trusting(&[]);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    (connection, bytes)
}

#[test]
fn the_backend_speaks_tls_itself_and_other_names_are_terminated() {
    let own = tls::pair(&["pass.site.test", "x.wild.test"]);
    let backing = tls::secure_as(&own);
    let site = site(&[backing.address], |plan| {
        let host = HostMatch::Wildcard {
            suffix: "wild.test".into(),
            depth: WildcardDepth::One,
        };
        plan.passthrough.add(&host, to("web", |_| ()));
    });
    let config = tls::trusting(&[&own.0]);
    for name in ["pass.site.test", "PASS.Site.Test", "x.wild.test"] {
        let mut stream = site.open(&config, name).unwrap();
        let shown = stream.conn.peer_certificates().unwrap()[0].clone();
        assert_eq!(shown, CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap());
        write!(stream, "GET / HTTP/1.1\r\nHost: whatever it likes\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let counters = site.front.engine.counters();
    assert_eq!((count(&counters.tunnels), count(&counters.tunnel_errors)), (3, 0));
    site.front
        .counts("weir_ingress_passthrough_total{result=\"connected\"}", 3.0);
    // Terminated: the connection to the endpoint is in clear text, which that one does not understand.
    for name in ["a.site.test", "b.site.test"] {
        let mut stream = site.open(&site.config(&TLS13), name).unwrap();
        assert!(tls::ask(&mut stream, name).starts_with("HTTP/1.1 502 "));
    }
    assert_eq!(count(&counters.tunnels), 3);
}

#[test]
fn a_host_that_is_passed_through_is_not_served_over_tls_of_ours() {
    let backing = Backing::echo();
    let site = site(&[backing.address], |_| ());
    let config = site.config(&TLS13);
    let mut stream = site.open(&config, "b.site.test").unwrap();
    let answer = tls::ask(&mut stream, "pass.site.test");
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    assert_eq!(backing.seen(), "");
}

/// Says what it got, byte by byte, and then how that ended.
fn raw_echo() -> Backing {
    Backing::raw(|session| {
        while let Some(byte) = session.byte() {
            let _sent = session.stream.write_all(&[byte]);
        }
        session.say("the end");
    })
}

fn read(raw: &mut Raw, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    raw.0.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn l9_a_hello_in_any_pieces_and_records_comes_through_as_it_was() {
    let backing = raw_echo();
    let site = site(&[backing.address], |_| ());
    let (_, whole) = hello("pass.site.test");
    // The same message in records of a few bytes.
    let mut records = Vec::new();
    for piece in whole[5..].chunks(7) {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        records.extend_from_slice(&[22, 3, 1]);
        records.extend_from_slice(&length);
        records.extend_from_slice(piece);
    }
    for bytes in [whole, records] {
        let mut raw = Raw::to(site.front.tls());
        raw.0.set_nodelay(true).unwrap();
        for byte in &bytes {
            raw.0.write_all(&[*byte]).unwrap();
        }
        assert_eq!(read(&mut raw, bytes.len()), bytes);
        raw.send("and more");
        assert_eq!(read(&mut raw, 8), b"and more");
        // One side has said all; the other has not.
        raw.0.shutdown(Shutdown::Write).unwrap();
        assert_eq!(raw.rest(), "the end");
    }
}

#[test]
fn a_hello_in_records_is_terminated_too() {
    let site = site(&[], |_| ());
    let (connection, whole) = hello("b.site.test");
    let mut socket = Raw::to(site.front.tls()).0;
    for piece in whole[5..].chunks(5) {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        socket
            .write_all(&[&[22, 3, 1], length.as_slice(), piece].concat())
            .unwrap();
    }
    let mut stream = StreamOwned::new(connection, socket);
    let error = stream
        .flush()
        .and_then(|()| stream.conn.complete_io(&mut stream.sock))
        .unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[test]
fn what_is_no_hello_is_refused_with_an_alert() {
    let site = site(&[], |_| ());
    let mut raw = Raw::to(site.front.tls());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut first = [0; 1];
    raw.0.read_exact(&mut first).unwrap();
    assert_eq!(first, [21]);
    let counters = site.front.engine.counters();
    wait("it to be counted", || count(&counters.handshake_errors) == 1);
}

/// What a backend says of itself at once, and then waits for the other side to end.
fn named(name: &'static str) -> Backing {
    Backing::raw(move |session| {
        session.say(name);
        while session.byte().is_some() {}
    })
}

fn who(front: &Front) -> u8 {
    let mut raw = Raw::to(front.tls());
    raw.send(hello("pass.site.test").1);
    read(&mut raw, 1)[0]
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn endpoints_take_turns_and_those_that_are_ill_are_left_alone() {
    let (one, two) = (named("1"), named("2"));
    let site = site(&[one.address, nobody(), two.address], |_| ());
    let seen: Vec<u8> = (0..12).map(|_| who(&site.front)).collect();
    for name in *b"12" {
        assert!(
            seen.iter()
                .copied()
                .map(u32::from)
                .filter(|there| *there == u32::from(name))
                .count()
                >= 4,
            "{seen:?}"
        );
    }
    let counters = site.front.engine.counters();
    let failed = r#"weir_ingress_backend_connects_total{result="tcp"}"#;
    site.front.counts(failed, 3.0);
    assert_eq!(
        (count(&counters.tunnels), count(&counters.tunnel_errors)),
        (12, 0)
    );
}

#[test]
fn a_client_may_be_kept_at_its_endpoint() {
    let (one, two) = (named("1"), named("2"));
    let sticky = |policy: &mut Policy| policy.balance = Balance::Hash(HashOn::Client);
    let site = site(&[one.address, two.address], |plan| {
        plan.passthrough.add(&exact("pass.site.test"), to("web", sticky));
    });
    let first = who(&site.front);
    assert!((0..8).all(|_| who(&site.front) == first));
}

#[test]
fn without_a_backend_it_is_closed_and_counted() {
    let site = site(&[nobody()], |plan| {
        plan.passthrough.add(&exact("gone.site.test"), to("gone", |_| ()));
        let none = Target {
            backend: None,
            policy: Arc::default(),
        };
        plan.passthrough.add(&exact("none.site.test"), none);
    });
    let counters = site.front.engine.counters();
    for (name, errors) in [
        ("gone.site.test", 1),
        ("none.site.test", 2),
        ("pass.site.test", 3),
    ] {
        let mut raw = Raw::to(site.front.tls());
        raw.send(hello(name).1);
        assert_eq!(raw.rest(), "");
        wait(name, || count(&counters.tunnel_errors) == errors);
    }
    wait("all to end", || site.front.engine.connections() == 0);
    let late = named("3");
    site.front.upstream.set_endpoints(&endpoints(&[late.address]));
    assert_eq!(who(&site.front), b'3');
}

#[test]
fn silence_ends_it_and_a_drain_waits_for_its_deadline() {
    let backing = raw_echo();
    let site_quiet = site(&[backing.address], |plan| {
        let idle = |policy: &mut Policy| policy.idle_timeout = Duration::from_millis(200);
        plan.passthrough.add(&exact("pass.site.test"), to("web", idle));
    });
    let bytes = hello("pass.site.test").1;
    let mut raw = Raw::to(site_quiet.front.tls());
    raw.send(&bytes);
    assert_eq!(raw.rest(), String::from_utf8_lossy(&bytes));

    let site = site(&[backing.address], |plan| {
        plan.settings.drain = Duration::from_millis(500);
        plan.settings.keep_alive = Duration::from_millis(50);
    });
    let mut raw = Raw::to(site.front.tls());
    raw.send(&bytes);
    read(&mut raw, bytes.len());
    let begun = Instant::now();
    site.front.engine.drain();
    while begun.elapsed() < Duration::from_millis(350) {
        raw.send("x");
        assert_eq!(read(&mut raw, 1), b"x");
    }
    assert_eq!(raw.rest(), "");
    assert!(begun.elapsed() >= Duration::from_millis(450));
}
