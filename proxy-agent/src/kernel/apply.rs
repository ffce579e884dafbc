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
            Step::PutAffinityBackend { row } => self.affinity_backends.put(&row.backend.id, row),
            Step::DeleteAffinityBackend { id } => self.affinity_backends.delete(id),
            Step::PutName { id, name } => self.names.put(id, name),
            Step::PutCursor { index, next } => self.cursors.put(
                *index,
                &Cursor {
                    next: *next,
                    reserved: [0; 7],
                },
            ),
            Step::PutService { key, service } => self.services.put(key, service),
            Step::PutSourceRange {
                id,
                generation,
                range,
            } => self.sources.put(*id, *range, *generation),
            Step::DeleteSourceRange { id, range } => self.sources.delete(*id, *range),
            Step::PutAddress { address, row } => self.addresses.put(address, *row),
            Step::PutNodePorts { first, last } => self.put_node_ports(*first, *last),
            Step::PutServiceCidrs { row } => self.service_cidrs.put(0, row),
            Step::PutLocalSources { row } => self.local_sources.put(0, row),
            Step::DeleteService { key } => self.services.delete(key),
            Step::RetireBackend { id } => self.retire(*id),
            Step::DeleteAddress { address } => self.addresses.delete(address),
            Step::DeleteName { id } => self.names.delete(id),
        }
    }

    /// The source of SNAT on kernels that cannot name one (`Snapshot::sources`). Writes only what is different.
    ///
    /// Before the Node was read, `sources` is a guess: it fills what is empty, and replaces nothing.
    pub fn set_fallback_sources(&mut self, sources: Sources, node_read: bool) -> Result<(), MapError> {
        let mut config = self.config.get(0)?;
        let known = (config.fallback_source_v4, config.fallback_source_v6);
        config.fallback_source_v4 = fallback_source(known.0, sources.v4, node_read);
        config.fallback_source_v6 = fallback_source(known.1, sources.v6, node_read);
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

fn fallback_source(known: Ip, new: Option<Ip>, node_read: bool) -> Ip {
    if node_read || known == Ip::UNSPECIFIED {
        new.unwrap_or(Ip::UNSPECIFIED)
    } else {
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adopted_source_waits_for_the_node() {
        let (old, new) = (Ip::v4([10, 0, 0, 1]), Ip::v4([10, 0, 0, 2]));
        assert_eq!(fallback_source(old, Some(new), false), old);
        assert_eq!(fallback_source(old, None, false), old);
        assert_eq!(fallback_source(Ip::UNSPECIFIED, Some(new), false), new);
        assert_eq!(fallback_source(old, Some(new), true), new);
        assert_eq!(fallback_source(old, None, true), Ip::UNSPECIFIED);
    }
}
