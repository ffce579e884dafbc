//! Random Services.

use std::collections::BTreeSet;

use crate::dice::Dice;
use crate::places::{ENDPOINTS, Place};
use crate::service::{Endpoint, Families, Ingress, Kind, Port, Service, Slice};

/// Ranges for `loadBalancerSourceRanges`: halves of the clients' networks, single addresses, nobody, everybody, and
/// space around one.
const RANGES: [&str; 15] = [
    "10.99.0.0/17",
    "10.99.128.0/17",
    "10.98.0.0/16",
    "10.97.128.0/17",
    "172.30.0.0/24",
    "172.30.0.11/32",
    " 172.30.0.100/32 ",
    "10.244.1.0/24",
    "192.0.2.0/24",
    "0.0.0.0/0",
    "fd00:10:99::/65",
    "fd00:10:98::/64",
    "fd00:10:97:0:8000::/65",
    "fd00:172:30::/64",
    "::/0",
];

/// A number that Services of all slots share, as load balancers may share an address between Services.
const SHARED: u8 = 200;

/// The first Service of a slot's life.
pub fn service(slot: u8, life: u64) -> Service {
    let dice = &mut Dice::new(&[u64::from(slot), life]);
    let kinds = [
        Kind::ClusterIp,
        Kind::NodePort,
        Kind::NodePort,
        Kind::LoadBalancer,
        Kind::LoadBalancer,
        Kind::LoadBalancer,
    ];
    let odd = dice.pick(Kind::Headless, &[Kind::ExternalName]);
    let kind = if dice.chance(8) {
        odd
    } else {
        dice.pick(Kind::ClusterIp, &kinds)
    };
    // A name and an address that come back at once are another case than new ones.
    let name = if dice.chance(50) {
        format!("s{slot}")
    } else {
        format!("s{slot}-{life}")
    };
    let mut service = Service {
        slot,
        life,
        name,
        kind,
        foreign: dice.chance(5),
        families: dice.pick(Families::V4V6, &[Families::V4, Families::V6, Families::V6V4]),
        address: dice.pick(1, &[2, 3]),
        ports: ports(dice, slot),
        internal_local: dice.chance(25),
        external_local: dice.chance(40),
        affinity: affinity(dice),
        external_ips: external_ips(dice, slot),
        ingress: Vec::new(),
        source_ranges: Vec::new(),
        node_ports: dice.chance(75),
        publish_not_ready: dice.chance(10),
        distribution: dice.pick(None, &[None, Some("PreferClose"), Some("PreferSameNode")]),
        slices: Vec::new(),
    };
    outside(dice, &mut service);
    redeal(dice, &mut service);
    agree(&mut service);
    service
}

/// Changes one thing.
pub fn change(dice: &mut Dice, service: &mut Service) {
    change_one(dice, service);
    agree(service);
}

fn change_one(dice: &mut Dice, service: &mut Service) {
    match dice.below(12) {
        0 | 1 => redeal(dice, service),
        2 => service.slices.clear(),
        3 => service.internal_local ^= true,
        4 | 5 => service.external_local ^= true,
        6 => service.external_ips = external_ips(dice, service.slot),
        7 => outside(dice, service),
        8 => service.affinity = affinity(dice),
        9 => {
            service.ports = ports(dice, service.slot);
            redeal(dice, service);
        }
        10 => hint(dice, service),
        _ => weaken(dice, service),
    }
}

fn affinity(dice: &mut Dice) -> Option<u32> {
    dice.chance(15).then(|| dice.pick(10_800, &[60, 86_400]))
}

/// One to three of a menu: two protocols at one port, two ports with one target.
fn ports(dice: &mut Dice, slot: u8) -> Vec<Port> {
    let base = 1000 * (u16::from(slot) + 1);
    let node = 30_000 + 100 * u16::from(slot) + dice.pick(0, &[10]);
    let port = |name, udp, (number, at), target| Port {
        name,
        udp,
        number: base + number,
        target,
        node_port: node + at,
    };
    let menu = vec![
        port("http", false, (80, 0), 8001),
        port("http-u", true, (80, 0), 8002),
        port("tls", false, (443, 1), 8003),
        port("dns", true, (53, 2), 8004),
        port("dns-tcp", false, (53, 2), 8004),
    ];
    let count = dice.pick(1, &[2, 2, 3]);
    let mut ports = dice.some(menu, count);
    if let ([only], true) = (ports.as_mut_slice(), dice.chance(50)) {
        only.name = "";
    }
    ports
}

fn external_ips(dice: &mut Dice, slot: u8) -> BTreeSet<u8> {
    let count = dice.pick(0, &[0, 0, 1, 2]);
    let menu = vec![8 * slot, 8 * slot + 1, SHARED];
    dice.some(menu, count).into_iter().collect()
}

/// What only a load balancer has.
fn outside(dice: &mut Dice, service: &mut Service) {
    let slot = service.slot;
    let number = |dice: &mut Dice| dice.pick(8 * slot, &[8 * slot + 1, 8 * slot + 2, SHARED]);
    let count = dice.pick(1, &[2, 2, 3, 0]);
    service.ingress = (0..count)
        .map(|_| Ingress {
            number: number(dice),
            v6: dice.chance(50),
            mode: dice.pick(None, &[Some("VIP"), Some("VIP"), Some("Proxy")]),
        })
        .collect();
    // The API server does not take an address twice.
    service
        .ingress
        .sort_by_key(|ingress| (ingress.v6, ingress.number));
    service
        .ingress
        .dedup_by_key(|ingress| (ingress.v6, ingress.number));
    let count = dice.pick(0, &[0, 1, 2, 3]);
    service.source_ranges = dice.some(RANGES.to_vec(), count);
}

