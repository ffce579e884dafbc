//! What is tried in a state: who asks, where, by which protocol.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::places::{CLIENTS, Client, Place, cluster_ip, external_ip, gateway, vip};
use crate::service::{Kind, Port, Service};
use crate::state::{SLOTS, State};

/// What kind of address is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frontend {
    /// A ClusterIP, and one of its ports.
    ClusterIp,
    /// A port that the ClusterIP does not have.
    ClusterIpPort,
    /// A node port at the node's address.
    NodePort,
    /// A node port at an address of the node that serves none, or by the other protocol.
    NodePortElsewhere,
    /// A load balancer's address.
    LoadBalancer,
    /// A load balancer's address that is left to the load balancer.
    LoadBalancerProxy,
    /// A port that the load balancer's address does not have.
    LoadBalancerPort,
    /// An external IP.
    ExternalIp,
    /// A port that the external IP does not have.
    ExternalIpPort,
    /// A ClusterIP that no Service has.
    Unallocated,
    /// What was asked in the last state, and is no more.
    Gone,
}

/// A protocol, and how it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// TCP
    Tcp,
    /// UDP, after `connect()`
    Udp,
    /// UDP, without
    UdpSendto,
}

/// A question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Who asks.
    pub client: Client,
    /// Where.
    pub target: SocketAddr,
    /// How.
    pub by: By,
    /// What that is.
    pub frontend: Frontend,
    /// Whose it is, if it is anybody's; by its place in the state.
    pub service: Option<usize>,
    /// From the client's own address, not from a fresh one.
    pub primary: bool,
    /// From the upper half of its fresh addresses.
    pub upper: bool,
}

impl Probe {
    /// The Service that is asked.
    pub fn service<'a>(&self, state: &'a State) -> Option<&'a Service> {
        state.services.get(self.service?)
    }

    /// Whether all its connections come from one address: a process of the node has no choice, and only a pod that asks
    /// from the address that its endpoint has is one that reaches itself.
    pub fn has_one_source(&self, state: &State) -> bool {
        let (place, v6) = (self.client.place(), self.target.is_ipv6());
        let is_endpoint = |service: &Service| {
            let slices = service.slices.iter().filter(|slice| slice.v6 == v6);
            slices
                .flat_map(|slice| &slice.endpoints)
                .any(|endpoint| Some(endpoint.place) == place)
        };
        self.client == Client::Host || self.service(state).is_some_and(is_endpoint)
    }
}

/// Where something can be asked.
type Target = (SocketAddr, bool, Frontend, Option<usize>);

/// So many probes of a state, and one of what is no more.
pub fn probes(state: &State, count: usize) -> Vec<Probe> {
    let dice = &mut Dice::new(&[state.number, 1 << 41]);
    let now = targets(state);
    let served: BTreeSet<_> = now.iter().map(|&(at, udp, ..)| (at, udp)).collect();
    let gone = targets(&State::number(state.number.wrapping_sub(1)))
        .into_iter()
        .filter(|(at, udp, ..)| !served.contains(&(*at, *udp)))
        .map(|(at, udp, ..)| now_undefined((at, udp), &now).unwrap_or((at, udp, Frontend::Gone, None)));
    let gone = dice.some(gone.collect(), 2);
    let mut asked = dice.some(with_clients(&now), count.saturating_sub(gone.len() + 1));
    let others = with_clients(&[unallocated(dice)]);
    asked.extend(dice.some(others, 1));
    asked.extend(dice.some(with_clients(&gone), gone.len()));
    let probe = |(client, (target, udp, frontend, service))| Probe {
        client,
        target,
        by: match (udp, dice.chance(60)) {
            (false, _) => By::Tcp,
            (true, true) => By::Udp,
            (true, false) => By::UdpSendto,
        },
        frontend,
        service,
        primary: dice.chance(25),
        upper: dice.chance(50),
    };
    asked.into_iter().map(probe).collect()
}

/// What has lost a port, or changed hands, is not gone.
fn now_undefined((at, udp): (SocketAddr, bool), now: &[Target]) -> Option<Target> {
    let &(.., frontend, service) = now.iter().find(|(other, ..)| other.ip() == at.ip())?;
    let undefined = match frontend {
        Frontend::ClusterIp | Frontend::ClusterIpPort => Frontend::ClusterIpPort,
        Frontend::LoadBalancer | Frontend::LoadBalancerPort => Frontend::LoadBalancerPort,
        Frontend::ExternalIp | Frontend::ExternalIpPort => Frontend::ExternalIpPort,
        _ => return None,
    };
    Some((at, udp, undefined, service))
}

fn with_clients(targets: &[Target]) -> Vec<(Client, Target)> {
    targets
        .iter()
        .flat_map(|target| CLIENTS.map(|client| (client, *target)))
        .collect()
}

