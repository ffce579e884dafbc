//! HTTP/2 clients that send without end (the hard cases L6 and L8).

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::common::{Plan, wait};
use crate::http2::{OK, PSEUDO, client, fields, frame, frames, get, preface};
use crate::peers::{Backing, runtime};

#[test]
fn l6_pings_are_answered_at_their_rate_and_nobody_waits_for_that() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.http2.idle_frames = 1_000)
        .start();
    let mut raw = preface(&front);
    let begun = Instant::now();
    raw.send(frame(6, 0, 0, b"12345678").repeat(1_500));
    wait("the limit", || {
        front.sample("weir_ingress_limits_total{limit=\"idle_frames\"}") >= 1.0
    });
    let answer = front.says("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut answers = 0;
    while answers < 1_500 {
        let mut head = [0; 9];
        raw.0.read_exact(&mut head).unwrap();
        let mut payload = vec![0; head[2].into()];
        raw.0.read_exact(&mut payload).unwrap();
        answers += u32::from(head[3] == 6);
    }
    // 250 at once, the others at 1,000 a second; what is answered makes up for an eighth of them.
    assert!(
        begun.elapsed() > Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn l6_rapid_resets_end_the_connection() {
    let backing = Backing::raw(|session| while session.head().is_some() {});
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.http2.given_up = 50)
        .start();
    let mut raw = preface(&front);
    let block = fields(&PSEUDO);
    for stream in (1..4001).step_by(2) {
        let mut both = frame(1, 5, stream, &block);
        both.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
        if raw.0.write_all(&both).is_err() {
            break;
        }
        if stream % 40 == 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    frames(&mut raw);
    wait("the end", || {
        front.engine.connections() == 0 && front.engine.requests() == 0
    });
    assert!(
        backing.seen().matches("GET").count() < 200,
        "{}",
        backing.seen().matches("GET").count()
    );
}

#[test]
fn l6_requests_at_work_that_are_reset_are_counted() {
    let backing = Backing::raw(|session| while session.head().is_some() {});
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.http2.given_up = 20)
        .start();
    let mut raw = preface(&front);
    let block = fields(&PSEUDO);
    let ended = (1..400).step_by(2).find(|stream| {
        raw.send(frame(1, 5, *stream, &block));
        let ended = || front.engine.connections() == 0;
        wait("the request", || front.engine.requests() == 1 || ended());
        raw.send(frame(3, 0, *stream, &[0, 0, 0, 8]));
        wait("its end", || front.engine.requests() == 0);
        ended()
    });
    assert!(ended.is_some_and(|stream| stream < 2 * 25), "{ended:?}");
}

#[test]
fn l6_a_flood_of_continuations_ends_the_connection() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address]).start();
    let mut raw = preface(&front);
    raw.send(frame(1, 1, 1, &fields(&PSEUDO)));
    let value = "v".repeat(100);
    for number in 0..20_000 {
        let name = format!("x-{number}");
        if raw
            .0
            .write_all(&frame(9, 0, 1, &fields(&[(&name, &value)])))
            .is_err()
        {
            break;
        }
    }
    frames(&mut raw);
    wait("the end", || front.engine.connections() == 0);
    assert_eq!(backing.seen(), "");
}

#[test]
fn l8_a_header_bomb_is_refused() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address]).start();
    runtime().block_on(async {
        let mut sender = client(&front).await;
        let mut request = get("http://a/");
        for number in 0..500 {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            request
                .headers_mut()
                .insert(name, "v".repeat(100).parse().unwrap());
        }
        match sender.send_request(request).await {
            Ok(response) => assert_eq!(response.status(), 431),
            Err(error) => assert!(!error.is_timeout(), "{error:?}"),
        }
    });
    assert_eq!(backing.seen(), "");
}

#[test]
fn l6_a_client_that_opens_no_window_does_not_hold_us_for_ever() {
    let backing = Backing::always("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\nxxxxxxxxxx");
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.write_timeout = Duration::from_millis(300))
        .start();
    let mut raw = front.raw();
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    raw.send(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    raw.send(frame(1, 5, 1, &fields(&PSEUDO)));
    wait("the request", || front.engine.requests() == 1);
    wait("the end", || front.engine.connections() == 0);
}
