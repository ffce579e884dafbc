//! The maps in user space, as they are read and never written.

use proxy_common::{
    Address, Affinity, AffinityKey, Backend, BackendState, Flow, FlowKey, Fragment, FragmentKey, Ip,
    LocalSources, NodeConfig, Service, ServiceCidrs, ServiceKey, Socket, SocketKey, SourceKey, SourceRange,
};
use proxy_datapath::Tables;
use proxy_datapath::flow::Change;
use proxy_datapath::tables::{Inserted, Room, Route, RouteQuery, RouteResult};

use crate::memory::Memory;

/// The same rows, but nothing is written: for asking "what if".
#[derive(Clone, Copy, Debug)]
pub struct Frozen<'a>(pub &'a Memory);

impl Tables for Frozen<'_> {
    fn config(&self) -> Option<NodeConfig> {
        self.0.config()
    }

    fn now(&self) -> u32 {
        self.0.now()
    }

    fn may_know(&self, address: &Ip) -> bool {
        self.0.may_know(address)
    }

    fn may_be_node(&self, address: &Ip) -> bool {
        self.0.may_be_node(address)
    }

    fn address(&self, address: &Ip) -> Option<Address> {
        self.0.address(address)
    }

    fn service_cidrs(&self) -> Option<&ServiceCidrs> {
        self.0.service_cidrs()
    }

    fn local_sources(&self) -> Option<&LocalSources> {
        self.0.local_sources()
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.0.service(key)
    }

    fn source_range(&self, source: &SourceKey) -> Option<SourceRange> {
        self.0.source_range(source)
    }

    fn backend(&self, slot: u32, backend: &mut Backend) -> bool {
        self.0.backend(slot, backend)
    }

    fn backend_state(&self, id: u32) -> Option<BackendState> {
        self.0.backend_state(id)
    }

    fn count_chosen(&self, _id: u32) {}

    fn advance(&self, _cursor: u32) -> Option<u64> {
        None
    }

    fn affinity(&self, key: &AffinityKey, row: &mut Affinity) -> bool {
        self.0.affinity(key, row)
    }

    fn stick(&self, _key: &AffinityKey, _seen: Option<&Affinity>, _row: &mut Affinity) -> bool {
        true
    }

    fn affinity_backend(&self, id: u32, set: u32, backend: &mut Backend) -> bool {
        self.0.affinity_backend(id, set, backend)
    }

    fn flow(&self, room: Room, key: &FlowKey, flow: &mut Flow) -> bool {
        let flows = self.0.room(room).borrow();
        let Some(row) = flows.get(key) else { return false };
        *flow = *row;
        true
    }

    fn insert_flow(&self, _room: Room, _key: &FlowKey, _flow: &Flow) -> Inserted {
        Inserted::Full
    }

    fn put_flow(&self, _room: Room, _key: &FlowKey, _flow: &Flow) -> bool {
        false
    }

    fn touch_flow(&self, room: Room, key: &FlowKey, _last_seen: u32, _change: Change) -> bool {
        self.0.room(room).borrow().contains_key(key)
    }

    fn remove_flow(&self, _room: Room, _key: &FlowKey) {}

    fn may_be_half_open(&self, port: u16) -> bool {
        self.0.may_be_half_open(port)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.0.fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, _key: &FragmentKey, _fragment: &Fragment) {}

    fn socket(&self, key: &SocketKey) -> Option<Socket> {
        self.0.socket(key)
    }

    fn put_socket(&self, _key: &SocketKey, _socket: &Socket) {}

    fn was_given(&self, port: u16) -> bool {
        self.0.was_given(port)
    }

    fn note_given(&self, _port: u16) {}

    fn is_shared(&self, port: u16) -> bool {
        self.0.is_shared(port)
    }

    fn share(&self, _port: u16) {}

    fn route(&self, query: &RouteQuery, route: &mut Route) -> RouteResult {
        self.0.route(query, route)
    }
}
