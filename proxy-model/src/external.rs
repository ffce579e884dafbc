//! The addresses that others route to the nodes: a load balancer's, and `externalIPs`.

use std::collections::BTreeSet;

use proxy_common::Ip;

use crate::address::{self, Family};
use crate::api::{LoadBalancerIngress, ServiceSpec, ServiceStatus};
use crate::node_ports::Prefix;

/// The load balancer's addresses that this node is to serve itself: not those of a balancer that wants to see the traffic
/// (`ipMode: Proxy`, KEP-1860).
pub(crate) fn load_balancer(status: Option<&ServiceStatus>, problems: &mut Vec<String>) -> Vec<Ip> {
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let to_serve = |ingress: &&LoadBalancerIngress| matches!(ingress.ip_mode.as_deref(), None | Some("VIP"));
    let words = ingress.into_iter().flatten().filter(to_serve);
    let words = words.filter_map(|ingress| ingress.ip.as_deref());
    read("load balancer address", words, problems)
}

/// `externalIPs`, if they are served.
pub(crate) fn external_ips(spec: &ServiceSpec, served: bool, problems: &mut Vec<String>) -> Vec<Ip> {
    let words = || spec.external_ips.iter().flatten().map(String::as_str);
    if !served && words().next().is_some() {
        problems.push(
            "externalIPs are not served here: the feature gate AllowServiceExternalIPs is off; use a load balancer"
                .to_owned(),
        );
        return Vec::new();
    }
    read("externalIP", words(), problems)
}

/// Addresses, each once. What is on one of these could reach into the node itself (CVE-2020-8554).
fn read<'w>(field: &str, words: impl Iterator<Item = &'w str>, problems: &mut Vec<String>) -> Vec<Ip> {
    let mut addresses = Vec::new();
    for word in words.filter(|word| !word.trim().is_empty()) {
        let Some(ip) = address::parse(word) else {
            problems.push(format!(
                "{field} {word:?} is not an address: not served there; correct it"
            ));
            continue;
        };
        if let Some(what) = address::refusal(ip) {
            problems.push(format!(
                "{field} {ip} is {what}: not served there; choose another"
            ));
        } else if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}

/// `loadBalancerSourceRanges`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceRanges {
    ranges: BTreeSet<Prefix>,
    /// Families, as far as can be told, of what cannot be read.
    broken: BTreeSet<Family>,
}

impl SourceRanges {
    /// Reads the list. Space around a range is let through by the API server.
    pub(crate) fn read(spec: &ServiceSpec, problems: &mut Vec<String>) -> Self {
        let mut read = Self::default();
        let words = spec.load_balancer_source_ranges.iter().flatten();
        for word in words.map(|word| word.trim()).filter(|word| !word.is_empty()) {
            if let Ok(range) = word.parse() {
                read.ranges.insert(range);
            } else {
                let meant = if word.contains(':') {
                    Family::V6
                } else {
                    Family::V4
                };
                read.broken.insert(meant);
                problems.push(format!(
                    "loadBalancerSourceRanges has {word:?}, which is no range: nobody is let in by it; correct it"
                ));
            }
        }
        read
    }

    /// Who may use the load balancer's addresses of a family; `None` is everybody.
    ///
    /// A list with ranges of the other family only guards nothing, as with kube-proxy. A family of which nothing can be read lets
    /// nobody in, nor does a list of which nothing can be read at all.
    pub fn of(&self, family: Family) -> Option<BTreeSet<Prefix>> {
        let ranges = || {
            self.ranges
                .iter()
                .filter(|range| range.family() == family)
                .copied()
        };
        let open = ranges().any(|range| range.is_everything());
        let none = ranges().next().is_none();
        let broken = self.broken.contains(&family) || self.ranges.is_empty() && !self.broken.is_empty();
        let closed = none && broken;
        ((!open && !none) || closed).then(|| ranges().collect())
    }
}
