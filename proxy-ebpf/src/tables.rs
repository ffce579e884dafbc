//! The maps and the kernel's knowledge as the datapath asks for them.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_and, atomic_or, atomic_xadd};
use core::mem::{self, offset_of};
use core::ptr;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_FIB_LOOKUP_SKIP_NEIGH, BPF_FIB_LOOKUP_SRC, BPF_NOEXIST, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_jiffies64, bpf_ktime_get_coarse_ns};
use proxy_common::{
    Address, Affinity, AffinityKey, Backend, BackendState, FilterBit, Flow, FlowKey, Fragment, FragmentKey,
    Hook, InterfaceUse, Ip, NodeConfig, PortBit, PortWord, Service, ServiceCidrs, ServiceKey, Socket,
    SocketKey, SourceKey, SourceRange, limits,
};
use proxy_datapath::flow::Change;
use proxy_datapath::select::Pick;
use proxy_datapath::tables::{Inserted, Route, RouteQuery, RouteResult, Tables};

use crate::words::{bytes, words};
use crate::{affinity, maps, source_ranges};

/// The maps, as one run of a program sees them.
pub(crate) struct Kernel {
    /// The program's context, for the helpers that want one.
    pub(crate) ctx: *mut c_void,
    /// Where flows come in by this program; `None` where none can.
    pub(crate) entry: Option<Entry>,
}

/// A bit for each port.
type Ports = Array<PortWord, { limits::PORT_WORDS }>;

/// The interface that flows come in by.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) interface: u32,
    pub(crate) uplink: bool,
}

impl Kernel {
    /// Notes that answers at this interface can belong to a flow; at any uplink, if this is one.
    #[inline(always)]
    fn note(&self, key: &FlowKey, now: u32) {
        let Some(entry) = self.entry else { return };
        if key.hook != Hook::Egress.code() {
            return;
        }
        // Zero is "never", also in a machine's first second.
        let now = now.max(1);
        if let Some(row) = maps::INTERFACE_FLOWS.get_ptr_mut(InterfaceUse::row(entry.interface)) {
            // SAFETY: a live array row; one aligned store.
            unsafe { ptr::write_volatile(&raw mut (*row).last_flow, now) };
        }
        if entry.uplink
            && let Some(row) = maps::INTERFACE_FLOWS.get_ptr_mut(InterfaceUse::UPLINKS)
        {
            // SAFETY: as above.
            unsafe { ptr::write_volatile(&raw mut (*row).last_flow, now) };
        }
    }
}

/// Whether an answer that leaves by an interface can belong to a flow.
#[inline(always)]
pub(crate) fn has_flows(interface: u32) -> bool {
    let used = |row| {
        maps::INTERFACE_FLOWS
            .get(row)
            .is_none_or(|row| row.last_flow != 0)
    };
    used(InterfaceUse::row(interface)) || used(InterfaceUse::UPLINKS)
}

/// Offset of the word that begins with a flow's state.
const STATE_WORD: usize = offset_of!(Flow, state);
const _: () = assert!(STATE_WORD % 4 == 0 && STATE_WORD + 4 == size_of::<Flow>());

