//! Real connections to a server in this process.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

struct Hello;

impl Pages for Hello {
    fn page(&self, path: &str) -> impl Future<Output = Page> + Send {
        std::future::ready(match path {
            "/hello" => Page::text(200, "hello").with(ALLOW, HeaderValue::from(2)),
            "/healthz" => Page::json(503, "{}".to_owned()),
            "/metrics" => Page::metrics("up 1\n".to_owned()),
            _ => Page::text(404, format!("not {path}\n")),
        })
    }
}

fn start() -> SocketAddr {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, Arc::new(Hello)));
    at
}

/// The whole answer as text: kept-alive connections would never end it.
async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn a_page_is_shown_as_it_is() {
    let at = start();
    let table = [
        ("/hello?to=you", "200 OK", "text/plain; charset=utf-8", "hello"),
        ("/healthz", "503 Service Unavailable", "application/json", "{}"),
        ("/metrics", "200 OK", "text/plain; version=0.0.4", "up 1\n"),
        (
            "/else?",
            "404 Not Found",
            "text/plain; charset=utf-8",
            "not /else\n",
        ),
    ];
    for (path, status, kind, body) in table {
        let answer = ask(at, &format!("GET {path}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.contains(&format!("content-type: {kind}\r\n")), "{answer}");
        assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
        assert_eq!(
            answer.contains("allow: 2\r\n"),
            path.starts_with("/hello"),
            "{answer}"
        );
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
}

#[tokio::test]
async fn other_questions_are_turned_away() {
    let at = start();
    assert!(ask(at, "GET /").await.starts_with("HTTP/1.1 404"));
    let refused = ask(at, "POST /hello").await;
    assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
    assert!(refused.contains("allow: GET, HEAD\r\n"), "{refused}");
    assert!(ask(at, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let head = ask(at, "HEAD /hello").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_client_that_goes_makes_room() {
    let at = start();
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    drop(silent.pop());
    assert!(ask(at, "GET /hello").await.starts_with("HTTP/1.1 200"));
}

fn port(at: &str) -> Port<Hello> {
    Port {
        what: "health checks",
        flag: "--flag",
        at: Some(at.parse().unwrap()),
        rival: "kube-proxy",
        consequence: "nobody minds",
        pages: Hello,
    }
}

#[test]
fn a_taken_port_is_told_with_what_to_do() {
    let port = port("0.0.0.0:10256");
    let told = |kind: io::ErrorKind| port.complaint(port.at.unwrap(), &kind.into());
    assert_eq!(
        told(io::ErrorKind::AddrInUse),
        "cannot answer health checks at 0.0.0.0:10256: address in use; nobody minds; \
         end the program that listens there (kube-proxy?), or choose another with --flag"
    );
    assert!(told(io::ErrorKind::PermissionDenied).ends_with("; nobody minds; choose another with --flag"));
}

#[tokio::test]
async fn a_taken_port_is_tried_again() {
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = squatter.local_addr().unwrap();
    tokio::spawn(port(&at.to_string()).forever());
    // The port meets the squatter.
    tokio::task::yield_now().await;
    drop(squatter);
    let deadline = Instant::now() + 5 * RETRY;
    while TcpStream::connect(at).await.is_err() {
        assert!(Instant::now() < deadline, "nobody listens at {at}");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(ask(at, "GET /hello").await.ends_with("\r\n\r\nhello"));
}
