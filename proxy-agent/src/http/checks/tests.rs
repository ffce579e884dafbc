//! Real servers, on the loopback addresses of this machine.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const WITHIN: Duration = Duration::from_secs(10);

fn local(service: &str, count: usize) -> LocalEndpoints {
    LocalEndpoints {
        service: ObjectName::new("shop", service),
        count,
    }
}

/// A port that nobody has, at both loopback addresses.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("[::]:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn start() -> (ServiceChecks, Arc<Health>) {
    let health = Arc::new(Health::default());
    let (checks, keeper) = service_checks(Arc::clone(&health));
    tokio::spawn(keeper.forever());
    (checks, health)
}

/// Head and body; none if nobody listens.
async fn ask(at: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    let read = timeout(WITHIN, stream.read_to_string(&mut answer));
    read.await.unwrap().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// Waits until the head begins with a status; an empty one means that nobody listens.
async fn becomes(at: SocketAddr, status: &str) -> String {
    let deadline = Instant::now() + WITHIN;
    loop {
        let (head, body) = ask(at, "/").await.unwrap_or_default();
        let line = head.lines().next().unwrap_or_default();
        if line.strip_prefix("HTTP/1.1 ").unwrap_or_default() == status {
            return body;
        }
        assert!(Instant::now() < deadline, "{at}: {line:?}, not {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const OK: &str = "200 OK";
const NONE: &str = "503 Service Unavailable";

#[test]
fn the_body_is_that_of_kube_proxy() {
    let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\
                    \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    assert_eq!(body(&local("web", 2), true), expected);
    assert!(body(&local("we\"b", 0), false).contains("\"name\": \"we\\\"b\""));
}

#[tokio::test]
async fn servers_come_and_go_and_tell_what_they_are_told() {
    let (checks, health) = start();
    let (port, other) = (free_port(), free_port());
    let [v4, v6, neighbour] = [at("127.0.0.1", port), at("::1", port), at("127.0.0.1", other)];
    checks.want(
        [
            (v4, local("web", 2)),
            (v6, local("web", 0)),
            (neighbour, local("db", 1)),
        ]
        .into(),
    );
    assert_eq!(becomes(v4, OK).await, body(&local("web", 2), true));
    assert_eq!(becomes(v6, NONE).await, body(&local("web", 0), true));
    let (head, _) = ask(v4, "/any/path?and=query").await.unwrap();
    for line in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 2",
    ] {
        assert!(
            head.lines().any(|other| other == line),
            "{line} is not in\n{head}"
        );
    }
    // Endpoints go and come.
    checks.want(
        [
            (v4, local("web", 0)),
            (v6, local("web", 1)),
            (neighbour, local("db", 1)),
        ]
        .into(),
    );
    becomes(v4, NONE).await;
    assert_eq!(becomes(v6, OK).await, body(&local("web", 1), true));
    // A stuck agent sends nobody here.
    health.began(Duration::ZERO);
    assert_eq!(becomes(v6, NONE).await, body(&local("web", 1), false));
    health.done(clock::monotonic());
    becomes(v6, OK).await;
    // The Service goes, its neighbour stays.
    checks.want([(neighbour, local("db", 3))].into());
    becomes(v4, "").await;
    becomes(v6, "").await;
    assert_eq!(becomes(neighbour, OK).await, body(&local("db", 3), true));
    assert_eq!(checks.problems(), []);
}

#[tokio::test]
async fn a_port_moves_from_all_addresses_to_one_and_back() {
    let (checks, _health) = start();
    let news = checks.news();
    let port = free_port();
    let (all, one) = (at("0.0.0.0", port), at("127.0.0.2", port));
    for _ in 0..3 {
        checks.want([(all, local("web", 1))].into());
        becomes(at("127.0.0.1", port), OK).await;
        checks.want([(one, local("web", 1))].into());
        becomes(one, OK).await;
        becomes(at("127.0.0.1", port), "").await;
    }
    assert!(
        !news.has_changed().unwrap(),
        "one was not closed before the other was opened"
    );
}

#[tokio::test]
async fn a_taken_port_costs_its_service_only_until_it_is_free() {
    let squatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = squatter.local_addr().unwrap();
    let free = at("127.0.0.1", free_port());
    let (checks, _health) = start();
    let mut news = checks.news();
    checks.want([(taken, local("web", 1)), (free, local("db", 1))].into());
    becomes(free, OK).await;
    timeout(WITHIN, news.changed()).await.unwrap().unwrap();
    let problems = checks.problems();
    let [problem] = &problems[..] else {
        panic!("{problems:?}")
    };
    assert_eq!(problem.reason, Reason::FailedToStartServiceHealthcheck);
    let line = problem.to_string();
    assert!(
        line.starts_with("Service shop/web: healthCheckNodePort "),
        "{line}"
    );
    assert!(
        line.contains("Address already in use") && line.contains("kube-proxy"),
        "{line}"
    );
    drop(squatter);
    becomes(taken, OK).await;
    timeout(WITHIN, news.changed()).await.unwrap().unwrap();
    assert_eq!(checks.problems(), []);
}

#[tokio::test]
async fn hundreds_of_services_are_cheap() {
    let (checks, _health) = start();
    let port = free_port();
    let sockets: Sockets = (0..500)
        .map(|number| {
            let ip = format!("127.0.{}.{}", number / 250 + 1, number % 250 + 1);
            (at(&ip, port), local(&format!("web-{number}"), number))
        })
        .collect();
    let begin = Instant::now();
    checks.want(sockets.clone());
    let (last, told) = sockets.last_key_value().unwrap();
    assert_eq!(becomes(*last, OK).await, body(told, true));
    assert!(begin.elapsed() < WITHIN, "{:?}", begin.elapsed());
    assert_eq!(checks.problems(), []);
}
