//! The maps and the kernel's knowledge as the datapath asks for them.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_and, atomic_or, atomic_xadd};
use core::mem::offset_of;
use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use proxy_common::{
    Address, Affinity, AffinityKey, Backend, BackendState, Direction, FilterBit, Flow, FlowKey, Fragment,
    FragmentKey, InterfaceUse, Ip, LocalSources, Nat, NodeConfig, Reason, Service, ServiceCidrs, ServiceKey,
    Socket, SocketKey, SourceKey, SourceRange,
};
use proxy_datapath::Scratch;
use proxy_datapath::begin::Situation;
use proxy_datapath::flow::Change;
use proxy_datapath::select::Pick;
use proxy_datapath::snat::{Claim, Reach};
use proxy_datapath::tables::{Inserted, Room, Route, RouteQuery, RouteResult, Tables};

use crate::ports::{is_set, set};
use crate::{affinity, cold, fib, maps, source_ranges};

/// The maps, as one run of a program sees them.
pub(crate) struct Kernel {
    /// The program's context, for the helpers that want one.
    pub(crate) ctx: *mut c_void,
    /// Where flows come in by this program; `None` where none can.
    pub(crate) entry: Option<Entry>,
}

/// The interface that flows come in by.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) interface: u32,
    pub(crate) uplink: bool,
}

impl Kernel {
    /// For a function of its own, which has no context: it can ask for no route.
    pub(crate) const NOWHERE: Self = Self {
        ctx: ptr::null_mut(),
        entry: None,
    };

    /// Notes that answers to this flow can leave at this interface; at any uplink, if this is one.
    #[inline(always)]
    fn note(&self, nat: u8, now: u32) {
        let Some(entry) = self.entry else { return };
        // Answers to an address of this node are met when they come in.
        if nat == Nat::Source.code() {
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
    fn local_sources(&self) -> Option<&LocalSources> {
        maps::LOCAL_SOURCES.get(0)
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
    fn flow(&self, room: Room, key: &FlowKey, flow: &mut Flow) -> bool {
        let row = match room {
            Room::Established => maps::FLOWS.get_ptr(key),
            Room::HalfOpen => maps::HALF_OPEN.get_ptr(key),
        };
        let Some(row) = row else {
            return false;
        };
        // SAFETY: copied at once; a row that is evicted meanwhile belongs to another flow for as long as this copy
        // takes at most, which every lock-free reader of an LRU map has to live with.
        unsafe { ptr::copy_nonoverlapping(row, flow, 1) };
        true
    }

    #[inline(always)]
    fn insert_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> Inserted {
        match write(room, key, flow, BPF_NOEXIST) {
            Ok(()) => Inserted::Yes,
            Err(EEXIST) => Inserted::Exists,
            Err(_) => Inserted::Full,
        }
    }

    #[inline(always)]
    fn put_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> bool {
        write(room, key, flow, BPF_ANY).is_ok()
    }

    #[inline(always)]
    fn touch_flow(&self, room: Room, key: &FlowKey, last_seen: u32, change: Change) -> bool {
        let row = match room {
            Room::Established => maps::FLOWS.get_ptr_mut(key),
            Room::HalfOpen => maps::HALF_OPEN.get_ptr_mut(key),
        };
        let Some(row) = row else {
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
        true
    }

    #[inline(always)]
    fn remove_flow(&self, room: Room, key: &FlowKey) {
        let _missing = match room {
            Room::Established => maps::FLOWS.remove(key),
            Room::HalfOpen => maps::HALF_OPEN.remove(key),
        };
    }

    #[inline(always)]
    fn keep(&self, from_backend: bool, now: u32, s: &mut Scratch) -> Result<(), Reason> {
        self.note(s.flow.nat, now);
        cold::keep(from_backend, now, s)
    }

    #[inline(always)]
    fn choose(&self, at: &Situation, s: &mut Scratch) -> Result<(), Reason> {
        cold::choose(at, s)
    }

    #[inline(always)]
    fn write_rows(&self, _config: &NodeConfig, now: u32, s: &mut Scratch) -> Result<Reason, Reason> {
        self.note(s.flow.nat, now);
        cold::write_rows(now, s)
    }

    #[inline(always)]
    fn claim(&self, now: u32, reach: Reach, s: &mut Scratch) -> Claim {
        cold::claim(now, reach, s)
    }

    #[inline(always)]
    fn find_half_open(&self, s: &mut Scratch) -> bool {
        cold::find_half_open(s)
    }

    #[inline(always)]
    fn sctp_flags(&self, chunk: u8, tag: [u8; 4]) -> u8 {
        cold::sctp_flags(chunk, tag)
    }

    #[inline(always)]
    fn abort_sctp(&self, is_known: bool, s: &mut Scratch) -> bool {
        cold::abort_sctp(is_known, s)
    }

    #[inline(always)]
    fn may_be_half_open(&self, port: u16) -> bool {
        is_set(&maps::HALF_OPEN_PORTS, port)
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
        fib::route(self.ctx, query, route)
    }
}

/// Writes a flow's row.
#[inline(always)]
fn write(room: Room, key: &FlowKey, flow: &Flow, flags: u32) -> Result<(), i32> {
    match room {
        Room::Established => maps::FLOWS.insert(key, flow, u64::from(flags)),
        Room::HalfOpen => {
            if flow.direction == Direction::FromBackend.code() {
                set(&maps::HALF_OPEN_PORTS, key.source_port);
            }
            maps::HALF_OPEN.insert(key, flow, u64::from(flags))
        }
    }
}
