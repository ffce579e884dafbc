//! The process: how it starts, what stops it from starting, and how it ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_ingress_trial::client::{self, Door, Stream};
use weir_ingress_trial::edge::front;
use weir_ingress_trial::frames::{self, END_HEADERS, END_STREAM, frame, kind};
use weir_ingress_trial::load::{Load, Plan, Speech, measure};
use weir_ingress_trial::pods::Pod;
use weir_ingress_trial::{Edge, Ingress, SOON, trial, until};

async fn refused(ingress: &Ingress) -> bool {
    TcpStream::connect(ingress.http()).await.is_err() && TcpStream::connect(ingress.https()).await.is_err()
}

/// Requests to `/` at `web.test` in clear text.
fn plan(ingress: &Ingress, speech: Speech, rate: u32) -> Plan {
    Plan {
        door: Door::clear(ingress.http()),
        speech,
        path: "/",
        rate,
    }
}

/// An ingress with one pod.
async fn served(edge: &Edge, extra: &[&str]) -> Result<(Pod, Ingress)> {
    let pod = Pod::start(1).await?;
    edge.objects.web(&[pod.address])?;
    Ok((pod, Ingress::start(edge, extra).await?))
}

/// Sends to and from.
async fn echoes(tunnel: &mut Box<dyn Stream>) -> Result<()> {
    let mut said = [0; 5];
    tunnel.write_all(b"hello").await?;
    tunnel.read_exact(&mut said).await?;
    ensure!(&said == b"hello", "{said:?}");
    Ok(())
}

