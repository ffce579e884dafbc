//! Rows in and out of the kernel's maps.

use std::collections::BTreeMap;
use std::hash::Hash;

use anyhow::Result;
use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, MapData, MapError};
use proxy_common::{
    Affinity, AffinityBackend, AffinityKey, BackendState, Cursor, FilterBit, FilterWord, Flow, FlowKey,
    Fragment, FragmentKey, InterfaceUse, NodeConfig, PortBit, PortWord, Reason, Service, ServiceKey, limits,
};

use proxy_datapath::tables::Room;

use super::Kernel;
use crate::node::Rows;

impl Kernel {
    /// Writes the node's rows, and forgets all flows and fragments.
    pub fn reset(&mut self, rows: &Rows) -> Result<()> {
        clear(&mut self.rows.flows)?;
        clear(&mut self.rows.half_open)?;
        for word in 0..u32::try_from(limits::PORT_WORDS)? {
            self.rows.half_open_ports.set(word, &PortWord::default(), 0)?;
        }
        clear(&mut self.rows.fragments)?;
        clear(&mut self.rows.affinity)?;
        clear(&mut self.rows.affinity_backends)?;
        clear(&mut self.rows.services)?;
        clear(&mut self.rows.addresses)?;
        self.rows.config.set(0, &rows.config, 0)?;
        for (key, row) in &rows.addresses {
            self.rows.addresses.insert(key, row, 0)?;
        }
        self.set_filter(rows)?;
        self.rows.service_cidrs.set(0, &rows.service_cidrs, 0)?;
        self.rows.local_sources.set(0, &rows.local_sources, 0)?;
        for port in rows.shared {
            let bit = PortBit::of(*port);
            let mut word = self.rows.shared.get(&bit.word, 0)?;
            word.bits |= bit.mask;
            self.rows.shared.set(bit.word, &word, 0)?;
        }
        let sources: Vec<_> = self.rows.sources.keys().collect::<Result<_, _>>()?;
        for key in &sources {
            self.rows.sources.remove(key)?;
        }
        for (bits, key, row) in &rows.sources {
            self.rows.sources.insert(&Key::new(*bits, *key), row, 0)?;
        }
        for (slot, row) in &rows.backends {
            self.rows.backends.set(*slot, row, 0)?;
        }
        for (id, row) in &rows.states {
            self.rows.states.set(*id, row, 0)?;
        }
        for row in &rows.affinity_backends {
            self.rows.affinity_backends.insert(&row.backend.id, row, 0)?;
        }
        for (id, next) in &rows.cursors {
            self.rows.cursors.set(
                *id,
                &Cursor {
                    next: *next,
                    reserved: [0; 7],
                },
                0,
            )?;
        }
        for (key, row) in &rows.services {
            self.rows.services.insert(key, row, 0)?;
        }
        Ok(())
    }

    /// The bits of the addresses, and every interface in use: flows are also written from outside here, which the
    /// programs do not see.
    fn set_filter(&mut self, rows: &Rows) -> Result<()> {
        let mut words = vec![FilterWord::default(); limits::ADDRESS_FILTER];
        for (address, row) in &rows.addresses {
            let bit = FilterBit::of(address);
            if let Some(word) = words.get_mut(bit.word as usize) {
                word.bits |= bit.mask;
                word.nodes |= if row.is_node() { bit.mask } else { 0 };
            }
        }
        for (index, word) in (0..).zip(&words) {
            self.rows.filter.set(index, word, 0)?;
        }
        self.rows
            .interface_flows
            .set(InterfaceUse::UPLINKS, &InterfaceUse { last_flow: 1 }, 0)?;
        Ok(())
    }

    /// Replaces the node's configuration.
    pub fn set_config(&mut self, config: &NodeConfig) -> Result<()> {
        Ok(self.rows.config.set(0, config, 0)?)
    }

    /// Writes a service's row, or removes it.
    pub fn set_service(&mut self, key: &ServiceKey, row: Option<&Service>) -> Result<()> {
        match row {
            Some(row) => Ok(self.rows.services.insert(key, row, 0)?),
            None => remove(&mut self.rows.services, key),
        }
    }

