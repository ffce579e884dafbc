//! A node: an uplink into the fabric, forwarding, a bpffs and a cgroup of its own, and pods.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, ensure};

use crate::Host;
use crate::kernel_fs::mount_bpffs;
use crate::lab::{FABRIC, World, lock};
use crate::pod::Pod;

/// How the pods of a node are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PodNetwork {
    /// A veth pair each and a route to the pod, as the CNI plug-in `ptp` does.
    #[default]
    PointToPoint,
    /// Ports of a bridge `cni0` that has the gateway's address, as the CNI plug-in `bridge` does.
    Bridge,
}

/// `rp_filter` of the node's interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReversePath {
    /// Anything is accepted.
    Off,
    /// The answer must leave where the packet came in: the strictest, therefore what a lab has unless told.
    #[default]
    Strict,
    /// The source must be routable.
    Loose,
}

/// What a node is like.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Number of the node, from 1: it has 172.30.0.(10+number), and its pods 10.244.(number).0/24. `None`: the next.
    pub number: Option<u8>,
    /// How its pods are connected.
    pub pods: PodNetwork,
    /// Reverse path filter.
    pub reverse_path: ReversePath,
    /// MTU of the uplink, and of the pods' interfaces.
    pub mtu: u32,
    /// The switch that the uplink goes to.
    pub switch: String,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            number: None,
            pods: PodNetwork::default(),
            reverse_path: ReversePath::default(),
            mtu: 1500,
            switch: FABRIC.to_owned(),
        }
    }
}

/// A node. Cheap to clone; everything that a [`Host`] can do works on it directly.
#[derive(Clone, Debug)]
pub struct Node {
    host: Host,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Weak<World>,
    number: u8,
    options: NodeOptions,
    bpffs: PathBuf,
}

impl Node {
    pub(crate) fn create(world: &Arc<World>, name: &str, options: NodeOptions) -> Result<Self> {
        // Nodes are made one after the other, because each one gets routes to all before it.
        let mut nodes = lock(&world.nodes);
        let next = u8::try_from(nodes.len() + 1).context("too many nodes")?;
        let number = options.number.unwrap_or(next);
        ensure!(
            (1..=80).contains(&number) && nodes.iter().all(|node| node.inner.number != number),
            "node number {number} is taken or out of 1..=80"
        );
        let v4 = Ipv4Addr::new(172, 30, 0, 10 + number);
        let v6 = Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, digits(10 + number)?);
        let host = world.host(name, name, v4, v6)?;
        host.sysctls(&settings(options.reverse_path))?;
        world.plug(&host, &options.switch)?;
        host.set_mtu("eth0", options.mtu)?;
        let bpffs = world.while_alive(|dir| {
            let bpffs = dir.join(name).join("bpf");
            mount_bpffs(&bpffs)?;
            Ok(bpffs)
        })?;
        let node = Self {
            host,
            inner: Arc::new(Inner {
                world: Arc::downgrade(world),
                number,
                options,
                bpffs,
            }),
        };
        if node.inner.options.pods == PodNetwork::Bridge {
            node.add_bridge()?;
        }
        for other in nodes.iter() {
            node.add_route_to(other)?;
            other.add_route_to(&node)?;
        }
        nodes.push(node.clone());
        Ok(node)
    }

    /// A pod with these addresses, which should be of this node's pod networks: 10.244.N.0/24 and `fd00:10:244:N::/64`.
    pub fn pod(&self, name: &str, v4: &str, v6: &str) -> Result<Pod> {
        let v4 = v4
            .parse()
            .with_context(|| format!("{v4:?} is not an IPv4 address"))?;
        let v6 = v6
            .parse()
            .with_context(|| format!("{v6:?} is not an IPv6 address"))?;
        Pod::create(self, name, v4, v6)
    }

    /// The node's own bpffs, for `--bpffs`.
    pub fn bpffs(&self) -> &Path {
        &self.inner.bpffs
    }

    /// The number of the node: 2 for the node with 172.30.0.12.
    pub fn number(&self) -> u8 {
        self.inner.number
    }

    /// The node as a plain machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The gateway of the node's pods.
    pub fn gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        let number = self.inner.number;
        let group = digits(number).unwrap_or(u16::from(number));
        (
            Ipv4Addr::new(10, 244, number, 1),
            Ipv6Addr::new(0xfd00, 0x10, 0x244, group, 0, 0, 0, 1),
        )
    }

    pub(crate) fn world(&self) -> Result<Arc<World>> {
        self.inner.world.upgrade().context("the lab is already removed")
    }

    pub(crate) fn options(&self) -> &NodeOptions {
        &self.inner.options
    }

    fn add_bridge(&self) -> Result<()> {
        let (v4, v6) = self.gateway();
        self.ip(&format!(
            "link add cni0 type bridge mcast_snooping 0\n\
             address add {v4}/24 dev cni0\n\
             address add {v6}/64 dev cni0 nodad\n\
             link set cni0 mtu {} up\n",
            self.inner.options.mtu
        ))
    }

    fn add_route_to(&self, other: &Self) -> Result<()> {
        let number = other.inner.number;
        self.ip(&format!(
            "route add 10.244.{number}.0/24 via {}\nroute add fd00:10:244:{number}::/64 via {} dev eth0\n",
            other.v4(),
            other.v6()
        ))
    }
}

impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

fn settings(reverse_path: ReversePath) -> [(&'static str, &'static str); 6] {
    let rp_filter = match reverse_path {
        ReversePath::Off => "0",
        ReversePath::Strict => "1",
        ReversePath::Loose => "2",
    };
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv6.conf.default.forwarding", "1"),
        // The kernel takes the higher one of `all` and the interface's, and new interfaces copy `default`.
        ("net.ipv4.conf.all.rp_filter", rp_filter),
        ("net.ipv4.conf.default.rp_filter", rp_filter),
        ("net.ipv4.conf.lo.rp_filter", rp_filter),
    ]
}

/// A group of an IPv6 address that shows the same digits as the decimal number.
fn digits(number: u8) -> Result<u16> {
    u16::from_str_radix(&number.to_string(), 16).context("not a group of digits")
}
