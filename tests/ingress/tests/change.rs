//! Everything changes while 500 requests a second come by each protocol, and none of them may fail (L10, L11, L13, L15, L16).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustls::ClientConfig;
use serde_json::json;
use weir_ingress_trial::client::{self, Door, tcp};
use weir_ingress_trial::load::{Load, Plan, Speech};
use weir_ingress_trial::objects::{class, ingress, secret, service, slice, with, with_tls};
use weir_ingress_trial::pki::{self, Pair};
use weir_ingress_trial::pods::Pod;
use weir_ingress_trial::{Edge, Ingress, trial, until};

/// Two of these at a time are more than a small machine can do.
static TURN: Mutex<()> = Mutex::new(());

/// How long everything changes.
const TIME: Duration = Duration::from_secs(8);
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(100);
/// Requests a second, by each protocol.
const RATE: u32 = 500;

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All protocols at once, at that rate each.
struct Loads(Vec<(Speech, Load)>);

impl Loads {
    fn start(front: &Ingress, known: &[&Pair]) -> Result<Self> {
        let h1 = pki::client(known, &["http/1.1"])?;
        let h2 = pki::client(known, &["h2"])?;
        let plan = |speech, door, rate| {
            let plan = Plan {
                door,
                speech,
                path: "/",
                rate,
            };
            (speech, Load::start(plan))
        };
        Ok(Self(vec![
            plan(Speech::Http1, Door::clear(front.http()), RATE),
            plan(Speech::Http2, Door::tls(front.https(), &h2, "web.test"), RATE),
            plan(Speech::WebSocket, Door::clear(front.http()), RATE),
            // Handshakes are what a change of certificates could break, and what costs most.
            plan(Speech::OneEach, Door::tls(front.https(), &h1, "web.test"), 50),
        ]))
    }

    async fn without_loss(self, seconds: u64) -> Result<()> {
        for (speech, load) in self.0 {
            let report = load.stop().await?;
            let rate = if speech == Speech::OneEach {
                50
            } else {
                u64::from(RATE)
            };
            report.without_loss(&format!("{speech:?}"), rate * seconds * 9 / 10)?;
            ensure!(
                report.reconnected == 0,
                "{speech:?}: a kept connection was closed"
            );
        }
        Ok(())
    }
}

fn web_with_tls(edge: &Edge) -> Result<()> {
    let web = with_tls(ingress("web", "web.test", &[("/", "web")]), "web.test", "cert");
    edge.objects.put("web", &[web, service("web")])
}

#[test]
fn routes_come_and_go_and_no_request_fails() -> Result<()> {
    let _turn = turn();
    trial("ch-routes", async |edge| {
        let pods = [Pod::start(1).await?, Pod::start(2).await?];
        let pair = Pair::new("web.test")?;
        edge.objects.put("cert", &[secret("cert", &pair)])?;
        edge.objects.web(&[pods[0].address])?;
        web_with_tls(edge)?;
        let front = Ingress::start(edge, &[]).await?;
        let loads = Loads::start(&front, &[&pair])?;
        let begun = weir_lab::clock::now();
        let mut round = 0;
        while begun.elapsed() < TIME {
            // Beside it, below it, and itself with another annotation; each is seen to be served.
            let (host, path) = (format!("h{round}.test"), format!("/p{round}"));
            let other = ingress("other", &host, &[("/", "web")]);
            let below = ingress("below", "web.test", &[(path.as_str(), "missing")]);
            edge.objects.put("other", &[other, below])?;
            until("the new host", async || served(&front, &host, "/", 200).await).await?;
            until("the new path", async || {
                served(&front, "web.test", &path, 500).await
            })
            .await?;
            edge.objects.remove("other")?;
            until("the end of the host", async || {
                served(&front, &host, "/", 404).await
            })
            .await?;
            round += 1;
            tokio::time::sleep(PAUSE).await;
        }
        println!("{round} rounds");
        ensure!(round >= 4, "only {round} rounds of changes");
        loads.without_loss(TIME.as_secs()).await
    })
}

async fn served(front: &Ingress, host: &str, path: &str, wanted: u16) -> bool {
    let answer = client::ask(front.http(), host, path).await;
    answer.is_ok_and(|(status, _)| status == wanted)
}

