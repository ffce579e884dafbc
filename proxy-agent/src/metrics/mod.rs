//! What `/metrics` shows, in Prometheus' text format. docs/metrics.md lists it all, and a test compares the two.
//!
//! ```text
//!  the loop ──changes, syncs, counts──▶ Metrics ◀──fills and counters of the maps── scrape.rs, when somebody asks
//! ```
//!
//! kube-proxy's names where weir has the same thing to tell, with the same meaning (k8s.io/kubernetes/pkg/proxy/metrics);
//! what only weir has begins with `weir_`. Nothing here has a label for each Service or endpoint.

mod latency;
mod scrape;

pub use latency::Latency;
pub use scrape::Scraper;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Error, Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use proxy_daemon::metrics::{Adder, Process, number};
use proxy_model::{Family, Kind, Summary, TrafficFrom};

use crate::config::VERSION;

/// Of kube-proxy's metrics that have a label for it: one sync serves both.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Every metric of the agent. Cheap to update, from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sync_duration: HistogramVec,
    last_sync: GaugeVec,
    last_queued: GaugeVec,
    programming: HistogramVec,
    endpoint_changes: IntCounter,
    endpoint_changes_pending: IntGauge,
    service_changes: IntCounter,
    service_changes_pending: IntGauge,
    without_local: IntGaugeVec,
    /// Answers to `/healthz`, by status.
    pub healthz: IntCounterVec,
    /// Answers to `/livez`, by status.
    pub livez: IntCounterVec,
    /// What the sources count.
    pub sources: Arc<proxy_source::Metrics>,
    ready: IntGauge,
    services: IntGauge,
    frontends: IntGauge,
    backends: IntGauge,
    waiting: IntGauge,
    problems: IntGauge,
    interfaces: IntGauge,
    steps: IntCounterVec,
    sockets: IntCounterVec,
    packets: IntCounterVec,
    flows: IntGauge,
    half_open: IntGauge,
    aged: IntCounter,
    rows: IntGaugeVec,
    capacity: IntGaugeVec,
    unreadable: IntCounter,
    process: Process,
}

/// How much one round of the loop did.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// When the loop took the news, since 1970.
    pub queued: Duration,
    /// When the kernel had it.
    pub done: Duration,
    /// Steps that the kernel did.
    pub steps: usize,
    /// Steps that it refused.
    pub refused: usize,
}

