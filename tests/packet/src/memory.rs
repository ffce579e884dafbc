//! The maps in user space: hash maps behind `proxy_datapath::Tables`, with a clock that a test sets.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use proxy_common::{
    Address, Affinity, AffinityBackend, AffinityKey, Backend, BackendState, Direction, FilterBit, Flow,
    FlowKey, Fragment, FragmentKey, Ip, LocalSources, NodeConfig, Service, ServiceCidrs, ServiceKey, Socket,
    SocketKey, SourceKey, SourceRange, limits,
};
use proxy_datapath::Tables;
use proxy_datapath::flow::Change;
use proxy_datapath::tables::{Inserted, Room, Route, RouteQuery, RouteResult};

use crate::routes::Routes;

/// Maps, clock and routes.
///
/// Arrays answer like the kernel's: a row that nobody wrote is there, and zero.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// `CONFIG`.
    pub config: NodeConfig,
    /// Monotonic seconds.
    pub now: Cell<u32>,
    /// `ADDRESSES`.
    pub addresses: HashMap<Ip, Address>,
    /// `SERVICE_CIDRS`.
    pub service_cidrs: ServiceCidrs,
    /// `LOCAL_SOURCES`.
    pub local_sources: LocalSources,
    /// `SERVICES`.
    pub services: HashMap<ServiceKey, Service>,
    /// `SOURCE_RANGES`, each with the bits of its key that count.
    pub sources: Vec<(u32, SourceKey, SourceRange)>,
    /// `BACKENDS`.
    pub backends: HashMap<u32, Backend>,
    /// `BACKEND_STATE`.
    pub states: RefCell<HashMap<u32, BackendState>>,
    /// `AFFINITY`.
    pub affinity: RefCell<HashMap<AffinityKey, Affinity>>,
    /// `AFFINITY_BACKENDS`.
    pub affinity_backends: HashMap<u32, AffinityBackend>,
    /// `CURSORS`, the turns only.
    pub cursors: RefCell<HashMap<u32, u64>>,
    /// `FLOWS`.
    pub flows: RefCell<HashMap<FlowKey, Flow>>,
    /// `HALF_OPEN`.
    pub half_open: RefCell<HashMap<FlowKey, Flow>>,
    /// `HALF_OPEN_PORTS`.
    pub half_open_ports: RefCell<HashSet<u16>>,
    /// Rows that `FLOWS` takes, and `HALF_OPEN` as many; `None` is no limit. Unlike the kernel's LRU map, a full one refuses.
    pub flow_limit: Option<usize>,
    /// `FRAGMENTS`.
    pub fragments: RefCell<HashMap<FragmentKey, Fragment>>,
    /// `SOCKETS`.
    pub sockets: RefCell<HashMap<SocketKey, Socket>>,
    /// `BACKEND_PORTS`.
    pub given: RefCell<HashSet<u16>>,
    /// `SHARED_PORTS`.
    pub shared: RefCell<HashSet<u16>>,
    /// The routing table.
    pub routes: Routes,
    /// What the last packet looked at or wrote.
    pub touched: RefCell<Touched>,
}

/// The rows that a packet concerned, and how many turns it took.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Keys of `FLOWS`.
    pub flows: Vec<FlowKey>,
    /// Rows of `FLOWS` that were refreshed, as they were before.
    pub refreshed: Vec<Flow>,
    /// Rows of `FLOWS` that were removed or written over.
    pub lost: Vec<Flow>,
    /// Keys of `FRAGMENTS`.
    pub fragments: Vec<FragmentKey>,
    /// Keys of `AFFINITY`, with the rows as they were when they were looked at.
    pub affinity: Vec<(AffinityKey, Option<Affinity>)>,
    /// Keys of `CURSORS`, one entry a turn.
    pub cursors: Vec<u32>,
    /// Keys of `BACKEND_STATE` that were counted up, one entry each time.
    pub chosen: Vec<u32>,
}

