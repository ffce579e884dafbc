//! The ids, backend ids and slabs that service ports hold, and the way back from each to its owner.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proxy_common::{Backend, BackendRange};

use crate::change::Limits;
use crate::desired::PortKey;
use crate::ids::Ids;
use crate::object::ObjectName;
use crate::slabs::Slabs;
use crate::traffic::Place;

/// What a service port holds.
#[derive(Clone, Debug)]
pub struct PortState {
    /// Its id.
    pub id: u32,
    /// How often that id was given out.
    pub generation: u32,
    /// Classes whose cursor has yet to be started: the id is new.
    pub unstarted: [bool; 2],
    /// The slab that its rows refer to, or should.
    pub slab: Option<Slab>,
    /// Slabs that its rows may still refer to.
    pub old_slabs: Vec<BackendRange>,
    /// Its backends: id and generation.
    pub backends: BTreeMap<Place, (u32, u32)>,
}

/// A run of slots and what is to be in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slab {
    /// First slot.
    pub base: u32,
    /// Rows: local only, both, cluster only, draining; behind them may be what has left.
    pub rows: Vec<Backend>,
}

impl Slab {
    /// Its slots.
    pub fn range(&self) -> BackendRange {
        BackendRange {
            base: self.base,
            count: count(self.rows.len()),
        }
    }
}

/// A length as a slot count; slabs are shorter than the map, which is shorter than 2^32.
pub fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Everything that is given out.
#[derive(Debug)]
pub struct Ports {
    states: HashMap<ObjectName, BTreeMap<PortKey, PortState>>,
    by_id: HashMap<u32, PortKey>,
    by_backend: HashMap<u32, u32>,
    by_base: BTreeMap<u32, u32>,
    /// Service ids.
    pub ids: Ids,
    /// Backend ids.
    pub backend_ids: Ids,
    /// Slots.
    pub slabs: Slabs,
}

impl Ports {
    /// Nothing given out.
    pub fn new(limits: &Limits) -> Self {
        Self {
            states: HashMap::new(),
            by_id: HashMap::new(),
            by_backend: HashMap::new(),
            by_base: BTreeMap::new(),
            ids: Ids::new(limits.service_ids),
            backend_ids: Ids::new(limits.backend_states),
            slabs: Slabs::new(limits.backends),
        }
    }

    /// What a service port holds.
    pub fn state(&self, key: &PortKey) -> Option<&PortState> {
        self.states.get(&key.service)?.get(key)
    }

    /// The same, to change.
    pub fn state_mut(&mut self, key: &PortKey) -> Option<&mut PortState> {
        self.states.get_mut(&key.service)?.get_mut(key)
    }

    /// The service ports of a Service that hold something.
    pub fn keys(&self, service: &ObjectName) -> Vec<PortKey> {
        self.states
            .get(service)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }

    /// Everybody who holds something.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.states.keys()
    }

    /// Whose a service id is.
    pub fn owner(&self, id: u32) -> Option<&PortKey> {
        self.by_id.get(&id)
    }

    /// Whose a backend id is.
    pub fn backend_owner(&self, id: u32) -> Option<&PortKey> {
        self.owner(*self.by_backend.get(&id)?)
    }

    /// Whose a slot is.
    pub fn slot_owner(&self, slot: u32) -> Option<&PortKey> {
        let (_, id) = self.by_base.range(..=slot).next_back()?;
        self.owner(*id)
    }

    /// Takes out what a service port holds, to change it and [`Self::insert`] it again.
    pub fn take(&mut self, key: &PortKey) -> Option<PortState> {
        self.states.get_mut(&key.service)?.remove(key)
    }

    /// A new service port, or one with the id that it had before a restart.
    pub fn insert(&mut self, key: PortKey, state: PortState) {
        self.by_id.entry(state.id).or_insert_with(|| key.clone());
        self.states
            .entry(key.service.clone())
            .or_default()
            .insert(key, state);
    }

    /// Has what one port of a Service holds be another's, which holds nothing.
    pub fn rename(&mut self, from: &PortKey, to: PortKey) {
        if let Some(state) = self.take(from) {
            self.by_id.remove(&state.id);
            self.insert(to, state);
        }
    }

    /// Takes a service port out; its id is free after the grace period.
    pub fn remove(&mut self, key: &PortKey, now: Duration) {
        let Some(states) = self.states.get_mut(&key.service) else {
            return;
        };
        if let Some(state) = states.remove(key) {
            self.by_id.remove(&state.id);
            self.ids.leaving.push(state.id, now);
        }
        if states.is_empty() {
            self.states.remove(&key.service);
        }
    }

    /// Notes whose a backend id is.
    pub fn own_backend(&mut self, backend_id: u32, id: u32) {
        self.by_backend.insert(backend_id, id);
    }

    /// Takes a backend id back.
    pub fn release_backend(&mut self, backend_id: u32, now: Duration) {
        self.by_backend.remove(&backend_id);
        self.backend_ids.leaving.push(backend_id, now);
    }

    /// Notes whose a slab is.
    pub fn own_slab(&mut self, base: u32, id: u32) {
        self.by_base.insert(base, id);
    }

    /// Takes a slab back.
    pub fn release_slab(&mut self, range: BackendRange, now: Duration) {
        self.by_base.remove(&range.base);
        self.slabs.leaving.push(range, now);
    }

    /// Frees what has waited long enough; says whether there was any.
    pub fn expire(&mut self, now: Duration) -> bool {
        self.ids.expire(now) | self.backend_ids.expire(now) | self.slabs.expire(now)
    }

    /// When the next thing becomes free.
    pub fn next_expiry(&self) -> Option<Duration> {
        [
            self.ids.leaving.next(),
            self.backend_ids.leaving.next(),
            self.slabs.leaving.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
