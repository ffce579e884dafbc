//! How soon a change of a route is live, and what the others' requests notice of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use weir_lab::clock;
use weir_measure::rounds::order;
use weir_measure::stats::quantile;

use crate::arms::World;
use crate::client::{Connection, Failure, connect};
use crate::process::{self, Memory};
use crate::proxies::{Instance, Proxy, Way, status};
use crate::rounds::Plan;
use crate::routes::{CHANGING, Routes};

/// Connections of the load.
const CLIENTS: u32 = 8;
/// Changes before it is another proxy's turn.
const TURN: usize = 10;
/// Between two looks at a route that changes.
const LOOK: Duration = Duration::from_micros(500);
/// A change that is not live by now is no change.
const LIMIT: Duration = Duration::from_secs(30);

/// Changes of one proxy by one way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Changes {
    pub(crate) proxy: Proxy,
    pub(crate) way: Way,
    /// From the change to the first right answer.
    pub(crate) millis: Vec<f64>,
    /// What the load saw meanwhile.
    pub(crate) load: Load,
    /// CPU time of the proxy for all that.
    pub(crate) cpu_nanos: u64,
    /// Memory at the end.
    pub(crate) memory: Memory,
}

/// Requests on kept connections, all over the routes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Load {
    pub(crate) good: u64,
    /// Sent again because the connection had just been closed, and then answered.
    pub(crate) again: u64,
    /// Not answered, or not with the right answer.
    pub(crate) failed: u64,
    pub(crate) micros: Vec<f64>,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.again += other.again;
        self.failed += other.failed;
        self.micros.extend(other.micros);
    }

    /// Latency at a place between 0 and 1.
    pub(crate) fn micros_at(&self, place: f64) -> f64 {
        quantile(&mut self.micros.clone(), place)
    }
}

/// All proxies in turn.
pub(crate) fn measure(world: &World, instances: &mut [Instance], plan: Plan) -> Result<Vec<Changes>> {
    let ways: Vec<(usize, Way)> = instances
        .iter()
        .enumerate()
        .flat_map(|(at, instance)| instance.ways().iter().map(move |way| (at, *way)))
        .collect();
    let mut all: Vec<Option<Changes>> = vec![None; ways.len()];
    for turn in 0..plan.changes.div_ceil(TURN) {
        let count = TURN.min(plan.changes - turn * TURN);
        for place in order(ways.len(), turn) {
            let (Some((at, way)), Some(so_far)) = (ways.get(place), all.get_mut(place)) else {
                continue;
            };
            let Some(instance) = instances.get_mut(*at) else {
                continue;
            };
            let proxy = instance.proxy;
            let new = world
                .client
                .run(|| a_turn(instance, *way, count, plan.rate))?
                .with_context(|| format!("changing a route of {proxy} ({way:?})"))?;
            match so_far {
                Some(changes) => changes.add(new),
                None => *so_far = Some(new),
            }
        }
    }
    Ok(all.into_iter().flatten().collect())
}

impl Changes {
    fn add(&mut self, other: Self) {
        self.millis.extend(other.millis);
        self.load.add(other.load);
        self.cpu_nanos += other.cpu_nanos;
        self.memory = other.memory;
    }
}

fn a_turn(instance: &mut Instance, way: Way, count: usize, rate: u32) -> Result<Changes> {
    let over = AtomicBool::new(false);
    let (target, routes) = (instance.address(80), instance.routes);
    let cpu = process::cpu_nanos(instance.id())?;
    thread::scope(|scope| {
        let loads: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let over = &over;
                scope.spawn(move || load(target, routes, (client, rate), over))
            })
            .collect();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut one = || {
            thread::sleep(Duration::from_millis(rng.random_range(300..400)));
            instance.settle()?;
            one_change(instance, way, target)
        };
        let millis: Result<Vec<f64>> = (0..count).map(|_| one()).collect();
        over.store(true, Ordering::Relaxed);
        let mut sum = Load::default();
        for load in loads {
            sum.add(load.join().map_err(|_| anyhow!("the load panicked"))?);
        }
        Ok(Changes {
            proxy: instance.proxy,
            way,
            millis: millis?,
            load: sum,
            cpu_nanos: process::cpu_nanos(instance.id())?.saturating_sub(cpu),
            memory: process::memory(instance.id())?,
        })
    })
}

/// Milliseconds until a new connection gets the new answer. A new one for each look: those of before stay with the old
/// processes of a proxy that starts new ones.
fn one_change(instance: &mut Instance, way: Way, target: SocketAddr) -> Result<f64> {
    let start = clock::now();
    let path = instance.change(way)?;
    let mut said;
    loop {
        said = status(target, CHANGING, &path);
        if said == Some(200) {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
        ensure!(
            start.elapsed() < LIMIT,
            "{path} is answered with {said:?} after {LIMIT:?}; it says: {}",
            instance.log()
        );
        thread::sleep(LOOK);
    }
}

/// A client's part of the load, until it is over.
fn load(target: SocketAddr, routes: Routes, (client, rate): (u32, u32), over: &AtomicBool) -> Load {
    let mut rng = SmallRng::seed_from_u64(client.into());
    let gap = Duration::from_secs(1) * CLIENTS / rate.max(1);
    let mut next = clock::now() + gap * client / CLIENTS;
    let mut load = Load::default();
    let mut connection = None;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(clock::now()));
        let start = clock::now();
        next = start.max(next + gap);
        let route = routes.route(rng.random_range(0..routes.count));
        if ask(&mut connection, target, &route, &mut load.again) {
            load.good += 1;
        } else {
            load.failed += 1;
        }
        load.micros.push(since(start));
    }
    load
}

fn since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// Asks as an ordinary client does: on its connection, and again on a new one if that had been closed. Whether the
/// answer was right.
fn ask(
    kept: &mut Option<Connection<std::net::TcpStream>>,
    target: SocketAddr,
    (host, path): &(String, String),
    again: &mut u64,
) -> bool {
    loop {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match connect(target) {
                Ok(stream) => Connection::new(stream),
                Err(_) => return false,
            },
        };
        match connection.get(host, path, false) {
            Ok(answer) => {
                if !answer.last {
                    *kept = Some(connection);
                }
                return answer.status == 200 && answer.length == 1024;
            }
            Err(Failure::Closed) => *again += 1,
            Err(Failure::Broken(_)) => return false,
        }
    }
}
