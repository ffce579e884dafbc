//! What the kernel's maps hold, as far as the model knows: it changes when a step has been applied, not before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_common::{
    Address, AffinityBackend, Backend, Ip, LocalSources, Scope, Service, ServiceCidrs, ServiceKey,
    ServiceName,
};

use crate::change::Adopted;
use crate::node_ports::Prefix;
use crate::plan::Step;

/// The maps.
#[derive(Debug, Default)]
pub struct Mirror {
    services: BTreeMap<ServiceKey, Service>,
    /// The frontends of each service id.
    keys: HashMap<u32, BTreeSet<ServiceKey>>,
    backends: HashMap<u32, Backend>,
    /// Generation and whether it serves.
    states: HashMap<u32, (u32, bool)>,
    serving: usize,
    affinity_backends: HashMap<u32, AffinityBackend>,
    names: HashMap<u32, ServiceName>,
    /// Source ranges of each service id, with the generation that they are of.
    sources: HashMap<u32, BTreeMap<Prefix, u32>>,
    addresses: BTreeMap<Ip, Address>,
    retired: BTreeSet<Ip>,
    node_ports: (u16, u16),
    service_cidrs: ServiceCidrs,
    local_sources: LocalSources,
    /// How many frontends each node port has.
    node_port_rows: BTreeMap<u16, usize>,
}

impl Mirror {
    /// The maps as a former agent left them.
    pub fn new(adopted: &Adopted) -> Self {
        let mut mirror = Self {
            node_ports: adopted.node_ports,
            service_cidrs: adopted.service_cidrs,
            local_sources: adopted.local_sources,
            ..Self::default()
        };
        for (key, service) in &adopted.services {
            mirror.put_service(*key, *service);
        }
        mirror.backends.extend(adopted.backends.iter().copied());
        for (id, state) in &adopted.states {
            mirror.put_state(*id, state.generation, state.serving != 0);
        }
        mirror
            .affinity_backends
            .extend(adopted.affinity_backends.iter().copied());
        mirror.names.extend(adopted.names.iter().copied());
        for (id, range, generation) in &adopted.sources {
            mirror.sources.entry(*id).or_default().insert(*range, *generation);
        }
        for (address, row) in &adopted.addresses {
            mirror.put_address(*address, *row);
        }
        mirror
    }

    /// Rows of `SERVICES`.
    pub fn services(&self) -> &BTreeMap<ServiceKey, Service> {
        &self.services
    }

    /// A row of `SERVICES`.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// The frontends of a service id, with their rows.
    pub fn rows_of(&self, id: u32) -> impl Iterator<Item = (&ServiceKey, &Service)> {
        let keys = self.keys.get(&id).into_iter().flatten();
        keys.filter_map(|key| self.services.get_key_value(key))
    }

    /// The frontends at an address.
    pub fn rows_at(&self, address: Ip) -> impl Iterator<Item = (&ServiceKey, &Service)> {
        let range = self.services.range(ServiceKey::all_at(address));
        range.filter(|(key, _)| key.scope == Scope::Address.code())
    }

    /// A row of `BACKENDS`.
    pub fn backend(&self, slot: u32) -> Option<&Backend> {
        self.backends.get(&slot)
    }

    /// All rows of `BACKENDS`, in no order.
    pub fn backends(&self) -> impl Iterator<Item = (u32, &Backend)> {
        self.backends.iter().map(|(slot, row)| (*slot, row))
    }

    /// Whether this generation of a backend id serves.
    pub fn serves(&self, id: u32, generation: u32) -> bool {
        self.states.get(&id) == Some(&(generation, true))
    }

    /// Whether this generation of a backend id has served and does not any more.
    pub fn has_retired(&self, id: u32, generation: u32) -> bool {
        self.states.get(&id) == Some(&(generation, false))
    }

    /// Whether any generation of a backend id serves.
    pub fn is_serving(&self, id: u32) -> bool {
        self.states.get(&id).is_some_and(|(_, serving)| *serving)
    }

    /// How many backends serve.
    pub fn serving(&self) -> usize {
        self.serving
    }

    /// A row of `AFFINITY_BACKENDS`.
    pub fn affinity_backend(&self, id: u32) -> Option<&AffinityBackend> {
        self.affinity_backends.get(&id)
    }

    /// A row of `SERVICE_NAMES`.
    pub fn name(&self, id: u32) -> Option<&ServiceName> {
        self.names.get(&id)
    }

