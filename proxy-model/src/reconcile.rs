//! One Service: from what it should be and what the kernel holds to the steps between.
//!
//! ```text
//!  admit ──▶ enough ids, slots and rows for all of it? ──no──▶ nothing changes, a problem, a retry
//!    │ yes
//!  settle ─▶ ids, backend ids, a slab for each service port        (in memory)
//!    │
//!  steps ──▶ prepare ▸ publish ▸ withdraw ▸ retire ▸ forget        (whatever the kernel does not hold yet)
//! ```
//!
//! Run again after the steps were applied it gives no steps, and takes back what the old rows held.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_common::{Algorithm, Backend, BackendRange, FrontendFlag, Service, ServiceKey, maps};

use crate::affinity;
use crate::desired::{Desired, DesiredPort, PortKey};
use crate::frontend::Frontend;
use crate::layout::{cursor_start, new_slab_length, overlap, ranges, row};
use crate::masquerade::Masquerade;
use crate::mirror::Mirror;
use crate::names;
use crate::node_ports::Prefix;
use crate::object::ObjectName;
use crate::objects::Objects;
use crate::plan::Step;
use crate::ports::{PortState, Ports, Slab};
use crate::room::{Room, Shortage};
use crate::staying;
use crate::traffic::{Place, Usable};

/// The steps of one Service, by stage.
#[derive(Debug, Default)]
pub struct Stages {
    /// Backend states, slots, names, cursors: nobody sees them yet.
    pub prepare: Vec<Step>,
    /// Service rows.
    pub publish: Vec<Step>,
    /// Service rows that go.
    pub withdraw: Vec<Step>,
    /// Backends that go.
    pub retire: Vec<Step>,
    /// Names that go.
    pub forget: Vec<Step>,
}

impl Stages {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self {
            prepare,
            publish,
            withdraw,
            retire,
            forget,
        } = self;
        [prepare, publish, withdraw, retire, forget]
            .into_iter()
            .all(Vec::is_empty)
    }
}

/// One look at one Service.
#[derive(Debug)]
pub struct Reconcile<'a> {
    /// What is given out.
    pub ports: &'a mut Ports,
    /// What the kernel holds.
    pub mirror: &'a Mirror,
    /// What the sources said.
    pub objects: &'a Objects,
    /// Whether room is needed: who has no frontend any more lets its backends go.
    pub crowded: bool,
    /// Where cursors start.
    pub seed: u64,
    /// Which backends see this node and not their client.
    pub masquerade: Masquerade,
    /// Now.
    pub now: Duration,
}

