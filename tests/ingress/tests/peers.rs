//! What only shows with the whole process between real peers: framing, hosts, tunnels, pods that die (L1 to L5, L14).

use anyhow::{Result, ensure};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use weir_ingress_trial::client::{self, Door};
use weir_ingress_trial::pods::Pod;
use weir_ingress_trial::{Ingress, trial};

/// Sent alone, each is refused with 400 and the end of the connection, and the pod has seen none of it.
async fn refuses(front: &Ingress, pod: &Pod, heads: &[&str]) -> Result<()> {
    let before = pod.requests();
    let smuggled = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: web.test\r\n\r\n";
    for head in heads {
        let words = format!("{head}\r\n\r\n{smuggled}");
        let mut stream = client::tcp(client::CLIENT, front.http()).await?;
        stream.write_all(words.as_bytes()).await?;
        let answer = client::rest(&mut stream).await?;
        ensure!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        ensure!(answer.matches("HTTP/1.1 ").count() == 1, "{head:?}: {answer}");
    }
    ensure!(pod.requests() == before, "the pod was asked");
    Ok(())
}

#[test]
fn l1_nothing_ambiguous_reaches_a_pod() -> Result<()> {
    trial("pe-framing", async |edge| {
        let pod = Pod::start(1).await?;
        edge.objects.web(&[pod.address])?;
        let front = Ingress::start(edge, &[]).await?;
        let heads = [
            "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\nContent-Length: 6",
            "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked, identity",
            "POST / HTTP/1.0\r\nHost: web.test\r\nTransfer-Encoding: chunked",
            "GET / HTTP/1.1\r\nHost: web.test\r\n folded: yes",
            "GET / HTTP/1.1\r\nHost: web.test\r\nX : y",
            "GET / HTTP/1.1\r\nHost: web.test\nX: y",
            "GET / HTTP/1.1\r\nHost: web.test\r\nHost: other.test",
            "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close, X-Forwarded-For",
        ];
        refuses(&front, &pod, &heads).await?;
        let (status, _) = client::ask(front.http(), "web.test", "/").await?;
        ensure!(status == 200, "afterwards: {status}");
        Ok(())
    })
}

#[test]
fn l4_a_pod_is_told_the_truth_about_its_client() -> Result<()> {
    trial("pe-told", async |edge| {
        let pod = Pod::start(1).await?;
        edge.objects.web(&[pod.address])?;
        let front = Ingress::start(edge, &[]).await?;
        let words = "GET /head HTTP/1.1\r\nHost: web.test\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n\
                     X-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n\r\n";
        let (status, said) = client::ask_with(front.http(), words).await?;
        ensure!(status == 200, "{status} {said}");
        ensure!(!said.contains("1.2.3.4"), "a stranger's word is believed: {said}");
        ensure!(said.contains("10.1.0.1"), "the client is not named: {said}");
        ensure!(!said.contains("x-mine") && !said.contains("keep-alive"), "{said}");
        Ok(())
    })
}

#[test]
fn c17_a_pod_sees_the_ingress_and_is_told_of_the_client() -> Result<()> {
    trial("pe-source", async |edge| {
        let pod = Pod::start(1).await?;
        edge.objects.web(&[pod.address])?;
        let front = Ingress::start(edge, &[]).await?;
        let (status, said) = client::ask(front.http(), "web.test", "/head").await?;
        let peer = said.split(' ').next().unwrap_or_default();
        ensure!(status == 200 && !peer.starts_with("10.1.0.1:"), "{status} {said}");
        ensure!(said.contains("\"x-forwarded-for\": \"10.1.0.1\""), "{said}");
        Ok(())
    })
}

#[test]
fn l14_a_pod_that_dies_in_its_answer_leaves_no_clean_end() -> Result<()> {
    trial("pe-dies", async |edge| {
        let pod = Pod::start(1).await?;
        edge.objects.web(&[pod.address])?;
        let front = Ingress::start(edge, &[]).await?;
        let (status, said) = client::ask(front.http(), "web.test", "/half").await?;
        ensure!(
            status == 200 && said.contains("the first half"),
            "{status} {said}"
        );
        ensure!(!said.ends_with("0\r\n\r\n"), "a clean end: {said:?}");
        let mut sender = Door::clear(front.http()).http2().await?;
        let answer = sender.send_request(client::get("http://web.test/half")?).await?;
        let end = answer.into_body().collect().await;
        ensure!(end.is_err(), "a clean end");
        // The connection of others is not touched.
        let answer = sender.send_request(client::get("http://web.test/")?).await?;
        ensure!(
            client::whole(answer).await? == (200, "pod 1".to_owned()),
            "afterwards"
        );
        Ok(())
    })
}