    /// Rows of `SOURCE_RANGES` of a service id, with their generation.
    pub fn sources_of(&self, id: u32) -> impl Iterator<Item = (Prefix, u32)> {
        let ranges = self.sources.get(&id).into_iter().flatten();
        ranges.map(|(range, generation)| (*range, *generation))
    }

    /// Service ids with rows in `SOURCE_RANGES`.
    pub fn guarded_ids(&self) -> impl Iterator<Item = u32> {
        self.sources.keys().copied()
    }

    /// Rows of `ADDRESSES`.
    pub fn addresses(&self) -> &BTreeMap<Ip, Address> {
        &self.addresses
    }

    /// Addresses that only live flows use.
    pub fn retired(&self) -> &BTreeSet<Ip> {
        &self.retired
    }

    /// First and last node port of `CONFIG`.
    pub fn node_ports(&self) -> (u16, u16) {
        self.node_ports
    }

    /// The row of `SERVICE_CIDRS`.
    pub fn service_cidrs(&self) -> ServiceCidrs {
        self.service_cidrs
    }

    /// The row of `LOCAL_SOURCES`.
    pub fn local_sources(&self) -> LocalSources {
        self.local_sources
    }

    /// Node ports and how many frontends each has.
    pub fn node_port_rows(&self) -> &BTreeMap<u16, usize> {
        &self.node_port_rows
    }

    /// The kernel has done this step.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::PutBackendState { id, generation } => self.put_state(*id, *generation, true),
            Step::PutBackend { slot, backend } => {
                self.backends.insert(*slot, *backend);
            }
            Step::PutAffinityBackend { row } => {
                self.affinity_backends.insert(row.backend.id, *row);
            }
            Step::DeleteAffinityBackend { id } => {
                self.affinity_backends.remove(id);
            }
            Step::PutName { id, name } => {
                self.names.insert(*id, *name);
            }
            Step::PutCursor { .. } => {}
            Step::PutService { key, service } => self.put_service(*key, *service),
            Step::PutSourceRange {
                id,
                generation,
                range,
            } => {
                self.sources.entry(*id).or_default().insert(*range, *generation);
            }
            Step::DeleteSourceRange { id, range } => self.delete_source(*id, range),
            Step::PutAddress { address, row } => self.put_address(*address, *row),
            Step::PutNodePorts { first, last } => self.node_ports = (*first, *last),
            Step::PutServiceCidrs { row } => self.service_cidrs = *row,
            Step::PutLocalSources { row } => self.local_sources = *row,
            Step::DeleteService { key } => self.delete_service(key),
            Step::RetireBackend { id } => {
                if let Some((generation, _)) = self.states.get(id).copied() {
                    self.put_state(*id, generation, false);
                }
            }
            Step::DeleteAddress { address } => {
                self.addresses.remove(address);
                self.retired.remove(address);
            }
            Step::DeleteName { id } => {
                self.names.remove(id);
            }
        }
    }

    fn delete_source(&mut self, id: u32, range: &Prefix) {
        if let Some(ranges) = self.sources.get_mut(&id) {
            ranges.remove(range);
            if ranges.is_empty() {
                self.sources.remove(&id);
            }
        }
    }

    fn put_state(&mut self, id: u32, generation: u32, serving: bool) {
        let before = self.states.insert(id, (generation, serving));
        self.serving -= usize::from(before.is_some_and(|(_, serving)| serving));
        self.serving += usize::from(serving);
    }

    fn put_service(&mut self, key: ServiceKey, service: Service) {
        self.delete_service(&key);
        self.services.insert(key, service);
        self.keys.entry(service.id).or_default().insert(key);
        if key.scope != Scope::Address.code() {
            *self.node_port_rows.entry(key.port).or_insert(0) += 1;
        }
    }

    fn delete_service(&mut self, key: &ServiceKey) {
        let Some(before) = self.services.remove(key) else {
            return;
        };
        if let Some(keys) = self.keys.get_mut(&before.id) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&before.id);
            }
        }
        if key.scope != Scope::Address.code()
            && let Some(rows) = self.node_port_rows.get_mut(&key.port)
        {
            *rows -= 1;
            if *rows == 0 {
                self.node_port_rows.remove(&key.port);
            }
        }
    }

    fn put_address(&mut self, address: Ip, row: Address) {
        self.addresses.insert(address, row);
        if row.is_retired() {
            self.retired.insert(address);
        } else {
            self.retired.remove(&address);
        }
    }
}