pub(crate) const EEXIST: i32 = -17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_*` of `bpf_fib_lookup`.
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_FRAGMENTATION_NEEDED: i64 = 8;

/// Monotonic seconds, by a call.
#[inline(always)]
fn seconds() -> u32 {
    // SAFETY: takes no argument. Coarse (a tick late, Linux 5.11): a second is a long time.
    let nanoseconds = unsafe { bpf_ktime_get_coarse_ns() };
    (nanoseconds / 1_000_000_000) as u32
}

impl Tables for Kernel {
    #[inline(always)]
    fn config(&self) -> Option<NodeConfig> {
        maps::CONFIG.get(0).copied()
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: takes no argument. The verifier makes a load of it (Linux 5.6), where asking for the time is a call of
        // functions that call functions: so that is done once a tick, which is how often the coarse clock moves.
        let tick = unsafe { bpf_jiffies64() };
        let Some(clock) = maps::CLOCK.get_ptr_mut(0) else {
            return seconds();
        };
        // SAFETY: this CPU's row. The tick is written last: a program that interrupts this one in between asks itself.
        unsafe {
            if ptr::read_volatile(&raw const (*clock).tick) != tick {
                ptr::write_volatile(&raw mut (*clock).seconds, seconds());
                ptr::write_volatile(&raw mut (*clock).tick, tick);
            }
            ptr::read_volatile(&raw const (*clock).seconds)
        }
    }

    #[inline(always)]
    fn may_know(&self, address: &Ip) -> bool {
        let bit = FilterBit::of(address);
        maps::ADDRESS_FILTER
            .get(bit.word)
            .is_none_or(|word| word.bits & bit.mask != 0)
    }

    #[inline(always)]
    fn may_be_node(&self, address: &Ip) -> bool {
        let bit = FilterBit::of(address);
        maps::ADDRESS_FILTER
            .get(bit.word)
            .is_none_or(|word| word.nodes & bit.mask != 0)
    }

    #[inline(always)]
    fn address(&self, address: &Ip) -> Option<Address> {
        // SAFETY: copied at once; a row is replaced as a whole and freed after a grace period.
        unsafe { maps::ADDRESSES.get(address) }.copied()
    }

    #[inline(always)]
    fn service_cidrs(&self) -> Option<&ServiceCidrs> {
        maps::SERVICE_CIDRS.get(0)
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        // SAFETY: as for `address`.
        unsafe { maps::SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn source_range(&self, source: &SourceKey) -> Option<SourceRange> {
        source_ranges::find(source)
    }

    #[inline(always)]
    fn backend(&self, slot: u32, backend: &mut Backend) -> bool {
        let Some(row) = maps::BACKENDS.get_ptr(slot) else {
            return false;
        };
        // SAFETY: copied at once; a slot is written anew a grace period after the last service row referred to it.
        unsafe { ptr::copy_nonoverlapping(row, backend, 1) };
        true
    }

    #[inline(always)]
    fn backend_state(&self, id: u32) -> Option<BackendState> {
        maps::BACKEND_STATE.get(id).copied()
    }

    #[inline(always)]
    fn count_chosen(&self, id: u32) {
        if let Some(state) = maps::BACKEND_STATE.get_ptr_mut(id) {
            // SAFETY: the pointer is to a live array row, and an atomic add may race with anything.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*state).chosen, 1) };
        }
    }

    #[inline(always)]
    fn pick(&self, pick: &mut Pick) -> bool {
        affinity::pick(pick)
    }

    #[inline(always)]
    fn advance(&self, cursor: u32) -> Option<u64> {
        let cursor = maps::CURSORS.get_ptr_mut(cursor)?;
        // Not `Relaxed`: for that the compiler emits an add that fetches nothing, and hands out its operand instead of
        // the old value, so that every turn would be 1.
        // SAFETY: as in `count_chosen`.
        Some(unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*cursor).next, 1) })
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey, row: &mut Affinity) -> bool {
        affinity::read(key, row)
    }

    #[inline(always)]
    fn stick(&self, key: &AffinityKey, seen: Option<&Affinity>, row: &mut Affinity) -> bool {
        affinity::stick(key, seen, row)
    }

    #[inline(always)]
    fn affinity_backend(&self, id: u32, set: u32, backend: &mut Backend) -> bool {
        affinity::backend(id, set, backend)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey, flow: &mut Flow) -> bool {
        let Some(row) = maps::FLOWS.get_ptr(key) else {
            return false;
        };
        // SAFETY: copied at once; a row that is evicted meanwhile belongs to another flow for as long as this copy
        // takes at most, which every lock-free reader of an LRU map has to live with.
        unsafe { ptr::copy_nonoverlapping(row, flow, 1) };
        true
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted {
        match maps::FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                self.note(key, flow.last_seen);
                Inserted::Yes
            }
            Err(EEXIST) => Inserted::Exists,
            Err(_) => Inserted::Full,
        }
    }

    #[inline(always)]
    fn put_flow(&self, key: &FlowKey, flow: &Flow) -> bool {
        let written = maps::FLOWS.insert(key, flow, u64::from(BPF_ANY)).is_ok();
        if written {
            self.note(key, flow.last_seen);
        }
        written
    }

    #[inline(always)]
    fn touch_flow(&self, key: &FlowKey, last_seen: u32, change: Change) -> bool {
        let Some(row) = maps::FLOWS.get_ptr_mut(key) else {
            return false;
        };
        // SAFETY: as for `flow`; a single aligned store.
        unsafe { ptr::write_volatile(&raw mut (*row).last_seen, last_seen) };
        // The kernel has atomics of 4 and 8 bytes: the state's word, of which the three other bytes keep their value.
        // `Relaxed` gives the forms that fetch nothing, which is what is wanted here: see `advance`.
        // SAFETY: as in `count_chosen`; aligned, see `STATE_WORD`.
        unsafe {
            let word = row.byte_add(STATE_WORD).cast::<u32>();
            if change.set != 0 {
                let bits = u32::from_ne_bytes([change.set, 0, 0, 0]);
                atomic_or::<u32, u32, { AtomicOrdering::Relaxed }>(word, bits);
            }
            if change.clear != 0 {
                let bits = u32::from_ne_bytes([change.clear, 0, 0, 0]);
                atomic_and::<u32, u32, { AtomicOrdering::Relaxed }>(word, !bits);
            }
        }
        self.note(key, last_seen);
        true
    }

    #[inline(always)]
    fn remove_flow(&self, key: &FlowKey) {
        let _missing = maps::FLOWS.remove(key);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        // SAFETY: as for `flow`.
        unsafe { maps::FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, fragment: &Fragment) {
        let _full = maps::FRAGMENTS.insert(key, fragment, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn socket(&self, key: &SocketKey) -> Option<Socket> {
        // SAFETY: as for `flow`.
        unsafe { maps::SOCKETS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_socket(&self, key: &SocketKey, socket: &Socket) {
        let _full = maps::SOCKETS.insert(key, socket, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn was_given(&self, port: u16) -> bool {
        is_set(&maps::BACKEND_PORTS, port)
    }

    #[inline(always)]
    fn note_given(&self, port: u16) {
        set(&maps::BACKEND_PORTS, port);
    }

    #[inline(always)]
    fn is_shared(&self, port: u16) -> bool {
        is_set(&maps::SHARED_PORTS, port)
    }

    #[inline(always)]
    fn share(&self, port: u16) {
        set(&maps::SHARED_PORTS, port);
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery, route: &mut Route) -> RouteResult {
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
        let result = unsafe { bpf_fib_lookup(self.ctx, &raw mut fib, size_of::<FibLookup>() as i32, flags) };
        // SAFETY: the helper leaves numbers in every union, whichever member it used.
        unsafe { read_route(&fib, config, v4, route) };
        match result {
            FIB_SUCCESS | FIB_NO_NEIGHBOUR => RouteResult::Found,
            FIB_FRAGMENTATION_NEEDED => RouteResult::TooBig,
            _ => RouteResult::None,
        }
    }
}

/// Whether a port's bit is set.
#[inline(always)]
fn is_set(ports: &Ports, port: u16) -> bool {
    let bit = PortBit::of(port);
    ports.get(bit.word).is_some_and(|word| word.bits & bit.mask != 0)
}

/// Sets a port's bit. Almost always it is set already, and a word that nobody writes stays in every CPU's cache.
#[inline(always)]
fn set(ports: &Ports, port: u16) {
    let bit = PortBit::of(port);
    if !is_set(ports, port)
        && let Some(word) = ports.get_ptr_mut(bit.word)
    {
        // SAFETY: the pointer is to a live array row, and an atomic or may race with anything.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*word).bits, bit.mask) };
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
