//! Clusters for the test suites: one that they share, and what the end-to-end tests need to know of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::archives::{self, Archive};
use super::options::{API_PORT, Options, Proxy};
use super::programs::{Programs, version};
use super::state::{self, State};
use super::{images, up};
use crate::build;
use crate::image::{self, Shipped};

/// As many as specs ask for that are about zones: each node is in one of its own.
const NODES: u8 = 3;

/// The cluster of a run of suites, which ends with it: three nodes, both address families.
#[derive(Default)]
pub(crate) struct Shared(Option<(Options, up::Held)>);

/// Where the end-to-end tests run.
pub(crate) struct E2ePlace {
    /// The control plane's machine.
    pub(crate) netns: PathBuf,
    pub(crate) api_server: SocketAddr,
    /// For use from the machine's own namespace.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) nodes: u8,
    /// The first digits of the SHA-256 of weir's image, if weir is what is judged.
    pub(crate) image: Option<String>,
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
    /// Sees to it that the run has a cluster with this proxy, and with the ingress if that is asked for.
    ///
    /// `WEIR_IMAGE` names a `weir.tar` that was built elsewhere, and `WEIR_INGRESS_IMAGE` a `weir-ingress.tar`.
    pub(crate) fn need(&mut self, proxy: Proxy, ingress: bool) -> Result<()> {
        let runs = self.0.as_ref().map(|(runs, _)| *runs);
        if runs.is_some_and(|runs| runs.proxy == proxy && (runs.ingress || !ingress)) {
            return Ok(());
        }
        // The one before has to end first.
        self.0 = None;
        let mut images = vec![images::of_program("lab-peer", &weir_lab::peer_binary()?)?];
        if proxy == Proxy::Weir {
            images.extend(archives::of_environment(Shipped::Agent)?.map(|archive| archive.path));
        }
        if ingress {
            images.push(images::of_program("web", &build::program("weir-web")?)?);
            images.extend(archives::of_environment(Shipped::Ingress)?.map(|archive| archive.path));
        }
        let options = Options {
            ingress,
            ..options(proxy)
        };
        self.0 = Some((options, up::hold(&up::Request { options, images })?));
        Ok(())
    }

    /// The same for the end-to-end tests, which are content with the cluster that a developer has up.
    pub(crate) fn for_e2e(&mut self, proxy: Proxy) -> Result<E2ePlace> {
        let runs = State::read()?.filter(|state| suits(state.facts.options, proxy));
        match runs {
            Some(state) if self.0.is_none() => is_of_this_tree(&state, proxy)?,
            _ => self.need(proxy, false)?,
        }
        let facts = State::need()?.facts;
        let image = archives::weir_of(&facts.images).filter(|_| proxy == Proxy::Weir);
        if let Some(image) = image {
            eprintln!("x: weir is image {}, from {}", image.hash, image.path.display());
        }
        Ok(E2ePlace {
            image: image.map(|image| image.hash.clone()),
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
        nodes: NODES,
        dual_stack: true,
        ingress: false,
    }
}

/// Whether a cluster that is up can be used: more nodes are no harm, nor is an ingress.
fn suits(runs: Options, proxy: Proxy) -> bool {
    runs.nodes >= NODES
        && runs
            == Options {
                nodes: runs.nodes,
                ingress: runs.ingress,
                ..options(proxy)
            }
}

/// An error if the weir in a developer's cluster is not the one that is to be judged.
fn is_of_this_tree(state: &State, proxy: Proxy) -> Result<()> {
    if proxy != Proxy::Weir {
        return Ok(());
    }
    let runs =
        archives::weir_of(&state.facts.images).context("the cluster that is up has no image of weir")?;
    let (judged, whose) = match archives::of_environment(Shipped::Agent)? {
        Some(archive) => (archive, "WEIR_IMAGE"),
        None => (Archive::read(&image::archive(Shipped::Agent)?)?, "this work tree"),
    };
    if runs.hash != judged.hash {
        bail!(
            "the cluster that is up runs image {} of weir, and {whose} has {}: `./x cluster down` ends it",
            runs.hash,
            judged.hash
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_with_more_nodes_will_do() {
        let with = |nodes, dual_stack| Options {
            proxy: Proxy::Weir,
            nodes,
            dual_stack,
            ingress: nodes > NODES,
        };
        assert!(suits(options(Proxy::Weir), Proxy::Weir));
        assert!(suits(with(6, true), Proxy::Weir));
        assert!(!suits(with(2, true), Proxy::Weir));
        assert!(!suits(with(6, false), Proxy::Weir));
        assert!(!suits(with(6, true), Proxy::KubeProxyNftables));
    }
}