impl Metrics {
    /// All at zero. An error would be a mistake in this file.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let add = Adder(&registry);
        let family = &["ip_family"];
        let proxy = |name: &str| format!("kubeproxy_sync_proxy_rules_{name}");
        let metrics = Self {
            sync_duration: add.histograms(&proxy("duration_seconds"), "Time from taking changes to having them in the kernel", family, sync_buckets())?,
            last_sync: add.gauges(&proxy("last_timestamp_seconds"), "When changes were last brought into the kernel", family)?,
            last_queued: add.gauges(&proxy("last_queued_timestamp_seconds"), "When the agent last took changes to work on", family)?,
            programming: add.histograms("kubeproxy_network_programming_duration_seconds", "Time from a change of a Service or pod to having it in the kernel, by the clock of the control plane", family, programming_buckets())?,
            endpoint_changes: add.counter(&proxy("endpoint_changes_total"), "Changes of EndpointSlices that the agent has seen")?,
            endpoint_changes_pending: add.int_gauge(&proxy("endpoint_changes_pending"), "Changes of EndpointSlices that are not in the kernel yet")?,
            service_changes: add.counter(&proxy("service_changes_total"), "Changes of Services that the agent has seen")?,
            service_changes_pending: add.int_gauge(&proxy("service_changes_pending"), "Changes of Services that are not in the kernel yet")?,
            without_local: add.int_gauges(&proxy("no_local_endpoints_total"), "Service ports with a Local traffic policy and endpoints, none of which is on this node", &["traffic_policy", "ip_family"])?,
            healthz: add.counters("kubeproxy_proxy_healthz_total", "Answers to /healthz", &["code"])?,
            livez: add.counters("kubeproxy_proxy_livez_total", "Answers to /livez", &["code"])?,
            sources: Arc::new(proxy_source::Metrics::new(&registry)?),
            ready: add.int_gauge("weir_ready", "Whether everything was read once, and every Service offered to the kernel")?,
            services: add.int_gauge("weir_services", "Services with a frontend in the kernel")?,
            frontends: add.int_gauge("weir_frontends", "Frontends in the kernel: an address or node port, a port and a protocol")?,
            backends: add.int_gauge("weir_backends", "Endpoints in service in the kernel, one for each service port")?,
            waiting: add.int_gauge("weir_services_pending", "Services whose rows are not yet what the objects say")?,
            problems: add.int_gauge("weir_problems", "Sentences about what is wrong that stand in the log and still hold")?,
            interfaces: add.int_gauge("weir_interfaces", "Interfaces that weir's programs are attached to")?,
            steps: add.counters("weir_steps_total", "Steps that the kernel was asked to do, by result: done or refused", &["result"])?,
            sockets: add.counters("weir_sockets_ended_total", "Connected UDP sockets of the node's own processes whose endpoint does not serve any more, by result: done (ended) or refused (each time the kernel does not end one)", &["result"])?,
            packets: add.counters("weir_packets_total", "Packets and connections by what happened to them; see docs/maps.md, COUNTERS", &["reason"])?,
            flows: add.int_gauge("weir_flows", "Established connections that the packet path translates")?,
            half_open: add.int_gauge("weir_half_open_flows", "Connections that the packet path translates and that one side only has spoken in")?,
            aged: add.counter("weir_flow_rows_aged_total", "Rows of connections that the agent removed because their time was up; there are two for each")?,
            rows: add.int_gauges("weir_map_rows", "Rows in use, by map", &["map"])?,
            capacity: add.int_gauges("weir_map_capacity", "Rows that fit, by map", &["map"])?,
            unreadable: add.counter("weir_scrape_errors_total", "Scrapes that could not read the kernel's maps")?,
            process: Process::new(&add)?,
            registry,
        };
        metrics.say_constants()?;
        Ok(metrics)
    }

    fn say_constants(&self) -> Result<(), Error> {
        let build = Opts::new("weir_build_info", "Always 1; the label says which build this is")
            .const_label("version", VERSION.as_str());
        let build = Gauge::with_opts(build)?;
        build.set(1.0);
        self.registry.register(Box::new(build))?;
        // A rate is only seen if the first value is there before the first event.
        for result in ["done", "refused"] {
            self.steps.with_label_values(&[result]);
            self.sockets.with_label_values(&[result]);
        }
        self.set_without_local(&BTreeMap::new());
        for counters in [&self.healthz, &self.livez] {
            counters.with_label_values(&["200"]);
            counters.with_label_values(&["503"]);
        }
        Ok(())
    }

    /// An object of this kind is new, different or gone, or so many of them are.
    pub fn changed(&self, kind: Kind, count: usize) {
        let (total, pending) = match kind {
            Kind::Service => (&self.service_changes, &self.service_changes_pending),
            Kind::EndpointSlice => (&self.endpoint_changes, &self.endpoint_changes_pending),
            _ => return,
        };
        total.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        pending.add(number(count));
    }

    /// The kernel was offered everything.
    pub fn synced(&self, round: Round) {
        self.endpoint_changes_pending.set(0);
        self.service_changes_pending.set(0);
        self.step_results(round);
        for family in [Family::V4, Family::V6].map(label) {
            let took = round.done.saturating_sub(round.queued);
            self.sync_duration
                .with_label_values(&[family])
                .observe(took.as_secs_f64());
            self.last_queued
                .with_label_values(&[family])
                .set(round.queued.as_secs_f64());
            self.last_sync
                .with_label_values(&[family])
                .set(round.done.as_secs_f64());
        }
    }

    fn step_results(&self, round: Round) {
        for (result, count) in [("done", round.steps), ("refused", round.refused)] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.steps.with_label_values(&[result]).inc_by(count);
        }
    }

    /// So long after something changed in the cluster, the kernel has it.
    pub fn programmed(&self, family: Family, after: Duration) {
        let histogram = self.programming.with_label_values(&[label(family)]);
        histogram.observe(after.as_secs_f64());
    }

    /// What there is now.
    pub fn counted(&self, summary: &Summary, problems: usize, interfaces: usize, ready: bool) {
        self.services.set(number(summary.services));
        self.frontends.set(number(summary.frontends));
        self.backends.set(number(summary.backends));
        self.waiting.set(number(summary.pending));
        self.problems.set(number(problems));
        self.set_without_local(&summary.without_local);
        self.interfaces.set(number(interfaces));
        self.ready.set(ready.into());
    }

    fn set_without_local(&self, counts: &BTreeMap<(TrafficFrom, Family), usize>) {
        for (from, policy) in [
            (TrafficFrom::Cluster, "internal"),
            (TrafficFrom::Outside, "external"),
        ] {
            for family in [Family::V4, Family::V6] {
                let count = counts.get(&(from, family)).copied().unwrap_or_default();
                let gauge = self.without_local.with_label_values(&[policy, label(family)]);
                gauge.set(number(count));
            }
        }
    }

    /// Sockets whose endpoint is gone were ended, or the kernel refused.
    pub fn ended(&self, done: usize, refused: usize) {
        for (result, count) in [("done", done), ("refused", refused)] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.sockets.with_label_values(&[result]).inc_by(count);
        }
    }

    /// So many rows of flows were removed.
    pub fn aged(&self, rows: usize) {
        self.aged.inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
    }

    /// All of it, as text.
    pub fn text(&self) -> Result<String, Error> {
        self.process.read();
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn label(family: Family) -> &'static str {
    let [v4, v6] = FAMILIES;
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

/// kube-proxy's buckets: 1 ms to 16 s.
fn sync_buckets() -> Vec<f64> {
    (0..15).map(|power| 0.001 * f64::from(1 << power)).collect()
}

/// kube-proxy's buckets: those of the latency objective of SIG Scalability.
fn programming_buckets() -> Vec<f64> {
    let seconds = (1..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    [0.25, 0.5].into_iter().chain(seconds.map(f64::from)).collect()
}

#[cfg(test)]
mod tests;
