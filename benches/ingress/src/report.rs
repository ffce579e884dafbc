//! Tables for people, JSON for programs.

use std::fmt;

use serde::Serialize;
use weir_measure::stats::{Estimate, estimate, median, quantile};

use crate::changes::Changes;
use crate::memory::Held;
use crate::proxies::{Proxy, Way};
use crate::rounds::{Block, Latency, Plan, Workload};

/// Requests per CPU-second over HTTP/1.1 keep-alive, as part of HAProxy's.
const CPU_GOAL: f64 = 0.9;
/// Milliseconds until a change is live, at the 99th percentile.
const LIVE_GOAL: f64 = 20.0;
/// Megabytes with many routes.
const MEMORY_GOAL: f64 = 40.0;

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) plan: Plan,
    pub(crate) memory: Vec<Held>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) changes: Vec<Changes>,
}

/// One line of the table of a workload.
struct Line {
    proxy: Proxy,
    /// Requests per CPU-second.
    per_cpu: f64,
    /// Requests per second.
    rate: f64,
    /// Part of the time that the proxy was on its CPU.
    busy: f64,
    failed: u64,
    to_haproxy: Estimate,
}

/// A goal, and how it stands.
struct Goal {
    what: &'static str,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Met,
    /// The interval allows for it.
    Possible,
    Missed,
}

impl Verdict {
    fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Possible => "not shown, within the interval",
            Self::Missed => "missed",
        })
    }
}

impl Report {
    pub(crate) fn new(facts: Vec<(String, String)>, plan: Plan) -> Self {
        Self {
            facts,
            plan,
            memory: Vec::new(),
            blocks: Vec::new(),
            latencies: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Whether no goal is surely missed.
    pub(crate) fn goals_may_be_met(&self) -> bool {
        self.goals().iter().all(|goal| goal.verdict != Verdict::Missed)
    }

    fn of(&self, proxy: Proxy, workload: Workload) -> Vec<&Block> {
        let wanted = |block: &&Block| block.proxy == proxy && block.workload == workload;
        self.blocks.iter().filter(wanted).collect()
    }

    fn line(&self, proxy: Proxy, workload: Workload) -> Option<Line> {
        let (own, haproxy) = (self.of(proxy, workload), self.of(Proxy::Haproxy, workload));
        let values =
            |value: fn(&Block) -> f64| median(&own.iter().map(|block| value(block)).collect::<Vec<_>>());
        let ratio = |block: &&Block| {
            let pair = haproxy.iter().find(|other| other.round == block.round)?;
            Some(per_cpu(block) / per_cpu(pair))
        };
        let ratios: Vec<f64> = own.iter().filter_map(ratio).collect();
        (!own.is_empty()).then(|| Line {
            proxy,
            per_cpu: values(per_cpu),
            rate: values(|block| float(block.good) / float(block.nanos) * 1e9),
            busy: values(|block| float(block.cpu_nanos) / float(block.nanos)),
            failed: own.iter().map(|block| block.failed).sum(),
            to_haproxy: estimate(&ratios),
        })
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        if let Some(line) = self.line(Proxy::Weir, Workload::Small) {
            let verdict = match line.to_haproxy {
                ratio if ratio.median >= CPU_GOAL => Verdict::Met,
                ratio if ratio.high >= CPU_GOAL => Verdict::Possible,
                _ => Verdict::Missed,
            };
            let what = "requests per CPU-second at least 0.9 of HAProxy's over HTTP/1.1 keep-alive";
            goals.push(Goal { what, verdict });
        }
        if let Some(changes) = self.changes.iter().find(|changes| changes.proxy == Proxy::Weir) {
            let live = quantile(&mut changes.millis.clone(), 0.99) <= LIVE_GOAL;
            goals.push(Goal {
                what: "a changed route live within 20 ms at the 99th percentile",
                verdict: Verdict::of(live),
            });
            goals.push(Goal {
                what: "no error on change",
                verdict: Verdict::of(changes.load.failed == 0),
            });
        }
        let many = |held: &&Held| held.proxy == Proxy::Weir && held.routes == self.plan.routes;
        if let Some(held) = self.memory.iter().find(many) {
            let what = "under 40 MB with many routes";
            let verdict = Verdict::of(megabytes(held.rest.rss) < MEMORY_GOAL);
            goals.push(Goal { what, verdict });
        }
        goals
    }

    fn workload(&self, f: &mut fmt::Formatter<'_>, workload: Workload) -> fmt::Result {
        let lines: Vec<Line> = Proxy::ALL
            .iter()
            .filter_map(|proxy| self.line(*proxy, workload))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{workload}\n{:<14} {:>8} {:>8} {:>6} {:>7} {:>22}",
            "", "1/CPU-s", "1/s", "busy", "failed", "to HAProxy (95 %)"
        )?;
        for line in lines {
            writeln!(
                f,
                "{:<14} {:>8.0} {:>8.0} {:>5.0}% {:>7} {:>22}",
                line.proxy,
                line.per_cpu,
                line.rate,
                line.busy * 100.0,
                line.failed,
                line.to_haproxy
            )?;
        }
        Ok(())
    }

    fn latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.latencies.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nlatency of one connection, µs; added to the direct way within a round\n{:<14} {:>8} {:>8} {:>26} {:>26}",
            "", "p50", "p99", "p50 added (95 %)", "p99 added (95 %)"
        )?;
        let arms = std::iter::once(None).chain(Proxy::ALL.map(Some));
        for proxy in arms {
            let own: Vec<&Latency> = self.latencies.iter().filter(|one| one.proxy == proxy).collect();
            let values =
                |value: fn(&Latency) -> f64| median(&own.iter().map(|one| value(one)).collect::<Vec<_>>());
            let added = |value: fn(&Latency) -> f64| {
                let difference = |one: &&Latency| {
                    let direct = |other: &&Latency| other.proxy.is_none() && other.round == one.round;
                    Some(value(one) - value(self.latencies.iter().find(direct)?))
                };
                let all: Vec<f64> = own.iter().filter_map(difference).collect();
                let all = estimate(&all);
                format!("{:.1} ({:.1}…{:.1})", all.median, all.low, all.high)
            };
            let (p50, p99) = (values(|one| one.p50_micros), values(|one| one.p99_micros));
            match proxy {
                None => writeln!(f, "{:<14} {p50:>8.1} {p99:>8.1}", "direct")?,
                Some(proxy) => writeln!(
                    f,
                    "{proxy:<14} {p50:>8.1} {p99:>8.1} {:>26} {:>26}",
                    added(|one| one.p50_micros),
                    added(|one| one.p99_micros)
                )?,
            }
        }
        Ok(())
    }

    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.memory.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nmemory, MB: what processes share is divided among them (PSS), or counted for each (RSS)\n\
             {:<14} {:>8} {:>8} {:>8} {:>22}",
            "", "routes", "PSS", "RSS", "idle connection, KB"
        )?;
        for held in &self.memory {
            let idle = held.idle.map_or(String::new(), |(count, memory)| {
                let more = float(memory.pss) - float(held.rest.pss);
                format!(
                    "{:.1}",
                    more / float(u64::try_from(count).unwrap_or(u64::MAX)) / 1e3
                )
            });
            writeln!(
                f,
                "{:<14} {:>8} {:>8.1} {:>8.1} {idle:>22}",
                held.proxy,
                held.routes,
                megabytes(held.rest.pss),
                megabytes(held.rest.rss)
            )?;
        }
        Ok(())
    }

    fn changes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\na changed route of {}, under {} requests a second on kept connections; {} changes\n\
             {:<26} {:>7} {:>7} {:>7} {:>7} {:>7} {:>11} {:>8} {:>7}",
            self.plan.routes,
            self.plan.rate,
            self.plan.changes,
            "live after, ms",
            "p50",
            "p99",
            "max",
            "failed",
            "again",
            "p99 of load",
            "CPU ms",
            "MB"
        )?;
        for changes in &self.changes {
            let millis = |place| quantile(&mut changes.millis.clone(), place);
            let way = match (changes.proxy, changes.way) {
                (Proxy::Haproxy, Way::Runtime) => ", told by its socket",
                (_, Way::Manifest) => ", a manifest",
                _ => ", reload",
            };
            writeln!(
                f,
                "{:<26} {:>7.1} {:>7.1} {:>7.1} {:>7} {:>7} {:>8.1} ms {:>8.1} {:>7.1}",
                format!("{}{way}", changes.proxy),
                millis(0.5),
                millis(0.99),
                millis(1.0),
                changes.load.failed,
                changes.load.again,
                changes.load.micros_at(0.99) / 1e3,
                float(changes.cpu_nanos) / 1e6 / float(u64::try_from(changes.millis.len()).unwrap_or(1)),
                megabytes(changes.memory.pss)
            )?;
        }
        writeln!(
            f,
            "again: sent again on a new connection, because a kept one had just been closed; CPU: for each change, with its \
             part of the load.\nFor HAProxy and nginx it is the least: their controllers watch, render and check as well."
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.facts {
            writeln!(f, "{name}: {value}")?;
        }
        let plan = self.plan;
        writeln!(
            f,
            "{} thread(s) each; {} rounds of {} s blocks, proxies in turn; ratios are paired within a round; many routes: {}",
            plan.workers, plan.rounds, plan.seconds, plan.routes
        )?;
        for workload in Workload::ALL {
            self.workload(f, workload)?;
        }
        self.latency(f)?;
        self.memory(f)?;
        self.changes(f)?;
        writeln!(f)?;
        for goal in self.goals() {
            writeln!(f, "goal: {}: {}", goal.what, goal.verdict)?;
        }
        Ok(())
    }
}