/// New endpoints: up to three in each family, in up to two slices, sometimes in both.
fn redeal(dice: &mut Dice, service: &mut Service) {
    let mut slices = Vec::new();
    for v6 in [false, true] {
        let count = dice.pick(1, &[2, 2, 3, 3, 0]);
        let mut endpoints: Vec<_> = dice
            .some(ENDPOINTS.to_vec(), count)
            .into_iter()
            .map(|place| endpoint(dice, place))
            .collect();
        let mut second = endpoints.split_off(dice.below(endpoints.len() + 1));
        if dice.chance(8)
            && let Some(first) = endpoints.first()
        {
            let mut copy = first.clone();
            if dice.chance(50) {
                copy = endpoint(dice, copy.place);
            }
            second.push(copy);
        }
        for endpoints in [endpoints, second] {
            // A slice without endpoints is as good as none, and worth a try.
            if !endpoints.is_empty() || dice.chance(10) {
                slices.push(Slice {
                    v6,
                    ports: slice_ports(dice, &service.ports),
                    endpoints,
                });
            }
        }
    }
    service.slices = slices;
    if dice.chance(20) {
        hint(dice, service);
    }
}

/// The Service's ports as pods have them: named ones may differ from pod to pod, or be missing.
fn slice_ports(dice: &mut Dice, ports: &[Port]) -> Vec<(&'static str, bool, u16)> {
    let mut found = Vec::new();
    for port in ports {
        let target = port.target + if dice.chance(8) { 4 } else { 0 };
        if !dice.chance(5) {
            found.push((port.name, port.udp, target));
        }
    }
    found
}

fn endpoint(dice: &mut Dice, place: Place) -> Endpoint {
    let (ready, serving, terminating) = conditions(dice);
    Endpoint {
        place,
        ready,
        serving,
        terminating,
        node: !dice.chance(4),
        zones: Vec::new(),
        nodes: Vec::new(),
        second: dice.chance(4).then(|| dice.pick(Place::B, &[Place::E])),
    }
}

fn conditions(dice: &mut Dice) -> (Option<bool>, Option<bool>, Option<bool>) {
    let usual = (Some(true), Some(true), Some(false));
    let serving = (Some(false), Some(true), Some(true));
    let others = [
        usual,
        usual,
        usual,
        (None, None, None),
        serving,
        serving,
        (Some(false), Some(false), Some(true)),
        (Some(false), Some(false), Some(false)),
        // Ready, they say, and going: `publishNotReadyAddresses`.
        (Some(true), Some(true), Some(true)),
        (Some(false), None, Some(true)),
        (Some(true), None, None),
        (None, Some(true), Some(true)),
        (Some(false), Some(true), Some(false)),
    ];
    dice.pick(usual, &others)
}

/// New conditions for some endpoints.
fn weaken(dice: &mut Dice, service: &mut Service) {
    for endpoint in service.slices.iter_mut().flat_map(|slice| &mut slice.endpoints) {
        if dice.chance(50) {
            (endpoint.ready, endpoint.serving, endpoint.terminating) = conditions(dice);
        }
    }
}

/// New hints: for all endpoints, or for all but some, or for none.
fn hint(dice: &mut Dice, service: &mut Service) {
    let (zones, nodes) = (dice.chance(60), dice.chance(40));
    let forgetful = dice.chance(25);
    for endpoint in service.slices.iter_mut().flat_map(|slice| &mut slice.endpoints) {
        endpoint.zones.clear();
        endpoint.nodes.clear();
        if zones && !(forgetful && dice.chance(40)) {
            endpoint.zones = dice
                .pick(
                    ["zone-a"].as_slice(),
                    &[&["zone-b"], &["zone-a", "zone-b"], &["zone-c"]],
                )
                .to_vec();
        }
        if nodes && !(forgetful && dice.chance(40)) {
            endpoint.nodes = dice
                .pick(["n1"].as_slice(), &[&["n2"], &["n1", "n2"], &["n3"]])
                .to_vec();
        }
    }
}

/// Of an endpoint in two slices kube-proxy takes the copy that is not terminating; between two of a kind it takes any, so
/// those must be alike.
fn agree(service: &mut Service) {
    let leaves = |endpoint: &Endpoint| endpoint.terminating == Some(true);
    for (v6, place) in [false, true]
        .into_iter()
        .flat_map(|v6| ENDPOINTS.map(|place| (v6, place)))
    {
        let slices = service.slices.iter_mut().filter(|slice| slice.v6 == v6);
        let endpoints = slices.flat_map(|slice| &mut slice.endpoints);
        let mut copies: Vec<_> = endpoints.filter(|endpoint| endpoint.place == place).collect();
        copies.sort_by_key(|copy| leaves(copy));
        let mut copies = copies.into_iter();
        let Some(first) = copies.next() else {
            continue;
        };
        for copy in copies {
            if leaves(copy) == leaves(first) {
                *copy = first.clone();
            }
            // Ports may differ from slice to slice, and then both are endpoints.
            copy.node = first.node;
        }
    }
}