impl Memory {
    /// What happened since the last call.
    pub fn take_touched(&self) -> Touched {
        self.touched.take()
    }

    /// A flow's row, in whichever table.
    pub fn row(&self, key: &FlowKey) -> Option<Flow> {
        let find = |room| self.room(room).borrow().get(key).copied();
        find(Room::Established).or_else(|| find(Room::HalfOpen))
    }

    /// Every flow's row, with its table.
    pub fn rows(&self) -> Vec<(Room, FlowKey, Flow)> {
        let mut rows = Vec::new();
        for room in [Room::Established, Room::HalfOpen] {
            rows.extend(
                self.room(room)
                    .borrow()
                    .iter()
                    .map(|(key, row)| (room, *key, *row)),
            );
        }
        rows
    }

    /// A table of flows.
    pub const fn room(&self, room: Room) -> &RefCell<HashMap<FlowKey, Flow>> {
        match room {
            Room::Established => &self.flows,
            Room::HalfOpen => &self.half_open,
        }
    }

    fn note_port(&self, room: Room, key: &FlowKey, flow: &Flow) {
        if room == Room::HalfOpen && flow.direction == Direction::FromBackend.code() {
            self.half_open_ports.borrow_mut().insert(key.source_port);
        }
    }

    fn has_room(&self, flows: &HashMap<FlowKey, Flow>) -> bool {
        self.flow_limit.is_none_or(|limit| flows.len() < limit)
    }
}

fn within(index: u32, limit: usize) -> bool {
    usize::try_from(index).is_ok_and(|index| index < limit)
}

