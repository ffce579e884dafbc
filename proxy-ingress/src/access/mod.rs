//! The access log: a line of JSON for each request, when it has ended.
//!
//! ```text
//!  worker: request ends ─▶ line.rs ─▶ its own buffer ─┬─ 16 KiB, or a tick later ─▶ bounded queue ─▶ writer.rs
//!                                                     └─ the queue is full: counted, and gone
//! ```
//!
//! A request never waits for it: the buffer is the worker's own, and a queue that is full takes nothing. One hand-over for
//! many lines costs less than each line's.

pub(crate) mod line;
pub(crate) mod writer;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use self::line::Facts;
use crate::clock;
use crate::mix::Random;

/// Bytes after which a worker hands its lines on.
const CHUNK: usize = 16 * 1024;

/// Chunks that wait for the writer: some 4 MiB.
pub(crate) const CHUNKS: usize = 256;

/// Milliseconds between two complaints about dropped lines.
const COMPLAIN: u64 = 60_000;

/// What is written of requests.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where to.
    pub to: Destination,
    /// What, in this order.
    pub fields: Vec<Field>,
    /// One of so many; errors are always written.
    pub one_of: u32,
}

/// Where the access log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, which is made if it is not there, and opened anew when its name leads to another one.
    File(PathBuf),
}

macro_rules! fields {
    ($($field:ident $name:literal $help:literal,)*) => {
        /// What a line may tell.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Field {
            $(#[doc = $help] $field,)*
        }

        impl Field {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$field,)*];

            /// Its name, as in a line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$field => $name,)*
                }
            }
        }
    };
}

fields! {
    Time "time" "When the head was read.",
    Client "client" "The client's address.",
    Method "method" "The method.",
    Scheme "scheme" "`http` or `https`.",
    Host "host" "The host as the client wrote it.",
    Path "path" "The path as the client wrote it.",
    Query "query" "The query, which may hold secrets.",
    Protocol "protocol" "`HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.",
    Status "status" "The status; 499 if the client left before there was one.",
    BytesIn "bytes_in" "Bytes of the request's body.",
    BytesOut "bytes_out" "Bytes of the response's body.",
    Duration "duration_ms" "From the head to the end of the response.",
    Upstream "upstream" "The endpoint that was asked last.",
    UpstreamTime "upstream_ms" "From the head to the head of the backend's response.",
    UpstreamStatus "upstream_status" "What the backend said.",
    Route "route" "The path of the rule.",
    Ingress "ingress" "The Ingress, with its namespace.",
    Retries "retries" "How often it was sent once more.",
    RequestId "request_id" "`x-request-id`.",
    TraceId "trace_id" "The id of the trace.",
    UserAgent "user_agent" "What the client says that it is.",
    Referer "referer" "Where the client says that it comes from; without its query.",
    TlsVersion "tls_version" "`1.2` or `1.3`.",
    Sni "sni" "The name that was asked for over TLS.",
    Refusal "refusal" "Why the ingress answered it itself.",
    Aborted "aborted" "Who ended it before its end: `client`, `backend` or `timeout`.",
}

/// A name that is no field's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no field of the access log; there are {all}", all = names(Field::ALL))]
pub struct NoField(String);

fn names(fields: &[Field]) -> String {
    let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
    names.join(",")
}

impl FromStr for Field {
    type Err = NoField;

    fn from_str(name: &str) -> Result<Self, NoField> {
        let found = Self::ALL.iter().find(|field| field.name() == name);
        found.copied().ok_or_else(|| NoField(name.to_owned()))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl AccessLog {
    /// All that is of use to most, and no secret: without queries and what led there.
    pub const DEFAULT: &[Field] = &[
        Field::Time,
        Field::Client,
        Field::Method,
        Field::Scheme,
        Field::Host,
        Field::Path,
        Field::Protocol,
        Field::Status,
        Field::BytesIn,
        Field::BytesOut,
        Field::Duration,
        Field::Upstream,
        Field::UpstreamTime,
        Field::UpstreamStatus,
        Field::Ingress,
        Field::Retries,
        Field::RequestId,
        Field::TraceId,
        Field::UserAgent,
        Field::Refusal,
        Field::Aborted,
    ];
}

/// What became of the lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
    /// When somebody last complained, plus one; 0 for never.
    complained: AtomicU64,
}

impl Lines {
    /// They are lost; which is said, but not each time.
    pub(crate) fn lost(&self, lines: u64, why: &str) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        let now = clock::now() + 1;
        let last = self.complained.load(Ordering::Relaxed);
        if last == 0 || now.saturating_sub(last) > COMPLAIN {
            self.complained.store(now, Ordering::Relaxed);
            let dropped = self.dropped.load(Ordering::Relaxed);
            tracing::warn!(
                dropped,
                why,
                "lines of the access log are dropped; see weir_ingress_access_log_lines_total"
            );
        }
    }
}

