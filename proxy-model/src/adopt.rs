//! After a restart: which of the rows that a former agent left are to be believed.
//!
//! Ids come back by name, backend ids and slabs by the rows that refer to them. A row is believed if everything that it
//! says agrees with the other maps: its id has a name of the same generation, its slots lie inside the map, belong to
//! no other service port, and hold live backends. What is not believed is deleted and written anew
//! (calico#13279: an id taken on trust sent one Service's clients to another).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_common::{Backend, BackendRange, FrontendKind, Scope, Service, ServiceKey};

use crate::address::Family;
use crate::change::{Adopted, Limits};
use crate::mirror::Mirror;
use crate::names;
use crate::node_ports::Prefix;
use crate::ports::{PortState, Ports, Slab};
use crate::traffic::Place;

/// Rows that nobody can vouch for: they go before anything else is written.
#[derive(Debug, Default)]
pub struct Distrusted {
    /// In `SERVICES`.
    pub rows: BTreeSet<ServiceKey>,
    /// In `SERVICE_NAMES`.
    pub names: BTreeSet<u32>,
    /// In `SOURCE_RANGES`, of ids that nobody has.
    pub sources: BTreeSet<(u32, Prefix)>,
    /// In `AFFINITY_BACKENDS`.
    pub affinity_backends: BTreeSet<u32>,
    /// Free slots that those rows refer to: kept free until a while after the rows are gone.
    pub slots: Vec<BackendRange>,
    /// Backends that serve and belong to no service port.
    pub backends: BTreeSet<u32>,
}

/// Takes over what can be believed.
pub fn adopt(adopted: &Adopted, mirror: &Mirror, limits: &Limits, ports: &mut Ports) -> Distrusted {
    let mut adoption = Adoption {
        mirror,
        slots: limits.backends,
        ports,
        owners: HashMap::new(),
        ids: HashMap::new(),
        distrusted: Distrusted::default(),
    };
    adoption.states(adopted);
    adoption.names(adopted);
    for (id, rows) in adoption.believable_rows() {
        adoption.slabs(id, &rows);
    }
    adoption.orphans(adopted);
    adoption.sources();
    adoption.affinity_backends(adopted);
    adoption.reserve_slots();
    adoption.distrusted
}

struct Adoption<'a> {
    mirror: &'a Mirror,
    slots: usize,
    ports: &'a mut Ports,
    /// Backend id to the service port and place that it stands for.
    owners: HashMap<u32, (u32, Place)>,
    /// The same the other way.
    ids: HashMap<(u32, Place), u32>,
    distrusted: Distrusted,
}

