//! Reads what an earlier agent left, for the model to verify.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::{Backend, BackendRange, BackendState, Service, ServiceKey};
use proxy_model::Adopted;

use super::maps::Maps;
use super::table::MapError;

impl Maps {
    /// The rows that the model needs to go on where an earlier agent stopped.
    ///
    /// Of the backends only what a service refers to: the rest is free. Of the states all that were ever given out,
    /// because their generations must go on.
    pub fn adopt(&self) -> Result<Adopted, MapError> {
        let services = self.services.all()?;
        let config = self.config.get(0)?;
        Ok(Adopted {
            backends: self.referenced(&services)?,
            states: self
                .states
                .all()?
                .into_iter()
                .filter(|(_, state)| *state != BackendState::default())
                .collect(),
            names: self.names.all()?,
            addresses: self.addresses.all()?,
            node_ports: (config.node_port_first, config.node_port_last),
            services,
        })
    }

    fn referenced(&self, services: &[(ServiceKey, Service)]) -> Result<Vec<(u32, Backend)>, MapError> {
        let ranges: BTreeSet<BackendRange> = services
            .iter()
            .flat_map(|(_, service)| [service.cluster, service.local])
            .collect();
        let mut backends = BTreeMap::new();
        for range in ranges {
            backends.extend(self.backends(range)?);
        }
        Ok(backends.into_iter().collect())
    }
}
