//! The world of a trial.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use weir_lab::{Host, Lab};

use crate::objects::Objects;

/// A namespace, and the folder of manifests.
pub struct Edge {
    host: Host,
    /// What the ingress reads.
    pub objects: Objects,
    lab: Lab,
}

/// Address of the ingress process with this number; the first is 1.
pub fn front(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// Where the pod with this number is.
pub fn pod(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 3, 0, number], 8080))
}

impl Edge {
    fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let host = lab.outside("edge")?;
        host.ip("route add local 10.0.0.0/8 dev lo\n")?;
        let folder = lab.dir().join("manifests");
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self {
            host,
            objects: Objects::new(folder),
            lab,
        })
    }

    /// The machine with the namespace.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A folder for the test's files; goes with it.
    pub fn dir(&self) -> &std::path::Path {
        self.lab.dir()
    }
}

/// Runs a test inside a world of its own; skipped without root. Names are for people, and must differ.
pub fn trial(name: &str, test: impl AsyncFnOnce(&Edge) -> Result<()> + Send) -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    let edge = Edge::new(name)?;
    // The runtime's threads are made by a thread inside, so they are inside as well.
    edge.host.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(test(&edge))
    })?
}
