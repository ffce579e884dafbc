//! The limits of the ingress, in one place, each with its default.
//!
//! hyper's own defaults are made for one server behind something; this is what stands in front. They are tighter here
//! wherever a stranger decides how much memory or time is spent (docs/decisions/0036).

use std::net::IpAddr;
use std::time::Duration;

use proxy_common::net::Ip;
use proxy_model::Prefix;

/// How much is taken from clients, and given to them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections in all; the rest waits in the kernel's queue.
    pub connections: usize,
    /// Connections of one address; more are closed. Trusted addresses are not counted: a balancer has the clients of all.
    pub connections_per_client: u32,
    /// Requests at work in all; more are told 503.
    pub requests: usize,
    /// Until TLS stands.
    pub handshake_timeout: Duration,
    /// Until a request's head is whole, from its first byte on; also for the first bytes of a connection.
    pub header_timeout: Duration,
    /// A connection without requests is closed.
    pub keep_alive: Duration,
    /// A client that takes nothing of what is sent to it is left.
    pub write_timeout: Duration,
    /// A client that promised a body and sends nothing of it is told 408, until the response has begun.
    pub body_timeout: Duration,
    /// Bytes per second that a client must send of a body, once it has let us wait for [`Self::body_timeout`] in all.
    pub body_rate: u64,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's head, decoded.
    pub head_bytes: usize,
    /// Bytes of path and query.
    pub uri_bytes: usize,
    /// What HTTP/2 connections get.
    pub http2: Http2,
    /// The other side.
    pub upstream: Upstreams,
    /// Whose forwarded headers are believed: balancers in front of this one.
    pub trusted: Vec<Prefix>,
    /// Balancers that begin each connection with a header of the PROXY protocol; none: it is not spoken.
    pub proxy_protocol: Vec<Prefix>,
    /// Whether requests without `x-request-id` get one.
    pub request_id: bool,
    /// The port that clients know for HTTPS, in redirects.
    pub https_port: u16,
    /// How often a worker looks after its connections; the grain of the time-outs above.
    pub tick: Duration,
    /// Established connections may finish for this long after a drain began.
    pub drain: Duration,
}

/// Limits of an HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct Http2 {
    /// Open streams.
    pub streams: u32,
    /// Flow control window of a stream.
    pub stream_window: u32,
    /// Flow control window of all streams together.
    pub connection_window: u32,
    /// Bytes kept for sending, per stream.
    pub send_buffer: usize,
    /// Streams that a client opened and reset before they were looked at.
    pub pending_resets: usize,
    /// Streams that the client made us reset.
    pub local_resets: usize,
    /// Requests that a client gave up, in the time of [`Settings::keep_alive`]: each was work for a backend.
    pub given_up: u32,
    /// Frames that carry nothing, per second (PING, SETTINGS, PRIORITY, `RST_STREAM`, `WINDOW_UPDATE`, empty DATA, unknown ones): a
    /// client that sends more is read later. What is carried makes up for them. A quarter of it may come at once.
    pub idle_frames: u32,
    /// Until a client that says nothing is asked whether it lives.
    pub ping_after: Duration,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
}

/// Limits towards endpoints.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// Idle HTTP/1.1 connections that a worker keeps per endpoint.
    pub idle: usize,
    /// How long they are kept.
    pub idle_timeout: Duration,
    /// With that many connections to an endpoint, a worker borrows from its neighbours before it opens more.
    pub borrow_above: usize,
    /// Requests on an HTTP/2 connection before another is opened, if the backend allows more.
    pub streams: usize,
    /// HTTP/2 connections that a worker opens to an endpoint.
    pub multiplexed: usize,
    /// Bytes of a response's head.
    pub head_bytes: usize,
    /// Failed connects in a row after which an endpoint is left alone.
    pub failures: u32,
    /// For how long, the first time; doubled each time.
    pub ejection: Duration,
    /// Afterwards its share grows slowly, for this long.
    pub slow_return: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 32_768,
            connections_per_client: 2_048,
            requests: 16_384,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            body_rate: 240,
            headers: 100,
            head_bytes: 32 * 1024,
            uri_bytes: 16 * 1024,
            http2: Http2::default(),
            upstream: Upstreams::default(),
            trusted: Vec::new(),
            proxy_protocol: Vec::new(),
            request_id: true,
            https_port: 443,
            tick: Duration::from_millis(250),
            drain: Duration::from_secs(240),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams: 128,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            send_buffer: 64 * 1024,
            pending_resets: 20,
            local_resets: 64,
            given_up: 200,
            idle_frames: 4_000,
            ping_after: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

impl Default for Upstreams {
    fn default() -> Self {
        Self {
            idle: 64,
            idle_timeout: Duration::from_secs(55),
            borrow_above: 64,
            streams: 100,
            multiplexed: 16,
            head_bytes: 64 * 1024,
            failures: 3,
            ejection: Duration::from_secs(5),
            slow_return: Duration::from_secs(20),
        }
    }
}

impl Settings {
    /// Whether what this address says about a client is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        has(&self.trusted, address)
    }

    /// Whether connections from this address begin with a header of the PROXY protocol.
    pub fn is_proxied(&self, address: IpAddr) -> bool {
        has(&self.proxy_protocol, address)
    }

    /// How many connections an address may have.
    pub(crate) fn connections_of(&self, address: IpAddr) -> u32 {
        if self.trusts(address) {
            u32::MAX
        } else {
            self.connections_per_client
        }
    }
}

fn has(ranges: &[Prefix], address: IpAddr) -> bool {
    !ranges.is_empty() && {
        let address = Ip::from(address);
        ranges.iter().any(|range| range.contains(address))
    }
}
