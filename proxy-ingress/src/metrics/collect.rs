//! What a scrape reads: the workers' tallies, added up, and what the snapshot has at the moment. Nothing of it is kept
//! between two scrapes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::tally::{BOUNDS, Count, Histogram, Tally};
use crate::clock;
use crate::snapshot::Snapshot;
use crate::worker::{Counters, Shared};

/// A metric that is made at a scrape.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    /// In alphabetical order.
    pub(super) labels: &'static [&'static str],
    pub(super) read: fn(&Reading<'_>, &mut Samples),
}

/// What there is to read.
pub(super) struct Reading<'a> {
    pub(super) shared: &'a Shared,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) backends: Backends,
    /// Of those that are shown by name.
    pub(super) certificates: usize,
    /// The first end of a certificate, in seconds since 1970.
    pub(super) expiry: Option<i64>,
}

/// What is behind all routes.
#[derive(Default)]
pub(super) struct Backends {
    pub(super) endpoints: usize,
    pub(super) ejected: usize,
    pub(super) connections: usize,
}

/// The samples of a family.
pub(super) struct Samples {
    labels: &'static [&'static str],
    kind: MetricType,
    all: Vec<proto::Metric>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let snapshot = shared.snapshot.load_full();
        let now = clock::now();
        let mut backends = Backends::default();
        for upstream in snapshot.backends.values() {
            let (endpoints, ejected, connections) = upstream.census(now);
            backends.endpoints += endpoints;
            backends.ejected += ejected;
            backends.connections += connections;
        }
        let certificates = snapshot.certificates.named();
        let distinct: HashSet<_> = certificates
            .map(|one| (Arc::as_ptr(one), one.not_after))
            .collect();
        Self {
            shared,
            backends,
            certificates: distinct.len(),
            expiry: distinct.iter().map(|(_, not_after)| *not_after).min(),
            snapshot,
        }
    }

    pub(super) fn sum(&self, which: impl Fn(&Tally) -> &Count) -> u64 {
        let tallies = self.shared.tallies.iter();
        tallies.fold(0, |sum, tally| sum.wrapping_add(which(tally).get()))
    }

    /// A list of counts, added up.
    pub(super) fn each<const N: usize>(&self, which: impl Fn(&Tally) -> &[Count; N]) -> [u64; N] {
        let mut sums = [0_u64; N];
        for tally in &self.shared.tallies {
            for (sum, count) in sums.iter_mut().zip(which(tally)) {
                *sum = sum.wrapping_add(count.get());
            }
        }
        sums
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Samples {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the text format has floating point numbers only"
    )]
    pub(super) fn add(&mut self, labels: &[&str], value: u64) {
        let value = value as f64;
        let mut metric = proto::Metric::default();
        if self.kind == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(metric, labels);
    }

    pub(super) fn count(&mut self, labels: &[&str], value: usize) {
        self.add(labels, u64::try_from(value).unwrap_or(u64::MAX));
    }

    /// One sample for each name of the only label.
    pub(super) fn list<const N: usize>(&mut self, names: [&str; N], values: [u64; N]) {
        for (name, value) in names.iter().zip(values) {
            self.add(&[name], value);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the text format has floating point numbers only"
    )]
    pub(super) fn histogram(&mut self, reading: &Reading<'_>, which: fn(&Tally) -> &Histogram) {
        let counts = reading.each(|tally| &which(tally).buckets);
        let mut all = 0;
        let mut buckets = Vec::new();
        for (count, bound) in counts.iter().zip(BOUNDS) {
            all += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_cumulative_count(all);
            bucket.set_upper_bound(bound as f64 / 1e9);
            buckets.push(bucket);
        }
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(reading.sum(|tally| &which(tally).sum) as f64 / 1e9);
        histogram.set_bucket(buckets);
        let mut metric = proto::Metric::default();
        metric.set_histogram(histogram);
        self.push(metric, &[]);
    }

    fn push(&mut self, mut metric: proto::Metric, labels: &[&str]) {
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        metric.set_label(self.labels.iter().zip(labels).map(pair).collect());
        self.all.push(metric);
    }
}

impl Family {
    fn desc(&self) -> Result<Desc, prometheus::Error> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(self.name.into(), self.help.into(), labels, HashMap::new())
    }

    fn collect(&self, reading: &Reading<'_>) -> MetricFamily {
        let mut samples = Samples {
            labels: self.labels,
            kind: self.kind,
            all: Vec::new(),
        };
        (self.read)(reading, &mut samples);
        let mut family = MetricFamily::default();
        family.set_name(self.name.into());
        family.set_help(self.help.into());
        family.set_field_type(self.kind);
        family.set_metric(samples.all);
        family
    }
}

/// What prometheus asks at a scrape.
pub(super) struct Scrape {
    pub(super) view: Arc<arc_swap::ArcSwapOption<Shared>>,
    descs: Vec<Desc>,
}

impl Scrape {
    pub(super) fn new(view: Arc<arc_swap::ArcSwapOption<Shared>>) -> Result<Self, prometheus::Error> {
        let descs = super::families::FAMILIES.iter().map(Family::desc);
        Ok(Self {
            view,
            descs: descs.collect::<Result<_, _>>()?,
        })
    }
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(shared) = self.view.load_full() else {
            return Vec::new();
        };
        let reading = Reading::new(&shared);
        let families = super::families::FAMILIES.iter();
        families.map(|family| family.collect(&reading)).collect()
    }
}
