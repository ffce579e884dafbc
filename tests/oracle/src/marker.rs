//! What changes last in each state: whoever serves this Service as it is now, has heard of all that was written before.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::objects::{Key, Object, Resource};
use crate::places::{Place, cluster_ip};

/// Its name.
pub const NAME: &str = "marker";

const SLOT: u8 = 9;

/// Where it is reached when this is its generation.
pub fn target(generation: u16, v6: bool) -> (IpAddr, u16) {
    (cluster_ip(v6, SLOT, 1), 1000 + generation % 1000)
}

/// Port of its endpoints, which says that `EndpointSlices` are followed.
pub const fn endpoint_port(generation: u16) -> u16 {
    8101 + generation % 2
}

/// The endpoint that answers, which says that the Node is followed.
pub fn place(zone: &str) -> Place {
    if zone == "zone-a" { Place::B } else { Place::D }
}

/// Its objects.
pub fn objects(generation: u16) -> Vec<(Key, Object)> {
    let (port, inner) = (target(generation, false).1, endpoint_port(generation));
    let addresses = [false, true].map(|v6| target(generation, v6).0);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": NAME, "namespace": "default" },
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": addresses.first(),
            "clusterIPs": addresses,
            "ports": [{ "protocol": "TCP", "port": port, "targetPort": inner }],
        },
    });
    let slices = [false, true].map(|v6| {
        let name = format!("{NAME}-{}", if v6 { "v6" } else { "v4" });
        let body = slice(&name, v6, inner);
        (
            (Resource::Slice, name),
            Object {
                life: 0,
                body,
                status: None,
            },
        )
    });
    let service = Object {
        life: 0,
        body: service,
        status: None,
    };
    let mut objects = vec![((Resource::Service, NAME.to_owned()), service)];
    objects.extend(slices);
    objects
}

fn slice(name: &str, v6: bool, port: u16) -> Value {
    let endpoints = ["zone-a", "zone-b"].map(|zone| {
        let place = place(zone);
        json!({
            "addresses": [place.address(v6)],
            "nodeName": format!("n{}", place.node()),
            "hints": { "forZones": [{ "name": zone }] },
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": NAME },
        },
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": [{ "name": "", "protocol": "TCP", "port": port }],
        "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_says_what_was_heard() {
        assert_eq!(target(7, true).0.to_string(), "fd00:10:96::901");
        assert_ne!(target(7, false), target(8, false));
        assert_ne!(endpoint_port(7), endpoint_port(8));
        assert_ne!(place("zone-a"), place("zone-b"));
        assert_eq!(objects(7).len(), 3);
    }
}
