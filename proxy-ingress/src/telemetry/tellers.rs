//! The threads that tell of requests, and what each worker has to do with them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::mpsc::Sender;

use super::{AccessLog, Destination, Telemetry, Tracing};
use crate::access::writer::Writer;
use crate::access::{Chunk, Lines, Log};
use crate::trace::Tracer;
use crate::trace::export::{Exporter, Sent};
use crate::trace::otlp::Span;

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The access log cannot be opened.
    #[error("opening the access log {0}: make its folder, or give --access-log another path")]
    AccessLog(Destination, #[source] io::Error),
    /// There is no thread for spans.
    #[error("beginning to send spans")]
    Spans(#[source] io::Error),
}

/// Whom a worker tells of requests, beside its tally.
#[derive(Default)]
pub(crate) struct Telling {
    pub(crate) log: Option<Log>,
    pub(crate) tracer: Option<Tracer>,
}

/// What became of what was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) lines: Arc<Lines>,
    pub(crate) spans: Arc<Sent>,
}

/// The threads.
#[derive(Default)]
pub(crate) struct Tellers {
    writer: Option<Writer>,
    exporter: Option<Exporter>,
}

/// The way to them. The threads end when no worker has one any more.
pub(crate) struct Ways {
    log: Option<(AccessLog, Arc<Lines>, SyncSender<Chunk>)>,
    spans: Option<(Tracing, Arc<Sent>, Sender<Vec<Span>>)>,
}

impl Tellers {
    /// Begins to tell what is asked for.
    pub(crate) fn start(telemetry: Telemetry, told: &Told) -> Result<(Self, Ways), TellError> {
        let mut tellers = Self::default();
        let mut ways = Ways {
            log: None,
            spans: None,
        };
        if let Some(log) = telemetry.access_log {
            let started = Writer::start(log.to.clone(), &told.lines);
            let (writer, to) = started.map_err(|error| TellError::AccessLog(log.to.clone(), error))?;
            tellers.writer = Some(writer);
            ways.log = Some((log, Arc::clone(&told.lines), to));
        }
        if let Some(tracing) = telemetry.tracing {
            let (exporter, to) = Exporter::start(&tracing, &told.spans).map_err(TellError::Spans)?;
            tellers.exporter = Some(exporter);
            ways.spans = Some((tracing, Arc::clone(&told.spans), to));
        }
        Ok((tellers, ways))
    }

    /// Waits until the last is told, once the workers have ended.
    pub(crate) fn join(self) {
        if let Some(writer) = self.writer {
            writer.join();
        }
        if let Some(exporter) = self.exporter {
            exporter.join();
        }
    }
}

impl Ways {
    /// A worker's.
    pub(crate) fn telling(&self) -> Telling {
        let log = self.log.as_ref();
        let spans = self.spans.as_ref();
        Telling {
            log: log.map(|(log, lines, to)| Log::new(log, lines, to.clone())),
            tracer: spans.map(|(tracing, counts, to)| Tracer::new(tracing, counts, to.clone())),
        }
    }
}