fn unallocated(dice: &mut Dice) -> Target {
    let (v6, udp) = (dice.chance(50), dice.chance(50));
    let slot = dice.pick(0, &[3, 200]);
    let at = SocketAddr::new(cluster_ip(v6, slot, 250), 2080);
    (at, udp, Frontend::Unallocated, None)
}

/// Everything that can be asked in a state.
fn targets(state: &State) -> Vec<Target> {
    let mut targets = Vec::new();
    for (at, service) in state.services.iter().enumerate() {
        let families: &[bool] = match service.kind {
            Kind::ExternalName => &[false, true],
            _ => &service.families.list(),
        };
        for &v6 in families {
            for port in &service.ports {
                of_port(&mut targets, (at, service), port, v6);
            }
            undefined(&mut targets, (at, service), v6);
        }
    }
    // A shared address has several Services' ports: what one leaves out, another may have.
    let known: BTreeSet<_> = targets
        .iter()
        .filter(|(_, _, frontend, _)| !is_undefined(*frontend))
        .map(|&(at, udp, ..)| (at, udp))
        .collect();
    targets.retain(|&(at, udp, frontend, _)| !is_undefined(frontend) || !known.contains(&(at, udp)));
    targets
}

fn is_undefined(frontend: Frontend) -> bool {
    use Frontend::{ClusterIpPort, ExternalIpPort, LoadBalancerPort, NodePortElsewhere};
    matches!(
        frontend,
        ClusterIpPort | ExternalIpPort | LoadBalancerPort | NodePortElsewhere
    )
}

fn of_port(targets: &mut Vec<Target>, (at, service): (usize, &Service), port: &Port, v6: bool) {
    if service.has_cluster_ip() {
        let address = cluster_ip(v6, service.slot, service.address);
        let other = SocketAddr::new(address, port.number);
        targets.push((other, !port.udp, Frontend::ClusterIpPort, Some(at)));
    }
    if service.has_node_ports() {
        let other = SocketAddr::new(Place::N1.address(v6), port.node_port);
        targets.push((other, !port.udp, Frontend::NodePortElsewhere, Some(at)));
    }
    let mut add = |ip, number, frontend| {
        targets.push((SocketAddr::new(ip, number), port.udp, frontend, Some(at)));
    };
    if service.has_cluster_ip() {
        add(
            cluster_ip(v6, service.slot, service.address),
            port.number,
            Frontend::ClusterIp,
        );
    }
    if service.has_node_ports() {
        add(Place::N1.address(v6), port.node_port, Frontend::NodePort);
        add(gateway(v6), port.node_port, Frontend::NodePortElsewhere);
    }
    for &number in &service.external_ips {
        add(external_ip(v6, number), port.number, Frontend::ExternalIp);
    }
    if service.kind != Kind::LoadBalancer {
        return;
    }
    for ingress in service.ingress.iter().filter(|ingress| ingress.v6 == v6) {
        let frontend = match ingress.mode {
            Some("Proxy") => Frontend::LoadBalancerProxy,
            _ => Frontend::LoadBalancer,
        };
        add(vip(v6, ingress.number), port.number, frontend);
    }
}

/// The port of somebody else.
fn undefined(targets: &mut Vec<Target>, (at, service): (usize, &Service), v6: bool) {
    let other = 1000 * (u16::from(service.slot % SLOTS) + 2) + 80;
    let mut add = |ip, frontend| {
        for udp in [false, true] {
            targets.push((SocketAddr::new(ip, other), udp, frontend, Some(at)));
        }
    };
    if service.has_cluster_ip() {
        add(
            cluster_ip(v6, service.slot, service.address),
            Frontend::ClusterIpPort,
        );
    }
    if let Some(&number) = service.external_ips.first() {
        add(external_ip(v6, number), Frontend::ExternalIpPort);
    }
    let mut balancers = service.ingress.iter().filter(|ingress| ingress.v6 == v6);
    if let (Kind::LoadBalancer, Some(ingress)) = (service.kind, balancers.next()) {
        add(vip(v6, ingress.number), Frontend::LoadBalancerPort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_its_probes() {
        let state = State::number(4711);
        let asked = probes(&state, 24);
        assert_eq!(asked, probes(&state, 24));
        assert!((20..=24).contains(&asked.len()), "{}", asked.len());
    }

    #[test]
    fn every_frontend_is_asked_by_everybody() {
        let mut seen = BTreeSet::new();
        for number in 1..=150 {
            let asked = probes(&State::number(number), 24);
            seen.extend(asked.iter().map(|probe| (probe.frontend, probe.client)));
        }
        assert_eq!(seen.len(), 11 * CLIENTS.len(), "{seen:?}");
    }
}