#[test]
fn nobody_is_answered_before_everything_is_read() -> Result<()> {
    trial("op-start", async |edge| {
        let pod = Pod::start(1).await?;
        edge.objects.web(&[pod.address])?;
        // A folder that is not there yet is not read yet.
        let away = edge.dir().join("away");
        std::fs::rename(edge.objects.folder(), &away)?;
        let mut ingress = Ingress::begin(edge, 1, &[])?;
        until("the status port", async || ingress.readiness().await.is_some()).await?;
        for _ in 0..20 {
            ensure!(ingress.readiness().await == Some(503), "it says that it is ready");
            ensure!(refused(&ingress).await, "a client was taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (live, _) = client::ask(ingress.status(), "probe.test", "/livez").await?;
        ensure!(live == 200, "/livez: {live}");
        std::fs::rename(&away, edge.objects.folder())?;
        ingress.is_ready().await?;
        // Ready is a promise: the first request is answered by the pod.
        let (status, body) = client::ask(ingress.http(), "web.test", "/").await?;
        ensure!((status, body.as_str()) == (200, "pod 1"), "{status} {body}");
        Ok(())
    })
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() -> Result<()> {
    trial("op-port", async |edge| {
        let _other = TcpListener::bind((front(1), 80)).await?;
        let mut ingress = Ingress::begin(edge, 1, &[])?;
        let status = ingress.ended(SOON).await?;
        let log = ingress.log();
        ensure!(status.code() == Some(1), "{status}: {log}");
        ensure!(
            log.contains("10.0.0.1:80") && log.contains("free the port"),
            "{log}"
        );
        Ok(())
    })
}

#[test]
fn a_wrong_flag_is_an_error_that_names_it() -> Result<()> {
    trial("op-flag", async |edge| {
        for (words, said) in [
            (&["serve", "--htpp", "[::]:80"][..], "--htpp"),
            (&["serve", "--http", "eighty"], "ADDRESS:PORT"),
            (&["serve", "--drain-timeout", "soon"], "--drain-timeout"),
            (&["sreve"], "sreve"),
        ] {
            let mut ingress = Ingress::bare(edge, words)?;
            let status = ingress.ended(SOON).await?;
            let log = ingress.log();
            ensure!(status.code() == Some(2), "{words:?}: {status}: {log}");
            ensure!(
                log.contains(said) && !log.contains("panicked"),
                "{words:?}: {log}"
            );
        }
        Ok(())
    })
}

#[test]
fn sigterm_ends_readiness_at_once_and_clients_are_served_for_the_delay() -> Result<()> {
    trial("op-term", async |edge| {
        let (_pod, mut ingress) = served(edge, &["--shutdown-delay", "2s", "--drain-timeout", "5s"]).await?;
        let loads = [Speech::Http1, Speech::Http2, Speech::OneEach]
            .map(|speech| Load::start(plan(&ingress, speech, 200)));
        tokio::time::sleep(Duration::from_millis(300)).await;
        ingress.signal(Signal::TERM)?;
        let begun = weir_lab::clock::now();
        until("the end of readiness", async || {
            ingress.readiness().await == Some(503)
        })
        .await?;
        ensure!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1500).saturating_sub(begun.elapsed())).await;
        for load in loads {
            load.stop().await?.without_loss("during the delay", 200)?;
        }
        let status = ingress.ended(SOON).await?;
        ensure!(status.success(), "{status}");
        ensure!(
            begun.elapsed() >= Duration::from_secs(2),
            "it ended after {:?}",
            begun.elapsed()
        );
        Ok(())
    })
}

#[test]
fn in_a_drain_requests_are_finished_and_nobody_new_comes() -> Result<()> {
    trial("op-drain", async |edge| {
        let (pod, mut ingress) = served(edge, &["--shutdown-delay", "0s", "--drain-timeout", "20s"]).await?;
        // One at work in each protocol, and one connection of each that does nothing.
        let slow = "GET /slow/1500 HTTP/1.1\r\nHost: web.test\r\n\r\n";
        let mut busy = client::tcp(client::CLIENT, ingress.http()).await?;
        busy.write_all(slow.as_bytes()).await?;
        let mut second = client::tcp(client::CLIENT, ingress.http()).await?;
        let mut words = frames::hello(&[]);
        let block = frames::request("GET", "/slow/1500");
        words.extend(frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &block));
        second.write_all(&words).await?;
        let mut idle = client::tcp(client::CLIENT, ingress.http()).await?;
        idle.write_all(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n")
            .await?;
        client::head(&mut idle).await?;
        until("the requests", async || pod.requests() == 3).await?;
        ingress.signal(Signal::TERM)?;
        until("closed ports", async || refused(&ingress).await).await?;
        ensure!(ingress.is_running(), "it did not wait for requests");
        ensure!(client::rest(&mut idle).await? == "pod 1", "the idle connection");
        let answer = client::rest(&mut busy).await?;
        ensure!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("pod 1"),
            "{answer}"
        );
        ensure!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{answer}"
        );
        let (mut goaway, mut answered) = (false, false);
        while let Ok((kind, flags, stream, _)) = frames::next(&mut second).await {
            goaway |= kind == kind::GOAWAY;
            answered |= stream == 1 && flags & END_STREAM != 0;
        }
        ensure!(goaway && answered, "GOAWAY: {goaway}, answered: {answered}");
        let status = ingress.ended(SOON).await?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
}

#[test]
fn a_websocket_lives_until_the_drain_is_over() -> Result<()> {
    trial("op-ws", async |edge| {
        let (_pod, mut ingress) = served(edge, &["--shutdown-delay", "0s", "--drain-timeout", "2s"]).await?;
        let mut tunnel = Door::clear(ingress.http()).websocket("web.test").await?;
        echoes(&mut tunnel).await?;
        ingress.signal(Signal::TERM)?;
        let begun = weir_lab::clock::now();
        until("closed ports", async || refused(&ingress).await).await?;
        while begun.elapsed() < Duration::from_millis(1700) {
            echoes(&mut tunnel).await.context("before the drain was over")?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure!(
            client::rest(&mut tunnel).await?.is_empty(),
            "words that nobody said"
        );
        let status = ingress.ended(SOON).await?;
        ensure!(status.success(), "{status}");
        ensure!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        Ok(())
    })
}

#[test]
fn sigint_does_not_wait_for_the_delay() -> Result<()> {
    trial("op-int", async |edge| {
        let (_pod, mut ingress) = served(edge, &["--shutdown-delay", "60s"]).await?;
        ingress.signal(Signal::INT)?;
        let status = ingress.ended(Duration::from_secs(5)).await?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
}

#[test]
fn a_second_signal_ends_it_at_once() -> Result<()> {
    trial("op-twice", async |edge| {
        let (_pod, mut ingress) =
            served(edge, &["--shutdown-delay", "60s", "--drain-timeout", "60s"]).await?;
        let mut tunnel = Door::clear(ingress.http()).websocket("web.test").await?;
        echoes(&mut tunnel).await?;
        // The first two end the delay, the third the drain; each is heard before the next is sent.
        ingress.signal(Signal::TERM)?;
        until("the delay", async || ingress.readiness().await == Some(503)).await?;
        echoes(&mut tunnel).await?;
        ingress.signal(Signal::TERM)?;
        until("closed ports", async || refused(&ingress).await).await?;
        echoes(&mut tunnel).await?;
        ingress.signal(Signal::TERM)?;
        let status = ingress.ended(Duration::from_secs(3)).await?;
        ensure!(status.success(), "{status}");
        ensure!(
            client::rest(&mut tunnel).await?.is_empty(),
            "words that nobody said"
        );
        Ok(())
    })
}

#[test]
fn without_files_left_it_goes_on_when_some_are_free_again() -> Result<()> {
    trial("op-files", async |edge| {
        let (_pod, mut ingress) = served(edge, &["--workers", "2"]).await?;
        measure(plan(&ingress, Speech::Http1, 50), Duration::from_millis(300)).await?;
        let before = ingress.files()?;
        let most = before + 40;
        ingress.limit_files(u64::try_from(most)?)?;
        // More than there are files for: the rest waits in the kernel's queue.
        let mut flood = Vec::new();
        for _ in 0..200 {
            flood.push(client::tcp(client::CLIENT, ingress.http()).await?);
        }
        until("the last file", async || {
            ingress.files().is_ok_and(|now| now >= most)
        })
        .await?;
        until("the word about it", async || ingress.log().contains("open files")).await?;
        let lines = ingress.log().lines().count();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let lines = ingress.log().lines().count() - lines;
        ensure!(
            lines <= 40,
            "{lines} lines in half a second: the log is flooded too"
        );
        ensure!(ingress.is_running(), "it has ended");
        drop(flood);
        // Those that waited in the queue are taken now, and are at their end: until then files are scarce, for pods too.
        until("the end of the queue", async || {
            taken(&ingress).await.is_ok_and(|taken| taken >= 200.0)
                && ingress.files().is_ok_and(|now| now <= before + 5)
        })
        .await?;
        let report = measure(plan(&ingress, Speech::OneEach, 100), Duration::from_secs(1)).await?;
        report.without_loss("after the flood", 90)
    })
}

/// Connections that it has taken.
async fn taken(ingress: &Ingress) -> Result<f64> {
    let (_, metrics) = client::ask(ingress.status(), "probe.test", "/metrics").await?;
    let series = "weir_ingress_connections_total{listener=\"http\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(series));
    Ok(count.context("nothing is counted")?.parse()?)
}

#[test]
fn grpc_comes_through_with_its_trailers() -> Result<()> {
    use http_body_util::{BodyExt, Full};
    use weir_ingress_trial::objects::{ingress, service, with};
    trial("op-grpc", async |edge| {
        let (_pod, front) = served(edge, &[]).await?;
        let h2c = serde_json::json!({"ingress.weir.network/backend-protocol": "h2c"});
        let grpc = with(
            ingress("web", "web.test", &[("/", "web")]),
            "/metadata/annotations",
            h2c,
        );
        edge.objects.put("web", &[grpc, service("web")])?;
        let call = async || -> Result<(String, bool)> {
            let mut sender = Door::clear(front.http()).http2().await?;
            let request = http::Request::post("http://web.test/grpc").header("te", "trailers");
            let request = request
                .header("content-type", "application/grpc")
                .body(Full::from("message"))?;
            let whole = sender.send_request(request).await?.into_body().collect().await?;
            let status = whole
                .trailers()
                .and_then(|trailers| trailers.get("grpc-status"))
                .cloned();
            let said = String::from_utf8_lossy(&whole.to_bytes()).into_owned();
            Ok((said, status.is_some_and(|status| status == "0")))
        };
        until("HTTP/2 to the pod", async || {
            call()
                .await
                .is_ok_and(|said| said == ("message".to_owned(), true))
        })
        .await?;
        for _ in 0..100 {
            let said = call().await?;
            ensure!(said == ("message".to_owned(), true), "{said:?}");
        }
        Ok(())
    })
}

#[test]
fn memory_that_is_short_refuses_requests_until_there_is_more() -> Result<()> {
    trial("op-memory", async |edge| {
        let (_pod, ingress) = served(edge, &["--memory-budget", "48m"]).await?;
        let asks = async || client::ask(ingress.http(), "web.test", "/").await;
        ensure!(asks().await?.0 == 200, "with nobody there");
        // Each has a large half of a head, and goes on with it for as long as that may take.
        let mut half = b"GET / HTTP/1.1\r\nHost: web.test\r\nX: ".to_vec();
        half.resize(28 << 10, b'x');
        let mut crowd = Vec::new();
        for _ in 0..1_500 {
            let mut one = client::tcp(client::CLIENT, ingress.http()).await?;
            one.write_all(&half).await?;
            crowd.push(one);
        }
        until("the word about it", async || {
            ingress.log().contains("memory is short")
        })
        .await?;
        let mut refused = client::tcp(client::CLIENT, ingress.http()).await?;
        let words = b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
        refused.write_all(words).await?;
        let answer = client::rest(&mut refused).await?.to_ascii_lowercase();
        ensure!(
            answer.starts_with("http/1.1 503 ") && answer.contains("retry-after: "),
            "{answer}"
        );
        let (_, metrics) = client::ask(ingress.status(), "probe.test", "/metrics").await?;
        ensure!(
            !metrics.contains("weir_ingress_limits_total{limit=\"memory\"} 0"),
            "nothing is counted: {metrics}"
        );
        drop(crowd);
        until("memory", async || {
            asks().await.is_ok_and(|(status, _)| status == 200)
        })
        .await
    })
}
