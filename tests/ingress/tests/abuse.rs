//! Attacks beside a normal client (the hard cases L6 to L8, L9's half hellos): it must not notice.
//!
//! A trial goes in rounds: first nobody attacks, then somebody does, and so on. The client's 99th percentile under attack,
//! in the best round, is at most twice the idle one, in its best round: both are what the machine can do when nothing else
//! disturbs it, and neither side of the comparison has all the luck. No request may fail in any round, and the process may
//! never have needed more memory than [`MEMORY`].

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_ingress_trial::attack::{Attack, Attacker};
use weir_ingress_trial::client::Door;
use weir_ingress_trial::load::{Load, Plan, Report, Speech, measure};
use weir_ingress_trial::objects::{ingress, secret, service, with_tls};
use weir_ingress_trial::pki::{self, Pair};
use weir_ingress_trial::pods::Pod;
use weir_ingress_trial::{Edge, Ingress, trial, until};

/// Kilobytes that the process may have at its height, whatever is done to it: the limit that its container can have.
const MEMORY: u64 = 256 << 10;
/// What the client may feel.
const FACTOR: u64 = 2;
/// Rounds that count at least, and how many may be added where the machine was busy.
const ROUNDS: std::ops::RangeInclusive<u32> = 3..=8;
/// Of each half of a round.
const HALF: Duration = Duration::from_millis(1200);

/// Two attacks at a time would be another test.
static TURN: Mutex<()> = Mutex::new(());

/// A normal client: 200 requests a second in clear text, and 200 over TLS and HTTP/2.
async fn normal([clear, tls]: &[Door; 2]) -> Result<Report> {
    let plan = |door: &Door, speech| Plan {
        door: door.clone(),
        speech,
        path: "/",
        rate: 200,
    };
    let second = Load::start(plan(tls, Speech::Http2));
    let first = measure(plan(clear, Speech::Http1), HALF).await?;
    Ok(first.and(second.stop().await?))
}

async fn rounds(edge: &Edge, kind: Attack) -> Result<()> {
    let pair = Pair::new("web.test")?;
    let pod = Pod::start(1).await?;
    edge.objects.web(&[pod.address])?;
    let web = with_tls(ingress("web", "web.test", &[("/", "web")]), "web.test", "cert");
    edge.objects
        .put("web", &[web, service("web"), secret("cert", &pair)])?;
    let front = Ingress::start(edge, &[]).await?;
    let config = pki::client(&[&pair], &["h2"])?;
    let doors = [
        Door::clear(front.http()),
        Door::tls(front.https(), &config, "web.test"),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_weir-ingress-attacker"));
    let target = if kind == Attack::HalfHandshakes {
        front.https()
    } else {
        front.http()
    };
    normal(&doors).await?.without_loss("warm-up", 100)?;
    let before = front.files()?;
    let (mut idle, mut under) = (u64::MAX, u64::MAX);
    for round in 1..=*ROUNDS.end() {
        let mut calm = normal(&doors).await?;
        let attacker = Attacker::start(edge, program, kind, target)?;
        attacker.has_done(u64::from(kind.connections())).await?;
        let begun = attacker.done();
        let mut busy = normal(&doors).await?;
        let did = attacker.done() - begun;
        drop(attacker);
        let (p99, p99_busy) = (calm.p99(), busy.p99());
        (idle, under) = (idle.min(p99), under.min(p99_busy));
        println!(
            "{kind:?} {round}: p50 {} us, p99 {p99} us idle; {} us, {p99_busy} us with {did} more; {} KB",
            calm.p50(),
            busy.p50(),
            front.memory("VmRSS")?
        );
        calm.without_loss("idle", 300)?;
        busy.without_loss("under attack", 300)?;
        // Connections to the pod are kept for a while.
        until("the end of the attack", async || {
            front.files().is_ok_and(|now| now <= before + 200)
        })
        .await?;
        if round >= *ROUNDS.start() && under <= FACTOR * idle {
            break;
        }
    }
    let peak = front.memory("VmHWM")?;
    println!("{kind:?}: p99 {idle} us idle, {under} us under attack; {peak} KB at most");
    ensure!(
        under <= FACTOR * idle,
        "a normal client waits {under} us under attack, and {idle} us without"
    );
    ensure!(peak <= MEMORY, "it needed {peak} KB");
    Ok(())
}

fn nobody_notices(name: &str, kind: Attack) -> Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    trial(name, async |edge| rounds(edge, kind).await)
}

#[test]
fn l7_nobody_notices_four_thousand_heads_that_never_end() -> Result<()> {
    nobody_notices("slow-heads", Attack::SlowHeads)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l7_nobody_notices_two_thousand_bodies_that_drip() -> Result<()> {
    nobody_notices("slow-bodies", Attack::SlowBodies)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l7_nobody_notices_readers_that_take_a_byte_at_a_time() -> Result<()> {
    nobody_notices("slow-readers", Attack::SlowReaders)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l9_nobody_notices_four_thousand_half_handshakes() -> Result<()> {
    nobody_notices("half-tls", Attack::HalfHandshakes)
}

#[test]
fn l6_nobody_notices_rapid_resets() -> Result<()> {
    nobody_notices("rapid-reset", Attack::RapidReset)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l6_nobody_notices_resets_that_we_are_made_to_send() -> Result<()> {
    nobody_notices("made-reset", Attack::MadeYouReset)
}

#[test]
fn l6_nobody_notices_heads_that_go_on_for_ever() -> Result<()> {
    nobody_notices("continuation", Attack::Continuations)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l6_nobody_notices_pings() -> Result<()> {
    nobody_notices("pings", Attack::Pings)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l6_nobody_notices_settings() -> Result<()> {
    nobody_notices("settings", Attack::Settings)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l6_nobody_notices_data_without_data() -> Result<()> {
    nobody_notices("empty-data", Attack::EmptyData)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l6_nobody_notices_windows_that_stay_closed() -> Result<()> {
    nobody_notices("window", Attack::ClosedWindow)
}

#[test]
#[ignore = "two minutes for all of them: `--ignored`, and each night"]
fn l8_nobody_notices_heads_that_grow_when_they_are_read() -> Result<()> {
    nobody_notices("hpack-bomb", Attack::HpackBomb)
}
