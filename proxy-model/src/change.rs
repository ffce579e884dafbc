//! What goes into the model: news, options, and the rows that a former agent left; and the counts that come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_common::{
    Address, AffinityBackend, Backend, BackendState, Ip, LocalSources, Service, ServiceCidrs, ServiceKey,
    ServiceName, limits,
};

use crate::address::Family;
use crate::masquerade::Masquerade;
use crate::node_ports::{NodePortAddresses, Prefix};
use crate::object::{Kind, Object, ObjectName};
use crate::pod_ranges::PodRanges;

/// News from a source.
#[expect(
    clippy::large_enum_variant,
    reason = "a change is moved once, from the source to the model"
)]
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is new or different.
    Put(Object),
    /// An object is gone.
    Delete(Kind, ObjectName),
    /// The complete list of a kind: what is not in it is gone. Marks the kind as synced.
    Replace(Kind, Vec<Object>),
    /// The complete list of the addresses of the node's interfaces, without loopback and link-local ones.
    LocalAddresses(Vec<LocalAddress>),
    /// A complete walk over the flows. A retired address that none of them uses is deleted, if the walk can tell.
    FrontendsInUse {
        /// When the walk began: of an address that was retired later it tells nothing. The clock of [`crate::Model::plan`].
        began: Duration,
        /// Frontend addresses of live flows.
        frontends: BTreeSet<Ip>,
    },
}

/// An address of one of the node's interfaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LocalAddress {
    /// The address.
    pub ip: Ip,
    /// Index of the interface.
    pub interface: u32,
}

/// What the model must know of its node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the Node object; endpoints on it are local.
    pub node_name: String,
    /// Random number: where cursors start, so that nodes do not herd.
    pub seed: u64,
    /// Which of the node's addresses serve node ports.
    pub node_port_addresses: NodePortAddresses,
    /// Whether IPv4 node ports may be served at 127.0.0.1, if [`Self::node_port_addresses`] has it: kube-proxy's
    /// `iptables.localhostNodePorts`.
    pub localhost_node_ports: bool,
    /// Whether `spec.externalIPs` are served: kube-proxy's feature gate `AllowServiceExternalIPs` (KEP-5707).
    pub external_ips: bool,
    /// Which backends see this node and not their client.
    pub masquerade: Masquerade,
    /// Which addresses are pods'.
    pub pod_ranges: PodRanges,
    /// Whether the source lists no Node but the own one.
    pub only_own_node: bool,
    /// Addresses of API servers that were named: no external IP may be one.
    pub api_servers: BTreeSet<Ip>,
    /// Sizes of the maps.
    pub limits: Limits,
}

impl Options {
    /// With the real map sizes.
    pub fn new(node_name: impl Into<String>, seed: u64) -> Self {
        Self {
            node_name: node_name.into(),
            seed,
            node_port_addresses: NodePortAddresses::default(),
            localhost_node_ports: true,
            external_ips: true,
            masquerade: Masquerade::default(),
            pod_ranges: PodRanges::default(),
            only_own_node: false,
            api_servers: BTreeSet::new(),
            limits: Limits::default(),
        }
    }
}

/// Sizes of the maps, in rows. Tests make them small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `ADDRESSES`.
    pub addresses: usize,
    /// `SERVICES`.
    pub services: usize,
    /// `BACKENDS`.
    pub backends: usize,
    /// `BACKEND_STATE`.
    pub backend_states: usize,
    /// Service ids.
    pub service_ids: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: limits::ADDRESSES,
            services: limits::SERVICES,
            backends: limits::BACKENDS,
            backend_states: limits::BACKEND_STATE,
            service_ids: limits::SERVICE_IDS,
        }
    }
}

/// The rows that a former agent left in the pinned maps; all empty on a fresh node.
///
/// Array rows that were never written (all zero) may be left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adopted {
    /// `SERVICES`.
    pub services: Vec<(ServiceKey, Service)>,
    /// `BACKENDS`.
    pub backends: Vec<(u32, Backend)>,
    /// `BACKEND_STATE`, the retired ones too: their generation must go on.
    pub states: Vec<(u32, BackendState)>,
    /// `AFFINITY_BACKENDS`.
    pub affinity_backends: Vec<(u32, AffinityBackend)>,
    /// `SERVICE_NAMES`.
    pub names: Vec<(u32, ServiceName)>,
    /// `SOURCE_RANGES`: service id, range, generation.
    pub sources: Vec<(u32, Prefix, u32)>,
    /// `ADDRESSES`.
    pub addresses: Vec<(Ip, Address)>,
    /// First and last node port in `CONFIG`.
    pub node_ports: (u16, u16),
    /// The row of `SERVICE_CIDRS`.
    pub service_cidrs: ServiceCidrs,
    /// The row of `LOCAL_SOURCES`.
    pub local_sources: LocalSources,
}

impl Default for Adopted {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            backends: Vec::new(),
            states: Vec::new(),
            affinity_backends: Vec::new(),
            names: Vec::new(),
            sources: Vec::new(),
            addresses: Vec::new(),
            node_ports: NO_NODE_PORTS,
            service_cidrs: ServiceCidrs::default(),
            local_sources: LocalSources::default(),
        }
    }
}

/// The node port range of a node without node ports: nothing is between 1 and 0.
pub const NO_NODE_PORTS: (u16, u16) = (1, 0);

/// What a traffic policy is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TrafficFrom {
    /// `internalTrafficPolicy`.
    Cluster,
    /// `externalTrafficPolicy`.
    Outside,
}

/// What the model has brought about, for status lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Whether complete lists of all kinds have been seen.
    pub synced: bool,
    /// Services with at least one frontend in the kernel.
    pub services: usize,
    /// Frontends in the kernel.
    pub frontends: usize,
    /// Service ports whose traffic from there is dropped: by a policy `Local` that no endpoint here meets.
    pub without_local: BTreeMap<(TrafficFrom, Family), usize>,
    /// Backends in service in the kernel, one for each (service port, endpoint).
    pub backends: usize,
    /// Services whose rows are not yet what the objects say.
    pub pending: usize,
    /// Problems.
    pub problems: usize,
}
