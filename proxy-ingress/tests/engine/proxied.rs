//! Balancers in front that say who the client is.

use std::io::Write;
use std::time::Duration;

use proxy_ingress::settings::Settings;

use crate::common::{Front, Plan, wait};
use crate::peers::{Backing, Raw};
use crate::tls;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 51201 443\r\n";

/// Everybody here is a balancer.
fn balanced(settings: &mut Settings) {
    settings.proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
}

fn binary(command: u8, source: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + tlvs.len()).unwrap().to_be_bytes();
    let ports = [200, 1, 1, 187];
    let to = [10, 0, 0, 1];
    [
        b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
        &[command, 0x11],
        &length,
        &source,
        &to,
        &ports,
        tlvs,
    ]
    .concat()
}

fn faults(front: &Front, name: &str) -> u64 {
    let faults = front.engine.counters().proxy_faults.lock().unwrap();
    faults.get(name).copied().unwrap_or(0)
}

#[test]
fn the_client_is_who_the_balancer_says() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).settings(balanced).start();
    let tlv = [&[4, 1, 0][..], &[7; 256]].concat();
    for (header, client) in [
        (LINE.as_bytes().to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, [192, 0, 2, 8], &tlv), "192.0.2.8"),
        (binary(0x20, [192, 0, 2, 8], &[]), "127.0.0.1"),
    ] {
        let answer = front.says([&header, GET.as_bytes()].concat());
        assert!(
            answer.contains(&format!("x-forwarded-for: {client}\r\n")),
            "{answer}"
        );
    }
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).settings(balanced).start();
    for header in [
        LINE.as_bytes().to_vec(),
        binary(0x21, [192, 0, 2, 7], &[4, 0, 1, 0]),
    ] {
        let mut raw = front.raw();
        raw.0.set_nodelay(true).unwrap();
        for byte in [&header, GET.as_bytes()].concat() {
            raw.0.write_all(&[byte]).unwrap();
        }
        let answer = raw.rest();
        assert!(answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
    }
}

#[test]
fn who_is_no_balancer_is_taken_at_its_word_by_nobody() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.proxy_protocol = vec!["10.0.0.0/8".parse().unwrap()])
        .start();
    let answer = front.says(format!("{LINE}{GET}"));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let answer = front.says(GET);
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{answer}");
    assert!(front.engine.counters().proxy_faults.lock().unwrap().is_empty());
}

#[test]
fn a_balancer_without_a_good_header_is_closed_and_counted() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address])
        .settings(balanced)
        .settings(|settings| settings.header_timeout = Duration::from_millis(300))
        .start();
    // One that only looks whether somebody listens is no fault.
    drop(front.raw());
    for (bytes, fault) in [
        (GET.as_bytes().to_vec(), "missing"),
        (b"PROXY TCP4 nobody nowhere 1 2\r\n".to_vec(), "malformed"),
        (format!("PROXY UNKNOWN {}", "x".repeat(200)).into_bytes(), "long"),
        (LINE.as_bytes()[..20].to_vec(), "slow"),
    ] {
        let mut raw = front.raw();
        raw.send(&bytes);
        assert_eq!(raw.rest(), "", "{fault}");
        wait(fault, || faults(&front, fault) == 1);
    }
    let mut raw = front.raw();
    raw.send(&LINE.as_bytes()[..20]);
    drop(raw);
    wait("cut", || faults(&front, "cut") == 1);
    front.counts("weir_ingress_proxy_protocol_errors_total{fault=\"cut\"}", 1.0);
    wait("all to end", || front.engine.connections() == 0);
    assert_eq!(front.engine.counters().proxy_faults.lock().unwrap().len(), 5);
    assert_eq!(backing.seen(), "");
}

#[test]
fn limits_are_the_clients_and_not_the_balancers() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address])
        .settings(balanced)
        .settings(|settings| settings.connections_per_client = 1)
        .start();
    let open = |client: u8| -> Raw {
        let mut raw = front.raw();
        raw.send(format!("PROXY TCP4 192.0.2.{client} 10.0.0.1 1 2\r\n"));
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        raw
    };
    let mut kept: Vec<Raw> = (1..4).map(open).collect();
    for raw in &mut kept {
        assert!(raw.until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(open(2).rest(), "");
    front.counts(
        r#"weir_ingress_limits_total{limit="connections_per_client"}"#,
        1.0,
    );
    drop(kept);
    wait("room", || front.engine.connections() == 0);
    assert!(open(2).until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn it_stands_in_front_of_tls_too() {
    let site = tls::site_with(balanced);
    let config = site.config(&rustls::version::TLS13);
    for header in [LINE.as_bytes().to_vec(), binary(0x21, [192, 0, 2, 7], &[])] {
        let mut raw = Raw::to(site.front.tls());
        raw.send(&header);
        let mut stream = tls::open_over(&config, "a.site.test", raw.0).unwrap();
        let answer = tls::ask(&mut stream, "a.site.test");
        assert!(answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
    }
}
