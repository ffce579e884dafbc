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
    adoption.bare_slabs();
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
            self.own(slab, &mut state);
        }
        self.ports.insert(key, state);
    }

    /// A port has these slots from now on, and the backends in them that live.
    fn own(&mut self, range: BackendRange, state: &mut PortState) {
        let slots = range.base..range.base.saturating_add(range.count);
        let rows: Vec<Backend> = slots
            .filter_map(|slot| self.mirror.backend(slot).copied())
            .collect();
        self.ports.own_slab(range.base, state.id);
        let mirror = self.mirror;
        let live = |backend: &&Backend| mirror.serves(backend.id, backend.generation);
        for backend in rows.iter().filter(live) {
            self.ports.backend_ids.adopt(backend.id, backend.generation);
            self.ports.own_backend(backend.id, state.id);
            let place = (backend.address, backend.port);
            state.backends.insert(place, (backend.id, backend.generation));
        }
        let base = range.base;
        if let Some(former) = state.slab.replace(Slab { base, rows }) {
            state.old_slabs.push(former.range());
        }
    }

    /// Draining backends stand right behind the slots that rows refer to, between others that have left. What stands there
    /// may also be what another Service left when it moved on, of a backend that it still has.
    fn with_draining(&mut self, id: u32, range: BackendRange) -> BackendRange {
        let first = range.base + range.count;
        let (mut slot, mut end) = (first, first);
        while let Some(backend) = self.mirror.backend(slot).copied() {
            let place = (backend.address, backend.port);
            let claimed = self.owners.contains_key(&backend.id) || self.ids.contains_key(&(id, place));
            let live = self.is_live(&backend);
            if backend.service != id || (live && claimed) {
                break;
            }
            slot += 1;
            let rest = BackendRange {
                base: end,
                count: slot - end,
            };
            if live && self.ports.slabs.adopt(rest) {
                self.claim(id, &backend);
                end = slot;
            }
        }
        BackendRange {
            base: range.base,
            count: end - range.base,
        }
    }

    /// Slabs that no row refers to, as all of their backends are draining: the Service is gone, or has no endpoint that may
    /// be used. Of several copies the one with the most backends is the last.
    fn bare_slabs(&mut self) {
        let mut slots: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (slot, backend) in self.mirror.backends() {
            let owner = self.ports.owner(backend.service);
            if owner
                .and_then(|key| self.ports.state(key))
                .is_some_and(|state| state.slab.is_none())
            {
                slots.entry(backend.service).or_default().insert(slot);
            }
        }
        for (id, slots) in slots {
            let runs = runs(&slots).into_iter().filter_map(|run| self.trimmed(id, run));
            let best = runs.rev().max_by_key(|(_, backends)| *backends);
            let slab = best
                .map(|(slab, _)| slab)
                .filter(|slab| self.ports.slabs.adopt(*slab));
            let key = self.ports.owner(id).cloned();
            let state = key.as_ref().and_then(|key| self.ports.state(key)).cloned();
            if let (Some(slab), Some(key), Some(mut state)) = (slab, key, state) {
                self.own(slab, &mut state);
                self.ports.insert(key, state);
            }
        }
    }

    /// A run of slots from its first live backend to its last, and how many there are; `None` without any, or with one that
    /// another port has.
    fn trimmed(&mut self, id: u32, run: BackendRange) -> Option<(BackendRange, usize)> {
        let mut live = BTreeMap::new();
        for slot in run.base..run.base.saturating_add(run.count) {
            let backend = *self.mirror.backend(slot)?;
            if self.is_live(&backend) {
                live.insert(slot, backend);
            }
        }
        let (first, last) = (*live.keys().next()?, *live.keys().next_back()?);
        let ids: BTreeSet<u32> = live.values().map(|backend| backend.id).collect();
        let claimed = live.values().all(|backend| self.claim(id, backend));
        let slab = BackendRange {
            base: first,
            count: last - first + 1,
        };
        claimed.then_some((slab, ids.len()))
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

/// Runs of slots without a gap.
fn runs(slots: &BTreeSet<u32>) -> Vec<BackendRange> {
    let mut runs: Vec<BackendRange> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some(last) if last.base + last.count == *slot => last.count += 1,
            _ => runs.push(BackendRange {
                base: *slot,
                count: 1,
            }),
        }
    }
    runs
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