    /// A flow's row, in one table.
    pub fn flow(&self, room: Room, key: &FlowKey) -> Result<Option<Flow>> {
        found(self.room(room).get(key, 0))
    }

    /// A flow's row, in whichever table.
    pub fn row(&self, key: &FlowKey) -> Result<Option<Flow>> {
        match self.flow(Room::Established, key)? {
            None => self.flow(Room::HalfOpen, key),
            row => Ok(row),
        }
    }

    /// Writes a flow's row, or removes it.
    pub fn set_flow(&mut self, room: Room, key: &FlowKey, row: Option<&Flow>) -> Result<()> {
        let map = match room {
            Room::Established => &mut self.rows.flows,
            Room::HalfOpen => &mut self.rows.half_open,
        };
        match row {
            Some(row) => Ok(map.insert(key, row, 0)?),
            None => remove(map, key),
        }
    }

    /// All flows of one table.
    pub fn flows(&self, room: Room) -> Result<BTreeMap<FlowKey, Flow>> {
        Ok(self.room(room).iter().collect::<Result<_, _>>()?)
    }

    const fn room(&self, room: Room) -> &HashMap<MapData, FlowKey, Flow> {
        match room {
            Room::Established => &self.rows.flows,
            Room::HalfOpen => &self.rows.half_open,
        }
    }

    /// The ports of a datagram.
    pub fn fragment(&self, key: &FragmentKey) -> Result<Option<Fragment>> {
        found(self.rows.fragments.get(key, 0))
    }

    /// Writes the row of a datagram.
    pub fn set_fragment(&mut self, key: &FragmentKey, row: &Fragment) -> Result<()> {
        Ok(self.rows.fragments.insert(key, row, 0)?)
    }

    /// All datagrams in fragments.
    pub fn fragments(&self) -> Result<std::collections::HashMap<FragmentKey, Fragment>> {
        Ok(self.rows.fragments.iter().collect::<Result<_, _>>()?)
    }

    /// How a backend fares.
    pub fn state(&self, id: u32) -> Result<BackendState> {
        Ok(self.rows.states.get(&id, 0)?)
    }

    /// Writes how a backend fares.
    pub fn set_state(&mut self, id: u32, row: &BackendState) -> Result<()> {
        Ok(self.rows.states.set(id, row, 0)?)
    }

    /// Whom a client sticks to.
    pub fn affinity(&self, key: &AffinityKey) -> Result<Option<Affinity>> {
        found(self.rows.affinity.get(key, 0))
    }

    /// Writes whom a client sticks to, or removes it.
    pub fn set_affinity(&mut self, key: &AffinityKey, row: Option<&Affinity>) -> Result<()> {
        match row {
            Some(row) => Ok(self.rows.affinity.insert(key, row, 0)?),
            None => remove(&mut self.rows.affinity, key),
        }
    }

    /// All clients that stick to a backend.
    pub fn affinities(&self) -> Result<std::collections::HashMap<AffinityKey, Affinity>> {
        Ok(self.rows.affinity.iter().collect::<Result<_, _>>()?)
    }

    /// Writes that clients may stick to a backend, or removes it.
    pub fn set_affinity_backend(&mut self, id: u32, row: Option<&AffinityBackend>) -> Result<()> {
        match row {
            Some(row) => Ok(self.rows.affinity_backends.insert(&id, row, 0)?),
            None => remove(&mut self.rows.affinity_backends, &id),
        }
    }

    /// The turns of a cursor.
    pub fn cursor(&self, id: u32) -> Result<u64> {
        Ok(self.rows.cursors.get(&id, 0)?.next)
    }

    /// How often a reason was counted, on all CPUs.
    pub fn counter(&self, reason: Reason) -> Result<u64> {
        Ok(self.rows.counters.get(&u32::from(reason.code()), 0)?.iter().sum())
    }
}

fn clear<K: Pod + Eq + Hash, V: Pod>(map: &mut HashMap<MapData, K, V>) -> Result<()> {
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        remove(map, &key)?;
    }
    Ok(())
}

/// Removes a row; one that is not there is not missed.
fn remove<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K) -> Result<()> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn found<V>(row: Result<V, MapError>) -> Result<Option<V>> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
