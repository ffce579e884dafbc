//! What a cluster is asked to be, and which addresses follow from that.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use weir_lab::Node;

/// Who implements Services.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Proxy {
    /// weir, as a DaemonSet, from deploy/manifests
    Weir,
    /// kube-proxy in its nftables mode, as a process of each node
    KubeProxyNftables,
    /// kube-proxy in its iptables mode, as a process of each node
    KubeProxyIptables,
    /// Nobody
    None,
}

impl Proxy {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::KubeProxyNftables => "kube-proxy-nftables",
            Self::KubeProxyIptables => "kube-proxy-iptables",
            Self::None => "none",
        }
    }

    /// `mode` of the `KubeProxyConfiguration`.
    pub(super) fn kube_proxy_mode(self) -> Option<&'static str> {
        match self {
            Self::KubeProxyNftables => Some("nftables"),
            Self::KubeProxyIptables => Some("iptables"),
            Self::Weir | Self::None => None,
        }
    }
}

/// What a cluster is asked to be.
#[derive(clap::Args, Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Options {
    /// Who implements Services
    #[arg(long, value_enum, default_value = "weir")]
    pub(crate) proxy: Proxy,
    /// Nodes, 1 to 9
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: u8,
    /// Services, pods and nodes have IPv6 addresses as well
    #[arg(long)]
    pub(crate) dual_stack: bool,
    /// weir-ingress serves ports 80 and 443 of every node
    #[arg(long)]
    pub(crate) ingress: bool,
}

/// The first address of the Services, which is the API server's.
pub(super) const API_SERVICE: [&str; 2] = ["10.96.0.1", "fd00:10:96::1"];
/// Where pods ask for names.
pub(super) const DNS_SERVICE: &str = "10.96.0.10";
/// Port of the API server.
pub(super) const API_PORT: u16 = 6443;

impl Options {
    /// The words on the command line that say the same.
    pub(super) fn to_args(self) -> Vec<String> {
        let mut args = vec![
            format!("--proxy={}", self.proxy.name()),
            format!("--nodes={}", self.nodes),
        ];
        args.extend(self.dual_stack.then(|| "--dual-stack".to_owned()));
        args.extend(self.ingress.then(|| "--ingress".to_owned()));
        args
    }

    /// Networks of Services, pods and so on: IPv4, and IPv6 after a comma.
    fn families(self, v4: impl Into<String>, v6: impl AsRef<str>) -> String {
        let mut list = v4.into();
        if self.dual_stack {
            list.push(',');
            list.push_str(v6.as_ref());
        }
        list
    }

    pub(super) fn service_networks(self) -> String {
        self.families("10.96.0.0/16", "fd00:10:96::/112")
    }

    pub(super) fn pod_networks(self) -> String {
        self.families("10.244.0.0/16", "fd00:10:244::/48")
    }

    pub(super) fn node_addresses(self, node: &Node) -> String {
        self.families(node.v4().to_string(), node.v6().to_string())
    }

    /// The part of a node, which its routes and its CNI configuration share.
    pub(super) fn pod_networks_of(self, number: u8) -> Vec<String> {
        let (v4, v6) = pod_networks(number);
        let list = self.families(v4, v6);
        list.split(',').map(str::to_owned).collect()
    }
}

/// As the routes of `weir_lab` have them.
fn pod_networks(number: u8) -> (String, String) {
    (
        format!("10.244.{number}.0/24"),
        format!("fd00:10:244:{number}::/64"),
    )
}

/// Names and addresses that the API server's certificate is for.
pub(super) fn api_server_names(v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<String> {
    let own = [v4.to_string(), v6.to_string()];
    let others = [
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let others = others.into_iter().chain(API_SERVICE).map(str::to_owned);
    own.into_iter().chain(others).collect()
}

/// The name of a node.
pub(super) fn node_name(number: u8) -> String {
    format!("n{number}")
}
