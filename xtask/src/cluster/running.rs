//! A cluster that runs inside this process: dropping it removes all of it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use weir_lab::{Host, Lab, NodeOptions, ReversePath};

use super::addons;
use super::archives::Archive;
use super::control_plane::ControlPlane;
use super::node::{ClusterNode, Ingredients};
use super::options::{API_PORT, Options, Proxy, node_name};
use super::programs::Programs;
use super::serve::keep_logs;
use super::wait::Part;

/// Names of all that a cluster makes on the machine begin with this and the number of its process.
pub(super) const PREFIX: &str = "weir-cluster";

/// How long the nodes may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a cluster is made from.
pub(super) struct Parts {
    pub(super) programs: Programs,
    pub(super) images: Vec<PathBuf>,
    /// What it gets besides.
    pub(super) given: Vec<Archive>,
}

/// The cluster. Its processes are declared before the lab, because they are dropped in this order.
pub(super) struct Cluster {
    pub(super) control_plane: ControlPlane,
    pub(super) nodes: Vec<ClusterNode>,
    pub(super) proxies: Vec<Part>,
    control_machine: Host,
    client: Host,
    lab: Lab,
}

/// Where things of a running cluster are, for other processes.
#[derive(Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) options: Options,
    /// What it was given besides its own images: weir's is among them, if it has one.
    pub(super) images: Vec<Archive>,
    pub(super) kubeconfig: PathBuf,
    pub(super) kubectl: PathBuf,
    pub(super) logs: PathBuf,
    /// The machine that the control plane runs on, and one that is no part of the cluster.
    pub(super) control_plane: Machine,
    pub(super) client: Machine,
    pub(super) nodes: Vec<NodeFacts>,
}

/// A machine of the lab.
#[derive(Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) netns: PathBuf,
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
}

/// A node.
#[derive(Serialize, Deserialize)]
pub(super) struct NodeFacts {
    pub(super) name: String,
    pub(super) init: u32,
    pub(super) folder: PathBuf,
    pub(super) cgroup: PathBuf,
    pub(super) machine: Machine,
}

impl Machine {
    fn of(host: &Host) -> Self {
        Self {
            netns: host.netns().path(),
            v4: host.v4().into(),
            v6: host.v6().into(),
        }
    }
}

impl Cluster {
    /// Starts everything, and waits until it is ready. If that fails the logs stay, and nothing else.
    pub(super) fn start(
        parts: &Parts,
        options: Options,
        kubeconfig: &Path,
        say: &mut impl FnMut(&str),
    ) -> Result<Self> {
        let lab = Lab::new(PREFIX)?;
        let (logs, disk) = (lab.dir().join("log"), lab.disk()?);
        // While the lab is there, of which they are a part.
        let keep = |error: anyhow::Error| error.context(keep_logs(&logs, &disk));
        let machines = Self::assemble(&lab, parts, options, kubeconfig, say).map_err(keep)?;
        let (control_plane, nodes, [control_machine, client]) = machines;
        let mut cluster = Self {
            control_plane,
            nodes,
            proxies: Vec::new(),
            control_machine,
            client,
            lab,
        };
        cluster.finish(parts, options, say).map_err(keep)?;
        Ok(cluster)
    }

    fn assemble(
        lab: &Lab,
        parts: &Parts,
        options: Options,
        kubeconfig: &Path,
        say: &mut impl FnMut(&str),
    ) -> Result<(ControlPlane, Vec<ClusterNode>, [Host; 2])> {
        let control_machine = lab.outside("control-plane")?;
        let client = lab.outside("client")?;
        let mut hosts = Vec::new();
        for number in 1..=options.nodes {
            hosts.push(lab.node(&node_name(number), node_options())?);
        }
        route_to_pods(&control_machine, &hosts)?;
        let given = parts.given.iter().map(|archive| archive.path.clone());
        let images: Vec<_> = parts.images.iter().cloned().chain(given).collect();
        let from = Ingredients {
            lab,
            programs: &parts.programs,
            images: &images,
            options,
        };
        // Containers and images need no API server.
        let mut nodes = Vec::new();
        for node in hosts {
            nodes.push(ClusterNode::start(&from, node)?);
        }
        let control_plane = ControlPlane::start(&parts.programs, lab, &control_machine, options, kubeconfig)?;
        say("API server ready");
        for node in &nodes {
            node.join(&control_plane)?;
        }
        Ok((control_plane, nodes, [control_machine, client]))
    }

    fn finish(&mut self, parts: &Parts, options: Options, say: &mut impl FnMut(&str)) -> Result<()> {
        self.control_plane.wait_for_controllers()?;
        let kubectl = &self.control_plane.kubectl;
        for node in &mut self.nodes {
            node.wait("registers", PATIENCE, |name| {
                kubectl.succeeds(&["get", "node", name])
            })?;
        }
        addons::set_pod_networks(kubectl, options)?;
        for node in &mut self.nodes {
            node.wait("is ready", PATIENCE, |name| kubectl.node_is_ready(name))?;
        }
        say(&format!("{} nodes ready", options.nodes));
        self.proxies = addons::start_proxy(&parts.programs, self, options)?;
        let kubectl = &self.control_plane.kubectl;
        // Not before all nodes are there, among which its pods are to be spread, nor before their Services work: a first
        // connection to the API server that is lost is tried again after 30 s.
        addons::deploy_dns(kubectl, options)?;
        if options.proxy != Proxy::None {
            say(&format!("{} ready", options.proxy.name()));
            kubectl.wait_for_rollout("kube-system", "deployment/coredns", PATIENCE)?;
            say("CoreDNS ready");
        }
        if options.ingress {
            addons::ingress(self)?;
            say("weir-ingress ready");
        }
        Ok(())
    }

    /// The address of the API server, for those in the cluster's namespaces.
    pub(super) fn api_server(&self) -> SocketAddr {
        SocketAddr::new(self.control_machine.v4().into(), API_PORT)
    }

    /// A folder for files.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        let folder = self.lab.dir().join("addons");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// What others need to know.
    pub(super) fn facts(&self, parts: &Parts, options: Options, kubeconfig: &Path) -> Result<Facts> {
        let nodes = self.nodes.iter().map(|node| {
            Ok(NodeFacts {
                name: node.node.name().to_owned(),
                init: node.init_pid()?,
                folder: node.folder.clone(),
                cgroup: node.node.cgroup().to_owned(),
                machine: Machine::of(&node.node),
            })
        });
        Ok(Facts {
            options,
            images: parts.given.clone(),
            kubeconfig: kubeconfig.to_owned(),
            kubectl: parts.programs.path("kubectl"),
            logs: self.lab.dir().join("log"),
            control_plane: Machine::of(&self.control_machine),
            client: Machine::of(&self.client),
            nodes: nodes.collect::<Result<_>>()?,
        })
    }
}

/// Nodes as most distributions have them: a CNI plug-in that wants the reverse path filter sets it itself.
fn node_options() -> NodeOptions {
    NodeOptions {
        reverse_path: ReversePath::Off,
        ..NodeOptions::default()
    }
}

/// The API server calls webhooks, which are pods.
fn route_to_pods(host: &Host, nodes: &[weir_lab::Node]) -> Result<()> {
    for node in nodes {
        let number = node.number();
        host.ip(&format!(
            "route add 10.244.{number}.0/24 via {}\nroute add fd00:10:244:{number}::/64 via {} dev eth0\n",
            node.v4(),
            node.v6()
        ))?;
    }
    Ok(())
}
