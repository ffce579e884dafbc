//! Requests at a rate, whatever became of those before: delays count from when a request was due.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use hyper::client::conn::{http1, http2};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::CALL;
use crate::client::{self, Answer, Body, Sent, Stream, Target};
use crate::report::Report;

/// A client that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of HTTP/1.1 at a time. Where everything is late, more of them would only make it later.
const AT_ONCE: usize = 64;
/// WebSockets through each door.
const TUNNELS: usize = 3;

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Speech {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
    /// Calls over HTTP/2, with trailers
    Grpc,
    /// Messages there and back on WebSockets that stay
    Websocket,
}

impl Speech {
    /// What is offered in the handshake of TLS.
    pub fn protocols(self) -> &'static [&'static str] {
        match self {
            Self::Http1 | Self::Websocket => &["http/1.1"],
            Self::Http2 | Self::Grpc => &["h2"],
        }
    }
}

/// What is to be done.
pub struct Plan {
    /// What is asked for.
    pub target: Target,
    /// How.
    pub speech: Speech,
    /// Of whom, in turn.
    pub to: Vec<SocketAddr>,
    /// Requests a second.
    pub rate: u32,
    /// For how long; until SIGTERM without.
    pub time: Option<Duration>,
    /// Requests for which a connection is used, but for WebSockets.
    pub reuse: u32,
}

struct Client {
    plan: Plan,
    begun: Instant,
    turn: AtomicUsize,
    kept1: Mutex<Vec<Kept<http1::SendRequest<Body>>>>,
    room1: Semaphore,
    kept2: tokio::sync::Mutex<Option<Kept<http2::SendRequest<Body>>>>,
    tunnels: Mutex<VecDeque<(Box<dyn Stream>, String)>>,
    /// Tunnels that were wanted so far.
    tunnelled: AtomicUsize,
    report: Mutex<Report>,
}

/// A connection, and for how many more requests it is used.
struct Kept<S> {
    sender: S,
    left: u32,
}

