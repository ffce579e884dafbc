//! What the loop tells about itself: to probes ([`Health`]) and to scrapes ([`Metrics`]).

use std::sync::Arc;
use std::time::Duration;

use proxy_model::api::ApiNode;
use proxy_model::{Change, Kind};

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

    /// Part of what it took: what to count if it says anything new.
    pub fn note(&mut self, change: &Change) -> Option<(Kind, usize)> {
        self.latency.observe(change);
        match change {
            Change::Put(object) => Some((object.kind(), 1)),
            Change::Delete(kind, _) => Some((*kind, 1)),
            Change::Replace(kind, list) => Some((*kind, list.len())),
            _ => None,
        }
    }

    /// It did say something new.
    pub fn changed(&self, noted: Option<(Kind, usize)>) {
        if let Some((kind, count)) = noted {
            self.metrics.changed(kind, count);
        }
    }

    /// The own Node is new or different.
    pub fn set_node(&self, node: &ApiNode) {
        self.health.set_node(node);
    }

    /// The own Node is not there, or no more.
    pub fn lost_node(&self) {
        self.health.lost_node();
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

    /// When what was put off is to be counted.
    pub fn next_count(&self) -> Option<Duration> {
        let at = self.counted.unwrap_or_default() + COUNT_INTERVAL;
        self.uncounted.then_some(at)
    }

    /// Whether it is time to count what there is.
    pub fn wants_counts(&mut self, now: Duration) -> bool {
        if self.next_count().is_none_or(|at| now < at) {
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
            (telemetry.wants_counts(second(at)), telemetry.next_count())
        };
        assert_eq!(now(10, true), (true, None), "the first time");
        assert_eq!(now(10, true), (false, Some(second(11))), "at once again");
        assert_eq!(now(11, false), (true, None), "what was put off");
        assert_eq!(now(20, false), (false, None), "nothing happened");
    }
}