/// Requests per second of the proxy's CPU time.
fn per_cpu(block: &Block) -> f64 {
    float(block.good) / float(block.cpu_nanos.max(1)) * 1e9
}

fn megabytes(bytes: u64) -> f64 {
    float(bytes) / 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts, bytes and nanoseconds of one run"
)]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(weir: u64, haproxy: u64) -> Report {
        let plan = Plan {
            rounds: 3,
            seconds: 1,
            routes: 5000,
            idle: 1,
            changes: 1,
            rate: 1,
            workers: 1,
        };
        let mut report = Report::new(Vec::new(), plan);
        for round in 1..=3 {
            for (proxy, good) in [(Proxy::Weir, weir), (Proxy::Haproxy, haproxy)] {
                report.blocks.push(Block {
                    round,
                    proxy,
                    workload: Workload::Small,
                    // A machine that gets slower meets both.
                    good: good / u64::try_from(round).unwrap(),
                    failed: 0,
                    nanos: 2_000_000_000,
                    cpu_nanos: 1_000_000_000,
                });
            }
        }
        report
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        let line = report(9_600, 12_000).line(Proxy::Weir, Workload::Small).unwrap();
        assert!((line.to_haproxy.median - 0.8).abs() < 1e-9);
        assert!((line.to_haproxy.high - 0.8).abs() < 1e-9);
        assert!((line.per_cpu - 4_800.0).abs() < 1e-9);
        assert!((line.busy - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_goal_that_is_surely_missed_is_told() {
        assert!(!report(10_000, 12_000).goals_may_be_met());
        assert!(report(11_400, 12_000).goals_may_be_met());
        let text = report(11_400, 12_000).to_string();
        assert!(text.contains("over HTTP/1.1 keep-alive: met\n"), "{text}");
    }
}
