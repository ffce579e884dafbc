//! Requests at a rate, whatever becomes of those before: an open loop, whose delays count from when a request was due.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::client::conn::{http1, http2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::client::{self, Body, Door, Stream};

/// A client that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Failures that are told in full.
const TOLD: usize = 10;

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speech {
    /// Connections that are kept.
    Http1,
    /// One connection.
    Http2,
    /// A connection for each request, with its handshake.
    OneEach,
    /// Messages on tunnels that stay.
    WebSocket,
}

/// What came of it.
#[derive(Default, Debug)]
pub struct Report {
    /// Answered as they should be.
    pub good: u64,
    /// Not.
    pub bad: u64,
    /// Connections that the server had closed, or said it would: a request on it was not begun, and made on another.
    pub reconnected: u64,
    /// The first failures.
    pub failures: Vec<String>,
    micros: Vec<u64>,
}

impl Report {
    /// The delay that all but one in a hundred stay below, in microseconds.
    pub fn p99(&mut self) -> u64 {
        self.quantile(99)
    }

    /// The delay of half of them.
    pub fn p50(&mut self) -> u64 {
        self.quantile(50)
    }

    fn quantile(&mut self, percent: usize) -> u64 {
        self.micros.sort_unstable();
        let place = (self.micros.len() * percent / 100).min(self.micros.len().saturating_sub(1));
        self.micros.get(place).copied().unwrap_or(0)
    }

    /// An error if a single request failed, or there were fewer than these.
    pub fn without_loss(&self, what: &str, at_least: u64) -> Result<()> {
        println!(
            "{what}: {} good, {} bad, {} reconnected",
            self.good, self.bad, self.reconnected
        );
        ensure!(self.bad == 0, "{what}: {} failed: {:#?}", self.bad, self.failures);
        ensure!(
            self.good >= at_least,
            "{what}: only {} requests were made",
            self.good
        );
        Ok(())
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.good += other.good;
        self.bad += other.bad;
        self.reconnected += other.reconnected;
        self.failures.extend(other.failures);
        self.micros.extend(other.micros);
        self
    }
}

/// Requests that are being made.
pub struct Load {
    stop: watch::Sender<bool>,
    task: JoinHandle<Report>,
}

/// What is asked: `web.test` and this path, which must be answered with 200.
#[derive(Clone)]
pub struct Plan {
    /// Where.
    pub door: Door,
    /// How.
    pub speech: Speech,
    /// What.
    pub path: &'static str,
    /// Requests a second.
    pub rate: u32,
}

impl Load {
    /// Begins.
    pub fn start(plan: Plan) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            stop,
            task: tokio::spawn(run(plan, stopped)),
        }
    }

    /// Ends, when those that are under way have been answered.
    pub async fn stop(self) -> Result<Report> {
        self.stop.send_replace(true);
        self.task.await.context("the load broke off")
    }
}

/// For this long.
pub async fn measure(plan: Plan, time: Duration) -> Result<Report> {
    let load = Load::start(plan);
    tokio::time::sleep(time).await;
    load.stop().await
}

struct Client {
    plan: Plan,
    kept1: Mutex<Vec<http1::SendRequest<Body>>>,
    kept2: tokio::sync::Mutex<Option<http2::SendRequest<Body>>>,
    tunnels: Mutex<Vec<Box<dyn Stream>>>,
    report: Mutex<Report>,
}

