//! What is told of requests beyond the counts that are always there, in one place, each with its default: nothing.

mod flags;
pub(crate) mod tellers;

pub use flags::{FlagError, Sample, Target, TelemetryFlags};

pub use self::tellers::TellError;
pub use crate::access::{AccessLog, Destination, Field, NoField};
pub use crate::trace::{Collector, NoCollector, Tracing};

/// What is told.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Requests are also counted by the host of their rule ([`crate::metrics`]).
    pub hosts: bool,
    /// A line for each request.
    pub access_log: Option<AccessLog>,
    /// Spans of requests that are part of a trace.
    pub tracing: Option<Tracing>,
}
