//! Two CPUs on one set of rows: another packet is worked off in the middle of one, at a chosen moment.

use std::cell::RefCell;

use anyhow::{Result, ensure};
use proxy_common::{
    Address, Affinity, AffinityKey, Backend, BackendState, Flow, FlowKey, Fragment, FragmentKey, Ip,
    LocalSources, NodeConfig, Service, ServiceCidrs, ServiceKey, Socket, SocketKey, SourceKey, SourceRange,
};
use proxy_datapath::flow::Change;
use proxy_datapath::tables::{Inserted, Room, Route, RouteQuery, RouteResult};
use proxy_datapath::{Scratch, Tables};

use crate::memory::Memory;
use crate::user::{self, Arrival, Outcome};

/// What a packet is about to do to `FLOWS`, `HALF_OPEN` or `AFFINITY`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// To write a row where none stands.
    Insert,
    /// To write over a row.
    Put,
    /// To refresh a row.
    Touch,
    /// To remove a row.
    Remove,
    /// To write a row of `AFFINITY`; the key is none of `FLOWS`.
    Stick,
}

/// What the other CPU does; true when its moment has come.
type Act<'a> = Box<dyn FnMut(&Memory, Moment, &FlowKey) -> bool + 'a>;

/// The rows of a [`Memory`], which another CPU changes in the middle of a packet, once.
pub struct Rival<'a> {
    memory: &'a Memory,
    act: RefCell<Option<Act<'a>>>,
}

impl<'a> Rival<'a> {
    /// Asks `act` before each change of a flow's row, until it says that it was done.
    pub fn new(memory: &'a Memory, act: impl FnMut(&Memory, Moment, &FlowKey) -> bool + 'a) -> Self {
        Self {
            memory,
            act: RefCell::new(Some(Box::new(act))),
        }
    }

    /// The other CPU's packet, just before this one's first change that `when` accepts.
    pub fn packet(
        memory: &'a Memory,
        when: impl Fn(Moment, &FlowKey) -> bool + 'a,
        packet: &'a Arrival,
    ) -> Self {
        Self::new(memory, move |memory, moment, key| {
            let due = when(moment, key);
            if due {
                user::run(memory, packet, &mut Scratch::default());
            }
            due
        })
    }

    /// Runs this CPU's packet.
    pub fn run(&self, packet: &Arrival) -> Result<Outcome> {
        let outcome = user::run(self, packet, &mut Scratch::default());
        ensure!(self.act.borrow().is_none(), "the rival's moment never came");
        Ok(outcome)
    }

    fn before(&self, moment: Moment, key: &FlowKey) {
        let Some(mut act) = self.act.take() else { return };
        if !act(self.memory, moment, key) {
            self.act.replace(Some(act));
        }
    }
}

impl Tables for Rival<'_> {
    fn config(&self) -> Option<NodeConfig> {
        self.memory.config()
    }

    fn now(&self) -> u32 {
        self.memory.now()
    }

    fn may_know(&self, address: &Ip) -> bool {
        self.memory.may_know(address)
    }

    fn may_be_node(&self, address: &Ip) -> bool {
        self.memory.may_be_node(address)
    }

    fn is_shared(&self, port: u16) -> bool {
        self.memory.is_shared(port)
    }

    fn share(&self, port: u16) {
        self.memory.share(port);
    }

    fn was_given(&self, port: u16) -> bool {
        self.memory.was_given(port)
    }

    fn note_given(&self, port: u16) {
        self.memory.note_given(port);
    }

    fn address(&self, address: &Ip) -> Option<Address> {
        self.memory.address(address)
    }

    fn service_cidrs(&self) -> Option<&ServiceCidrs> {
        self.memory.service_cidrs()
    }

    fn local_sources(&self) -> Option<&LocalSources> {
        self.memory.local_sources()
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.memory.service(key)
    }

    fn source_range(&self, source: &SourceKey) -> Option<SourceRange> {
        self.memory.source_range(source)
    }

    fn backend(&self, slot: u32, backend: &mut Backend) -> bool {
        self.memory.backend(slot, backend)
    }

    fn backend_state(&self, id: u32) -> Option<BackendState> {
        self.memory.backend_state(id)
    }

    fn count_chosen(&self, id: u32) {
        self.memory.count_chosen(id);
    }

    fn advance(&self, cursor: u32) -> Option<u64> {
        self.memory.advance(cursor)
    }

    fn affinity(&self, key: &AffinityKey, row: &mut Affinity) -> bool {
        self.memory.affinity(key, row)
    }

    fn stick(&self, key: &AffinityKey, seen: Option<&Affinity>, row: &mut Affinity) -> bool {
        self.before(Moment::Stick, &FlowKey::default());
        self.memory.stick(key, seen, row)
    }

    fn affinity_backend(&self, id: u32, set: u32, backend: &mut Backend) -> bool {
        self.memory.affinity_backend(id, set, backend)
    }

    fn flow(&self, room: Room, key: &FlowKey, flow: &mut Flow) -> bool {
        self.memory.flow(room, key, flow)
    }

    fn insert_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> Inserted {
        self.before(Moment::Insert, key);
        self.memory.insert_flow(room, key, flow)
    }

    fn put_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> bool {
        self.before(Moment::Put, key);
        self.memory.put_flow(room, key, flow)
    }

    fn touch_flow(&self, room: Room, key: &FlowKey, last_seen: u32, change: Change) -> bool {
        self.before(Moment::Touch, key);
        self.memory.touch_flow(room, key, last_seen, change)
    }

    fn remove_flow(&self, room: Room, key: &FlowKey) {
        self.before(Moment::Remove, key);
        self.memory.remove_flow(room, key);
    }

    fn may_be_half_open(&self, port: u16) -> bool {
        self.memory.may_be_half_open(port)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.memory.fragment(key)
    }

    fn put_fragment(&self, key: &FragmentKey, fragment: &Fragment) {
        self.memory.put_fragment(key, fragment);
    }

    fn socket(&self, key: &SocketKey) -> Option<Socket> {
        self.memory.socket(key)
    }

    fn put_socket(&self, key: &SocketKey, socket: &Socket) {
        self.memory.put_socket(key, socket);
    }

    fn route(&self, query: &RouteQuery, route: &mut Route) -> RouteResult {
        self.memory.route(query, route)
    }
}
