//! All that wakes the agent's loop.

use std::time::Duration;

use proxy_source::{Changes, Source, SourceError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{Agent, QUEUE, RunError};
use crate::clock;
use crate::http::Refused;
use crate::kernel::{Snapshot, Sweeper, Walk};
use crate::problems;

/// What woke it.
pub(super) enum Input {
    Stop(&'static str),
    Changes(Changes),
    Snapshot(Snapshot),
    Walk(Walk),
    /// Health check node ports that cannot be answered, or sockets that cannot be ended, are others now.
    Refused,
    Time,
}

/// All that can wake the loop.
pub(super) struct Inputs {
    pub(super) changes: mpsc::Receiver<Changes>,
    snapshots: watch::Receiver<Snapshot>,
    walks: mpsc::Receiver<Walk>,
    refused: watch::Receiver<Refused>,
    staying: watch::Receiver<Option<String>>,
    terminate: Signal,
    interrupt: Signal,
    source: tokio::task::JoinHandle<Result<(), SourceError>>,
}

impl Inputs {
    pub(super) fn start(source: Box<dyn Source>, agent: &Agent) -> Result<Self, RunError> {
        let (changes_out, changes) = mpsc::channel(QUEUE);
        let (walks_out, walks) = mpsc::channel(1);
        let mut snapshots = agent.interfaces.snapshots();
        snapshots.mark_changed();
        tracing::info!("reading {}", source.describe());
        if let Err(error) = problems::answer(agent.maps.pins(), agent.problems.sentences()) {
            tracing::warn!("`weir status` will not say what is wrong, the log does: {error}");
        }
        tokio::spawn(source.tell(agent.problems.problems()));
        tokio::spawn(Sweeper::open(agent.maps.pins())?.run(walks_out));
        Ok(Self {
            changes,
            snapshots,
            walks,
            refused: agent.checks.news(),
            staying: agent.leaving.news(),
            terminate: signal(SignalKind::terminate()).map_err(RunError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(RunError::Signals)?,
            source: tokio::spawn(source.run(changes_out)),
        })
    }

    pub(super) async fn next(&mut self, wakeup: Option<Duration>) -> Result<Input, RunError> {
        let pause = wakeup.map(|at| at.saturating_sub(clock::monotonic()));
        tokio::select! {
            // Stopping comes first: a busy source must not keep the agent alive.
            biased;
            _ = self.terminate.recv() => Ok(Input::Stop("SIGTERM")),
            _ = self.interrupt.recv() => Ok(Input::Stop("SIGINT")),
            Some(changes) = self.changes.recv() => Ok(Input::Changes(changes)),
            ended = &mut self.source => match ended {
                Ok(Err(error)) => Err(error.into()),
                _ => Err(RunError::Ended("the source of objects")),
            },
            changed = self.snapshots.changed() => match changed {
                Ok(()) => Ok(Input::Snapshot(self.snapshots.borrow_and_update().clone())),
                Err(_) => Err(RunError::Ended("the watcher of interfaces")),
            },
            Some(walk) = self.walks.recv() => Ok(Input::Walk(walk)),
            Ok(()) = self.refused.changed() => Ok(Input::Refused),
            Ok(()) = self.staying.changed() => Ok(Input::Refused),
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => Ok(Input::Time),
        }
    }
}
