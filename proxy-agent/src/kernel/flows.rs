//! Ends flows whose time is up, and tells which frontends flows still use.
//!
//! The kernel programs make and refresh the rows; the agent only deletes. The sweeper walks `FLOWS` in chunks and lets
//! others run in between. A connection has two rows, and a packet refreshes both, but either can be missed by a race or
//! have been evicted and rebuilt: so both are judged by the younger one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proxy_common::{Flow, FlowKey, Ip};
use proxy_datapath::flow;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::clock;
use super::maps::{MapError, Maps, OpenError};
use super::pins::Pins;
use super::sys::Batches;
use super::table::CHUNK;

/// Time between two walks.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds after which the ports of a fragmented datagram are forgotten: the kernel's own `ipfrag_time`.
const FRAGMENT_TIMEOUT: u32 = 30;

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

    /// One complete walk. `now` is asked again for each chunk, in monotonic seconds.
    pub async fn walk(&mut self, now: impl Fn() -> u32) -> Result<Walk, MapError> {
        let mut walk = Walk::default();
        let mut batches = Batches::new(CHUNK);
        loop {
            let rows = self.maps.flows.next(&mut batches)?;
            if rows.is_empty() {
                break;
            }
            let dead = self.judge(&rows, now(), &mut walk)?;
            walk.expired += self.maps.flows.delete_all(&dead)?;
            tokio::task::yield_now().await;
        }
        walk.fragments = self.sweep_fragments(now())?;
        Ok(walk)
    }

    /// Which of these rows are to go; counts the others.
    fn judge(&self, rows: &[(FlowKey, Flow)], now: u32, walk: &mut Walk) -> Result<Vec<FlowKey>, MapError> {
        let known: HashMap<FlowKey, Flow> = rows.iter().copied().collect();
        let mut dead = Vec::new();
        for (key, row) in rows {
            // Most rows are alive by themselves: the twin is looked up only for those that are not.
            if flow::expired(row, now) && self.twin_expired(key, row, &known, now)? {
                dead.push(*key);
            } else {
                walk.live += 1;
                walk.frontends.insert(row.frontend);
            }
        }
        Ok(dead)
    }

    fn twin_expired(
        &self,
        key: &FlowKey,
        row: &Flow,
        known: &HashMap<FlowKey, Flow>,
        now: u32,
    ) -> Result<bool, MapError> {
        let (to_service, from_backend) = flow::keys(row);
        let twin = if *key == to_service {
            from_backend
        } else {
            to_service
        };
        let found = match known.get(&twin) {
            Some(found) => Some(*found),
            None => self.maps.flows.get(&twin)?,
        };
        // Another connection may have taken the twin's place.
        Ok(found.is_none_or(|found| !flow::same_connection(&found, row) || flow::expired(&found, now)))
    }

    fn sweep_fragments(&mut self, now: u32) -> Result<usize, MapError> {
        let dead: Vec<_> = self
            .maps
            .fragments
            .all()?
            .into_iter()
            .filter(|(_, fragment)| now.saturating_sub(fragment.seen) > FRAGMENT_TIMEOUT)
            .map(|(key, _)| key)
            .collect();
        self.maps.fragments.delete_all(&dead)
    }

    /// Walks every [`SWEEP_INTERVAL`] and sends each result, until nobody receives any more.
    pub async fn run(mut self, walks: mpsc::Sender<Walk>) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.walk(clock::monotonic_seconds).await {
                Ok(walk) => {
                    tracing::trace!(live = walk.live, expired = walk.expired, "flow table swept");
                    if walks.send(walk).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the flow table was not swept; trying again"),
            }
        }
    }
}
