//! What outlives a change: the id of a port that gets another name, and backends that serve although nobody is sent there
//! any more.
//!
//! ```text
//!  a backend that was given an id
//!      ├─ selected (traffic.rs) ─────────────────────▶ takes new connections
//!      ├─ else ready or serving, in any slice ───────▶ draining: what it has goes on
//!      └─ else ──────────────────────────────────────▶ retired: UDP turns to another at once, TCP when it is silent
//! ```
//!
//! A change of a Service is none of its endpoints: hints, policies, a terminating pod, another name of the port, and even
//! the end of the Service while its slices are there, leave flows where they are. So does kube-proxy, which looks for a
//! flow's endpoint among all that serve (`conntrack/cleanup.go`) and at nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_common::FrontendKind;

use crate::desired::{Desired, PortKey};
use crate::mirror::Mirror;
use crate::objects::Objects;
use crate::ports::{PortState, Ports};
use crate::traffic::{Place, Usable};

/// A port that got another name has what the former one had: the frontend at its ClusterIP tells which that was.
///
/// Only if nobody goes by the former name any more, and nothing by the new one: then at every moment one id has the name, and
/// an agent that starts in between finds the port by the one or the other.
pub fn rename(ports: &mut Ports, mirror: &Mirror, desired: &Desired) {
    for port in &desired.ports {
        if ports.state(&port.key).is_some() {
            continue;
        }
        let mut frontends = port.frontends.iter();
        let cluster_ip = frontends.find(|frontend| frontend.kind == FrontendKind::ClusterIp);
        let row = cluster_ip.and_then(|frontend| mirror.service(&frontend.key));
        let former = row.and_then(|row| ports.owner(row.id)).cloned();
        let same_service = |former: &PortKey| former.service == port.key.service;
        let is_wanted = |former: &PortKey| desired.ports.iter().any(|other| other.key == *former);
        if let Some(former) = former.filter(|former| same_service(former) && !is_wanted(former)) {
            ports.rename(&former, port.key.clone());
        }
    }
}

/// Takes back the ids of backends that are out of service: an endpoint that returns is another one, whose flows are new.
pub fn release_retired(ports: &mut Ports, mirror: &Mirror, key: &PortKey, now: Duration) {
    let Some(mut state) = ports.take(key) else {
        return;
    };
    state.backends.retain(|_, (id, generation)| {
        let retired = mirror.has_retired(*id, *generation);
        if retired {
            ports.release_backend(*id, now);
        }
        !retired
    });
    ports.insert(key.clone(), state);
}

/// Puts the draining backends of each port behind those that it may use.
pub fn drain(objects: &Objects, ports: &Ports, mirror: &Mirror, desired: &mut Desired) {
    for port in &mut desired.ports {
        if let Some(state) = ports.state(&port.key) {
            let selected = &port.backends.places;
            let draining = draining((objects, mirror), &port.key, state, selected);
            port.backends.places.extend(draining);
        }
    }
}

/// The backends of a service port that are not selected and still serve. Only those that the kernel has: no flow can be
/// with another one, and of a large Service with hints most are never used here.
pub fn draining(
    (objects, mirror): (&Objects, &Mirror),
    key: &PortKey,
    state: &PortState,
    selected: &[Usable],
) -> impl Iterator<Item = Usable> + use<> {
    let selected: BTreeSet<Place> = selected.iter().map(|backend| backend.place).collect();
    let serving_now = |(place, (id, generation)): (&Place, &(u32, u32))| {
        let draining = !selected.contains(place) && mirror.serves(*id, *generation);
        draining.then_some(*place)
    };
    let others: Vec<Place> = state.backends.iter().filter_map(serving_now).collect();
    // Mostly there are none, and then nothing is looked for.
    let serving = if others.is_empty() {
        BTreeMap::new()
    } else {
        serving(objects, key)
    };
    others.into_iter().filter_map(move |place| {
        let local = *serving.get(&place)?;
        Some(Usable { place, local })
    })
}

/// The backends that stay of a service port that nobody wants any more: those that an agent that starts would find, by a name and a
/// slot. What has neither was never published.
pub fn lingering(
    (objects, mirror): (&Objects, &Mirror),
    key: &PortKey,
    state: &PortState,
) -> BTreeSet<Place> {
    let slab = state.slab.iter().filter(|_| mirror.name(state.id).is_some());
    let slots = slab.flat_map(|slab| (slab.base..).zip(&slab.rows));
    let written: BTreeSet<u32> = slots
        .filter(|(slot, row)| mirror.backend(*slot) == Some(row))
        .map(|(_, row)| row.id)
        .collect();
    let found = |place: &Place| {
        let id = state.backends.get(place).map(|(id, _)| id);
        id.is_some_and(|id| written.contains(id))
    };
    draining((objects, mirror), key, state, &[])
        .map(|backend| backend.place)
        .filter(found)
        .collect()
}

/// The endpoints of a service port that serve, and whether each is on this node.
///
/// Under the name of the port, or one that no port of the Service has (any more): a port is renamed in the Service first
/// and in its slices later, and when the Service is gone all names are such.
fn serving(objects: &Objects, key: &PortKey) -> BTreeMap<Place, bool> {
    let ports = objects
        .service(&key.service)
        .map(|service| service.ports.as_slice());
    let names = ports
        .unwrap_or_default()
        .iter()
        .filter(|port| port.protocol == key.protocol);
    let counts = |name: &str| name == key.port || !names.clone().any(|port| port.name == name);
    let mut serving = BTreeMap::new();
    for slice in objects
        .slices(&key.service)
        .filter(|slice| slice.family == key.family)
    {
        let ports = slice.ports.iter().filter(|port| port.protocol == key.protocol);
        for port in ports.filter(|port| counts(&port.name)) {
            for endpoint in slice
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.ready || endpoint.serving)
            {
                *serving.entry((endpoint.address, port.port)).or_default() |= endpoint.local;
            }
        }
    }
    serving
}
