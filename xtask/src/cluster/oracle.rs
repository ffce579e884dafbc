//! An API server alone, for the oracle: what is written there is all that happens.

use std::path::{Path, PathBuf};

use anyhow::Result;
use weir_lab::Lab;

use super::control_plane::ControlPlane;
use super::options::{Options, Proxy};
use super::programs::Programs;
use crate::packages;

/// It ends when this is dropped. The processes are declared before the lab, because they are dropped in this order.
pub(crate) struct ApiServer {
    _plane: ControlPlane,
    kubeconfig: PathBuf,
    kube_proxy: PathBuf,
    _lab: Lab,
}

impl ApiServer {
    /// Starts it, for both address families.
    pub(crate) fn start() -> Result<Self> {
        packages::need(&["ip", "nft", "nsenter"])?;
        let programs = Programs::ensure(false)?;
        let lab = Lab::new("weir-oracle-api")?;
        let host = lab.outside("control-plane")?;
        let options = Options {
            proxy: Proxy::None,
            nodes: 1,
            dual_stack: true,
            ingress: false,
        };
        let kubeconfig = lab.dir().join("oracle.kubeconfig");
        Ok(Self {
            _plane: ControlPlane::start_api(&programs, &lab, &host, options, &kubeconfig)?,
            kubeconfig,
            kube_proxy: programs.path("kube-proxy"),
            _lab: lab,
        })
    }

    /// For use from the machine's own namespace.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kube-proxy of the same version.
    pub(crate) fn kube_proxy(&self) -> &Path {
        &self.kube_proxy
    }
}
