//! How it ends: balancers hear of it first, then no more clients are taken, and those that are there are served to the end. The
//! loop goes on meanwhile: endpoints come and go as ever.

use std::ops::ControlFlow;
use std::thread;

use tokio::time::Instant;

use super::inputs::Stop;
use super::{Ingress, State};
use crate::probes::Stage;

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Until when clients are still taken.
    pub(super) due: Option<Instant>,
    draining: bool,
    drained: bool,
    /// Somebody has said that it is to end.
    signalled: bool,
}

impl Ingress {
    /// Somebody wants it to end. Whoever says so again does not want to wait.
    pub(super) fn stop(&mut self, stop: Stop) -> ControlFlow<()> {
        let State::Serving(_) = &self.state else {
            tracing::info!("{stop}: it ends");
            return ControlFlow::Break(());
        };
        let again = self.leaving.signalled;
        self.leaving.signalled |= stop != Stop::Relieved;
        if stop == Stop::Relieved {
            // The next process wants the port.
            self.status.abort();
        }
        if self.leaving.draining {
            return self.while_it_drains(stop, again);
        }
        self.probes.set(Stage::Leaving);
        let delay = self.shutdown_delay;
        if stop == Stop::Terminate && !delay.is_zero() && self.leaving.due.is_none() {
            tracing::info!("{stop}: not ready any more; clients are taken for {delay:?} longer");
            self.leaving.due = Some(Instant::now() + delay);
        } else {
            self.drain(&stop.to_string());
        }
        ControlFlow::Continue(())
    }

    /// Who says for the first time that it is to end, of a process that the next one has relieved, has patience.
    fn while_it_drains(&self, stop: Stop, again: bool) -> ControlFlow<()> {
        if stop == Stop::Relieved {
            return ControlFlow::Continue(());
        }
        if again {
            tracing::warn!("{stop}: once more; connections are cut off");
            return ControlFlow::Break(());
        }
        if self.leaving.drained {
            tracing::info!("{stop}: it ends");
            return ControlFlow::Break(());
        }
        tracing::info!("{stop}: it ends when all connections have");
        ControlFlow::Continue(())
    }

    /// All connections have ended.
    pub(super) fn ended(&mut self) -> ControlFlow<()> {
        self.leaving.drained = true;
        if self.wait_relieved && !self.leaving.signalled {
            tracing::info!("all connections have ended; it waits for SIGTERM");
            return ControlFlow::Continue(());
        }
        tracing::info!("all connections have ended");
        ControlFlow::Break(())
    }

    /// Ends the time in which clients are still taken.
    pub(super) fn drain_if_due(&mut self) {
        if self.leaving.due.is_some_and(|due| Instant::now() >= due) {
            self.drain("balancers know by now");
        }
    }

    fn drain(&mut self, why: &str) {
        self.leaving.due = None;
        self.leaving.draining = true;
        // Or clients would go on to be queued at them.
        self.offer = None;
        let State::Serving(engine) = &mut self.state else {
            return;
        };
        let (connections, requests) = (engine.connections(), engine.requests());
        tracing::info!("{why}: no more clients; {connections} connections with {requests} requests may end");
        engine.drain();
        let (threads, ended) = (engine.threads(), self.bells.ended.clone());
        thread::spawn(move || {
            for thread in threads {
                // A worker that panicked has ended the process.
                let _ended = thread.join();
            }
            // The loop may have ended already.
            let _told = ended.blocking_send(());
        });
    }
}
