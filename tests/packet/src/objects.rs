//! The rows that a scenario's objects lead to, on the tests' node.

use proxy_common::{SourceKey, SourceRange};
use proxy_model::Adopted;

use crate::node::{self, Rows};

/// Bits of `SOURCE_RANGES`' key that are the service's id.
const SERVICE_BITS: u32 = 32;

/// What the agent has written, with the settings of the node that all packets meet.
pub fn rows(written: Adopted) -> Rows {
    let mut config = node::rows(20_000).config;
    (config.node_port_first, config.node_port_last) = written.node_ports;
    let sources = written.sources.into_iter().map(|(id, range, generation)| {
        let key = SourceKey {
            service: id,
            address: range.first(),
        };
        (SERVICE_BITS + range.bits(), key, SourceRange { generation })
    });
    let ids = written.services.iter().map(|(_, service)| service.id);
    let cursors = ids
        .flat_map(|id| [(id * 2, 0), (id * 2 + 1, 0)])
        .collect::<Vec<_>>();
    Rows {
        config,
        addresses: written.addresses,
        service_cidrs: written.service_cidrs,
        local_sources: written.local_sources,
        sources: sources.collect(),
        services: written.services,
        backends: written.backends,
        states: written.states,
        affinity_backends: written
            .affinity_backends
            .into_iter()
            .map(|(_, row)| row)
            .collect(),
        cursors,
        shared: &[],
    }
}
