//! Requests and handshakes at saturation, and latency of one connection, in rounds.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use weir_lab::clock;
use weir_measure::rounds::{order, tell, told};
use weir_measure::stats::quantile;

use crate::arms::World;
use crate::client::{Connection, Failure, connect};
use crate::handshakes::{self, Certificate};
use crate::process;
use crate::proxies::{Instance, Proxy};
use crate::tools::{self, Answered};

/// How often, and how long.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Length of a block.
    pub(crate) seconds: u64,
    /// Routes of the proxies that have many.
    pub(crate) routes: usize,
    pub(crate) idle: usize,
    pub(crate) changes: usize,
    /// Requests a second while routes change.
    pub(crate) rate: u32,
    pub(crate) workers: usize,
}

/// What keeps a proxy busy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    Small,
    ManyRoutes,
    Large,
    Http2,
    FullHandshakes,
    ResumedHandshakes,
}

impl Workload {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 6] = [
        Self::Small,
        Self::ManyRoutes,
        Self::Large,
        Self::Http2,
        Self::FullHandshakes,
        Self::ResumedHandshakes,
    ];

    fn run(
        self,
        world: &World,
        certificate: &Certificate,
        instance: &Instance,
        seconds: u64,
    ) -> Result<Answered> {
        let (client, target) = (&world.client, instance.ip());
        let (host, path) = instance.routes.route(instance.routes.count / 2);
        let large = path.replace("1k", "64k");
        let limit = Duration::from_secs(seconds);
        let handshakes =
            |resumed| client.run(|| handshakes::run(certificate, target, (&host, &path), resumed, limit))?;
        match self {
            Self::Small | Self::ManyRoutes => tools::wrk(client, target, (&host, &path), seconds),
            Self::Large => tools::wrk(client, target, (&host, &large), seconds),
            Self::Http2 => tools::h2load(client, target, (&host, &path), seconds),
            Self::FullHandshakes => handshakes(false),
            Self::ResumedHandshakes => handshakes(true),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Small => "HTTP/1.1 keep-alive, 1 KiB",
            Self::ManyRoutes => "HTTP/1.1 keep-alive, 1 KiB, many routes",
            Self::Large => "HTTP/1.1 keep-alive, 64 KiB",
            Self::Http2 => "HTTP/2 over TLS, 1 KiB",
            Self::FullHandshakes => "TLS handshake and a request",
            Self::ResumedHandshakes => "resumed TLS handshake and a request",
        })
    }
}

/// One block.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Block {
    pub(crate) round: usize,
    pub(crate) proxy: Proxy,
    pub(crate) workload: Workload,
    pub(crate) good: u64,
    pub(crate) failed: u64,
    pub(crate) nanos: u64,
    /// CPU time of the proxy.
    pub(crate) cpu_nanos: u64,
}

/// Latency of one connection.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) round: usize,
    /// None: directly to the backend.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
}

/// Proxies with one route, and with many.
pub(crate) struct Fleet {
    pub(crate) one: Vec<Instance>,
    pub(crate) many: Vec<Instance>,
}

/// Runs all rounds, after one that is thrown away.
pub(crate) fn run(
    world: &World,
    certificate: &Certificate,
    fleet: &Fleet,
    plan: Plan,
) -> Result<(Vec<Block>, Vec<Latency>)> {
    let (mut blocks, mut latencies) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        tell(round, plan.rounds);
        for workload in Workload::ALL {
            let arms = if workload == Workload::ManyRoutes {
                &fleet.many
            } else {
                &fleet.one
            };
            for instance in order(arms.len(), round).into_iter().filter_map(|at| arms.get(at)) {
                let block = block(world, certificate, instance, workload, (round, plan.seconds));
                let context = || format!("{workload}, {}; it says: {}", instance.proxy, instance.log());
                blocks.push(block.with_context(context)?);
            }
        }
        for at in order(fleet.one.len() + 1, round) {
            latencies.push(latency(world, fleet.one.get(at), (round, plan.seconds))?);
        }
    }
    told();
    // Round 0 fills neighbour tables, caches and pools.
    blocks.retain(|block| block.round > 0);
    latencies.retain(|latency| latency.round > 0);
    Ok((blocks, latencies))
}

fn block(
    world: &World,
    certificate: &Certificate,
    instance: &Instance,
    workload: Workload,
    (round, seconds): (usize, u64),
) -> Result<Block> {
    let before = process::cpu_nanos(instance.id())?;
    let start = clock::now();
    let answered = workload.run(world, certificate, instance, seconds)?;
    let nanos = u64::try_from(start.elapsed().as_nanos())?;
    let cpu_nanos = process::cpu_nanos(instance.id())?.saturating_sub(before);
    ensure!(
        answered.good > 0 && cpu_nanos > 0,
        "{} good answers, {} failed, {cpu_nanos} ns of CPU time",
        answered.good,
        answered.failed
    );
    Ok(Block {
        round,
        proxy: instance.proxy,
        workload,
        good: answered.good,
        failed: answered.failed,
        nanos,
        cpu_nanos,
    })
}

fn latency(world: &World, instance: Option<&Instance>, (round, seconds): (usize, u64)) -> Result<Latency> {
    let (ip, port) = instance.map_or(world.direct(), |instance| (instance.ip(), 80));
    let route = instance.map_or(("direct".to_owned(), "/p0/1k".to_owned()), |instance| {
        instance.routes.route(0)
    });
    let limit = Duration::from_secs(seconds);
    let mut micros = world
        .client
        .run(|| one_connection(SocketAddr::new(ip.into(), port), (&route.0, &route.1), limit))??;
    Ok(Latency {
        round,
        proxy: instance.map(|instance| instance.proxy),
        p50_micros: quantile(&mut micros, 0.5),
        p99_micros: quantile(&mut micros, 0.99),
    })
}

/// Microseconds of each request, one after the other.
fn one_connection(target: SocketAddr, (host, path): (&str, &str), limit: Duration) -> Result<Vec<f64>> {
    let mut connection = Connection::new(connect(target)?);
    let mut micros = Vec::new();
    let until = clock::now() + limit;
    loop {
        let start = clock::now();
        if start >= until {
            return Ok(micros);
        }
        let answer = connection.get(host, path, false).map_err(Failure::into_error)?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
        ensure!(answer.status == 200, "the answer is {}", answer.status);
    }
}
