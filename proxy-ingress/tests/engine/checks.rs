//! Endpoints that are asked how they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy_ingress::route::{HealthCheck, UpstreamProtocol};

use crate::common::{Front, Plan, endpoints, wait};
use crate::peers::{self, Backing};
use crate::tls;

fn check(path: Option<&str>) -> HealthCheck {
    HealthCheck {
        path: path.map(Into::into),
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(300),
        ..HealthCheck::default()
    }
}

/// Says who it is, and how it is when it is asked for that.
fn backing(name: &'static str, well: &Arc<AtomicBool>) -> Backing {
    let well = Arc::clone(well);
    Backing::raw(move |session| {
        while let Some(head) = session.head() {
            let asked = head.starts_with("GET /healthz?x=1 HTTP/1.1\r\n");
            let status = if asked && !well.load(Ordering::SeqCst) {
                "500 Ill"
            } else {
                "200 OK"
            };
            session.say(&format!("HTTP/1.1 {status}\r\nContent-Length: 1\r\n\r\n{name}"));
        }
    })
}

fn asked(front: &Front) -> String {
    let mut raw = front.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = raw.response(1);
    text.chars().last().unwrap().to_string()
}

/// Whether requests come only to these, in ten of them.
fn only(front: &Front, names: &str) -> bool {
    (0..10).all(|_| names.contains(&asked(front)))
}

/// Whether they come to each of these, in ten of them.
fn each(front: &Front, names: &str) -> bool {
    let seen: String = (0..10).map(|_| asked(front)).collect();
    names.chars().all(|name| seen.contains(name))
}

fn quick(plan: Plan) -> Front {
    plan.settings(|settings| settings.upstream.slow_return = Duration::from_millis(50))
        .start()
}

#[test]
fn who_says_that_it_is_ill_gets_nothing_until_it_says_that_it_is_well() {
    let (one, two) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (a, b) = (backing("a", &one), backing("b", &two));
    let front = quick(Plan::to(&[a.address, b.address]));
    front.upstream.set_check(Some(check(Some("/healthz?x=1"))));
    assert!(each(&front, "ab"));
    two.store(false, Ordering::SeqCst);
    wait("b to be left alone", || only(&front, "a"));
    let counters = front.engine.counters();
    assert!(counters.check_failures.load(Ordering::Relaxed) >= 3);
    assert!(front.sample("weir_ingress_health_checks_total{result=\"failed\"}") >= 3.0);
    // All ill: all are asked.
    one.store(false, Ordering::SeqCst);
    wait("both to be asked", || each(&front, "ab"));
    two.store(true, Ordering::SeqCst);
    wait("b to be asked alone", || only(&front, "b"));
    one.store(true, Ordering::SeqCst);
    wait("both to be well", || each(&front, "ab"));
    assert!(
        a.seen().contains("user-agent: weir-health-check\r\n"),
        "{}",
        a.seen()
    );
}

#[test]
fn who_is_asked_no_more_is_well() {
    let well = Arc::new(AtomicBool::new(true));
    let ill = Arc::new(AtomicBool::new(false));
    let (a, b) = (backing("a", &well), backing("b", &ill));
    let front = quick(Plan::to(&[a.address, b.address]));
    front.upstream.set_check(Some(check(Some("/healthz?x=1"))));
    wait("b to be left alone", || only(&front, "a"));
    front.upstream.set_check(None);
    wait("b to be asked", || each(&front, "ab"));
}

#[test]
fn an_endpoint_that_takes_connections_and_is_silent_is_ill() {
    let well = Arc::new(AtomicBool::new(true));
    let a = backing("a", &well);
    let silent = Backing::raw(|session| while session.byte().is_some() {});
    let front = quick(Plan::to(&[a.address, silent.address]));
    let failures = || front.engine.counters().check_failures.load(Ordering::Relaxed);
    let passed = || front.engine.counters().checks.load(Ordering::Relaxed);
    // It takes connections, and that is all that is asked.
    front.upstream.set_check(Some(check(None)));
    wait("checks", || passed() >= 4);
    assert_eq!(failures(), 0);
    front.upstream.set_check(Some(check(Some("/"))));
    wait("failures", || failures() >= 3);
    wait("it to be left alone", || only(&front, "a"));
    // Nobody is asked who is no endpoint any more.
    front.upstream.set_endpoints(&endpoints(&[a.address]));
    wait("checks", || passed() >= 20);
}

#[test]
fn checks_speak_what_the_backend_does() {
    let well = |_| async { http::Response::new(peers::full("ok")) };
    let h2c = peers::h2c(well, 10);
    let secure = tls::secure();
    for (address, protocol) in [
        (h2c.address, UpstreamProtocol::H2c),
        (secure.address, UpstreamProtocol::Https),
    ] {
        let mut plan = Plan::to(&[address]);
        plan.protocol = Some(protocol);
        let front = quick(plan);
        front.upstream.set_check(Some(check(Some("/"))));
        let counters = front.engine.counters();
        wait("checks", || counters.checks.load(Ordering::Relaxed) >= 3);
        assert_eq!(counters.check_failures.load(Ordering::Relaxed), 0, "{protocol:?}");
    }
}

#[test]
fn many_endpoints_are_not_asked_all_at_once_and_a_drain_ends_it() {
    let all: Vec<Backing> = (0..20)
        .map(|_| Backing::raw(|session| while session.byte().is_some() {}))
        .collect();
    let addresses: Vec<_> = all.iter().map(|one| one.address).collect();
    let mut plan = Plan::to(&addresses);
    plan.workers = 2;
    let front = quick(plan);
    let slow = HealthCheck {
        interval: Duration::from_secs(2),
        ..check(None)
    };
    front.upstream.set_check(Some(slow));
    let counts = || all.iter().map(Backing::connections).sum::<usize>();
    wait("the first", || counts() >= 1);
    assert!(counts() < 15, "{}", counts());
    wait("all", || all.iter().all(|one| one.connections() >= 1));
    front.engine.drain();
    front.engine.join();
}
