//! Reads what an earlier agent left, for the model to verify.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proxy_common::{Backend, BackendRange, BackendState, Service, ServiceKey, limits};
use proxy_model::Adopted;

use super::maps::Maps;
use super::table::MapError;

impl Maps {
    /// The rows that the model needs to go on where an earlier agent stopped.
    ///
    /// Of the backends only what a service may hold: the rest is free. Of the states all that were ever given out,
    /// because their generations must go on.
    pub fn adopt(&self) -> Result<Adopted, MapError> {
        let services = self.services.all()?;
        let config = self.config.get(0)?;
        let mut states = self.states.all()?;
        states.retain(|(_, state)| *state != BackendState::default());
        Ok(Adopted {
            backends: self.held(&services, &states)?,
            states,
            affinity_backends: self.affinity_backends.all()?,
            names: self.names.all()?,
            sources: self.sources.all()?,
            addresses: self.addresses.all()?,
            node_ports: (config.node_port_first, config.node_port_last),
            service_cidrs: self.service_cidrs.get(0)?,
            local_sources: self.local_sources.get(0)?,
            services,
        })
    }

    /// The slots that services refer to, and the draining backends behind them, to which no row refers.
    fn held(
        &self,
        services: &[(ServiceKey, Service)],
        states: &[(u32, BackendState)],
    ) -> Result<Vec<(u32, Backend)>, MapError> {
        let ranges: BTreeSet<BackendRange> = services
            .iter()
            .flat_map(|(_, service)| [service.cluster, service.local])
            .filter(|range| range.count > 0)
            .collect();
        let mut backends = BTreeMap::new();
        for range in &ranges {
            backends.extend(self.backends(*range)?);
        }
        let serving: HashMap<u32, u32> = states
            .iter()
            .filter(|(_, state)| state.serving == 1)
            .map(|(id, state)| (*id, state.generation))
            .collect();
        // Each slot is read once, so this ends with the map at the latest. Whose a backend is, the model finds out.
        for range in ranges {
            let mut slot = range.base.saturating_add(range.count);
            while at(slot) < limits::BACKENDS && !backends.contains_key(&slot) {
                let backend = self.backends.get(slot)?;
                if serving.get(&backend.id) != Some(&backend.generation) {
                    break;
                }
                backends.insert(slot, backend);
                slot += 1;
            }
        }
        self.add_orphans(&serving, &mut backends)?;
        Ok(backends.into_iter().collect())
    }

    /// Adds backends that serve and that no service leads to: those of a deleted Service whose endpoints stay, and with them its
    /// flows. Where they are is not said anywhere, so all slots are read, if there are any at all.
    fn add_orphans(
        &self,
        serving: &HashMap<u32, u32>,
        backends: &mut BTreeMap<u32, Backend>,
    ) -> Result<(), MapError> {
        let found: HashSet<u32> = backends.values().map(|backend| backend.id).collect();
        if serving.keys().all(|id| found.contains(id)) {
            return Ok(());
        }
        let orphans = self.backends.all()?.into_iter().filter(|(_, backend)| {
            !found.contains(&backend.id) && serving.get(&backend.id) == Some(&backend.generation)
        });
        for (slot, backend) in orphans {
            backends.entry(slot).or_insert(backend);
        }
        Ok(())
    }
}

fn at(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
