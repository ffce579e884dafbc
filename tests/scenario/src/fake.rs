//! The maps as ordinary collections, with failures on demand, and with the promises that must hold after every step.

use std::collections::BTreeMap;

use proxy_common::{
    Address, AffinityBackend, Backend, BackendRange, BackendState, Ip, LocalSources, Service, ServiceCidrs,
    ServiceKey, ServiceName,
};
use proxy_model::{Adopted, Limits, NO_NODE_PORTS, Prefix, Step};

use crate::Kernel;

/// Maps without a kernel.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    limits: Limits,
    services: BTreeMap<ServiceKey, Service>,
    backends: BTreeMap<u32, Backend>,
    states: BTreeMap<u32, BackendState>,
    affinity_backends: BTreeMap<u32, AffinityBackend>,
    names: BTreeMap<u32, ServiceName>,
    cursors: BTreeMap<u32, u64>,
    sources: BTreeMap<(u32, Prefix), u32>,
    addresses: BTreeMap<Ip, Address>,
    node_ports: (u16, u16),
    service_cidrs: ServiceCidrs,
    local_sources: LocalSources,
    /// Positions of the steps that fail, counted from the first that was ever tried.
    pub failing: Vec<usize>,
    /// Of every so many steps about one fails; 0 for none.
    pub one_in: u64,
    /// Steps tried so far.
    pub tried: usize,
    /// Broken promises about rows.
    pub broken: Vec<String>,
    /// Steps that must never be asked for.
    pub forbidden: Vec<String>,
}

