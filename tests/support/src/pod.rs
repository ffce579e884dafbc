//! A pod: an own namespace, one interface, and the node as its gateway.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use anyhow::Result;

use crate::Host;
use crate::lab::hash;
use crate::node::{Node, PodNetwork};

/// A pod. Cheap to clone; everything that a [`Host`] can do works on it directly.
#[derive(Clone, Debug)]
pub struct Pod {
    host: Host,
    node: Node,
    interface: String,
}

impl Pod {
    pub(crate) fn create(node: &Node, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Self> {
        // Like a kubelet: the pod's cgroup is below the node's, so that programs on the node's see it.
        let cgroup = format!("{}/{name}", node.name());
        let host = node.world()?.host(name, &cgroup, v4, v6)?;
        let pod = Self {
            // As CNI plug-ins name it: `veth` and a hash.
            interface: format!("veth{:08x}", hash(name)),
            node: node.clone(),
            host,
        };
        match node.options().pods {
            PodNetwork::PointToPoint => pod.connect_point_to_point()?,
            PodNetwork::Bridge => pod.connect_to_bridge()?,
        }
        Ok(pod)
    }

    /// The node that the pod runs on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node's end of the pod's veth pair.
    pub fn host_interface(&self) -> &str {
        &self.interface
    }

    /// The pod as a plain machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Removes the pod's interface, as a CNI plug-in does when the pod is deleted. Its processes stay.
    pub fn unplug(&self) -> Result<()> {
        self.node.ip(&format!("link delete {}\n", self.interface))
    }

    fn connect_point_to_point(&self) -> Result<()> {
        let (gateway4, gateway6) = self.node.gateway();
        let (v4, v6) = (self.v4(), self.v6());
        let veth = &self.interface;
        self.add_veth()?;
        self.node.ip(&format!(
            "address add {gateway4}/32 dev {veth}\n\
             address add {gateway6}/128 dev {veth} nodad\n\
             link set {veth} up\n\
             route add {v4}/32 dev {veth}\n\
             route add {v6}/128 dev {veth}\n"
        ))?;
        self.ip(&format!(
            "address add {v4}/32 dev eth0\n\
             address add {v6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {gateway4} dev eth0 scope link\n\
             route add {gateway6} dev eth0\n\
             route add default via {gateway4} dev eth0\n\
             route add default via {gateway6} dev eth0\n"
        ))
    }

    fn connect_to_bridge(&self) -> Result<()> {
        let (gateway4, gateway6) = self.node.gateway();
        let veth = &self.interface;
        self.add_veth()?;
        self.node
            .ip(&format!("link set {veth} master cni0\nlink set {veth} up\n"))?;
        self.ip(&format!(
            "address add {}/24 dev eth0\n\
             address add {}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via {gateway4} dev eth0\n\
             route add default via {gateway6} dev eth0\n",
            self.v4(),
            self.v6()
        ))
    }

    fn add_veth(&self) -> Result<()> {
        let mtu = self.node.options().mtu;
        self.node.ip(&format!(
            "link add {} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\n",
            self.interface,
            self.netns().name()
        ))
    }
}

impl Deref for Pod {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}
