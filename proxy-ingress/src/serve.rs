//! A client's connection: which protocol it is, with which limits, and its end.
//!
//! ```text
//!                                ┌─ TLS for a name that is passed through ─────────────────▶ tunnel.rs
//!  TCP ─ perhaps a PROXY header ─┼─ TLS: the certificate by SNI, then what ALPN agreed on ─┬─▶ HTTP/2
//!                                └─ clear text: HTTP/2 if it begins with its preface ──────┴─▶ HTTP/1.1
//! ```

use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::frames::Frames;
use crate::head::Scanner;
use crate::headers::Told;
use crate::listen::{Door, Place};
use crate::local::Local;
use crate::metrics::tally::{Held, Limit};
use crate::proxied::{self, Fault, Said};
use crate::request;
use crate::settings::Settings;
use crate::tend::{Fate, Tended};
use crate::tls::{self, Opened, Shown};
use crate::tunnel;
use crate::wire::{Speech, Wire};
use crate::worker::{Counters, Worker};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that was taken.
pub(crate) struct Arrival {
    pub(crate) worker: Rc<Worker>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) door: Rc<Door>,
    pub(crate) address: IpAddr,
    pub(crate) place: Place,
    pub(crate) open: Held,
}

/// A client, as all requests of its connection know it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) door: Rc<Door>,
    pub(crate) address: IpAddr,
    /// The address, ready for a header.
    text: HeaderValue,
    pub(crate) trusted: bool,
    /// What it was shown, over TLS.
    pub(crate) shown: Option<Shown>,
    pub(crate) tended: Rc<Tended>,
    _place: Place,
    _open: Held,
}

impl Client {
    fn new(arrival: Arrival, shown: Option<Shown>) -> Rc<Self> {
        let Arrival {
            worker,
            settings,
            door,
            address,
            place,
            open,
        } = arrival;
        let text = HeaderValue::try_from(address.to_string());
        let tended = Rc::new(Tended::default());
        worker.watch(&tended);
        Rc::new(Self {
            trusted: settings.trusts(address),
            text: text.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            worker,
            settings,
            door,
            address,
            shown,
            tended,
            _place: place,
            _open: open,
        })
    }

    /// What backends are told of it.
    pub(crate) fn told(&self) -> Told<'_> {
        Told {
            address: &self.text,
            scheme: if self.shown.is_some() { "https" } else { "http" },
            port: &self.door.port,
            trusted: self.trusted,
            request_id: self.settings.request_id,
        }
    }
}

impl Arrival {
    /// Lets a balancer say who the client is; whether the connection goes on.
    async fn introduce(&mut self, stream: &mut TcpStream) -> bool {
        let counters = &self.worker.shared.counters;
        let said = tokio::time::timeout(self.settings.header_timeout, proxied::read(stream)).await;
        match said.unwrap_or(Err(Fault::Slow)) {
            Ok(Said::Itself) => true,
            Ok(Said::Nothing) => false,
            Ok(Said::Client(client)) => {
                let most = self.settings.connections_of(client);
                let room = self.place.pass_on(client, most);
                if room {
                    self.address = client;
                } else {
                    self.worker.tally.limited(Limit::ConnectionsPerClient);
                }
                room
            }
            Err(fault) => {
                tracing::debug!(balancer = %self.address, fault = fault.name(), "no PROXY protocol header");
                counters.fault(fault);
                false
            }
        }
    }
}