async fn run(plan: Plan, mut stopped: watch::Receiver<bool>) -> Report {
    let mut ticks = interval(Duration::from_secs(1) / plan.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let client = Arc::new(Client {
        plan,
        kept1: Mutex::default(),
        kept2: tokio::sync::Mutex::default(),
        tunnels: Mutex::default(),
        report: Mutex::default(),
    });
    let mut requests = JoinSet::new();
    loop {
        let due = tokio::select! {
            due = ticks.tick() => due,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let client = Arc::clone(&client);
        requests.spawn(async move { client.one(due).await });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
    let mut report = client.report.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut report)
}

impl Client {
    async fn one(&self, due: Instant) {
        let done = timeout(PATIENCE, self.request()).await;
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match done {
            Ok(Ok(())) => {
                report.good += 1;
                report.micros.push(micros);
                return;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("nothing for {PATIENCE:?}"),
        };
        report.bad += 1;
        // A failure is no fast answer.
        report.micros.push(micros.max(1_000_000));
        if report.failures.len() < TOLD {
            report.failures.push(failure);
        }
    }

    async fn request(&self) -> Result<()> {
        match self.plan.speech {
            Speech::Http1 => self.http1(true).await,
            Speech::OneEach => self.http1(false).await,
            Speech::Http2 => self.http2().await,
            Speech::WebSocket => self.websocket().await,
        }
    }

    fn reconnected(&self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.reconnected += 1;
    }

    /// A connection that is still good.
    fn kept1(&self) -> Option<http1::SendRequest<Body>> {
        loop {
            let mut kept = self.kept1.lock().unwrap_or_else(PoisonError::into_inner);
            let sender = kept.pop()?;
            drop(kept);
            if sender.is_ready() {
                return Some(sender);
            }
            self.reconnected();
        }
    }

    async fn http1(&self, keep: bool) -> Result<()> {
        loop {
            let (mut sender, used) = match self.kept1().filter(|_| keep) {
                Some(sender) => (sender, true),
                None => (self.plan.door.http1().await?, false),
            };
            let answer = sender
                .try_send_request(client::get1("web.test", self.plan.path)?)
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                // A client makes it again on another connection (RFC 9112, 9.3.1). That is counted.
                Err(error)
                    if used && (error.message().is_some() || error.error().is_incomplete_message()) =>
                {
                    self.reconnected();
                    continue;
                }
                Err(error) => return Err(error.into_error().into()),
            };
            let keeps = keep && !answer.headers().contains_key("connection");
            check(client::whole(answer).await?)?;
            if keeps && sender.ready().await.is_ok() {
                let mut kept = self.kept1.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(sender);
            }
            return Ok(());
        }
    }

    async fn http2(&self) -> Result<()> {
        loop {
            let mut kept = self.kept2.lock().await;
            let known = kept.take().filter(|sender| !sender.is_closed());
            let mut sender = match known {
                Some(sender) => sender,
                None => self.plan.door.http2().await?,
            };
            *kept = Some(sender.clone());
            drop(kept);
            let scheme = if self.plan.door.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let request = client::get(&format!("{scheme}://web.test{}", self.plan.path))?;
            match sender.try_send_request(request).await {
                Ok(answer) => return check(client::whole(answer).await?),
                // The server had said GOAWAY (RFC 9113, 6.8).
                Err(error) if is_unbegun(&error) => {
                    self.reconnected();
                    // It stays open for the streams that it has, and takes no new one.
                    *self.kept2.lock().await = None;
                }
                Err(error) => return Err(error.into_error().into()),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn websocket(&self) -> Result<()> {
        let tunnel = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut tunnel = match tunnel {
            Some(tunnel) => tunnel,
            None => self.plan.door.websocket("web.test").await?,
        };
        let mut said = [0; 8];
        tunnel.write_all(b"question").await?;
        tunnel.read_exact(&mut said).await.context("the tunnel")?;
        ensure!(&said == b"question", "the tunnel said {said:?}");
        self.tunnels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(tunnel);
        Ok(())
    }
}

/// Whether the server has not begun with the request: the connection was closed before it went out, or instead of an answer.
/// A stream that a server breaks off has other errors.
fn is_unbegun<T>(error: &hyper::client::conn::TrySendError<T>) -> bool {
    let failure = error.error();
    let source = std::error::Error::source(failure).and_then(|source| source.downcast_ref::<h2::Error>());
    let goaway = |error: &h2::Error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.message().is_some()
        || failure.is_incomplete_message()
        || failure.is_user()
        || source.is_some_and(goaway)
}

fn check((status, body): (u16, String)) -> Result<()> {
    if status == 200 {
        return Ok(());
    }
    bail!("{status} {body}")
}
