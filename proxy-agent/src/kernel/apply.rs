//! Carries out the model's steps: each is one row, and doing it twice is doing it once.

use proxy_common::{BackendState, Cursor, Ip};
use proxy_model::Step;

use super::maps::Maps;
use super::network::Sources;
use super::table::MapError;

impl Maps {
    /// Carries out a step. Deleting a row that is not there is success.
    pub fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        match step {
            Step::PutBackendState { id, generation } => {
                let state = BackendState {
                    chosen: 0,
                    generation: *generation,
                    serving: 1,
                };
                self.states.put(*id, &state)
            }
            Step::PutBackend { slot, backend } => self.backends.put(*slot, backend),
            Step::PutName { id, name } => self.names.put(id, name),
            Step::PutCursor { index, next } => self.cursors.put(
                *index,
                &Cursor {
                    next: *next,
                    reserved: [0; 7],
                },
            ),
            Step::PutService { key, service } => self.services.put(key, service),
            Step::PutAddress { address, row } => self.addresses.put(address, row),
            Step::PutNodePorts { first, last } => self.put_node_ports(*first, *last),
            Step::DeleteService { key } => self.services.delete(key),
            Step::RetireBackend { id } => self.retire(*id),
            Step::DeleteAddress { address } => self.addresses.delete(address),
            Step::DeleteName { id } => self.names.delete(id),
        }
    }

    /// The source of SNAT on kernels that cannot name one (`Snapshot::sources`). Writes only what is different.
    pub fn set_fallback_sources(&mut self, sources: Sources) -> Result<(), MapError> {
        let mut config = self.config.get(0)?;
        let known = (config.fallback_source_v4, config.fallback_source_v6);
        config.fallback_source_v4 = sources.v4.unwrap_or(Ip::UNSPECIFIED);
        config.fallback_source_v6 = sources.v6.unwrap_or(Ip::UNSPECIFIED);
        if known == (config.fallback_source_v4, config.fallback_source_v6) {
            return Ok(());
        }
        self.config.put(0, &config)
    }

    /// The other fields of the row are this agent's too, so nobody writes between the two calls.
    fn put_node_ports(&mut self, first: u16, last: u16) -> Result<(), MapError> {
        let mut config = self.config.get(0)?;
        config.node_port_first = first;
        config.node_port_last = last;
        self.config.put(0, &config)
    }

    /// The programs count in the same row: a flow that they count between the two calls is lost from the count.
    fn retire(&mut self, id: u32) -> Result<(), MapError> {
        let mut state = self.states.get(id)?;
        state.serving = 0;
        self.states.put(id, &state)
    }
}
