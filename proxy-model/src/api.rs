//! The JSON shapes of Service, EndpointSlice, Node and ServiceCIDR, as far as weir reads them.
//!
//! Lenient on purpose: every field may be missing, ports are wide numbers, words are text. What a value means, and
//! whether it makes sense, is decided where it is read; so a bad value costs a port or an endpoint, not the object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Implements the usual derives for an API struct whose fields may all be missing.
macro_rules! api {
    ($( $(#[$doc:meta])* pub struct $name:ident { $( $(#[$field_doc:meta])* pub $field:ident: $type:ty, )+ } )+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub struct $name { $( $(#[$field_doc])* pub $field: $type, )+ }
        )+
    };
}

mod ingress;

pub use ingress::*;

api! {
    /// `metadata` of any object.
    pub struct Metadata {
        /// Name.
        pub name: Option<String>,
        /// Namespace; a namespaced object without one is in `default`.
        pub namespace: Option<String>,
        /// Unique in space and time.
        pub uid: Option<String>,
        /// Version for optimistic locking; opaque.
        pub resource_version: Option<String>,
        /// RFC 3339.
        pub creation_timestamp: Option<String>,
        /// RFC 3339; set while finalizers run.
        pub deletion_timestamp: Option<String>,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Annotations.
        pub annotations: Option<BTreeMap<String, String>>,
    }

    /// A Service (`v1`).
    pub struct ApiService {
        /// `metadata`.
        pub metadata: Metadata,
        /// `spec`.
        pub spec: Option<ServiceSpec>,
        /// `status`.
        pub status: Option<ServiceStatus>,
    }

    /// `spec` of a Service.
    pub struct ServiceSpec {
        /// `ClusterIP` (also when missing), `NodePort`, `LoadBalancer` or `ExternalName`.
        #[serde(rename = "type")]
        pub kind: Option<String>,
        /// The first of `cluster_ips`; `None` as a word means headless.
        #[serde(rename = "clusterIP")]
        pub cluster_ip: Option<String>,
        /// One address a family.
        #[serde(rename = "clusterIPs")]
        pub cluster_ips: Option<Vec<String>>,
        /// `IPv4` and `IPv6`, the primary one first.
        pub ip_families: Option<Vec<String>>,
        /// Addresses that others route to the nodes.
        #[serde(rename = "externalIPs")]
        pub external_ips: Option<Vec<String>>,
        /// The name that an `ExternalName` stands for.
        pub external_name: Option<String>,
        /// Ports.
        pub ports: Option<Vec<ServicePort>>,
        /// `None` or `ClientIP`.
        pub session_affinity: Option<String>,
        /// What goes with it.
        pub session_affinity_config: Option<SessionAffinityConfig>,
        /// `Cluster` or `Local`, for ClusterIPs.
        pub internal_traffic_policy: Option<String>,
        /// `Cluster` or `Local`, for node ports.
        pub external_traffic_policy: Option<String>,
        /// Who may use the load balancer's addresses.
        pub load_balancer_source_ranges: Option<Vec<String>>,
        /// Where load balancers ask for local endpoints.
        pub health_check_node_port: Option<i64>,
    }

    /// `spec.sessionAffinityConfig` of a Service.
    pub struct SessionAffinityConfig {
        /// For `ClientIP`.
        #[serde(rename = "clientIP")]
        pub client_ip: Option<ClientIpConfig>,
    }

    /// `spec.sessionAffinityConfig.clientIP` of a Service.
    pub struct ClientIpConfig {
        /// 1 to 86400; 10800 if missing.
        pub timeout_seconds: Option<i64>,
    }

    /// A port of a Service.
    pub struct ServicePort {
        /// Joins with the port of that name in the EndpointSlices.
        pub name: Option<String>,
        /// `TCP` (also when missing), `UDP` or `SCTP`.
        pub protocol: Option<String>,
        /// What is spoken there, as `kubernetes.io/h2c`.
        pub app_protocol: Option<String>,
        /// Port of the ClusterIP.
        pub port: Option<i64>,
        /// Port of the node.
        pub node_port: Option<i64>,
    }

    /// `status` of a Service.
    pub struct ServiceStatus {
        /// What a load balancer says.
        pub load_balancer: Option<LoadBalancerStatus>,
    }

    /// `status.loadBalancer`.
    pub struct LoadBalancerStatus {
        /// Its addresses.
        pub ingress: Option<Vec<LoadBalancerIngress>>,
    }

    /// An address of a load balancer.
    pub struct LoadBalancerIngress {
        /// The address.
        pub ip: Option<String>,
        /// Or its name.
        pub hostname: Option<String>,
        /// `VIP` (also when missing) or `Proxy`.
        pub ip_mode: Option<String>,
    }

    /// An EndpointSlice (`discovery.k8s.io/v1`).
    pub struct ApiEndpointSlice {
        /// `metadata`; the label `kubernetes.io/service-name` says whose it is.
        pub metadata: Metadata,
        /// `IPv4`, `IPv6` or `FQDN`.
        pub address_type: Option<String>,
        /// Endpoints.
        pub endpoints: Option<Vec<Endpoint>>,
        /// Ports that every endpoint has.
        pub ports: Option<Vec<EndpointPort>>,
    }

    /// An endpoint of a slice.
    pub struct Endpoint {
        /// Only the first counts.
        pub addresses: Option<Vec<String>>,
        /// What it can take.
        pub conditions: Option<Conditions>,
        /// Node it runs on.
        pub node_name: Option<String>,
        /// Zone of that node.
        pub zone: Option<String>,
        /// Who should use it.
        pub hints: Option<Hints>,
    }

    /// `conditions` of an endpoint.
    pub struct Conditions {
        /// Missing means true.
        pub ready: Option<bool>,
        /// Missing means true.
        pub serving: Option<bool>,
        /// Missing means false.
        pub terminating: Option<bool>,
    }

    /// `hints` of an endpoint.
    pub struct Hints {
        /// Zones whose nodes should use it.
        pub for_zones: Option<Vec<NamedHint>>,
        /// Nodes that should use it.
        pub for_nodes: Option<Vec<NamedHint>>,
    }

    /// A zone or node in `hints`.
    pub struct NamedHint {
        /// Its name.
        pub name: Option<String>,
    }

    /// A port of a slice.
    pub struct EndpointPort {
        /// What is spoken there, as `kubernetes.io/h2c`.
        pub app_protocol: Option<String>,
        /// Joins with the port of that name in the Service.
        pub name: Option<String>,
        /// `TCP` (also when missing), `UDP` or `SCTP`.
        pub protocol: Option<String>,
        /// Missing means "all ports", which no Service can use.
        pub port: Option<i64>,
    }

    /// A ServiceCIDR (`networking.k8s.io/v1`).
    pub struct ApiServiceCidr {
        /// `metadata`.
        pub metadata: Metadata,
        /// `spec`.
        pub spec: Option<ServiceCidrSpec>,
    }

    /// `spec` of a ServiceCIDR.
    pub struct ServiceCidrSpec {
        /// One range a family.
        pub cidrs: Option<Vec<String>>,
    }

    /// A Node (`v1`).
    pub struct ApiNode {
        /// `metadata`; the label `topology.kubernetes.io/zone` says where it is.
        pub metadata: Metadata,
        /// `spec`.
        pub spec: Option<NodeSpec>,
        /// `status`.
        pub status: Option<NodeStatus>,
    }

    /// `spec` of a Node.
    pub struct NodeSpec {
        /// The first of `pod_cidrs`.
        #[serde(rename = "podCIDR")]
        pub pod_cidr: Option<String>,
        /// The ranges of its pods, one of a family.
        #[serde(rename = "podCIDRs")]
        pub pod_cidrs: Option<Vec<String>>,
        /// What keeps pods away.
        pub taints: Option<Vec<Taint>>,
    }

    /// A taint of a Node.
    pub struct Taint {
        /// Its name.
        pub key: Option<String>,
    }

    /// `status` of a Node.
    pub struct NodeStatus {
        /// Its addresses.
        pub addresses: Option<Vec<NodeAddress>>,
    }

    /// An address of a Node.
    pub struct NodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname`, ...
        #[serde(rename = "type")]
        pub kind: Option<String>,
        /// The address or name.
        pub address: Option<String>,
    }
}

impl Metadata {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }
}