impl Reconcile<'_> {
    /// The steps from what the kernel holds to what is desired. `elsewhere` says which frontends another Service has won.
    pub fn service(
        &mut self,
        name: &ObjectName,
        desired: &Desired,
        room: &mut Room,
        elsewhere: impl Fn(&ServiceKey) -> bool,
    ) -> Result<Stages, Shortage> {
        for key in self.ports.keys(name) {
            staying::release_retired(self.ports, self.mirror, &key, self.now);
        }
        let slabs = self.admit(desired, room)?;
        let mut stages = Stages::default();
        for (port, slab) in desired.ports.iter().zip(slabs) {
            let state = self.settle(port, slab);
            self.prepare(port, &state, &mut stages.prepare);
            self.publish(port, &state, &mut stages.publish);
            self.ports.insert(port.key.clone(), state);
        }
        let wanted: BTreeMap<&PortKey, &DesiredPort> =
            desired.ports.iter().map(|port| (&port.key, port)).collect();
        for key in self.ports.keys(name) {
            self.clean_up(&key, wanted.get(&key).copied(), &elsewhere, &mut stages);
        }
        room.rows += stages.withdraw.len();
        Ok(stages)
    }

    /// Counts before anything is touched: all or nothing. Returns the new slab of each port that needs one.
    fn admit(&mut self, desired: &Desired, room: &mut Room) -> Result<Vec<Option<BackendRange>>, Shortage> {
        let states = || {
            desired
                .ports
                .iter()
                .map(|port| (port, self.ports.state(&port.key)))
        };
        let ids = states().filter(|(_, state)| state.is_none()).count();
        Shortage::check(maps::SERVICE_NAMES, ids, self.ports.ids.available())?;
        let is_new = |state: Option<&PortState>, backend: &Usable| {
            state.is_none_or(|state| !state.backends.contains_key(&backend.place))
        };
        let new_backends = |(port, state): (&DesiredPort, Option<&PortState>)| {
            port.backends
                .places
                .iter()
                .filter(|backend| is_new(state, backend))
                .count()
        };
        let backends = states().map(new_backends).sum();
        Shortage::check(maps::BACKEND_STATE, backends, self.ports.backend_ids.available())?;
        let keys = || {
            desired
                .ports
                .iter()
                .flat_map(|port| &port.frontends)
                .map(|frontend| frontend.key)
        };
        let rows = keys().filter(|key| self.mirror.service(key).is_none()).count();
        let rows_left = Shortage::check(maps::SERVICES, rows, room.rows)?;
        let addresses: BTreeSet<_> = keys()
            .filter(|key| key.address != proxy_common::Ip::UNSPECIFIED)
            .map(|key| key.address)
            .filter(|address| !self.mirror.addresses().contains_key(address))
            .collect();
        let addresses_left = Shortage::check(maps::ADDRESSES, addresses.len(), room.addresses)?;
        let lengths: Vec<Option<u32>> = states()
            .map(|(port, state)| new_slab_length(port, state))
            .collect();
        let slabs = self.take_slabs(&lengths)?;
        *room = Room {
            rows: rows_left,
            addresses: addresses_left,
        };
        Ok(slabs)
    }

    fn take_slabs(&mut self, lengths: &[Option<u32>]) -> Result<Vec<Option<BackendRange>>, Shortage> {
        let mut taken = Vec::with_capacity(lengths.len());
        for length in lengths {
            let slab = length.map(|length| self.ports.slabs.take(length));
            if slab == Some(None) {
                for range in taken.into_iter().flatten() {
                    self.ports.slabs.restore(range);
                }
                return Err(Shortage {
                    map: maps::BACKENDS,
                    needs: length.and_then(|length| length.try_into().ok()).unwrap_or(0),
                    fits: None,
                });
            }
            taken.push(slab.flatten());
        }
        Ok(taken)
    }

    /// Gives a service port its id, its backends their ids, and the rows their slots. Cannot fail after [`Self::admit`].
    fn settle(&mut self, port: &DesiredPort, slab: Option<BackendRange>) -> PortState {
        let mut state = self.ports.take(&port.key).unwrap_or_else(|| {
            let (id, generation) = self.ports.ids.take().unwrap_or_default();
            PortState {
                id,
                generation,
                unstarted: [true; 2],
                slab: None,
                old_slabs: Vec::new(),
                backends: BTreeMap::new(),
            }
        });
        for backend in &port.backends.places {
            if let Entry::Vacant(vacant) = state.backends.entry(backend.place) {
                let (id, _) = *vacant.insert(self.ports.backend_ids.take().unwrap_or_default());
                self.ports.own_backend(id, state.id);
            }
        }
        if let Some(range) = slab {
            let rows = port
                .backends
                .places
                .iter()
                .map(|backend| row(backend, state.id, &state.backends))
                .collect();
            let before = state.slab.replace(Slab {
                base: range.base,
                rows,
            });
            state.old_slabs.extend(before.map(|slab| slab.range()));
            self.ports.own_slab(range.base, state.id);
        } else if port.backends.places.is_empty() {
            state.old_slabs.extend(state.slab.take().map(|slab| slab.range()));
        }
        state
    }

    fn prepare(&self, port: &DesiredPort, state: &PortState, steps: &mut Vec<Step>) {
        for backend in &port.backends.places {
            if let Some((id, generation)) = state.backends.get(&backend.place).copied()
                && !self.mirror.serves(id, generation)
            {
                steps.push(Step::PutBackendState { id, generation });
            }
        }
        let slots = state.slab.iter().flat_map(|slab| (slab.base..).zip(&slab.rows));
        let live =
            |row: &Backend| state.backends.get(&(row.address, row.port)) == Some(&(row.id, row.generation));
        let missing = slots.filter(|(slot, row)| live(row) && self.mirror.backend(*slot) != Some(row));
        steps.extend(missing.map(|(slot, row)| Step::PutBackend { slot, backend: *row }));
        steps.extend(affinity::prepare(&affinity::rows(port, state), self.mirror));
        let name = names::row(&port.key, state.generation);
        if self.mirror.name(state.id) != Some(&name) {
            steps.push(Step::PutName { id: state.id, name });
        }
        let missing = |range: &&Prefix| {
            let row = (**range, state.generation);
            !self.mirror.sources_of(state.id).any(|known| known == row)
        };
        steps.extend(
            port.sources
                .iter()
                .filter(missing)
                .map(|range| Step::PutSourceRange {
                    id: state.id,
                    generation: state.generation,
                    range: *range,
                }),
        );
        for (class, _) in (0_u32..).zip(state.unstarted).filter(|(_, unstarted)| *unstarted) {
            let index = state.id * 2 + class;
            steps.push(Step::PutCursor {
                index,
                next: cursor_start(self.seed, index, state.generation),
            });
        }
    }

    fn publish(&self, port: &DesiredPort, state: &PortState, steps: &mut Vec<Step>) {
        let (cluster, local) = ranges(port, state);
        for frontend in &port.frontends {
            let service = Service {
                id: state.id,
                generation: state.generation,
                cluster,
                local,
                affinity_timeout: port.affinity_timeout,
                algorithm: Algorithm::RoundRobin.code(),
                kind: frontend.kind.code(),
                policy: frontend.policy.code(),
                flags: self.flags(frontend),
            };
            if self.mirror.service(&frontend.key) != Some(&service) {
                steps.push(Step::PutService {
                    key: frontend.key,
                    service,
                });
            }
        }
    }

    fn flags(&self, frontend: &Frontend) -> u8 {
        let guarded = frontend.guarded.then_some(FrontendFlag::Guarded);
        let masqueraded = self
            .masquerade
            .wants(frontend)
            .then_some(FrontendFlag::Masqueraded);
        let flags = guarded.into_iter().chain(masqueraded);
        flags.fold(0, |flags, flag| flags | flag.code())
    }

    /// Takes away what a service port no longer needs, and takes back what the kernel no longer uses.
    fn clean_up(
        &mut self,
        key: &PortKey,
        wanted: Option<&DesiredPort>,
        elsewhere: impl Fn(&ServiceKey) -> bool,
        stages: &mut Stages,
    ) {
        let Some(mut state) = self.ports.take(key) else {
            return;
        };
        let is_wanted = |key: &ServiceKey| {
            wanted.is_some_and(|port| port.frontends.iter().any(|frontend| frontend.key == *key))
        };
        // A frontend that another Service has won is overwritten by that one: until then it serves as it did.
        let (staying, going): (Vec<ServiceKey>, Vec<ServiceKey>) = self
            .mirror
            .rows_of(state.id)
            .map(|(key, _)| *key)
            .filter(|key| !is_wanted(key))
            .partition(|key| elsewhere(key));
        stages
            .withdraw
            .extend(going.iter().map(|key| Step::DeleteService { key: *key }));
        let kept: BTreeSet<Place> = match wanted {
            Some(port) => port.backends.places.iter().map(|backend| backend.place).collect(),
            None if self.crowded => BTreeSet::new(),
            None => staying::lingering((self.objects, self.mirror), key, &state),
        };
        if staying.is_empty() {
            let stuck_to = wanted
                .map(|port| affinity::rows(port, &state))
                .unwrap_or_default();
            let withdrawn = affinity::withdraw(&stuck_to, &state, self.mirror);
            stages.retire.extend(withdrawn);
            self.retire(&kept, &mut state, &mut stages.retire);
            let unwanted = |range: &Prefix| wanted.is_none_or(|port| !port.sources.contains(range));
            let known = self.mirror.sources_of(state.id).map(|(range, _)| range);
            let shut_out = known.filter(unwanted);
            stages
                .retire
                .extend(shut_out.map(|range| Step::DeleteSourceRange { id: state.id, range }));
        }
        let idle = wanted.is_none() && staying.is_empty() && kept.is_empty();
        self.free_slabs(idle, &mut state);
        if idle && self.mirror.name(state.id).is_some() {
            stages.forget.push(Step::DeleteName { id: state.id });
        }
        let gone = idle
            && going.is_empty()
            && state.backends.is_empty()
            && self.mirror.sources_of(state.id).next().is_none()
            && self.mirror.name(state.id).is_none();
        self.ports.insert(key.clone(), state);
        if gone {
            self.ports.remove(key, self.now);
        }
    }

    /// Backends that the Service no longer has: out of service first, then their ids are free.
    fn retire(&mut self, kept: &BTreeSet<Place>, state: &mut PortState, steps: &mut Vec<Step>) {
        let leaving: Vec<_> = state
            .backends
            .iter()
            .filter(|(place, _)| !kept.contains(*place))
            .collect();
        let (serving, out): (Vec<_>, Vec<_>) = leaving
            .into_iter()
            .map(|(place, id)| (*place, *id))
            .partition(|(_, (id, _))| self.mirror.is_serving(*id));
        steps.extend(serving.iter().map(|(_, (id, _))| Step::RetireBackend { id: *id }));
        // These were never written.
        for (place, (id, _)) in out {
            state.backends.remove(&place);
            self.ports.release_backend(id, self.now);
        }
    }

    /// Slabs that no row refers to any more.
    fn free_slabs(&mut self, all: bool, state: &mut PortState) {
        if all {
            state.old_slabs.extend(state.slab.take().map(|slab| slab.range()));
        }
        let used: Vec<BackendRange> = self
            .mirror
            .rows_of(state.id)
            .flat_map(|(_, row)| [row.cluster, row.local])
            .collect();
        let (keep, free) = state
            .old_slabs
            .drain(..)
            .partition(|slab| used.iter().any(|range| overlap(*slab, *range)));
        state.old_slabs = keep;
        let free: Vec<BackendRange> = free;
        for range in free {
            self.ports.release_slab(range, self.now);
        }
    }
}
