//! Why the ingress ends with an error.

use std::io;

use proxy_source::SourceError;

use crate::engine::EngineError;

/// Why it ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Signals.
    #[error("listening to signals")]
    Signals(#[source] io::Error),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The ports.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A task ended that never should.
    #[error("{0} ended unexpectedly: please report this")]
    Ended(&'static str),
}
