//! What every cluster has on top of its nodes: CoreDNS, and somebody who implements Services.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::images;
use super::kubectl::Kubectl;
use super::node::ClusterNode;
use super::options::{DNS_SERVICE, Options, node_name};
use super::programs::Programs;
use super::running::Cluster;
use super::wait::Part;
use crate::workspace;

/// CoreDNS, as kubeadm deploys it.
pub(super) fn deploy_dns(kubectl: &Kubectl, options: Options) -> Result<()> {
    let policy = if options.dual_stack {
        "PreferDualStack"
    } else {
        "SingleStack"
    };
    let manifest = workspace::read("tests/cluster/manifests/coredns.yaml")?
        .replace("${IMAGE}", &images::coredns()?)
        .replace("${ADDRESS}", DNS_SERVICE)
        .replace("${POLICY}", policy);
    kubectl.apply(&manifest).context("deploying CoreDNS")
}

/// Tells the API server which networks the nodes have; a proxy may want to know which pods are its own.
pub(super) fn set_pod_networks(kubectl: &Kubectl, options: Options) -> Result<()> {
    for number in 1..=options.nodes {
        let networks = options.pod_networks_of(number);
        let patch = json!({ "spec": { "podCIDR": networks.first(), "podCIDRs": networks } });
        kubectl.output(&["patch", "node", &node_name(number), "-p", &patch.to_string()])?;
    }
    Ok(())
}

/// Starts what implements Services; the processes that this takes outside of pods.
pub(super) fn start_proxy(programs: &Programs, cluster: &Cluster, options: Options) -> Result<Vec<Part>> {
    if let Some(mode) = options.proxy.kube_proxy_mode() {
        let kubeconfig = cluster
            .control_plane
            .pki
            .kubeconfig("kube-proxy", "system:kube-proxy", None)?;
        let folder = cluster.folder()?;
        return cluster
            .nodes
            .iter()
            .map(|node| kube_proxy(programs, node, options, mode, &kubeconfig, &folder))
            .collect();
    }
    Ok(Vec::new())
}

/// kube-proxy as a process of the node, with its own defaults.
fn kube_proxy(
    programs: &Programs,
    node: &ClusterNode,
    options: Options,
    mode: &str,
    kubeconfig: &Path,
    folder: &Path,
) -> Result<Part> {
    let name = node_name(node.node.number());
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "clientConnection": { "kubeconfig": kubeconfig, "qps": 200, "burst": 400 },
        "clusterCIDR": options.pod_networks(),
        "hostnameOverride": name,
        "healthzBindAddress": "0.0.0.0:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // The tables of connections belong to the whole machine.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    let path = folder.join(format!("kube-proxy-{name}.json"));
    fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = node.command(&programs.path("kube-proxy"))?;
    command.arg(format!("--config={}", path.display())).arg("-v=2");
    Part::start("kube-proxy", &node.node, command)
}
