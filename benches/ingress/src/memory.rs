//! Memory: at rest, and what an idle connection costs. Each proxy alone, so that nobody shares its pages.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use weir_lab::clock;

use crate::arms::World;
use crate::client::{Connection, Failure, connect};
use crate::process::{self, Memory};
use crate::proxies::{Instance, Proxy, Setup};
use crate::rounds::Plan;

/// Of one proxy with so many routes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Held {
    pub(crate) proxy: Proxy,
    pub(crate) routes: usize,
    /// After its first request.
    pub(crate) rest: Memory,
    /// With idle connections.
    pub(crate) idle: Option<(usize, Memory)>,
}

/// Clients, proxies and the backend have a file for each connection.
pub(crate) fn allow_many_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the number of open files")
}

/// All proxies, with one route and with many.
pub(crate) fn measure(world: &mut World, setup: Setup<'_>, plan: Plan) -> Result<Vec<Held>> {
    let mut all = Vec::new();
    for routes in [1, plan.routes] {
        for proxy in Proxy::ALL {
            let instance = world.start(setup, proxy, routes)?;
            let rest = settled(&instance)?;
            let idle = if routes == 1 {
                let memory = with_idle(world, &instance, plan.idle);
                Some((
                    plan.idle,
                    memory.with_context(|| format!("idle connections to {proxy}"))?,
                ))
            } else {
                None
            };
            all.push(Held {
                proxy,
                routes,
                rest,
                idle,
            });
        }
    }
    Ok(all)
}

/// Memory, once it stays as it is.
fn settled(instance: &Instance) -> Result<Memory> {
    let mut last = process::memory(instance.id())?;
    let mut result = Ok(last);
    clock::wait_until(Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(300));
        result = process::memory(instance.id());
        match &result {
            Ok(now) => std::mem::replace(&mut last, *now) == *now,
            Err(_) => true,
        }
    });
    result
}

/// Memory with connections that have all had one answer, and wait.
fn with_idle(world: &World, instance: &Instance, count: usize) -> Result<Memory> {
    let (host, path) = instance.routes.route(0);
    let target: SocketAddr = instance.address(80);
    world.client.run(|| {
        let mut connections = Vec::new();
        for _ in 0..count {
            let mut connection = Connection::new(connect(target)?);
            let answer = connection.get(&host, &path, false).map_err(Failure::into_error)?;
            ensure!(answer.status == 200, "the answer is {}", answer.status);
            connections.push(connection);
        }
        settled(instance)
    })?
}
