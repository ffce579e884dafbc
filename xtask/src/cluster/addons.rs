//! What every cluster has on top of its nodes: CoreDNS, and somebody who implements Services.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weir_lab::Host;

use super::images;
use super::kubectl::Kubectl;
use super::node::ClusterNode;
use super::options::{DNS_SERVICE, Options, Proxy, node_name};
use super::programs::Programs;
use super::running::Cluster;
use super::wait::Part;
use crate::workspace;

/// Where every proxy answers how it is.
const HEALTH_PORT: u16 = 10256;

/// Seconds that connections to a weir-ingress may last after its end has begun.
const DRAIN: u32 = 30;

/// How long a proxy may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let start = |node: &ClusterNode| kube_proxy(programs, node, options, mode, &kubeconfig, &folder);
        let mut proxies = cluster.nodes.iter().map(start).collect::<Result<Vec<_>>>()?;
        for (proxy, node) in proxies.iter_mut().zip(&cluster.nodes) {
            proxy.wait("kube-proxy is healthy", PATIENCE, || is_healthy(&node.node))?;
        }
        return Ok(proxies);
    }
    if options.proxy == Proxy::Weir {
        weir(cluster)?;
    }
    Ok(Vec::new())
}

/// Whether the node's proxy says that it has done its work.
fn is_healthy(node: &Host) -> bool {
    let ask = || -> std::io::Result<String> {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HEALTH_PORT);
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = node.run(ask);
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.starts_with("HTTP/1.0 200")))
}

/// weir as a user installs it: deploy/manifests, with the two settings that depend on the cluster.
fn weir(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder()?.join("weir");
    copy_folder(
        &workspace::root().join("deploy/manifests"),
        &folder.join("manifests"),
    )?;
    let overlay = weir_overlay(cluster.api_server(), &cgroup_pattern(cluster)?);
    fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
    let kubectl = &cluster.control_plane.kubectl;
    let folder = folder.display().to_string();
    kubectl
        .output(&["apply", "-k", &folder])
        .context("deploying weir")?;
    kubectl.wait_for_rollout("kube-system", "daemonset/weir", PATIENCE)
}

/// JSON is YAML.
fn weir_overlay(api_server: SocketAddr, cgroup: &str) -> Value {
    let add = |path: &str, value: &str| json!({ "op": "add", "path": path, "value": value });
    let address = [
        add("/data/apiServerHost", &api_server.ip().to_string()),
        add("/data/apiServerPort", &api_server.port().to_string()),
    ];
    let argument = add(
        "/spec/template/spec/containers/0/args/-",
        &format!("--cgroup={cgroup}"),
    );
    let patch = |kind: &str, patch: Value| json!({ "target": { "kind": kind, "name": "weir" }, "patch": patch.to_string() });
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["manifests"],
        "patches": [patch("ConfigMap", json!(address)), patch("DaemonSet", json!([argument]))],
    })
}

/// weir-ingress as a user installs it, with one setting: a drain that tests can wait for.
pub(super) fn ingress(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder()?.join("weir-ingress");
    copy_folder(
        &workspace::root().join("deploy/manifests/ingress"),
        &folder.join("ingress"),
    )?;
    let add = |value: String| json!({ "op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": value });
    let flags = [add(format!("--drain-timeout={DRAIN}s"))];
    let patch = json!({ "target": { "kind": "DaemonSet", "name": "weir-ingress" }, "patch": json!(flags).to_string() });
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["ingress"],
        "patches": [patch],
    });
    fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
    let kubectl = &cluster.control_plane.kubectl;
    kubectl
        .output(&["apply", "-k", &folder.display().to_string()])
        .context("deploying weir-ingress")?;
    kubectl.wait_for_rollout("kube-system", "daemonset/weir-ingress", PATIENCE)
}

/// A node's part of the machine's cgroup v2 hierarchy, as its pod sees it. Without, each weir would serve the whole
/// machine, which has several nodes.
fn cgroup_pattern(cluster: &Cluster) -> Result<String> {
    let node = &cluster.nodes.first().context("a cluster has nodes")?.node;
    let below = node.cgroup().strip_prefix("/sys/fs/cgroup").context(
        "this machine has its cgroup v2 hierarchy not below /sys/fs/cgroup, which is all that weir's pod sees",
    )?;
    let parent = below.parent().unwrap_or(below);
    Ok(format!("/host/cgroup/{}/$(NODE_NAME)", parent.display()))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
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
        "healthzBindAddress": format!("0.0.0.0:{HEALTH_PORT}"),
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
