//! The routing table: where a packet would leave this node.

use core::ffi::c_void;
use core::mem;

use aya_ebpf::bindings::{BPF_FIB_LOOKUP_SKIP_NEIGH, BPF_FIB_LOOKUP_SRC, bpf_fib_lookup as FibLookup};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use proxy_common::{Ip, NodeConfig};
use proxy_datapath::tables::{Route, RouteQuery, RouteResult};

use crate::maps;
use crate::words::{bytes, words};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_*` of `bpf_fib_lookup`.
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_FRAGMENTATION_NEEDED: i64 = 8;

/// Asks it, for the program whose context this is.
#[inline(always)]
pub(crate) fn route(ctx: *mut c_void, query: &RouteQuery, route: &mut Route) -> RouteResult {
    let Some(config) = maps::CONFIG.get(0) else {
        return RouteResult::None;
    };
    // SAFETY: integers and unions of integers only: zero is a value of each.
    let mut fib: FibLookup = unsafe { mem::zeroed() };
    let v4 = query.destination.is_v4();
    fib.family = if v4 { AF_INET } else { AF_INET6 };
    fib.ifindex = query.interface;
    fib.__bindgen_anon_1.tot_len = query.length;
    if v4 {
        fib.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(query.destination.v4_bytes());
    } else {
        fib.__bindgen_anon_4.ipv6_dst = words(&query.destination);
    }
    let flags = if config.fib_source != 0 {
        BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_SRC
    } else {
        0
    };
    // SAFETY: the context is the program's own, the struct is on the stack and as large as is said.
    let result = unsafe { bpf_fib_lookup(ctx, &raw mut fib, size_of::<FibLookup>() as i32, flags) };
    // SAFETY: the helper leaves numbers in every union, whichever member it used.
    unsafe { read_route(&fib, config, v4, route) };
    match result {
        FIB_SUCCESS | FIB_NO_NEIGHBOUR => RouteResult::Found,
        FIB_FRAGMENTATION_NEEDED => RouteResult::TooBig,
        _ => RouteResult::None,
    }
}

/// What the routing table answered. The next hop of an IPv4 destination may be an IPv6 router (RFC 5549).
///
/// # Safety
/// `fib` must have been filled in by `bpf_fib_lookup`.
#[inline(always)]
unsafe fn read_route(fib: &FibLookup, config: &NodeConfig, v4: bool, route: &mut Route) {
    route.interface = fib.ifindex;
    // SAFETY: plain numbers, see above.
    unsafe {
        route.mtu = u32::from(fib.__bindgen_anon_1.mtu_result);
        route.next_hop = if fib.family == AF_INET {
            Ip::v4(fib.__bindgen_anon_4.ipv4_dst.to_ne_bytes())
        } else {
            bytes(fib.__bindgen_anon_4.ipv6_dst)
        };
        route.source = match (v4, config.fib_source != 0) {
            (true, true) => Ip::v4(fib.__bindgen_anon_3.ipv4_src.to_ne_bytes()),
            (false, true) => bytes(fib.__bindgen_anon_3.ipv6_src),
            (_, false) => config.fallback_source(v4),
        };
    }
}