impl Tables for Memory {
    fn config(&self) -> Option<NodeConfig> {
        Some(self.config)
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn may_know(&self, address: &Ip) -> bool {
        let bit = FilterBit::of(address);
        self.addresses.keys().any(|known| FilterBit::of(known) == bit)
    }

    fn may_be_node(&self, address: &Ip) -> bool {
        let bit = FilterBit::of(address);
        let mut nodes = self.addresses.iter().filter(|(_, row)| row.is_node());
        nodes.any(|(known, _)| FilterBit::of(known) == bit)
    }

    fn address(&self, address: &Ip) -> Option<Address> {
        self.addresses.get(address).copied()
    }

    fn service_cidrs(&self) -> Option<&ServiceCidrs> {
        Some(&self.service_cidrs)
    }

    fn local_sources(&self) -> Option<&LocalSources> {
        Some(&self.local_sources)
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }

    fn source_range(&self, source: &SourceKey) -> Option<SourceRange> {
        let matches = |(bits, key, _): &&(u32, SourceKey, SourceRange)| {
            let number = |ip: Ip| u128::from_be_bytes(ip.bytes);
            let differ = number(key.address) ^ number(source.address);
            key.service == source.service && differ.leading_zeros() + 32 >= *bits
        };
        let longest = self.sources.iter().filter(matches).max_by_key(|(bits, ..)| *bits);
        longest.map(|(.., row)| *row)
    }

    fn backend(&self, slot: u32, backend: &mut Backend) -> bool {
        *backend = self.backends.get(&slot).copied().unwrap_or_default();
        within(slot, limits::BACKENDS)
    }

    fn backend_state(&self, id: u32) -> Option<BackendState> {
        within(id, limits::BACKEND_STATE).then(|| self.states.borrow().get(&id).copied().unwrap_or_default())
    }

    fn count_chosen(&self, id: u32) {
        if within(id, limits::BACKEND_STATE) {
            self.states.borrow_mut().entry(id).or_default().chosen += 1;
            self.touched.borrow_mut().chosen.push(id);
        }
    }

    fn advance(&self, cursor: u32) -> Option<u64> {
        if !within(cursor, limits::CURSORS) {
            return None;
        }
        self.touched.borrow_mut().cursors.push(cursor);
        let mut cursors = self.cursors.borrow_mut();
        let next = cursors.entry(cursor).or_default();
        let turn = *next;
        *next = next.wrapping_add(1);
        Some(turn)
    }

    fn affinity(&self, key: &AffinityKey, row: &mut Affinity) -> bool {
        let there = self.affinity.borrow().get(key).copied();
        self.touched.borrow_mut().affinity.push((*key, there));
        *row = there.unwrap_or(*row);
        there.is_some()
    }

    fn stick(&self, key: &AffinityKey, seen: Option<&Affinity>, row: &mut Affinity) -> bool {
        let word = |row: &Affinity| (row.backend_id, row.last_seen);
        let mut rows = self.affinity.borrow_mut();
        let theirs = rows.get(key).filter(|there| seen.map(word) != Some(word(there)));
        if let Some(there) = theirs {
            *row = *there;
            return false;
        }
        rows.insert(*key, *row);
        true
    }

    fn affinity_backend(&self, id: u32, set: u32, backend: &mut Backend) -> bool {
        let row = self.affinity_backends.get(&id).copied().unwrap_or_default();
        *backend = row.backend;
        (if set == 0 { row.in_cluster } else { row.in_local }) != 0
    }

    fn flow(&self, room: Room, key: &FlowKey, flow: &mut Flow) -> bool {
        self.touched.borrow_mut().flows.push(*key);
        let flows = self.room(room).borrow();
        let Some(row) = flows.get(key) else { return false };
        *flow = *row;
        true
    }

    fn insert_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> Inserted {
        self.touched.borrow_mut().flows.push(*key);
        let mut flows = self.room(room).borrow_mut();
        self.note_port(room, key, flow);
        if flows.contains_key(key) {
            Inserted::Exists
        } else if self.has_room(&flows) {
            flows.insert(*key, *flow);
            Inserted::Yes
        } else {
            Inserted::Full
        }
    }

    fn put_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> bool {
        self.touched.borrow_mut().flows.push(*key);
        let mut flows = self.room(room).borrow_mut();
        self.note_port(room, key, flow);
        let fits = flows.contains_key(key) || self.has_room(&flows);
        if fits {
            self.touched.borrow_mut().lost.extend(flows.insert(*key, *flow));
        }
        fits
    }

    fn touch_flow(&self, room: Room, key: &FlowKey, last_seen: u32, change: Change) -> bool {
        self.touched.borrow_mut().flows.push(*key);
        let mut flows = self.room(room).borrow_mut();
        let Some(row) = flows.get_mut(key) else {
            return false;
        };
        self.touched.borrow_mut().refreshed.push(*row);
        row.last_seen = last_seen;
        row.state = change.of(row.state);
        true
    }

    fn remove_flow(&self, room: Room, key: &FlowKey) {
        self.touched.borrow_mut().flows.push(*key);
        let lost = self.room(room).borrow_mut().remove(key);
        self.touched.borrow_mut().lost.extend(lost);
    }

    fn may_be_half_open(&self, port: u16) -> bool {
        self.half_open_ports.borrow().contains(&port)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.touched.borrow_mut().fragments.push(*key);
        self.fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, key: &FragmentKey, fragment: &Fragment) {
        self.touched.borrow_mut().fragments.push(*key);
        self.fragments.borrow_mut().insert(*key, *fragment);
    }

    fn socket(&self, key: &SocketKey) -> Option<Socket> {
        self.sockets.borrow().get(key).copied()
    }

    fn put_socket(&self, key: &SocketKey, socket: &Socket) {
        self.sockets.borrow_mut().insert(*key, *socket);
    }

    fn was_given(&self, port: u16) -> bool {
        self.given.borrow().contains(&port)
    }

    fn note_given(&self, port: u16) {
        self.given.borrow_mut().insert(port);
    }

    fn is_shared(&self, port: u16) -> bool {
        self.shared.borrow().contains(&port)
    }

    fn share(&self, port: u16) {
        self.shared.borrow_mut().insert(port);
    }

    fn route(&self, query: &RouteQuery, route: &mut Route) -> RouteResult {
        self.routes.ask(query, route)
    }
}
