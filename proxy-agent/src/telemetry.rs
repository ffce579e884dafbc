//! What the loop tells about itself: to probes ([`Health`]) and to scrapes ([`Metrics`]).

use std::sync::Arc;
use std::time::Duration;

use proxy_model::Change;
use proxy_model::api::ApiNode;

use crate::apply::Outcome;
use crate::clock;
use crate::health::Health;
use crate::metrics::{Latency, Metrics, Round};

/// Counting walks over all Services: not after each change.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// The loop's side of it.
#[derive(Debug)]
pub struct Telemetry {
    /// For probes.
    pub health: Arc<Health>,
    /// For scrapes.
    pub metrics: Arc<Metrics>,
    latency: Latency,
    /// When the loop took what it is working on.
    began: Duration,
    counted: Option<Duration>,
    /// Whether something happened since the last count.
    uncounted: bool,
}

impl Telemetry {
    /// An agent that starts now.
    pub fn new(metrics: Arc<Metrics>, now: Duration) -> Self {
        Self {
            health: Arc::default(),
            metrics,
            latency: Latency::new(clock::wall().unix(now)),
            began: now,
            counted: None,
            uncounted: true,
        }
    }

    /// The loop has taken something to work on.
    pub fn began(&mut self, now: Duration) {
        self.began = now;
        self.health.began(now);
    }

    /// Part of what it took.
    pub fn observe(&mut self, change: &Change) {
        self.latency.observe(change);
        match change {
            Change::Put(object) => self.metrics.changed(object.kind(), 1),
            Change::Delete(kind, _) => self.metrics.changed(*kind, 1),
            Change::Replace(kind, list) => self.metrics.changed(*kind, list.len()),
            _ => {}
        }
    }

    /// The own Node is new or different.
    pub fn set_node(&self, node: &ApiNode) {
        self.health.set_node(node);
    }

    /// The kernel was offered all of it. `news` says whether there was anything that could have led to steps.
    pub fn done(&mut self, news: bool, outcome: Outcome, now: Duration) {
        self.health.done(now);
        if !news && outcome == Outcome::default() {
            return;
        }
        self.uncounted = true;
        let wall = clock::wall();
        self.metrics.synced(Round {
            queued: wall.unix(self.began),
            done: wall.unix(now),
            steps: outcome.done,
            refused: outcome.failed,
        });
        for (family, took) in self.latency.done(wall.unix(now)) {
            self.metrics.programmed(family, took);
        }
    }

    /// Whether it is time to count what there is.
    pub fn wants_counts(&mut self, now: Duration) -> bool {
        let rested = |last: Duration| now.saturating_sub(last) >= COUNT_INTERVAL;
        if !self.uncounted || !self.counted.is_none_or(rested) {
            return false;
        }
        self.uncounted = false;
        self.counted = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_follows_changes_but_not_each_of_them() {
        let second = Duration::from_secs;
        let mut telemetry = Telemetry::new(Arc::new(Metrics::new().unwrap()), second(0));
        let mut now = |at: u64, news: bool| {
            telemetry.began(second(at));
            telemetry.done(news, Outcome::default(), second(at));
            telemetry.wants_counts(second(at))
        };
        assert!(now(10, true), "the first time");
        assert!(!now(10, true), "at once again");
        assert!(now(13, false), "what was put off");
        assert!(!now(20, false), "nothing happened");
    }
}
