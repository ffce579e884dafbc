//! How it ends: balancers hear of it first, then no more clients are taken, and those that are there are served to the end. The
//! loop goes on meanwhile: endpoints come and go as ever.

use std::ops::ControlFlow;
use std::thread;

use tokio::time::Instant;

use super::inputs::Stop;
use super::{Ingress, State};
use crate::probes::Stage;

impl Ingress {
    /// Somebody wants it to end. Whoever says so again does not want to wait.
    pub(super) fn stop(&mut self, stop: Stop) -> ControlFlow<()> {
        let State::Serving(_) = &self.state else {
            tracing::info!("{stop}: it ends");
            return ControlFlow::Break(());
        };
        if self.draining {
            if stop == Stop::Relieved {
                return ControlFlow::Continue(());
            }
            tracing::warn!("{stop}: once more; connections are cut off");
            return ControlFlow::Break(());
        }
        self.probes.set(Stage::Leaving);
        let delay = self.shutdown_delay;
        if stop == Stop::Terminate && !delay.is_zero() && self.drain_due.is_none() {
            tracing::info!("{stop}: not ready any more; clients are taken for {delay:?} longer");
            self.drain_due = Some(Instant::now() + delay);
        } else {
            self.drain(&stop.to_string());
        }
        ControlFlow::Continue(())
    }

    /// Ends the time in which clients are still taken.
    pub(super) fn drain_if_due(&mut self) {
        if self.drain_due.is_some_and(|due| Instant::now() >= due) {
            self.drain("balancers know by now");
        }
    }

    fn drain(&mut self, why: &str) {
        self.drain_due = None;
        self.draining = true;
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