impl Adoption<'_> {
    fn states(&mut self, adopted: &Adopted) {
        for (id, state) in adopted
            .states
            .iter()
            .filter(|(_, state)| (state.generation, state.serving) != (0, 0))
        {
            self.ports.backend_ids.remember(*id, state.generation);
        }
    }

    fn names(&mut self, adopted: &Adopted) {
        for (id, name) in &adopted.names {
            let key = names::key(name).filter(|key| self.ports.state(key).is_none());
            let Some(key) = key.filter(|_| self.ports.ids.adopt(*id, name.generation)) else {
                self.distrusted.names.insert(*id);
                continue;
            };
            let state = PortState {
                id: *id,
                generation: name.generation,
                unstarted: [false; 2],
                slab: None,
                old_slabs: Vec::new(),
                backends: BTreeMap::new(),
            };
            self.ports.insert(key, state);
        }
    }

    /// The rows that agree with names, slots and states, by service id, each with its slots.
    fn believable_rows(&mut self) -> BTreeMap<u32, Vec<(ServiceKey, BackendRange)>> {
        let mut rows: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (key, row) in self.mirror.services() {
            match self.check(key, row) {
                Some(slots) => rows.entry(row.id).or_default().push((*key, slots)),
                None => {
                    self.distrusted.rows.insert(*key);
                }
            }
        }
        rows
    }

    /// The slots that a row refers to, if all that it says is true.
    fn check(&mut self, key: &ServiceKey, row: &Service) -> Option<BackendRange> {
        let owner = self.ports.owner(row.id)?;
        let family = match Scope::from_code(key.scope)? {
            Scope::Address => Family::of(key.address),
            Scope::NodePortV4 => Family::V4,
            Scope::NodePortV6 => Family::V6,
        };
        FrontendKind::from_code(row.kind)?;
        let same_port = owner.family == family && owner.protocol.number() == key.protocol;
        let generation = self.ports.state(owner)?.generation;
        if !same_port || generation != row.generation {
            return None;
        }
        let hull = hull(row)?;
        let end = hull.base.checked_add(hull.count)?;
        if usize::try_from(end).ok()? > self.slots {
            return None;
        }
        for slot in hull.base..end {
            let backend = *self.mirror.backend(slot)?;
            if backend.service != row.id || !self.is_live(&backend) || !self.claim(row.id, &backend) {
                return None;
            }
        }
        Some(hull)
    }

    fn is_live(&self, backend: &Backend) -> bool {
        self.mirror.serves(backend.id, backend.generation)
    }

    /// Notes that a backend id stands for this place of this service port; false if it stands for another.
    fn claim(&mut self, id: u32, backend: &Backend) -> bool {
        let owner = (id, (backend.address, backend.port));
        *self.owners.entry(backend.id).or_insert(owner) == owner
            && *self.ids.entry(owner).or_insert(backend.id) == backend.id
    }

    /// Takes over the slabs of one service port.
    fn slabs(&mut self, id: u32, rows: &[(ServiceKey, BackendRange)]) {
        let Some(key) = self.ports.owner(id).cloned() else {
            return;
        };
        let Some(mut state) = self.ports.state(&key).cloned() else {
            return;
        };
        for slab in join(
            rows.iter()
                .map(|(_, slots)| *slots)
                .filter(|slots| slots.count > 0)
                .collect(),
        ) {
            if !self.ports.slabs.adopt(slab) {
                let inside = |base: u32| base >= slab.base && base < slab.base + slab.count;
                let wrong = rows
                    .iter()
                    .filter(|(_, slots)| slots.count > 0 && inside(slots.base));
                self.distrusted.rows.extend(wrong.map(|(key, _)| *key));
                continue;
            }
            let slab = self.with_draining(id, slab);
            self.ports.own_slab(slab.base, id);
            for backend in &slab.rows {
                self.ports.backend_ids.adopt(backend.id, backend.generation);
                self.ports.own_backend(backend.id, id);
                state
                    .backends
                    .insert((backend.address, backend.port), (backend.id, backend.generation));
            }
            if let Some(former) = state.slab.replace(slab) {
                state.old_slabs.push(former.range());
            }
        }
        self.ports.insert(key, state);
    }

    /// Draining backends stand right behind the slots that rows refer to. What stands there may also be what another
    /// Service left when it moved on, of a backend that it still has.
    fn with_draining(&mut self, id: u32, range: BackendRange) -> Slab {
        let mut end = range.base + range.count;
        while let Some(backend) = self.mirror.backend(end).copied() {
            let place = (backend.address, backend.port);
            let unclaimed = !self.owners.contains_key(&backend.id) && !self.ids.contains_key(&(id, place));
            let free = |slabs: &mut crate::slabs::Slabs| slabs.adopt(BackendRange { base: end, count: 1 });
            if backend.service != id || !self.is_live(&backend) || !unclaimed || !free(&mut self.ports.slabs)
            {
                break;
            }
            self.claim(id, &backend);
            end += 1;
        }
        Slab {
            base: range.base,
            rows: (range.base..end)
                .filter_map(|slot| self.mirror.backend(slot).copied())
                .collect(),
        }
    }

    fn sources(&mut self) {
        let ids = self
            .mirror
            .guarded_ids()
            .filter(|id| self.ports.owner(*id).is_none());
        let ranges = |id| self.mirror.sources_of(id).map(move |(range, _)| (id, range));
        let sources = ids.flat_map(ranges).collect();
        self.distrusted.sources = sources;
    }

    /// Those of backends that nobody has. What the others say is compared with what they should say, like every row.
    fn affinity_backends(&mut self, adopted: &Adopted) {
        let rows = adopted.affinity_backends.iter().map(|(id, _)| *id);
        let orphans = rows.filter(|id| self.ports.backend_owner(*id).is_none());
        self.distrusted.affinity_backends.extend(orphans);
    }

    /// A packet may be between a distrusted row and its slots when the row goes.
    fn reserve_slots(&mut self) {
        let rows = self.distrusted.rows.iter();
        let rows = rows.filter_map(|key| self.mirror.service(key));
        for range in rows.flat_map(|row| [row.cluster, row.local]) {
            let limit = u32::try_from(self.slots).unwrap_or(u32::MAX);
            let end = range.base.saturating_add(range.count).min(limit);
            let slots = (range.base..end).map(|base| BackendRange { base, count: 1 });
            let free = slots.filter(|slot| self.ports.slabs.adopt(*slot));
            self.distrusted.slots.extend(free);
        }
    }

    fn orphans(&mut self, adopted: &Adopted) {
        for (id, state) in adopted.states.iter().filter(|(_, state)| state.serving != 0) {
            if self.ports.backend_owner(*id).is_none() {
                self.ports.backend_ids.adopt(*id, state.generation);
                self.distrusted.backends.insert(*id);
            }
        }
    }
}

/// The run of slots from the first to the last that a row refers to; `None` if there is a gap that belongs to neither range.
fn hull(row: &Service) -> Option<BackendRange> {
    let (first, second) = if row.local.base <= row.cluster.base {
        (row.local, row.cluster)
    } else {
        (row.cluster, row.local)
    };
    if first.count == 0 {
        return Some(second);
    }
    if second.count == 0 {
        return Some(first);
    }
    let first_end = first.base.checked_add(first.count)?;
    let end = first_end.max(second.base.checked_add(second.count)?);
    (second.base <= first_end).then_some(BackendRange {
        base: first.base,
        count: end - first.base,
    })
}

/// Joins runs that overlap.
fn join(mut ranges: Vec<BackendRange>) -> Vec<BackendRange> {
    ranges.sort_unstable();
    let mut joined: Vec<BackendRange> = Vec::new();
    for range in ranges {
        let end = range.base + range.count;
        match joined.last_mut() {
            Some(last) if range.base < last.base + last.count => {
                last.count = last.count.max(end - last.base);
            }
            _ => joined.push(range),
        }
    }
    joined
}
