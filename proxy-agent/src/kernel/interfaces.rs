//! Follows the interfaces, addresses and routes of this network namespace, and keeps the programs attached to them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use proxy_model::LocalAddress;
use tokio::sync::watch;

use super::attach::Programs;

/// What an interface is to weir.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Its other end is in a pod.
    Pod,
    /// It leads to other nodes or to the outside.
    Uplink,
    /// An uplink without Ethernet header.
    UplinkL3,
    /// None of weir's business.
    Ignored,
}

/// Which interfaces are what, where the rules guess wrong. Globs know `*` and `?`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// `--uplink`.
    pub uplinks: Vec<String>,
    /// `--pod-interface`.
    pub pods: Vec<String>,
}

/// An interface that programs are, or should be, attached to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Index in this namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What it is.
    pub class: Class,
    /// Why the programs are not attached; `None` if they are.
    pub problem: Option<String>,
}

/// What the watcher knows; sent whole on every change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Whether the first complete look is done.
    pub complete: bool,
    /// `Change::LocalAddresses`, sorted.
    pub addresses: Vec<LocalAddress>,
    /// The interfaces that are not [`Class::Ignored`], by index.
    pub interfaces: Vec<Interface>,
}

/// Handle of the watcher. Dropping it ends the watcher and detaches nothing.
pub struct Interfaces {
    node_addresses: watch::Sender<BTreeSet<IpAddr>>,
    snapshots: watch::Receiver<Snapshot>,
}

impl Interfaces {
    /// Starts the watcher as a task of the current tokio runtime.
    pub fn start(programs: Programs, rules: Rules) -> io::Result<Self> {
        let _ = (programs, rules);
        let (node_addresses, _) = watch::channel(BTreeSet::new());
        let (_, snapshots) = watch::channel(Snapshot::default());
        Ok(Self {
            node_addresses,
            snapshots,
        })
    }

    /// The Node's InternalIPs, when they are known or change: who has one is an uplink.
    pub fn set_node_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.node_addresses.send_replace(addresses);
    }

    /// What the watcher knows, and a way to wait for changes of it (`changed().await`).
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }
}
