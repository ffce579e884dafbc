//! Metrics in Prometheus' text format: what each daemon needs to make its own, and what it tells of its process.

mod process;

pub use process::Process;

use prometheus::core::Collector;
use prometheus::{
    Error, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Makes metrics and registers them.
#[derive(Debug)]
pub struct Adder<'r>(pub &'r Registry);

impl Adder<'_> {
    /// A counter without labels.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(name, help)?)
    }

    /// A counter for each value of the labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// A gauge of whole numbers without labels.
    pub fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(name, help)?)
    }

    /// A gauge of whole numbers for each value of the labels.
    pub fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// A gauge for each value of the labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// A histogram for each value of the labels.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> Result<HistogramVec, Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets);
        self.add(HistogramVec::new(options, labels)?)
    }

    /// Any other.
    pub fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// A count as a gauge takes it.
pub fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