#[test]
fn endpoints_come_and_go_and_no_request_fails() -> Result<()> {
    let _turn = turn();
    trial("ch-pods", async |edge| {
        let mut pods = Vec::new();
        for number in 1..=4 {
            pods.push(Pod::start(number).await?);
        }
        let pair = Pair::new("web.test")?;
        edge.objects.put("cert", &[secret("cert", &pair)])?;
        edge.objects.web(&[pods[0].address])?;
        web_with_tls(edge)?;
        let front = Ingress::start(edge, &[]).await?;
        let loads = Loads::start(&front, &[&pair])?;
        let begun = weir_lab::clock::now();
        let mut round = 0;
        while begun.elapsed() < TIME {
            // Two of four, other ones each time; those that are not named serve on, as pods do that terminate.
            let now = [round % 4, (round + 1) % 4].map(|number| pods[number].address);
            let others = [(round + 2) % 4, (round + 3) % 4];
            edge.objects.put("web-pods", &[slice("web", &now)])?;
            let count = || others.map(|number| pods[number].requests());
            let mut last = count();
            // Tunnels that stay are no requests.
            until("the end of requests to the others", async || {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let before = std::mem::replace(&mut last, count());
                last == before
            })
            .await?;
            round += 1;
            tokio::time::sleep(PAUSE).await;
        }
        println!(
            "{round} rounds, {:?}",
            pods.iter().map(Pod::requests).collect::<Vec<_>>()
        );
        ensure!(round >= 4, "only {round} rounds of changes");
        ensure!(pods.iter().all(|pod| pod.requests() > 100), "a pod got nothing");
        loads.without_loss(TIME.as_secs()).await
    })
}

/// What is shown for the name.
async fn shown(front: &Ingress, config: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let stream = tcp(client::CLIENT, front.https()).await?;
    let stream = client::handshake(stream, config, "web.test").await?;
    let chain = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    Ok(chain.map(|first| first.to_vec()).unwrap_or_default())
}

#[test]
fn l10_certificates_change_under_load_and_bad_ones_change_nothing() -> Result<()> {
    let _turn = turn();
    trial("ch-certs", async |edge| {
        let pod = Pod::start(1).await?;
        let pairs: Vec<Pair> = (0..40).map(|_| Pair::new("web.test")).collect::<Result<_>>()?;
        let known: Vec<&Pair> = pairs.iter().collect();
        edge.objects.put("cert", &[secret("cert", &pairs[0])])?;
        edge.objects.web(&[pod.address])?;
        web_with_tls(edge)?;
        let front = Ingress::start(edge, &[]).await?;
        let loads = Loads::start(&front, &known)?;
        let config = pki::client(&known, &["http/1.1"])?;
        let begun = weir_lab::clock::now();
        for (round, pair) in pairs.iter().enumerate().skip(1) {
            edge.objects.put("cert", &[secret("cert", pair)])?;
            until("the new certificate", async || {
                shown(&front, &config)
                    .await
                    .is_ok_and(|shown| shown == *pair.shown)
            })
            .await?;
            // Then one of no use, and sometimes none at all: the last good one stays.
            if round % 3 == 0 {
                edge.objects.remove("cert")?;
            } else {
                let key = with(secret("cert", pair), "/data/tls.key", json!("bm8ga2V5"));
                edge.objects.put("cert", &[key])?;
            }
            tokio::time::sleep(PAUSE).await;
            ensure!(
                shown(&front, &config).await? == *pair.shown,
                "round {round}: another certificate"
            );
            if begun.elapsed() > TIME {
                break;
            }
        }
        ensure!(front.log().contains("Secret trial/cert"), "nobody was told");
        loads.without_loss(begun.elapsed().as_secs()).await
    })
}

#[test]
fn l11_the_oldest_ingress_has_a_path_also_after_a_restart() -> Result<()> {
    trial("ch-oldest", async |edge| {
        let (old, new) = (Pod::start(1).await?, Pod::start(2).await?);
        let of = |name: &str, created: &str| {
            let object = ingress(name, "web.test", &[("/", name)]);
            with(object, "/metadata/creationTimestamp", json!(created))
        };
        // Neither the order of names nor that of files is that of age.
        let young = [
            of("a-young", "2026-02-02T00:00:00Z"),
            service("a-young"),
            slice("a-young", &[new.address]),
        ];
        let oldest = [
            of("z-old", "2026-01-01T00:00:00Z"),
            service("z-old"),
            slice("z-old", &[old.address]),
        ];
        edge.objects.put("0-class", &[class()])?;
        edge.objects.put("1-young", &young)?;
        for start in 0..3 {
            let mut front = Ingress::start(edge, &["--shutdown-delay", "0s"]).await?;
            if start == 0 {
                until("the young one, alone", async || {
                    client::ask(front.http(), "web.test", "/")
                        .await
                        .is_ok_and(|(_, said)| said == "pod 2")
                })
                .await?;
                edge.objects.put("2-old", &oldest)?;
            }
            until("the old one", async || {
                client::ask(front.http(), "web.test", "/")
                    .await
                    .is_ok_and(|(_, said)| said == "pod 1")
            })
            .await?;
            let told = || front.log().contains("trial/a-young") && front.log().contains("trial/z-old");
            until("the word about it", async || told()).await?;
            front.signal(rustix::process::Signal::INT)?;
            front.ended(weir_ingress_trial::SOON).await?;
        }
        Ok(())
    })
}

