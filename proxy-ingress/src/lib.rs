//! The L7 ingress of weir: HTTP and HTTPS by host and path, straight to the pods.
//!
//! ```text
//!  Ingress, Service, EndpointSlice, Secret          (proxy-source: Kubernetes, or a folder of manifests)
//!      │  model/      pure: what they ask for, who wins, what is wrong
//!      ▼
//!  Snapshot           immutable; swapped as a whole, built anew only where something changed
//!      │  route/      pure: host, path, predicates ─▶ Route        (the same code answers `explain`)
//!      │              endpoints change inside of it (upstream/)
//!      ▼
//!  client ─▶ listen ─▶ proxied ─▶ tls ─▶ serve ─▶ request ─▶ route ─▶ forward ─▶ upstream ─▶ pod
//!                                  └─▶ tunnel ─▶ pod       what is passed through unopened
//! ```

#![forbid(unsafe_code)]

mod access;
pub mod admin;
mod body;
pub mod certificates;
pub mod cli;
pub mod client_auth;
mod clock;
pub mod config;
mod distinguished;
pub mod engine;
mod forward;
mod frames;
pub mod handover;
mod head;
mod headers;
mod listen;
mod local;
pub mod memory;
pub mod metrics;
mod mix;
pub mod model;
pub mod pages;
pub mod passthrough;
mod private_socket;
pub mod privilege;
pub mod probes;
pub mod proxied;
mod redirect;
pub mod refusal;
mod request;
mod rewrite;
pub mod route;
pub mod run;
mod seen;
mod serve;
pub mod served;
pub mod settings;
pub mod snapshot;
pub mod start;
pub mod status;
pub mod telemetry;
mod tend;
mod tls;
mod trace;
mod tunnel;
mod upgrade;
pub mod upstream;
mod wire;
mod worker;

pub use worker::Counters;
