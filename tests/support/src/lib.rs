//! A lab of network namespaces on one machine: nodes, pods, a host outside, traffic, and the `weir` process.
//!
//! Node tests, the demo and the benchmarks build their world with it. Everything lives in namespaces, cgroups and
//! mounts that the lab made; the namespace of the machine gets nothing. Dropping a [`Lab`] removes it all, and the
//! next lab with the same prefix removes what a killed run left behind.
//!
//! ```text
//!                 fabric (bridge, 172.30.0.1/24, fd00:172:30::1/64)
//!        ┌───────────────┬────────────────┐
//!   n1 172.30.0.11   n2 172.30.0.12   client 172.30.0.100      the same with fd00:172:30::
//!   │                │
//!   web-1 10.244.1.2 web-2 10.244.2.2                          a veth pair and an own namespace each
//! ```

pub mod clock;
mod forward;
mod host;
mod ip;
mod kernel_fs;
mod lab;
pub mod manifest;
mod netns;
mod node;
pub mod peer;
mod pod;
mod process;
mod root;
mod signals;
mod sweep;
mod traffic;
mod weir;

pub use forward::forward;
pub use host::Host;
pub use lab::Lab;
pub use manifest::Manifests;
pub use netns::Netns;
pub use node::{Node, NodeOptions, PodNetwork, ReversePath};
pub use pod::Pod;
pub use process::Process;
pub use root::{missing, require_root};
pub use signals::{Group, clean_up_on_signals, is_interrupted};
pub use sweep::sweep;
pub use traffic::{Client, peer_binary};
pub use weir::{Rights, Weir, program, weir_binary, workspace_root};
