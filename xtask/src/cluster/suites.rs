//! Clusters for the test suites: one that they share, and what the end-to-end tests need to know of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use super::options::{API_PORT, Options, Proxy};
use super::programs::{Programs, version};
use super::state::{self, State};
use super::{images, up};

/// The cluster of a run of suites, which ends with it: two nodes, both address families.
#[derive(Default)]
pub(crate) struct Shared(Option<(Proxy, up::Held)>);

/// Where the end-to-end tests run.
pub(crate) struct E2ePlace {
    /// The control plane's machine.
    pub(crate) netns: PathBuf,
    pub(crate) api_server: SocketAddr,
    /// For use from the machine's own namespace.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) nodes: u8,
}

/// Programs of the end-to-end tests.
pub(crate) struct E2ePrograms {
    pub(crate) ginkgo: PathBuf,
    pub(crate) tests: PathBuf,
    pub(crate) kubectl: PathBuf,
}

/// Builds what of them is not in the cache.
pub(crate) fn e2e_programs() -> Result<E2ePrograms> {
    let programs = Programs::ensure(true)?;
    Ok(E2ePrograms {
        ginkgo: programs.path("ginkgo"),
        tests: programs.path("e2e.test"),
        kubectl: programs.path("kubectl"),
    })
}

/// `v1.36.3`.
pub(crate) fn kubernetes_version() -> Result<String> {
    version("kubernetes", "k8s.io/kubernetes")
}

/// Where the tests find what they need to know of the cluster.
pub(crate) fn state_file() -> PathBuf {
    state::path()
}

impl Shared {
    /// Sees to it that the run has a cluster with this proxy.
    ///
    /// `WEIR_IMAGE` names a `weir.tar` that was built elsewhere.
    pub(crate) fn need(&mut self, proxy: Proxy) -> Result<()> {
        if self.0.as_ref().is_some_and(|(runs, _)| *runs == proxy) {
            return Ok(());
        }
        // The one before has to end first.
        self.0 = None;
        let mut images = vec![images::peer(&weir_lab::peer_binary()?)?];
        images.extend(std::env::var_os("WEIR_IMAGE").map(PathBuf::from));
        let options = options(proxy);
        self.0 = Some((proxy, up::hold(&up::Request { options, images })?));
        Ok(())
    }

    /// The same for the end-to-end tests, which are content with the cluster that a developer has up.
    pub(crate) fn for_e2e(&mut self, proxy: Proxy) -> Result<E2ePlace> {
        if State::read()?.is_none_or(|state| state.facts.options != options(proxy)) {
            self.need(proxy)?;
        }
        let facts = State::need()?.facts;
        Ok(E2ePlace {
            netns: facts.control_plane.netns,
            api_server: SocketAddr::new(facts.control_plane.v4, API_PORT),
            kubeconfig: facts.kubeconfig,
            nodes: facts.options.nodes,
        })
    }
}

fn options(proxy: Proxy) -> Options {
    Options {
        proxy,
        nodes: 2,
        dual_stack: true,
    }
}
