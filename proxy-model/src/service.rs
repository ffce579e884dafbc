//! A Service in our words: the frontends that it asks for, and what it asks for that cannot be done.

use proxy_common::{Ip, Protocol, TrafficPolicy};

use crate::address::{self, Family};
use crate::affinity;
use crate::age::Created;
use crate::api::{ApiService, Metadata, ServicePort, ServiceSpec};
use crate::external::{self, SourceRanges};

/// Label that hands an object to another proxy (KEP-2447).
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Label that says that nobody proxies an object.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Room for a name in `SERVICE_NAMES`: a DNS label.
const LONGEST_NAME: usize = 63;

/// A Service that weir serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// When it was created.
    pub created: Created,
    /// One address a family.
    pub cluster_ips: Vec<Ip>,
    /// Addresses of its load balancer that this node is to serve itself.
    pub load_balancer: Vec<Ip>,
    /// Who may use those.
    pub source_ranges: SourceRanges,
    /// `externalIPs`.
    pub external_ips: Vec<Ip>,
    /// Its ports, those with a mistake left out.
    pub ports: Vec<Port>,
    /// `internalTrafficPolicy`.
    pub internal: TrafficPolicy,
    /// `externalTrafficPolicy`.
    pub external: TrafficPolicy,
    /// Where load balancers ask whether this node has endpoints of it.
    pub health_check: Option<u16>,
    /// `sessionAffinity`: seconds for which a client sticks to its backend; 0 if it does not.
    pub affinity_timeout: u32,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number at the ClusterIPs.
    pub number: u16,
    /// Port at the node.
    pub node_port: Option<u16>,
}

/// Whether an object with this metadata is for another proxy, or for none.
pub fn is_not_ours(metadata: &Metadata) -> bool {
    metadata.label(OTHER_PROXY).is_some() || metadata.label(HEADLESS).is_some()
}

impl Service {
    /// What the object asks of this node; `None` if nothing (headless, `ExternalName`, another proxy's). `external_ips`:
    /// whether such are served here.
    pub fn read(object: &ApiService, external_ips: bool) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let headless = spec.cluster_ip.as_deref() == Some("None")
            || spec.cluster_ips.iter().flatten().any(|address| address == "None");
        if is_not_ours(&object.metadata) || headless || spec.kind.as_deref() == Some("ExternalName") {
            return None;
        }
        let mut problems = Vec::new();
        check_type(spec, &mut problems);
        let mut service = Self {
            created: Created::read(object.metadata.creation_timestamp.as_deref()),
            cluster_ips: read_cluster_ips(spec, &mut problems),
            load_balancer: external::load_balancer(object.status.as_ref(), &mut problems),
            source_ranges: SourceRanges::read(spec, &mut problems),
            external_ips: external::external_ips(spec, external_ips, &mut problems),
            ports: read_ports(spec, &mut problems),
            internal: read_policy(
                "internalTrafficPolicy",
                spec.internal_traffic_policy.as_deref(),
                &mut problems,
            ),
            external: read_policy(
                "externalTrafficPolicy",
                spec.external_traffic_policy.as_deref(),
                &mut problems,
            ),
            health_check: None,
            affinity_timeout: read_affinity(spec, &mut problems),
            problems: Vec::new(),
        };
        service.health_check = read_health_check(spec, service.external, &mut problems);
        let name_fits = |name: &Option<String>| name.as_ref().is_none_or(|name| name.len() <= LONGEST_NAME);
        if !name_fits(&object.metadata.name) || !name_fits(&object.metadata.namespace) {
            service.ports.clear();
            problems.push(format!(
                "namespace or name is longer than {LONGEST_NAME} bytes: not served; shorten it"
            ));
        }
        service.problems = problems;
        Some(service)
    }
}

/// A slip in the type leaves a ClusterIP.
fn check_type(spec: &ServiceSpec, problems: &mut Vec<String>) {
    let known = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    if let Some(word) = spec.kind.as_deref().filter(|word| !known.contains(word)) {
        let known = known.join(", ");
        problems.push(format!(
            "type {word:?} is none: only its cluster IPs are served; write one of {known}"
        ));
    }
}

fn read_cluster_ips(spec: &ServiceSpec, problems: &mut Vec<String>) -> Vec<Ip> {
    let words: Vec<&str> = match spec.cluster_ips.as_deref() {
        Some(list) if !list.is_empty() => list.iter().map(String::as_str).collect(),
        _ => spec.cluster_ip.iter().map(String::as_str).collect(),
    };
    let mut addresses: Vec<Ip> = Vec::new();
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        match address::parse(word) {
            None => problems.push(format!(
                "clusterIP {word:?} is not an address: not served there; correct it"
            )),
            Some(ip) => match address::refusal(ip) {
                Some(what) => problems.push(format!(
                    "clusterIP {ip} is {what}: not served there; choose another"
                )),
                None if addresses.iter().any(|other| Family::of(*other) == Family::of(ip)) => {
                    problems.push(format!(
                        "clusterIP {ip} is the second of its family: not served there; drop it"
                    ));
                }
                None => addresses.push(ip),
            },
        }
    }
    if addresses.is_empty() && problems.is_empty() {
        problems.push(
            "has no clusterIP: not served; without an API server that gives one out, write it".to_owned(),
        );
    }
    addresses
}

