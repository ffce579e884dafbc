//! What `/metrics` shows of the ingress, in Prometheus' text format. docs/metrics.md lists it all, and a test compares the two.
//!
//! ```text
//!  worker ──▶ its tally (tally.rs) ◀──adds them up── a scrape (collect.rs) ──▶ the registry's text
//!  whoever makes snapshots ──changed, counted──▶ Metrics
//! ```
//!
//! On a request's way a count is a load and a store. Nothing has a label for each route, host or endpoint, unless hosts are
//! asked for (hosts.rs).

mod collect;
mod families;
pub(crate) mod hosts;
mod read;
pub(crate) mod tally;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::{Error, Gauge, Histogram, HistogramOpts, IntGauge, Registry};

use crate::clock;
use crate::engine::View;
use crate::worker::Shared;

/// Every metric of the ingress.
pub struct Metrics {
    view: Arc<ArcSwapOption<Shared>>,
    changes: Histogram,
    last_change: Gauge,
    problems: IntGauge,
    conflicts: IntGauge,
}

impl Metrics {
    /// All at zero, in this registry. An error would be a mistake in this folder, or a second one in the same registry.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let view = Arc::new(ArcSwapOption::empty());
        registry.register(Box::new(collect::Scrape::new(Arc::clone(&view))?))?;
        let options = HistogramOpts::new(
            "weir_ingress_change_duration_seconds",
            "Time from the news of a change to serving it",
        );
        let metrics = Self {
            view,
            changes: Histogram::with_opts(options.buckets(change_buckets()))?,
            last_change: Gauge::new(
                "weir_ingress_last_change_timestamp_seconds",
                "When a change was last served",
            )?,
            problems: IntGauge::new(
                "weir_ingress_problems",
                "Sentences about what is wrong with objects that still hold",
            )?,
            conflicts: IntGauge::new(
                "weir_ingress_conflicts",
                "Hosts and paths that an object asks for and another one has",
            )?,
        };
        registry.register(Box::new(metrics.changes.clone()))?;
        registry.register(Box::new(metrics.last_change.clone()))?;
        registry.register(Box::new(metrics.problems.clone()))?;
        registry.register(Box::new(metrics.conflicts.clone()))?;
        Ok(metrics)
    }

    /// From now on a scrape shows this engine.
    pub fn show(&self, view: &View) {
        self.view.store(Some(Arc::clone(&view.0)));
    }

    /// So long after the news of it, a change is served.
    pub fn changed(&self, took: Duration) {
        self.changes.observe(took.as_secs_f64());
        self.last_change.set(clock::wall().as_secs_f64());
    }

    /// What is wrong at the moment.
    pub fn counted(&self, problems: usize, conflicts: usize) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.problems.set(number(problems));
        self.conflicts.set(number(conflicts));
    }
}

/// 0.1 ms to 13 s.
fn change_buckets() -> Vec<f64> {
    (0..18).map(|power| 0.0001 * f64::from(1 << power)).collect()
}
