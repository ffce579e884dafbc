//! `CONFIG`, `META` and `MONITOR`: the rows that are not about traffic.

use crate::net::Ip;

/// The one row of `CONFIG`: what the programs must know of the node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// Cookie of the host's network namespace: tells a host process from a pod at the socket hook.
    pub host_netns_cookie: u64,
    /// IPv4 source of SNAT where the kernel cannot name one (`fib_source` is 0).
    pub fallback_source_v4: Ip,
    /// IPv6 source of SNAT where the kernel cannot name one.
    pub fallback_source_v6: Ip,
    /// First source port that SNAT may use, host order.
    pub snat_first_port: u16,
    /// Number of source ports that SNAT may use.
    pub snat_ports: u16,
    /// Lowest node port in use, host order; above `node_port_last` if there is none.
    pub node_port_first: u16,
    /// Highest node port in use, host order.
    pub node_port_last: u16,
    /// 1 if `bpf_fib_lookup` can name the source address (`BPF_FIB_LOOKUP_SRC`, Linux 6.7).
    pub fib_source: u8,
    /// 1 if `bpf_l4_csum_replace` knows `BPF_F_IPV6` (Linux 6.16, commit ead7f9b8de65).
    pub checksum_ipv6_flag: u8,
    /// 1 if ports that a load balancer's address or an external IP does not have are rejected, not left to the host.
    pub reject_vip_ports: u8,
    /// 1 if a ClusterIP is served to who comes from outside of the cluster, too.
    pub external_cluster_ips: u8,
    /// Always zero.
    pub reserved: [u8; 4],
}

impl NodeConfig {
    /// The node's own address of a family, as far as the agent knows one.
    #[inline(always)]
    #[must_use]
    pub const fn fallback_source(&self, v4: bool) -> Ip {
        if v4 {
            self.fallback_source_v4
        } else {
            self.fallback_source_v6
        }
    }
}

/// The one row of `META`: what a later agent must know before it trusts the other maps.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// [`crate::ABI_VERSION`] of the agent that made the maps.
    pub abi: u32,
    /// Clock of all times in the rows: 1 is `CLOCK_MONOTONIC`, in seconds.
    pub clock: u32,
    /// `host_netns_cookie` of the node that the maps belong to.
    pub netns_cookie: u64,
}

/// The one row of `CLOCK`: what a CPU was last told about the time.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// The kernel's tick (`jiffies`) at which it was told.
    pub tick: u64,
    /// Monotonic seconds.
    pub seconds: u32,
    /// Always zero.
    pub reserved: u32,
}

/// The one row of `MONITOR`: events are written only while somebody listens.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MonitorLease {
    /// Monotonic seconds until which events are wanted; a listener renews it, so a killed one leaves no cost behind.
    pub until: u32,
    /// Always zero.
    pub reserved: u32,
}