fn read_ports(spec: &ServiceSpec, problems: &mut Vec<String>) -> Vec<Port> {
    let with_node_ports = matches!(spec.kind.as_deref(), Some("NodePort" | "LoadBalancer"));
    let mut ports: Vec<Port> = Vec::new();
    for port in spec.ports.iter().flatten() {
        match read_port(port, with_node_ports, problems) {
            Err(problem) => problems.push(problem),
            Ok(port)
                if ports
                    .iter()
                    .any(|other| (&other.name, other.protocol) == (&port.name, port.protocol)) =>
            {
                problems.push(format!(
                    "port {:?} ({}) is there twice: the second is not served; rename it",
                    port.name, port.protocol
                ));
            }
            Ok(port) => ports.push(port),
        }
    }
    ports
}

fn read_port(port: &ServicePort, with_node_ports: bool, problems: &mut Vec<String>) -> Result<Port, String> {
    let name = port.name.clone().unwrap_or_default();
    if name.len() > LONGEST_NAME {
        return Err(format!(
            "port {name:?} has a name of more than {LONGEST_NAME} bytes: not served; shorten it"
        ));
    }
    let protocol = read_protocol(port.protocol.as_deref()).map_err(|word| {
        format!("port {name:?} has protocol {word}, which weir does not serve; use TCP, UDP or SCTP")
    })?;
    let number = read_port_number(port.port).ok_or_else(|| {
        format!(
            "port {name:?} has number {}: not served; use 1 to 65535",
            show(port.port)
        )
    })?;
    let node_port = match port.node_port {
        None | Some(0) => None,
        Some(_) if !with_node_ports => {
            problems.push(format!(
                "port {name:?} has a nodePort, but the type has none: the nodePort is not served; use type NodePort"
            ));
            None
        }
        given => {
            let number = read_port_number(given);
            if number.is_none() {
                problems.push(format!(
                    "port {name:?} has nodePort {}: not served; use 1 to 65535",
                    show(given)
                ));
            }
            number
        }
    };
    Ok(Port {
        name,
        protocol,
        number,
        node_port,
    })
}

/// A port number of the API; `None` if it is missing, zero or out of range.
pub fn read_port_number(number: Option<i64>) -> Option<u16> {
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number != 0)
}

/// A protocol of the API; the word itself if weir does not serve it.
pub fn read_protocol(word: Option<&str>) -> Result<Protocol, &str> {
    match word {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(other),
    }
}

/// Only the load balancer of a Service that keeps clients' addresses has to know where the endpoints are.
fn read_health_check(spec: &ServiceSpec, external: TrafficPolicy, problems: &mut Vec<String>) -> Option<u16> {
    let asked = spec.kind.as_deref() == Some("LoadBalancer") && external == TrafficPolicy::Local;
    let given = spec.health_check_node_port.filter(|given| asked && *given != 0)?;
    let number = read_port_number(Some(given));
    if number.is_none() {
        problems.push(format!(
            "healthCheckNodePort is {given}: not answered there; use 1 to 65535"
        ));
    }
    number
}

fn show(number: Option<i64>) -> String {
    number.map_or_else(|| "none".to_owned(), |number| number.to_string())
}

fn read_policy(field: &str, word: Option<&str>, problems: &mut Vec<String>) -> TrafficPolicy {
    match word {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.push(format!(
                "{field} {other:?} is not known: taken as Cluster; use Cluster or Local"
            ));
            TrafficPolicy::Cluster
        }
    }
}

/// Seconds for which a client sticks to its backend; 0 if it does not.
fn read_affinity(spec: &ServiceSpec, problems: &mut Vec<String>) -> u32 {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return 0,
        Some("ClientIP") => {}
        Some(other) => {
            problems.push(format!(
                "sessionAffinity {other:?} is not known: taken as None; use ClientIP or None"
            ));
            return 0;
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let Some(given) = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds) else {
        return affinity::DEFAULT_TIMEOUT;
    };
    let seconds = u32::try_from(given).ok();
    let allowed = seconds.filter(|seconds| (1..=affinity::LONGEST_TIMEOUT).contains(seconds));
    allowed.unwrap_or_else(|| {
        problems.push(format!(
            "sessionAffinityConfig.clientIP.timeoutSeconds {given} is out of range: taken as {}; use 1 to {}",
            affinity::DEFAULT_TIMEOUT,
            affinity::LONGEST_TIMEOUT,
        ));
        affinity::DEFAULT_TIMEOUT
    })
}