/// Serves it to its end.
pub(crate) async fn connection(mut arrival: Arrival, mut stream: TcpStream) {
    // What is wrong with the socket shows when it is used.
    let _tuned = stream.set_nodelay(true);
    if arrival.settings.is_proxied(arrival.address) && !arrival.introduce(&mut stream).await {
        return;
    }
    if !arrival.door.tls {
        return clear(arrival, stream).await;
    }
    let accepted = tls::accept(&arrival.worker.shared, stream);
    match tokio::time::timeout(arrival.settings.handshake_timeout, accepted).await {
        Ok(Ok(Opened::Passed(stream, hello, target))) => tunnel::pass(arrival, stream, hello, target).await,
        Ok(Ok(Opened::Terminated(stream, shown))) => {
            let session = stream.get_ref().1;
            let http2 = session.alpn_protocol() == Some(b"h2");
            arrival.worker.tally.shaken(session);
            let client = Client::new(arrival, Some(shown));
            if http2 {
                serve_http2(client, stream, Vec::new()).await;
            } else {
                serve_http1(client, stream, Vec::new()).await;
            }
        }
        Ok(Err(error)) => {
            tracing::debug!(client = %arrival.address, %error, "no TLS");
            Counters::count(&arrival.worker.shared.counters.handshake_errors);
        }
        Err(_) => Counters::count(&arrival.worker.shared.counters.handshake_errors),
    }
}

async fn clear(arrival: Arrival, mut stream: TcpStream) {
    let mut ahead = Vec::with_capacity(1024);
    let begun = begin(&mut stream, &mut ahead);
    match tokio::time::timeout(arrival.settings.header_timeout, begun).await {
        Ok(Some(true)) => serve_http2(Client::new(arrival, None), stream, ahead).await,
        Ok(Some(false)) => serve_http1(Client::new(arrival, None), stream, ahead).await,
        // It said nothing, or hung up.
        Ok(None) | Err(_) => (),
    }
}

/// Reads until it is clear whether this is HTTP/2.
async fn begin(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<bool> {
    loop {
        if stream.read_buf(ahead).await.ok()? == 0 {
            return None;
        }
        let same = ahead.iter().zip(PREFACE).all(|(there, preface)| there == preface);
        if !same || ahead.len() >= PREFACE.len() {
            return Some(same);
        }
    }
}

async fn serve_http1<S>(client: Rc<Client>, stream: S, ahead: Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = Arc::clone(&client.settings);
    let tended = Rc::clone(&client.tended);
    let mut builder = http1::Builder::new();
    builder
        // The worker looks after slow heads (tend.rs): hyper would set a timer for each request.
        .header_read_timeout(None)
        .max_buf_size(settings.head_bytes.max(8192))
        .half_close(false);
    // 100 is hyper's own limit, and faster if it is not named.
    if settings.headers != 100 {
        builder.max_headers(settings.headers);
    }
    let speech = Speech::Http1(Scanner::new(settings.head_bytes));
    let wire = Wire::new(stream, ahead, speech, tended.vitals());
    let served = builder
        .serve_connection(TokioIo::new(wire), service_fn(service(client, request::serve)))
        .with_upgrades();
    drive(served, &tended, http1::UpgradeableConnection::graceful_shutdown).await;
}

async fn serve_http2<S>(client: Rc<Client>, stream: S, ahead: Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &client.settings.http2;
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buf_size(limits.send_buffer)
        .max_header_list_size(u32::try_from(client.settings.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.local_resets)
        .keep_alive_interval(limits.ping_after)
        .keep_alive_timeout(limits.ping_timeout)
        .enable_connect_protocol();
    let tended = Rc::clone(&client.tended);
    let speech = Speech::Http2(Frames::new(), limits.idle_frames.div_ceil(4));
    let wire = Wire::new(stream, ahead, speech, tended.vitals());
    let served = builder.serve_connection(TokioIo::new(wire), service_fn(service(client, request::serve)));
    drive(served, &tended, http2::Connection::graceful_shutdown).await;
}

fn service<F>(
    client: Rc<Client>,
    answer: impl Fn(Rc<Client>, Request<Incoming>) -> F,
) -> impl Fn(Request<Incoming>) -> F {
    move |request| answer(Rc::clone(&client), request)
}

/// Lets a connection run until it ends, or its fate is to.
async fn drive<C: Future>(connection: C, tended: &Tended, finish: impl Fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
    let mut finishing = false;
    std::future::poll_fn(|cx| {
        match tended.fate(cx.waker()) {
            Fate::Stay => (),
            Fate::Finish if finishing => (),
            Fate::Finish => {
                finishing = true;
                finish(connection.as_mut());
            }
            Fate::Close => return Poll::Ready(()),
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}
