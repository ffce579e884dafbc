//! The end of the engine, and of what it serves.

use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{Plan, SOON, wait};
use crate::peers::Backing;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn requests_at_work_are_answered_idle_connections_end_and_nobody_new_comes() {
    let (say, said) = mpsc::channel::<()>();
    let said = Arc::new(Mutex::new(said));
    let backing = Backing::raw(move |session| {
        while let Some(head) = session.head() {
            if head.contains("/slow") {
                let _told = said.lock().unwrap().recv_timeout(SOON);
            }
            session.say(OK);
        }
    });
    let front = Plan::to(&[backing.address]).start();
    let mut idle = front.raw();
    idle.send(GET);
    idle.response(2);
    let mut busy = front.raw();
    busy.send(GET.replace(" / ", " /slow "));
    wait("the request", || front.engine.requests() == 1);
    front.engine.drain();
    assert_eq!(idle.rest(), "");
    let address = front.clear();
    wait("the listener to close", || TcpStream::connect(address).is_err());
    say.send(()).unwrap();
    let answer = busy.rest();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"),
        "{answer}"
    );
    front.engine.join();
}

#[test]
fn what_goes_on_for_ever_ends_with_the_drain() {
    let backing = Backing::raw(|session| while session.head().is_some() {});
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.drain = Duration::from_millis(300))
        .start();
    let mut raw = front.raw();
    raw.send(GET);
    wait("the request", || front.engine.requests() == 1);
    let begun = Instant::now();
    front.engine.drain();
    assert_eq!(raw.rest(), "");
    assert!(begun.elapsed() >= Duration::from_millis(250));
    front.engine.join();
}

#[test]
fn a_new_snapshot_is_seen_by_the_next_request_of_an_old_connection() {
    let (one, two) = (Backing::always(OK), Backing::always(OK));
    let front = Plan::to(&[one.address]).start();
    let mut raw = front.raw();
    raw.send(GET);
    raw.response(2);
    let other = Plan::to(&[two.address]).start();
    front.engine.serve(Arc::clone(&other.snapshot));
    raw.send(GET);
    raw.response(2);
    assert_eq!((one.connections(), two.connections()), (1, 1));
}
