//! The lab: a client, the backend and the proxies, each a pod of one node.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use weir_lab::{Lab, Node, NodeOptions, Pod, Process};

use crate::proxies::{self, Instance, Proxy, Setup};
use crate::routes::{BACKEND_PORT, Routes};

/// The world of all measurements.
pub(crate) struct World {
    lab: Lab,
    node: Node,
    pub(crate) client: Pod,
    backend: Pod,
    _server: Process,
    pods: u8,
}

impl World {
    /// Builds it, with the backend running.
    pub(crate) fn build() -> Result<Self> {
        let lab = Lab::new("bench-ingress")?;
        let node = lab.node("n1", NodeOptions::default())?;
        let client = pod(&node, "client", 2)?;
        // New connections come faster than closed ones are forgotten.
        client.sysctls(&[
            ("net.ipv4.ip_local_port_range", "1024 65535"),
            ("net.ipv4.tcp_tw_reuse", "1"),
        ])?;
        let backend = pod(&node, "backend", 3)?;
        let server = proxies::backend(&backend)?;
        Ok(Self {
            lab,
            node,
            client,
            backend,
            _server: server,
            pods: 3,
        })
    }

    /// Starts a proxy in a pod of its own.
    pub(crate) fn start(&mut self, setup: Setup<'_>, proxy: Proxy, routes: usize) -> Result<Instance> {
        self.pods += 1;
        let pod = pod(&self.node, &format!("{}-{}", proxy.name(), self.pods), self.pods)?;
        // As many connections to the backend as there are requests at a time, which come and go with reloads.
        pod.sysctls(&[("net.ipv4.ip_local_port_range", "1024 65535")])?;
        let routes = Routes {
            count: routes,
            backend: self.backend.v4(),
        };
        Instance::start(setup, proxy, pod, routes).with_context(|| format!("starting {proxy}"))
    }

    /// All proxies, with so many routes.
    pub(crate) fn start_all(&mut self, setup: Setup<'_>, routes: usize) -> Result<Vec<Instance>> {
        Proxy::ALL
            .map(|proxy| self.start(setup, proxy, routes))
            .into_iter()
            .collect()
    }

    /// The backend, without a proxy.
    pub(crate) fn direct(&self) -> (Ipv4Addr, u16) {
        (self.backend.v4(), BACKEND_PORT)
    }

    /// Removes everything.
    pub(crate) fn remove(self) -> Result<()> {
        self.lab.remove()
    }
}

fn pod(node: &Node, name: &str, last: u8) -> Result<Pod> {
    let n = node.number();
    node.pod(
        name,
        &format!("10.244.{n}.{last}"),
        &format!("fd00:10:244:{n}::{last}"),
    )
}
