//! Real connections to a server in this process.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn start(routes: Routes) -> SocketAddr {
    let listener = listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, routes));
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
async fn probes_are_answered_as_kube_proxy_answers_them() {
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::new().unwrap()));
    let at = start(Routes::Health(Arc::clone(&health), Arc::clone(&metrics)));
    for path in ["/healthz", "/livez?verbose"] {
        let answer = ask(at, &format!("GET {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
        assert!(answer.contains(r#""healthy":true"#), "{answer}");
        assert_eq!(
            answer.contains(r#""nodeEligible":true"#),
            path == "/healthz",
            "{answer}"
        );
    }
    health.began(Duration::ZERO);
    let answer = ask(at, "GET /livez").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
}

fn probes() -> Routes {
    Routes::Health(Arc::default(), Arc::new(Metrics::new().unwrap()))
}

#[tokio::test]
async fn metrics_are_answered_even_if_the_maps_cannot_be_read() {
    let nowhere = crate::kernel::Pins::new("/nowhere");
    let scraper = Scraper::new(Arc::new(Metrics::new().unwrap()), nowhere);
    let at = start(Routes::Metrics(Arc::new(scraper)));
    let answer = ask(at, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\nweir_scrape_errors_total 1\n"), "{answer}");
    assert!(ask(at, "GET /healthz").await.ends_with("\r\n\r\nok"));
    assert!(ask(at, "GET /proxyMode").await.ends_with("\r\n\r\nweir"));
    assert!(ask(at, "GET /configz").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn other_questions_are_turned_away() {
    let at = start(probes());
    assert!(ask(at, "GET /").await.starts_with("HTTP/1.1 404"));
    let refused = ask(at, "POST /healthz").await;
    assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
    assert!(refused.contains("allow: GET, HEAD\r\n"), "{refused}");
    assert!(ask(at, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let head = ask(at, "HEAD /healthz").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_client_that_goes_makes_room() {
    let at = start(probes());
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    drop(silent.pop());
    assert!(ask(at, "GET /livez").await.starts_with("HTTP/1.1 200"));
}

#[test]
fn a_taken_port_is_told_with_what_to_do() {
    let at = "0.0.0.0:10256".parse().unwrap();
    let told = complaint("health checks", "--flag", at, &io::ErrorKind::AddrInUse.into());
    assert!(
        told.contains("0.0.0.0:10256") && told.contains("--flag") && told.contains("kube-proxy"),
        "{told}"
    );
}