#[test]
fn l13_a_bad_manifest_costs_itself() -> Result<()> {
    trial("ch-bad", async |edge| {
        let pod = Pod::start(1).await?;
        edge.objects.web(&[pod.address])?;
        edge.objects.put_text("a-broken", "{\"kind\": \"Ingress\", ")?;
        edge.objects.put_text("b-typo", "{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"Ingresss\", \"metadata\": {\"name\": \"x\"}}")?;
        let mut bad = ingress(
            "bad",
            "bad.test",
            &[("/missing", "nobody"), ("/none", "none"), ("no-slash", "web")],
        );
        bad = with(bad, "/spec/unknown", json!({"x": 1}));
        bad = with(
            bad,
            "/metadata/annotations",
            json!({"ingress.weir.network/body-limit": "much"}),
        );
        edge.objects.put("c-bad", &[bad, service("none")])?;
        let front = Ingress::start(edge, &[]).await?;
        for (host, path, wanted) in [
            ("web.test", "/", 200),
            ("bad.test", "/missing", 500),
            ("bad.test", "/none", 503),
            ("bad.test", "/no-slash", 404),
        ] {
            let (status, said) = client::ask(front.http(), host, path).await?;
            ensure!(status == wanted, "{host}{path}: {status} {said}");
            // Nothing in it tells what runs here.
            ensure!(
                status == 200 || !said.to_ascii_lowercase().contains("weir"),
                "{said}"
            );
        }
        let log = front.log();
        for word in ["a-broken.json", "body-limit", "nobody", "no-slash"] {
            ensure!(log.contains(word), "nothing is said of {word}");
        }
        Ok(())
    })
}

#[test]
fn l15_a_secret_or_service_of_another_namespace_is_nobodys() -> Result<()> {
    trial("ch-spaces", async |edge| {
        let pod = Pod::start(1).await?;
        let pair = Pair::new("thief.test")?;
        // All of it is there, in another namespace.
        let there = [
            secret("cert", &pair),
            service("web"),
            slice("web", &[pod.address]),
        ];
        edge.objects.put("there", &there)?;
        let thief = with_tls(
            ingress("thief", "thief.test", &[("/", "web")]),
            "thief.test",
            "cert",
        );
        let thief = with(thief, "/metadata/namespace", json!("elsewhere"));
        edge.objects.put("thief", &[class(), thief])?;
        let front = Ingress::start(edge, &[]).await?;
        let (status, said) = client::ask(front.http(), "thief.test", "/").await?;
        ensure!(status == 500, "{status} {said}");
        let config = pki::client(&[&pair], &["http/1.1"])?;
        let stream = tcp(client::CLIENT, front.https()).await?;
        let shown = client::handshake(stream, &config, "thief.test").await;
        ensure!(shown.is_err(), "the other namespace's certificate was shown");
        ensure!(pod.requests() == 0, "the other namespace's pod was asked");
        Ok(())
    })
}

#[test]
fn l16_a_second_process_takes_over_and_no_request_fails() -> Result<()> {
    let _turn = turn();
    trial("ch-restart", async |edge| {
        let pod = Pod::start(1).await?;
        edge.objects.web(&[pod.address])?;
        let extra = ["--shutdown-delay", "500ms", "--drain-timeout", "10s"];
        let mut old = Ingress::start(edge, &extra).await?;
        let plan = |speech| Plan {
            door: Door::clear(old.http()),
            speech,
            path: "/",
            rate: 200,
        };
        let loads = [Speech::OneEach, Speech::Http1, Speech::Http2].map(|speech| Load::start(plan(speech)));
        for _ in 0..3 {
            // At the same ports; the probes' port is the old one's until it goes.
            let mut new = Ingress::begin(edge, 1, &extra)?;
            until("the new process", async || new.log().contains("ready at ")).await?;
            old.signal(rustix::process::Signal::TERM)?;
            let status = old.ended(weir_ingress_trial::SOON).await?;
            ensure!(status.success(), "{status}");
            new.is_ready().await?;
            old = new;
        }
        for load in loads {
            load.stop().await?.without_loss("over three restarts", 300)?;
        }
        Ok(())
    })
}
