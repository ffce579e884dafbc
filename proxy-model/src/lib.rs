//! What the node should do: Kubernetes objects in, ordered steps out.
//!
//! Pure: no IO, no clock (`now` is an argument), no randomness but a seed. So everything about a Service's life can be
//! tested on any machine, and a plan is a value that can be looked at.
//!
//! # A Service's life
//!
//! ```text
//!  manifest or watch event
//!      │  api.rs        the JSON shapes, lenient
//!      ▼
//!  Object                object.rs   by kind and name; slips.rs what is none
//!      │  service.rs slice.rs node.rs      in our words; a mistake costs a port or an endpoint (address.rs, age.rs)
//!      ▼
//!  Objects               objects.rs  all of them, who is touched by a change, who wins a frontend (claims.rs)
//!      │  traffic.rs     which endpoints may be used: readiness, hints, policies
//!      ▼
//!  Desired               desired.rs  frontends and backends, no ids yet
//!      │  ports.rs       ids (ids.rs), slots (slabs.rs), both with a rest between two uses (leaving.rs); names (names.rs)
//!      ▼
//!  Steps                 reconcile.rs one Service against the mirror (layout.rs its slab); addresses.rs what follows for addresses
//!      │  staying.rs     which backends keep their flows although nobody is sent there any more
//!      │  affinity.rs    to which backends clients may stick
//!      │  plan.rs        the order: backends first, then the service row, then the address
//!      ▼
//!  the agent ──applied──▶ Mirror     mirror.rs   what the kernel holds
//!      └──────failed────▶ Retries    retry.rs    when to try again, and what to tell people
//! ```
//!
//! `health_checks.rs` is what follows for load balancers that ask, and touches no row.
//! `model.rs` is the whole as a state machine (`change.rs` is what goes in); `adopt.rs` is how it starts over the rows of a former agent.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod address;
pub mod addresses;
pub mod adopt;
pub mod affinity;
pub mod age;
pub mod api;
pub mod change;
pub mod claims;
mod counts;
pub mod desired;
pub mod external;
pub mod frontend;
pub mod health_checks;
pub mod ids;
pub mod layout;
pub mod leaving;
pub mod masquerade;
pub mod mirror;
pub mod model;
pub mod names;
pub mod node;
pub mod node_ports;
pub mod object;
pub mod objects;
pub mod plan;
mod planning;
pub mod pod_ranges;
pub mod ports;
mod problem;
pub mod published;
pub mod reconcile;
pub mod retry;
pub mod room;
pub mod service;
pub mod service_cidrs;
pub mod slabs;
pub mod slice;
mod slips;
pub mod source_ports;
pub mod staying;
pub mod traffic;

pub use address::{Family, parse as parse_address};
pub use change::{Adopted, Change, Limits, LocalAddress, NO_NODE_PORTS, Options, Summary, TrafficFrom};
pub use health_checks::{HealthChecks, LocalEndpoints};
pub use leaving::GRACE;
pub use masquerade::Masquerade;
pub use model::Model;
pub use node_ports::{NodePortAddresses, NodePortAddressesError, Prefix};
pub use object::{DecodeError, Kind, Object, ObjectName};
pub use plan::Step;
pub use pod_ranges::{PodRanges, PodRangesError};
pub use problem::{Problem, Reason};
pub use published::{IpOrHost, NotAnAddress};
pub use slips::remark;