impl FakeKernel {
    /// Empty maps.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            states: BTreeMap::new(),
            affinity_backends: BTreeMap::new(),
            names: BTreeMap::new(),
            cursors: BTreeMap::new(),
            sources: BTreeMap::new(),
            addresses: BTreeMap::new(),
            node_ports: NO_NODE_PORTS,
            service_cidrs: ServiceCidrs::default(),
            local_sources: LocalSources::default(),
            failing: Vec::new(),
            one_in: 0,
            tried: 0,
            broken: Vec::new(),
            forbidden: Vec::new(),
        }
    }

    /// A cursor, if it was ever started.
    pub fn cursor(&self, index: u32) -> Option<u64> {
        self.cursors.get(&index).copied()
    }

    fn carry_out(&mut self, step: &Step) -> Result<(), String> {
        let full = |map: &str| Err(format!("{map}: no room"));
        match step {
            Step::PutBackendState { id, .. } if at(*id) >= self.limits.backend_states => {
                return full("BACKEND_STATE");
            }
            Step::PutBackend { slot, .. } if at(*slot) >= self.limits.backends => {
                return full("BACKENDS");
            }
            Step::PutName { id, .. } if at(*id) >= self.limits.service_ids => {
                return full("SERVICE_NAMES");
            }
            Step::PutCursor { index, .. } if at(*index) >= self.limits.service_ids * 2 => {
                return full("CURSORS");
            }
            Step::PutService { key, .. }
                if self.services.len() >= self.limits.services && !self.services.contains_key(key) =>
            {
                return full("SERVICES");
            }
            Step::PutAddress { address, .. }
                if self.addresses.len() >= self.limits.addresses && !self.addresses.contains_key(address) =>
            {
                return full("ADDRESSES");
            }
            _ => {}
        }
        self.store(step);
        Ok(())
    }

    /// Carries a step out, without checks and failures.
    pub fn store(&mut self, step: &Step) {
        match step {
            Step::PutBackendState { id, generation } => {
                let state = BackendState {
                    chosen: 0,
                    generation: *generation,
                    serving: 1,
                };
                self.states.insert(*id, state);
            }
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
            Step::PutCursor { index, next } => {
                self.cursors.insert(*index, *next);
            }
            Step::PutService { key, service } => {
                self.services.insert(*key, *service);
            }
            Step::PutSourceRange {
                id,
                generation,
                range,
            } => {
                self.sources.insert((*id, *range), *generation);
            }
            Step::DeleteSourceRange { id, range } => {
                self.sources.remove(&(*id, *range));
            }
            Step::PutAddress { address, row } => {
                self.addresses.insert(*address, *row);
            }
            Step::PutNodePorts { first, last } => self.node_ports = (*first, *last),
            Step::PutServiceCidrs { row } => self.service_cidrs = *row,
            Step::PutLocalSources { row } => self.local_sources = *row,
            Step::DeleteService { key } => {
                self.services.remove(key);
            }
            Step::RetireBackend { id } => {
                if let Some(state) = self.states.get_mut(id) {
                    state.serving = 0;
                }
            }
            Step::DeleteAddress { address } => {
                self.addresses.remove(address);
            }
            Step::DeleteName { id } => {
                self.names.remove(id);
            }
        }
    }

    /// What a packet may look at now must not change under it: not a slot, not the cursor of a published id.
    fn check_step(&self, step: &Step) -> Result<(), String> {
        let published = |test: &dyn Fn(&Service) -> bool| self.services.values().any(test);
        match step {
            Step::PutBackend { slot, .. } => {
                let has =
                    |range: BackendRange| (range.base..range.base.saturating_add(range.count)).contains(slot);
                if published(&|row| has(row.cluster) || has(row.local)) {
                    return Err("a published row refers to this slot".to_owned());
                }
            }
            Step::PutCursor { index, .. } if published(&|row| row.id == index / 2) => {
                return Err("the cursor is in use".to_owned());
            }
            Step::PutBackendState { id, generation } => {
                let before = self.states.get(id).copied().unwrap_or_default();
                if before.serving != 0 || before.generation >= *generation {
                    return Err(format!("the id is in use, or has no new generation: {before:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// No row may ever refer to a slot without a live backend, to another service's backend, or to an id without a name.
    pub fn check(&self) -> Result<(), String> {
        let mut owners: BTreeMap<u32, (u32, Ip, u16)> = BTreeMap::new();
        for (key, row) in &self.services {
            let wrong = |what: String| Err(format!("row {key:?} {row:?}: {what}"));
            match self.names.get(&row.id) {
                Some(name) if name.generation == row.generation => {}
                other => return wrong(format!("its name is {other:?}")),
            }
            for range in [row.cluster, row.local] {
                for slot in range.base..range.base.saturating_add(range.count) {
                    let Some(backend) = self.backends.get(&slot) else {
                        return wrong(format!("slot {slot} was never written"));
                    };
                    let state = self.states.get(&backend.id).copied().unwrap_or_default();
                    if (state.generation, state.serving) != (backend.generation, 1) {
                        return wrong(format!("slot {slot} has {backend:?}, whose state is {state:?}"));
                    }
                    self.check_affinity(row, slot, backend).or_else(wrong)?;
                    let owner = (row.id, backend.address, backend.port);
                    if *owners.entry(backend.id).or_insert(owner) != owner {
                        return wrong(format!("slot {slot} has {backend:?}, which is another's"));
                    }
                }
            }
        }
        for (id, row) in &self.affinity_backends {
            let state = self.states.get(id).copied().unwrap_or_default();
            if (row.backend.id, row.backend.generation, 1) != (*id, state.generation, state.serving) {
                return Err(format!("clients may stick to {row:?}, whose state is {state:?}"));
            }
        }
        Ok(())
    }

    /// Whoever is sent to a backend must find it again there.
    fn check_affinity(&self, row: &Service, slot: u32, backend: &Backend) -> Result<(), String> {
        if row.affinity_timeout == 0 {
            return Ok(());
        }
        let Some(there) = self.affinity_backends.get(&backend.id) else {
            return Err(format!("no client can stick to slot {slot}"));
        };
        let has = |range: BackendRange| (range.base..range.base.saturating_add(range.count)).contains(&slot);
        let in_sets =
            (there.in_cluster == 1 || !has(row.cluster)) && (there.in_local == 1 || !has(row.local));
        if there.backend == *backend && in_sets {
            Ok(())
        } else {
            Err(format!("clients of slot {slot} find {there:?}, not {backend:?}"))
        }
    }
}

impl Kernel for FakeKernel {
    fn apply(&mut self, step: &Step) -> Result<(), String> {
        self.tried += 1;
        let dice = u64::try_from(self.tried)
            .unwrap_or(0)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 33;
        let unlucky = self.one_in > 0 && dice.is_multiple_of(self.one_in);
        if unlucky || self.failing.contains(&(self.tried - 1)) {
            return Err("the kernel said no".to_owned());
        }
        if let Err(what) = self.check_step(step) {
            self.forbidden.push(format!("{step:?}: {what}"));
        }
        self.carry_out(step)?;
        if let Err(what) = self.check() {
            self.broken.push(format!("after {step:?}: {what}"));
        }
        Ok(())
    }

    fn rows(&mut self) -> Result<Adopted, String> {
        Ok(Adopted {
            services: self.services.iter().map(|(key, row)| (*key, *row)).collect(),
            backends: self.backends.iter().map(|(slot, row)| (*slot, *row)).collect(),
            states: self.states.iter().map(|(id, row)| (*id, *row)).collect(),
            affinity_backends: self
                .affinity_backends
                .iter()
                .map(|(id, row)| (*id, *row))
                .collect(),
            names: self.names.iter().map(|(id, row)| (*id, *row)).collect(),
            sources: self
                .sources
                .iter()
                .map(|((id, range), generation)| (*id, *range, *generation))
                .collect(),
            addresses: self
                .addresses
                .iter()
                .map(|(address, row)| (*address, *row))
                .collect(),
            node_ports: self.node_ports,
            service_cidrs: self.service_cidrs,
            local_sources: self.local_sources,
        })
    }
}

fn at(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
