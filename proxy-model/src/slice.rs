//! An EndpointSlice in our words: endpoints with their conditions, in the compact form that is kept.

use proxy_common::{Ip, Protocol};

use crate::address::{self, Family};
use crate::api::{ApiEndpointSlice, Endpoint as ApiEndpoint, EndpointPort, NamedHint};
use crate::service::{is_not_ours, read_port_number, read_protocol};

/// Label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A slice of the endpoints of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Name of its Service, in the slice's own namespace.
    pub service: String,
    /// Family of its addresses.
    pub family: Family,
    /// Ports that each endpoint has, those with a mistake left out.
    pub ports: Vec<SlicePort>,
    /// Endpoints, those with a mistake left out.
    pub endpoints: Vec<Endpoint>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// A port of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlicePort {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// What is spoken there, in the API's words.
    pub app_protocol: Option<Box<str>>,
}

/// A place where a Service runs.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the API's three conditions, in its words, and where it is"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its first address; the others do not count.
    pub address: Ip,
    /// Whether it is on this node.
    pub local: bool,
    /// It takes new connections.
    pub ready: bool,
    /// It answers, perhaps while it terminates.
    pub serving: bool,
    /// It is going away.
    pub terminating: bool,
    /// Which nodes should use it.
    pub nodes: NodeHint,
    /// Zones whose nodes should use it; empty means no hint.
    pub zones: Vec<String>,
}

/// `hints.forNodes`, seen from this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeHint {
    /// No hint.
    None,
    /// This node is among the named.
    Here,
    /// Other nodes only.
    Elsewhere,
}

impl Slice {
    /// What the object says; `None` if it is nobody's, another proxy's, of a headless Service, or has names instead of
    /// addresses.
    pub fn read(object: &ApiEndpointSlice, node_name: &str) -> Option<Self> {
        if is_not_ours(&object.metadata) {
            return None;
        }
        Self::read_any(object, node_name)
    }

    /// The same for who goes to the endpoints themselves: whether somebody serves the Service's address does not matter.
    pub fn read_any(object: &ApiEndpointSlice, node_name: &str) -> Option<Self> {
        let service = object
            .metadata
            .label(SERVICE_NAME)
            .filter(|name| !name.is_empty())?;
        let family = match object.address_type.as_deref() {
            Some("IPv4") => Family::V4,
            Some("IPv6") => Family::V6,
            _ => return None,
        };
        let mut problems = Vec::new();
        let mut refused = Refused::default();
        let endpoints = object.endpoints.iter().flatten();
        let endpoints = endpoints
            .filter_map(|endpoint| read_endpoint(endpoint, family, node_name, &mut refused))
            .collect();
        let ports = object
            .ports
            .iter()
            .flatten()
            .filter_map(|port| read_port(port, &mut problems))
            .collect();
        problems.extend(refused.sentences());
        Some(Self {
            service: service.to_owned(),
            family,
            ports,
            endpoints,
            problems,
        })
    }

    /// The zones of its endpoints, for who balances by them.
    pub fn zones(object: &ApiEndpointSlice) -> impl Iterator<Item = (Ip, &str)> {
        object.endpoints.iter().flatten().filter_map(|endpoint| {
            let text = endpoint.addresses.as_deref()?.first()?;
            Some((address::parse(text)?, endpoint.zone.as_deref()?))
        })
    }

    /// What is to be said about a slice that is not read.
    pub fn complaint(object: &ApiEndpointSlice) -> Option<String> {
        match object.address_type.as_deref() {
            Some("IPv4" | "IPv6" | "FQDN") => None,
            other => Some(format!(
                "addressType {:?} is not known: the slice is left out; use IPv4 or IPv6",
                other.unwrap_or_default()
            )),
        }
    }
}

/// Counts refused endpoints, so that a slice of a thousand that have the same mistake gives one sentence.
#[derive(Default)]
struct Refused {
    /// In the order in which they were met: the mistake, the first endpoint that has it, and how many more do.
    mistakes: Vec<(&'static str, String, usize)>,
}

impl Refused {
    fn note(&mut self, mistake: &'static str, what: impl FnOnce() -> String) {
        match self.mistakes.iter_mut().find(|(known, ..)| *known == mistake) {
            Some((.., more)) => *more += 1,
            None => self.mistakes.push((mistake, what(), 0)),
        }
    }

    fn sentences(self) -> impl Iterator<Item = String> {
        self.mistakes.into_iter().map(|(_, first, more)| {
            let more = match more {
                0 => String::new(),
                1 => " (and 1 more endpoint like it)".to_owned(),
                more => format!(" (and {more} more endpoints like it)"),
            };
            format!("{first}{more}: left out; correct the endpoint")
        })
    }
}

fn read_endpoint(
    endpoint: &ApiEndpoint,
    family: Family,
    node_name: &str,
    refused: &mut Refused,
) -> Option<Endpoint> {
    let Some(text) = endpoint.addresses.as_deref().and_then(<[String]>::first) else {
        refused.note("none", || "an endpoint has no address".to_owned());
        return None;
    };
    let Some(ip) = address::parse(text) else {
        refused.note("not one", || format!("endpoint {text:?} is not an address"));
        return None;
    };
    if let Some(what) = address::refusal(ip) {
        refused.note(what, || format!("endpoint {ip} is {what}"));
        return None;
    }
    if Family::of(ip) != family {
        refused.note("family", || {
            format!(
                "endpoint {text} is {}, the slice's addressType is {family}",
                Family::of(ip)
            )
        });
        return None;
    }
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let hints = endpoint.hints.clone().unwrap_or_default();
    Some(Endpoint {
        address: ip,
        local: endpoint.node_name.as_deref() == Some(node_name),
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        nodes: read_node_hint(&names(hints.for_nodes), node_name),
        zones: names(hints.for_zones),
    })
}

fn names(hints: Option<Vec<NamedHint>>) -> Vec<String> {
    hints.into_iter().flatten().filter_map(|hint| hint.name).collect()
}

fn read_node_hint(nodes: &[String], node_name: &str) -> NodeHint {
    if nodes.is_empty() {
        NodeHint::None
    } else if nodes.iter().any(|node| node == node_name) {
        NodeHint::Here
    } else {
        NodeHint::Elsewhere
    }
}

fn read_port(port: &EndpointPort, problems: &mut Vec<String>) -> Option<SlicePort> {
    let name = port.name.clone().unwrap_or_default();
    let protocol = match read_protocol(port.protocol.as_deref()) {
        Ok(protocol) => protocol,
        Err(word) => {
            problems.push(format!(
                "port {name:?} has protocol {word:?}: left out; use TCP, UDP or SCTP"
            ));
            return None;
        }
    };
    // "All ports", which no Service port can mean.
    let given = port.port?;
    let number = read_port_number(Some(given));
    if number.is_none() {
        problems.push(format!(
            "port {name:?} has number {given}: left out; use 1 to 65535"
        ));
    }
    Some(SlicePort {
        name,
        protocol,
        port: number?,
        app_protocol: port.app_protocol.as_deref().map(Into::into),
    })
}
