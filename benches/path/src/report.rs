//! Tables for people, JSON for programs.

use std::fmt;

use serde::Serialize;
use weir_measure::stats::{Estimate, estimate, median};

use crate::arms::{Family, Way};
use crate::hooks::Share;
use crate::program::Programs;
use crate::rounds::{Block, Plan};
use crate::worker::Workload;

/// What request/response must reach, as part of direct.
const GOALS: [(Way, f64); 2] = [(Way::Socket, 0.98), (Way::Packet, 0.95)];

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) family: Family,
    pub(crate) plan: Option<Plan>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) hooks: Vec<Share>,
    pub(crate) programs: Programs,
}

/// One line of the table of a workload.
#[derive(Debug)]
struct Line {
    way: Way,
    p50_micros: f64,
    p99_micros: f64,
    /// Transactions or bytes a second.
    rate: f64,
    rate_to_direct: Estimate,
    /// CPU time of client and server for a transaction.
    cpu_micros: f64,
    /// Direct's CPU time divided by this one's.
    cpu_to_direct: Estimate,
}

impl Line {
    /// On a busy machine the interval of the rate is wide and allows for everything; that of the CPU time does not.
    fn may_reach(&self, goal: f64) -> bool {
        self.rate_to_direct.high >= goal && self.cpu_to_direct.high >= goal
    }

    fn reaches(&self, goal: f64) -> bool {
        self.rate_to_direct.median >= goal && self.cpu_to_direct.median >= goal
    }
}

impl Report {
    pub(crate) fn new(facts: Vec<(String, String)>, family: Family) -> Self {
        Self {
            facts,
            family,
            plan: None,
            blocks: Vec::new(),
            hooks: Vec::new(),
            programs: Programs::default(),
        }
    }

    /// Whether the goals are within what the confidence intervals allow, by rate and by CPU time.
    pub(crate) fn goals_may_be_met(&self) -> bool {
        GOALS.iter().all(|(way, goal)| {
            self.line(*way, Workload::RequestResponse)
                .is_none_or(|line| line.may_reach(*goal))
        })
    }

    fn of(&self, way: Way, workload: Workload) -> Vec<&Block> {
        self.blocks
            .iter()
            .filter(|block| block.way == way && block.workload == workload)
            .collect()
    }

    fn line(&self, way: Way, workload: Workload) -> Option<Line> {
        let (own, direct) = (self.of(way, workload), self.of(Way::Direct, workload));
        if own.is_empty() {
            return None;
        }
        let values = |value: fn(&Block) -> f64| own.iter().map(|block| value(block)).collect::<Vec<_>>();
        let ratios = |value: fn(&Block) -> f64| {
            let ratio = |block: &&Block| {
                let pair = direct.iter().find(|direct| direct.round == block.round)?;
                Some(value(block) / value(pair))
            };
            estimate(&own.iter().filter_map(ratio).collect::<Vec<_>>())
        };
        Some(Line {
            way,
            p50_micros: median(&values(|block| nanos(block.outcome.p50))) / 1e3,
            p99_micros: median(&values(|block| nanos(block.outcome.p99))) / 1e3,
            rate: median(&values(rate)),
            rate_to_direct: ratios(rate),
            cpu_micros: median(&values(|block| cpu(block).recip())) / 1e3,
            cpu_to_direct: ratios(cpu),
        })
    }

    fn workload(&self, f: &mut fmt::Formatter<'_>, workload: Workload) -> fmt::Result {
        let lines: Vec<Line> = Way::ALL
            .iter()
            .filter_map(|way| self.line(*way, workload))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        if workload == Workload::Stream {
            writeln!(
                f,
                "\nstream\n{:<14} {:>10} {:>22}",
                "", "MB/s", "to direct (95 %)"
            )?;
            for line in lines {
                writeln!(
                    f,
                    "{:<14} {:>10.0} {:>22}",
                    line.way,
                    line.rate / 1e6,
                    line.rate_to_direct
                )?;
            }
            return Ok(());
        }
        let title = match workload {
            Workload::RequestResponse => "request/response",
            _ => "connect + request + response",
        };
        writeln!(
            f,
            "\n{title}\n{:<14} {:>8} {:>8} {:>8} {:>22} {:>8} {:>22}",
            "", "p50 µs", "p99 µs", "1/s", "to direct (95 %)", "CPU µs", "by CPU time (95 %)"
        )?;
        for line in lines {
            writeln!(
                f,
                "{:<14} {:>8.2} {:>8.1} {:>8.0} {:>22} {:>8.2} {:>22}",
                line.way,
                line.p50_micros,
                line.p99_micros,
                line.rate,
                line.rate_to_direct,
                line.cpu_micros,
                line.cpu_to_direct
            )?;
        }
        Ok(())
    }

    fn hooks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hooks.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nprograms during the connections (kernel statistics; a stream counts as transactions of 64 KiB)\n\
             {:<14} {:<17} {:<16} {:>8} {:>8} {:>8}",
            "", "workload", "program", "runs", "ns/run", "ns"
        )?;
        for share in &self.hooks {
            writeln!(
                f,
                "{:<14} {:<17} {:<16} {:>8.2} {:>8.0} {:>8.0}",
                share.way,
                format!("{:?}", share.workload),
                share.program,
                share.runs,
                share.nanos,
                share.runs * share.nanos
            )?;
        }
        Ok(())
    }

    fn programs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs = &self.programs;
        if programs.cases.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\ntest runs, ns per packet without the {:.0} ns of an empty program (median; fastest and slowest round)\n\
             {:<12} {:<20} {:<4} {:<4} {:>7} {:>15}",
            programs.empty_nanos, "program", "packet", "", "", "ns", ""
        )?;
        for case in &programs.cases {
            writeln!(
                f,
                "{:<12} {:<20} {:<4} {:<4} {:>7.0} {:>15}",
                case.program,
                case.what,
                format!("{:?}", case.family).to_lowercase(),
                case.protocol,
                case.nanos,
                format!("{:.0}…{:.0}", case.range.0, case.range.1)
            )?;
        }
        for size in &programs.sizes {
            writeln!(
                f,
                "{}: {} instructions verified, {} bytes of machine code",
                size.program, size.verified, size.machine_code
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.facts {
            writeln!(f, "{name}: {value}")?;
        }
        if let Some(plan) = self.plan {
            let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
            writeln!(
                f,
                "{family}, one Service with one endpoint on the client's node; {} rounds of {} ms blocks, arms in turn; \
                 ratios are paired within a round",
                plan.rounds, plan.millis
            )?;
        }
        for workload in Workload::ALL {
            self.workload(f, workload)?;
        }
        if !self.blocks.is_empty() {
            writeln!(f)?;
        }
        for (way, goal) in GOALS {
            if let Some(line) = self.line(way, Workload::RequestResponse) {
                let verdict = if line.reaches(goal) {
                    "met"
                } else if line.may_reach(goal) {
                    "not shown, within the interval"
                } else {
                    "missed"
                };
                writeln!(
                    f,
                    "goal: request/response by {way} at least {goal} of direct: {verdict}"
                )?;
            }
        }
        self.hooks(f)?;
        self.programs(f)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of one block")]
fn nanos(value: u64) -> f64 {
    value as f64
}

/// Transactions or bytes a second.
fn rate(block: &Block) -> f64 {
    nanos(block.outcome.count) / nanos(block.outcome.nanos) * 1e9
}

/// Transactions or bytes a nanosecond of CPU time.
fn cpu(block: &Block) -> f64 {
    nanos(block.outcome.count) / nanos(block.cpu_nanos.max(1))
}
