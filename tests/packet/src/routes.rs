//! A routing table in user space, with the answers that `bpf_fib_lookup` gives for the same one in the kernel.

use proxy_common::Ip;
use proxy_datapath::tables::{Route, RouteQuery, RouteResult};

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Network; the bits beyond `length` are zero.
    pub network: Ip,
    /// Bits of the network, counted in 128 for both families.
    pub length: u8,
    /// What the route says; `None` is an unreachable route.
    pub way: Option<Way>,
}

/// A way out.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Interface to leave by.
    pub interface: u32,
    /// Router, if the destination is not on the link itself.
    pub router: Option<Ip>,
    /// Preferred source.
    pub source: Ip,
    /// The link's MTU.
    pub mtu: u32,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    entries: Vec<Entry>,
}

impl Routes {
    /// A table; the order does not matter.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// Asks for the longest match, as the datapath does.
    pub fn ask(&self, query: &RouteQuery, route: &mut Route) -> RouteResult {
        // To these the kernel does not forward, whatever its table says (`rt6_need_strict`).
        if never_forwarded(&query.destination) {
            return RouteResult::None;
        }
        let best = self
            .entries
            .iter()
            .filter(|entry| contains(entry, &query.destination))
            .max_by_key(|entry| entry.length);
        let Some(way) = best.and_then(|entry| entry.way) else {
            return RouteResult::None;
        };
        if query.length != 0 && u32::from(query.length) > way.mtu {
            // The kernel answers before it has filled in anything else.
            route.mtu = way.mtu;
            return RouteResult::TooBig;
        }
        route.interface = way.interface;
        route.next_hop = way.router.unwrap_or(query.destination);
        route.source = way.source;
        RouteResult::Found
    }
}

fn contains(entry: &Entry, address: &Ip) -> bool {
    if entry.network.is_v4() != address.is_v4() {
        return false;
    }
    let network = u128::from_be_bytes(entry.network.bytes);
    let address = u128::from_be_bytes(address.bytes);
    let mask = u128::MAX.checked_shl(128 - u32::from(entry.length)).unwrap_or(0);
    network & mask == address & mask
}

/// Multicast, link-local and loopback addresses of IPv6.
fn never_forwarded(address: &Ip) -> bool {
    let [a, b, ..] = address.bytes;
    a == 0xff || (a == 0xfe && b & 0xc0 == 0x80) || u128::from_be_bytes(address.bytes) == 1
}
