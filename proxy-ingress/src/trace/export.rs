//! Sends spans to a collector, on a thread of its own: OTLP as protobuf over HTTP/1.1.
//!
//! A collector that is away is asked again later and later; meanwhile the queue fills, and what does not fit is counted. The
//! log has one line when it goes and one when it is back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::otlp::{self, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};
use super::{Collector, Tracing};

/// Requests whose spans wait.
const QUEUE: usize = 2_048;
/// Spans that are sent at a time, at most.
const BATCH: usize = 512;
/// How long spans wait for more of them.
const GATHER: Duration = Duration::from_secs(1);
/// For an answer of the collector.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most between two tries.
const LONGEST: Duration = Duration::from_secs(60);
/// Tries to send a batch.
const TRIES: u32 = 6;
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;
/// How long the end of a process waits for the last spans.
const LAST: Duration = Duration::from_secs(2);

/// What became of spans.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl Sent {
    pub(crate) fn lost(&self, spans: usize) {
        self.dropped
            .fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The thread.
pub(crate) struct Exporter {
    thread: JoinHandle<()>,
    over: mpsc::Receiver<()>,
}

impl Exporter {
    pub(crate) fn start(tracing: &Tracing, counts: &Arc<Sent>) -> std::io::Result<(Self, Sender<Vec<Span>>)> {
        let (sender, spans) = channel(QUEUE);
        let (ending, over) = mpsc::sync_channel(1);
        let sending = Sending {
            collector: tracing.collector.clone(),
            resource: resource(tracing),
            counts: Arc::clone(counts),
            connection: None,
            away: false,
            back_off: tracing.back_off,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(move || {
            runtime.block_on(sending.run(spans));
            // Nobody waits for it any more, at the worst.
            let _told = ending.try_send(());
        })?;
        Ok((Self { thread, over }, sender))
    }

    /// Waits for the last spans, once nobody sends any more; not for ever.
    pub(crate) fn join(self) {
        if self.over.recv_timeout(LAST).is_ok() {
            let _ended = self.thread.join();
        }
    }
}

fn resource(tracing: &Tracing) -> Resource {
    let own = [
        KeyValue::text("service.name", tracing.service.as_str()),
        KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let named = tracing
        .resource
        .iter()
        .map(|(key, value)| KeyValue::text(key, value.as_str()));
    Resource {
        attributes: own.into_iter().chain(named).collect(),
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("no answer")]
    Http(#[from] hyper::Error),
    #[error("no answer within {PATIENCE:?}")]
    Slow,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
}

impl SendError {
    /// Whether the same may be taken later (OTLP, "Failures").
    fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Http(_) | Self::Slow => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Request(_) => false,
        }
    }
}

struct Sending {
    collector: Collector,
    resource: Resource,
    counts: Arc<Sent>,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// The last try failed, and the log has it.
    away: bool,
    back_off: Duration,
}

impl Sending {
    /// Until nobody sends any more.
    async fn run(mut self, mut spans: Receiver<Vec<Span>>) {
        let mut waiting = VecDeque::new();
        while let Some(first) = spans.recv().await {
            waiting.extend(first);
            let gathered = async {
                while waiting.len() < BATCH {
                    match spans.recv().await {
                        Some(more) => waiting.extend(more),
                        None => break,
                    }
                }
            };
            // What has come until then is in `waiting` either way.
            let _in_time = tokio::time::timeout(GATHER, gathered).await;
            while !waiting.is_empty() {
                let batch: Vec<Span> = waiting.drain(..waiting.len().min(BATCH)).collect();
                self.deliver(batch, &spans).await;
            }
        }
    }

    /// Sends a batch, or loses it.
    async fn deliver(&mut self, batch: Vec<Span>, spans: &Receiver<Vec<Span>>) {
        let count = batch.len();
        let body = Bytes::from(self.request(batch).encode_to_vec());
        let mut pause = self.back_off;
        for number in 1..=TRIES {
            let sent = tokio::time::timeout(PATIENCE, self.post(body.clone())).await;
            let error = match sent.unwrap_or(Err(SendError::Slow)) {
                Ok(rejected) => return self.taken(count, rejected),
                Err(error) => error,
            };
            self.connection = None;
            self.failed(&error);
            // At the end of the process there is no later.
            if !error.may_pass() || spans.is_closed() || number == TRIES {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
        self.counts.lost(count);
    }

    fn taken(&mut self, count: usize, rejected: usize) {
        if self.away {
            self.away = false;
            tracing::info!(collector = %self.collector, "the collector takes spans again");
        }
        let rejected = rejected.min(count);
        self.counts.lost(rejected);
        let sent = u64::try_from(count - rejected).unwrap_or(u64::MAX);
        self.counts.sent.fetch_add(sent, Ordering::Relaxed);
    }

    fn failed(&mut self, error: &SendError) {
        if !self.away {
            self.away = true;
            let why: &dyn std::error::Error = error;
            tracing::warn!(collector = %self.collector, error = why, "the collector does not take spans; look at its address and its log. They are dropped and counted meanwhile (weir_ingress_spans_total)");
        }
    }

    fn request(&self, spans: Vec<Span>) -> otlp::Request {
        let scope = Scope {
            name: "weir-ingress".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        otlp::Request {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                }],
            }],
        }
    }

    /// How many of them it does not want.
    async fn post(&mut self, body: Bytes) -> Result<usize, SendError> {
        let kept = self.connection.take().filter(|kept| !kept.is_closed());
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        connection.ready().await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&*self.collector.path)
            .header(HOST, &*self.collector.authority)
            .header(USER_AGENT, concat!("weir-ingress/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
            .body(Full::new(body))?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        // An answer that is too long for us was still an answer.
        let answer = Limited::new(response.into_body(), ANSWER).collect().await;
        let answer = answer
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        if !status.is_success() {
            return Err(SendError::Status(status));
        }
        self.connection = Some(connection);
        let partial = otlp::Response::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success);
        Ok(partial.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0)))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let stream = TcpStream::connect((&*self.collector.host, self.collector.port)).await;
        let stream = stream.map_err(SendError::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How it ends is told to the request on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
