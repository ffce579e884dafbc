//! What the inspection commands read from the maps, and the one row that they write.

use std::time::Duration;

use proxy_common::{
    Address, Affinity, AffinityBackend, AffinityKey, Backend, BackendRange, BackendState, Cursor, Flow,
    FlowKey, Ip, Meta, MonitorLease, NodeConfig, Reason, Service, ServiceKey, ServiceName, limits,
    maps as names,
};

use super::clock;
use super::maps::Maps;
use super::sys::Batches;
use super::table::{CHUNK, MapError, Rows};

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Name of the map.
    pub map: &'static str,
    /// Rows in use.
    pub used: usize,
    /// Rows that fit.
    pub capacity: usize,
}

/// Maps whose rows are of no use after a while and leave only when others need the room: to be full is what they come to,
/// and costs nobody a connection. `FLOWS` is none of them: the agent removes what is over, so it is full when there are
/// too many connections.
const CACHES: [&str; 2] = [names::FRAGMENTS, names::SOCKETS];

impl Fill {
    /// Whether it says nothing that this map is full.
    pub fn is_cache(&self) -> bool {
        CACHES.contains(&self.map)
    }
}

impl Maps {
    /// Every frontend.
    pub fn services(&self) -> Result<Vec<(ServiceKey, Service)>, MapError> {
        self.services.all()
    }

    /// Every address that weir looks at.
    pub fn addresses(&self) -> Result<Vec<(Ip, Address)>, MapError> {
        self.addresses.all()
    }

    /// The backends of a range, with their slots.
    pub fn backends(&self, range: BackendRange) -> Result<Vec<(u32, Backend)>, MapError> {
        if range.count == 0 {
            return Ok(Vec::new());
        }
        self.backends.range(range.base, range.count)
    }

    /// The state of a backend id.
    pub fn state(&self, id: u32) -> Result<BackendState, MapError> {
        self.states.get(id)
    }

    /// The cursor of a service id: class 0 is the cluster range, 1 the local range.
    pub fn cursor(&self, service: u32, class: u32) -> Result<Cursor, MapError> {
        self.cursors.get(service.saturating_mul(2).saturating_add(class))
    }

    /// Whom clients stick to.
    pub fn affinity(&self) -> Result<Vec<(AffinityKey, Affinity)>, MapError> {
        self.affinity.all()
    }

    /// A backend that clients may stick to.
    pub fn affinity_backend(&self, id: u32) -> Result<Option<AffinityBackend>, MapError> {
        self.affinity_backends.get(&id)
    }

    /// What people call a service id.
    pub fn name(&self, id: u32) -> Result<Option<ServiceName>, MapError> {
        self.names.get(&id)
    }

    /// The names of all service ids.
    pub fn names(&self) -> Result<Vec<(u32, ServiceName)>, MapError> {
        self.names.all()
    }

    /// The flows, established ones first, chunk by chunk; both rows of a connection appear.
    pub fn flows(&self) -> Flows<'_> {
        Flows {
            tables: vec![&self.half_open, &self.flows],
            batches: Batches::new(CHUNK),
            failed: false,
        }
    }

    /// Number of rows that the socket hook keeps.
    pub fn sockets(&self) -> Result<usize, MapError> {
        Ok(self.sockets.all()?.len())
    }

    /// Counters by reason, summed over the CPUs; a reason that was never met has 0.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, MapError> {
        Reason::ALL
            .iter()
            .map(|reason| Ok((*reason, self.counter(*reason)?)))
            .collect()
    }

    fn counter(&self, reason: Reason) -> Result<u64, MapError> {
        let values = self
            .counters
            .get(&u32::from(reason.code()), 0)
            .map_err(|error| MapError::Syscall {
                map: names::COUNTERS,
                row: reason.name().to_owned(),
                verb: "read",
                source: std::io::Error::other(error),
            })?;
        Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }

    /// The node's configuration, as the programs read it.
    pub fn config(&self) -> Result<NodeConfig, MapError> {
        self.config.get(0)
    }

    /// Who made the maps.
    pub fn meta(&self) -> Result<Meta, MapError> {
        self.meta.get(0)
    }

    /// Whether this process is in the network namespace of the node that the maps belong to.
    pub fn are_of_this_namespace(&self) -> bool {
        let here = super::load::netns_cookie();
        here.is_ok_and(|here| self.meta().is_ok_and(|meta| meta.netns_cookie == here))
    }

    /// Asks the programs to write events for this long. Renew it while you listen; a killed listener costs nothing.
    pub fn renew_monitor(&mut self, lease: Duration) -> Result<(), MapError> {
        let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        let until = clock::monotonic_seconds().saturating_add(seconds);
        let current = self.monitor.get(0)?;
        // Another listener may have asked for longer.
        if current.until >= until {
            return Ok(());
        }
        self.monitor.put(0, &MonitorLease { until, reserved: 0 })
    }

    /// How full the maps are that can become full.
    pub fn fill(&self) -> Result<Vec<Fill>, MapError> {
        let states = self.states.all()?;
        let serving = states.iter().filter(|(_, state)| state.serving == 1);
        self.fill_with(serving.count())
    }

    /// The same for one who knows how many backends serve: counting them is most of the work.
    pub fn fill_with(&self, serving: usize) -> Result<Vec<Fill>, MapError> {
        let services = self.services.all()?;
        let slots: usize = services
            .iter()
            .map(|(_, service)| (service.cluster, service.local))
            .collect::<std::collections::HashSet<_>>()
            .iter()
            .map(|(cluster, local)| slab_size(*cluster, *local))
            .sum();
        let fill = |map, used, capacity| Fill { map, used, capacity };
        Ok(vec![
            fill(names::ADDRESSES, self.addresses.all()?.len(), limits::ADDRESSES),
            fill(names::SERVICES, services.len(), limits::SERVICES),
            fill(names::BACKENDS, slots, limits::BACKENDS),
            fill(names::BACKEND_STATE, serving, limits::BACKEND_STATE),
            fill(names::SERVICE_NAMES, self.names.all()?.len(), limits::SERVICE_IDS),
            fill(names::AFFINITY, self.affinity.all()?.len(), limits::AFFINITY),
            fill(names::FLOWS, self.flows.all()?.len(), limits::FLOWS),
            fill(names::HALF_OPEN, self.half_open.all()?.len(), limits::HALF_OPEN),
            fill(names::FRAGMENTS, self.fragments.all()?.len(), limits::FRAGMENTS),
            fill(names::SOCKETS, self.sockets()?, limits::SOCKETS),
        ])
    }
}

/// Slots of a slab, of which the local range is usually a prefix.
fn slab_size(cluster: BackendRange, local: BackendRange) -> usize {
    let inside = local.base >= cluster.base
        && local.base.saturating_add(local.count) <= cluster.base.saturating_add(cluster.count);
    let count = if inside {
        cluster.count
    } else {
        cluster.count.saturating_add(local.count)
    };
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A walk over `FLOWS` and `HALF_OPEN`.
pub struct Flows<'a> {
    /// What is still to be read, the last first.
    tables: Vec<&'a Rows<FlowKey, Flow>>,
    batches: Batches<FlowKey, Flow>,
    failed: bool,
}

impl Iterator for Flows<'_> {
    type Item = Result<Vec<(FlowKey, Flow)>, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(table) = self.tables.last().filter(|_| !self.failed) {
            match table.next(&mut self.batches) {
                Ok(chunk) if chunk.is_empty() => {
                    self.tables.pop();
                    self.batches = Batches::new(CHUNK);
                }
                Ok(chunk) => return Some(Ok(chunk)),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