/// Makes requests for as long as the plan says.
pub async fn run(plan: Plan) -> Result<Report> {
    ensure!(!plan.to.is_empty(), "nobody to ask");
    let mut ticks = interval(Duration::from_secs(1) / plan.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut terminate = signal(SignalKind::terminate())?;
    let time = plan.time;
    let client = Arc::new(Client {
        plan,
        begun: Instant::now(),
        turn: AtomicUsize::new(0),
        kept1: Mutex::default(),
        room1: Semaphore::new(AT_ONCE),
        kept2: tokio::sync::Mutex::default(),
        tunnels: Mutex::default(),
        tunnelled: AtomicUsize::new(0),
        report: Mutex::default(),
    });
    let over = async {
        match time {
            Some(time) => sleep(time).await,
            None => drop(terminate.recv().await),
        }
    };
    let mut over = std::pin::pin!(over);
    let mut requests = JoinSet::new();
    loop {
        let due = tokio::select! {
            due = ticks.tick() => due,
            () = &mut over => break,
        };
        let client = Arc::clone(&client);
        requests.spawn(async move { client.one(due).await });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
    let mut report = client.report().clone();
    report.close(u64::try_from(client.begun.elapsed().as_millis())?);
    Ok(report)
}

impl Client {
    async fn one(&self, due: Instant) {
        let done = timeout(PATIENCE, self.request()).await;
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        match done {
            Ok(Ok(pod)) => self.report().answered(&pod, micros),
            Ok(Err(error)) => self.report().lost(format!("{error:#}")),
            Err(_) => self.report().lost(format!("nothing for {PATIENCE:?}")),
        }
    }

    async fn request(&self) -> Result<String> {
        match self.plan.speech {
            Speech::Http1 => self.http1().await,
            Speech::Http2 | Speech::Grpc => self.http2().await,
            Speech::Websocket => self.websocket().await,
        }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        lock(&self.report)
    }

    fn end(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report().end(elapsed);
    }

    async fn open(&self) -> Result<Box<dyn Stream>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.plan.to.len();
        let to = self.plan.to.get(turn).context("nobody to ask")?;
        let (stream, certificate) = self.plan.target.open(*to).await?;
        self.report().connected(certificate);
        Ok(stream)
    }

    async fn http1(&self) -> Result<String> {
        let _place = self.room1.acquire().await?;
        loop {
            let kept = lock(&self.kept1).pop();
            let (mut kept, used) = match kept {
                Some(kept) => (kept, true),
                None => (self.new1().await?, false),
            };
            let request = self.plan.target.request1()?;
            let Sent::Answered(answer) = client::ask1(&mut kept.sender, request, used).await? else {
                self.end();
                continue;
            };
            let pod = answer.pod()?.to_owned();
            kept.left = kept.left.saturating_sub(1);
            if answer.headers.contains_key("connection") {
                self.end();
            } else if kept.left > 0 && kept.sender.ready().await.is_ok() {
                lock(&self.kept1).push(kept);
            }
            return Ok(pod);
        }
    }

    async fn new1(&self) -> Result<Kept<http1::SendRequest<Body>>> {
        Ok(Kept {
            sender: client::http1(self.open().await?).await?,
            left: self.plan.reuse.max(1),
        })
    }

    async fn http2(&self) -> Result<String> {
        loop {
            let mut sender = self.sender2().await?;
            let calls = self.plan.speech == Speech::Grpc;
            let request = if calls {
                self.plan.target.call()?
            } else {
                self.plan.target.request2()?
            };
            let Sent::Answered(answer) = client::ask2(&mut sender, request).await? else {
                self.leave2(&sender).await;
                continue;
            };
            let pod = answer.pod()?.to_owned();
            if calls {
                is_call_done(&answer)?;
            }
            return Ok(pod);
        }
    }

    /// The connection that all use.
    async fn sender2(&self) -> Result<http2::SendRequest<Body>> {
        let mut place = self.kept2.lock().await;
        let known = place
            .take()
            .filter(|kept| kept.left > 0 && !kept.sender.is_closed());
        let mut kept = match known {
            Some(kept) => kept,
            None => Kept {
                sender: client::http2(self.open().await?).await?,
                left: self.plan.reuse.max(1),
            },
        };
        kept.left -= 1;
        let sender = kept.sender.clone();
        *place = Some(kept);
        Ok(sender)
    }

    /// The server wants no more requests on this one; another may be there already.
    async fn leave2(&self, sender: &http2::SendRequest<Body>) {
        self.end();
        let mut place = self.kept2.lock().await;
        if sender.is_closed() && place.as_ref().is_some_and(|kept| kept.sender.is_closed()) {
            *place = None;
        }
        drop(place);
        tokio::task::yield_now().await;
    }

    async fn websocket(&self) -> Result<String> {
        loop {
            // Some through each door, and all of them in turn.
            let enough = self.tunnelled.load(Ordering::Relaxed) >= TUNNELS * self.plan.to.len();
            let tunnel = enough.then(|| lock(&self.tunnels).pop_front()).flatten();
            let (mut tunnel, pod) = if let Some(tunnel) = tunnel {
                tunnel
            } else {
                self.tunnelled.fetch_add(1, Ordering::Relaxed);
                let mut stream = self.open().await?;
                let pod = self.plan.target.upgrade(stream.as_mut()).await?;
                (stream, pod)
            };
            if client::echo(tunnel.as_mut(), b"question").await? {
                lock(&self.tunnels).push_back((tunnel, pod.clone()));
                return Ok(pod);
            }
            self.end();
        }
    }
}

fn is_call_done(answer: &Answer) -> Result<()> {
    ensure!(
        answer.grpc.as_deref() == Some("0"),
        "grpc-status {:?}",
        answer.grpc
    );
    ensure!(
        answer.body.as_bytes() == CALL,
        "the call came back as {:?}",
        answer.body
    );
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
