//! All that can wake the loop.

use std::fmt;

use proxy_source::{Changes, Report, Source, SourceError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::RunError;
use crate::admin::socket::Asked;

/// Batches of changes that may wait; a source that is ahead waits for the model.
const QUEUE: usize = 256;

/// What woke it.
pub(super) enum Input {
    Stop(Stop),
    Changes(Changes),
    Question(Asked),
    /// All connections have ended.
    Ended,
    Time,
}

/// Why it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Somebody ends it who tells balancers in the same moment.
    Terminate,
    /// Somebody sits in front of it.
    Interrupt,
    /// The next process takes clients from the same sockets.
    Relieved,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Relieved => "the next process serves",
        })
    }
}

/// What it listens to.
pub(super) struct Inputs {
    pub(super) changes: mpsc::Receiver<Changes>,
    questions: mpsc::Receiver<Asked>,
    relieved: mpsc::Receiver<()>,
    ended: mpsc::Receiver<()>,
    terminate: Signal,
    interrupt: Signal,
    source: tokio::task::JoinHandle<Result<(), SourceError>>,
}

/// The other ends of what it listens to.
pub(super) struct Bells {
    /// The next process serves.
    pub(super) relieved: mpsc::Sender<()>,
    /// All connections have ended.
    pub(super) ended: mpsc::Sender<()>,
}

impl Inputs {
    pub(super) fn start(
        source: Box<dyn Source>,
        questions: mpsc::Receiver<Asked>,
        report: &Report,
    ) -> Result<(Self, Bells), RunError> {
        let (changes_out, changes) = mpsc::channel(QUEUE);
        let (relieved_out, relieved) = mpsc::channel(1);
        let (ended_out, ended) = mpsc::channel(1);
        tracing::info!("reading {}", source.describe());
        tokio::spawn(source.tell(report.problems()));
        let inputs = Self {
            changes,
            questions,
            relieved,
            ended,
            terminate: signal(SignalKind::terminate()).map_err(RunError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(RunError::Signals)?,
            source: tokio::spawn(source.run(changes_out)),
        };
        let bells = Bells {
            relieved: relieved_out,
            ended: ended_out,
        };
        Ok((inputs, bells))
    }

    pub(super) async fn next(&mut self, wakeup: Option<Instant>) -> Result<Input, RunError> {
        tokio::select! {
            // Stopping comes first: a busy source must not keep the process alive.
            biased;
            _ = self.terminate.recv() => Ok(Input::Stop(Stop::Terminate)),
            _ = self.interrupt.recv() => Ok(Input::Stop(Stop::Interrupt)),
            Some(()) = self.relieved.recv() => Ok(Input::Stop(Stop::Relieved)),
            Some(()) = self.ended.recv() => Ok(Input::Ended),
            () = sleep_until(wakeup.unwrap_or_else(Instant::now)), if wakeup.is_some() => Ok(Input::Time),
            Some(changes) = self.changes.recv() => Ok(Input::Changes(changes)),
            Some(asked) = self.questions.recv() => Ok(Input::Question(asked)),
            ended = &mut self.source => match ended {
                Ok(Err(error)) => Err(error.into()),
                _ => Err(RunError::Ended("the source of objects")),
            },
        }
    }
}