/// Some lines, on their way to the writer.
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
}

/// A worker's side of it.
pub(crate) struct Log {
    fields: Arc<[Field]>,
    one_of: u32,
    lines: Arc<Lines>,
    to: SyncSender<Chunk>,
    bytes: RefCell<Vec<u8>>,
    count: Cell<u64>,
    clock: line::Seconds,
}

impl Log {
    pub(crate) fn new(log: &AccessLog, lines: &Arc<Lines>, to: SyncSender<Chunk>) -> Self {
        Self {
            fields: log.fields.as_slice().into(),
            one_of: log.one_of.max(1),
            lines: Arc::clone(lines),
            to,
            bytes: RefCell::default(),
            count: Cell::new(0),
            clock: line::Seconds::default(),
        }
    }

    /// A request has ended.
    pub(crate) fn tell(&self, facts: &Facts<'_>, random: &Random) {
        if self.one_of > 1 && !facts.is_error() && !random.next().is_multiple_of(self.one_of.into()) {
            return;
        }
        let mut bytes = self.bytes.borrow_mut();
        line::write(&mut bytes, &self.fields, facts, &self.clock);
        self.count.set(self.count.get() + 1);
        if bytes.len() >= CHUNK {
            drop(bytes);
            self.flush();
        }
    }

    /// Hands on what there is.
    pub(crate) fn flush(&self) {
        let lines = self.count.replace(0);
        if lines == 0 {
            return;
        }
        let bytes = self.bytes.replace(Vec::with_capacity(CHUNK + CHUNK / 8));
        match self.to.try_send(Chunk { bytes, lines }) {
            Ok(()) => (),
            Err(TrySendError::Full(chunk)) => self.lines.lost(chunk.lines, "they are not taken fast enough"),
            Err(TrySendError::Disconnected(chunk)) => self.lines.lost(chunk.lines, "their writer is gone"),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn every_field_is_found_by_its_name() {
        for field in Field::ALL {
            assert_eq!(field.name().parse(), Ok(*field));
        }
        let wrong = "cookie".parse::<Field>().unwrap_err().to_string();
        assert!(
            wrong.contains("\"cookie\"") && wrong.contains("time,client"),
            "{wrong}"
        );
        let secrets = [Field::Query, Field::Referer];
        assert!(!AccessLog::DEFAULT.iter().any(|field| secrets.contains(field)));
    }

    #[test]
    fn a_full_queue_holds_up_nobody_and_is_counted() {
        let settings = AccessLog {
            to: Destination::Stdout,
            fields: vec![Field::Status],
            one_of: 3,
        };
        let (to, from) = sync_channel(1);
        let lines = Arc::default();
        let log = Log::new(&settings, &lines, to);
        let random = Random::new();
        let error = Facts {
            status: 500,
            ..Facts::default()
        };
        for _ in 0..3 {
            log.tell(&error, &random);
            log.flush();
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(from.recv().unwrap().bytes, b"{\"status\":500}\n");
        let fine = Facts {
            status: 200,
            ..Facts::default()
        };
        for _ in 0..9_000 {
            log.tell(&fine, &random);
        }
        log.flush();
        let chosen =
            from.try_iter().map(|chunk| chunk.lines).sum::<u64>() + lines.dropped.load(Ordering::Relaxed) - 2;
        assert!((2_500..3_500).contains(&chosen), "{chosen} of 9,000");
        drop(from);
        log.tell(&error, &random);
        log.flush();
    }
}
