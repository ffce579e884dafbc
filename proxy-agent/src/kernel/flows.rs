//! Ends flows whose time is up, and tells which frontends flows still use.
//!
//! The kernel programs make and refresh the rows; the agent only deletes. The sweeper walks `FLOWS` and `HALF_OPEN` in chunks
//! and pauses in between: a full table is as much work as an empty one at any moment, only for longer. A connection has two rows, and a packet refreshes both, but either can be missed by a race or
//! have been evicted and rebuilt: so both are judged by the younger one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proxy_common::{Flow, FlowKey, Fragment, InterfaceUse, Ip, Scope, Service, ServiceKey};
use proxy_datapath::flow;
use proxy_datapath::parse::UDP;
use proxy_datapath::tables::Room;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::clock;
use super::maps::{MapError, Maps, OpenError};
use super::pins::Pins;
use super::sys::Batches;
use super::table::CHUNK;

/// Time between two walks.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Pause after each chunk of a walk: 50,000 rows a second at most.
const PAUSE: Duration = Duration::from_millis(20);

/// Seconds by which a row must be too old: a packet that takes it up in its last second finds it, and is not overtaken by its
/// deletion.
const MARGIN: u32 = 2;

/// Seconds without flows after which an interface counts as unused.
const UNUSED: u32 = 30;

/// What one complete walk found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walk {
    /// When it began, by the monotonic clock.
    pub began: Duration,
    /// Rows that stay.
    pub live: usize,
    /// Rows that were deleted.
    pub expired: usize,
    /// Fragment rows that were deleted.
    pub fragments: usize,
    /// Frontend addresses of the rows that stay. One that was retired after the walk began may be missing although a
    /// flow uses it: `Change::FrontendsInUse` has both.
    pub frontends: BTreeSet<Ip>,
    /// Rows of `INTERFACE_FLOWS` of the rows that stay.
    pub interfaces: BTreeSet<u32>,
}

/// Walks the flow table.
pub struct Sweeper {
    maps: Maps,
}

impl Sweeper {
    /// A sweeper with handles of its own, so that it can run beside the main loop.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        Ok(Self {
            maps: Maps::open(pins)?,
        })
    }

    /// One complete walk. `now` is asked again for each chunk, in monotonic seconds.
    pub async fn walk(&mut self, now: impl Fn() -> u32) -> Result<Walk, MapError> {
        let began = now();
        let mut walk = Walk {
            began: Duration::from_secs(began.into()),
            ..Walk::default()
        };
        for room in [Room::Established, Room::HalfOpen] {
            self.walk_room(room, &now, &mut walk).await?;
        }
        walk.fragments = self.sweep_fragments(now())?;
        self.clear_unused(&walk, began)?;
        Ok(walk)
    }

    async fn walk_room(
        &mut self,
        room: Room,
        now: &impl Fn() -> u32,
        walk: &mut Walk,
    ) -> Result<(), MapError> {
        let table = match room {
            Room::Established => &mut self.maps.flows,
            Room::HalfOpen => &mut self.maps.half_open,
        };
        let services = &self.maps.services;
        let mut owners = Owners::default();
        let mut batches = Batches::new(CHUNK);
        loop {
            let rows = table.next(&mut batches)?;
            if rows.is_empty() {
                return Ok(());
            }
            let moved = owners.moved(&rows, |key| services.get(key))?;
            walk.expired += table.delete_dead(&moved, |row| owners.has_moved(row))?;
            let rows: Vec<_> = rows.into_iter().filter(|(key, _)| !moved.contains(key)).collect();
            let dead = judge(&rows, now(), |twin| table.get(twin), walk)?;
            walk.expired += table.delete_dead(&dead, |row| is_due(row, now()))?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Interfaces without flows need not look answers up. A flow that begins between the look at a row and its clearing
    /// sets it again with its client's next packet, at the latest a second later.
    fn clear_unused(&mut self, walk: &Walk, began: u32) -> Result<(), MapError> {
        for (row, InterfaceUse { last_flow }) in self.maps.interface_flows.all()? {
            let used = walk.interfaces.contains(&row) || (row == InterfaceUse::UPLINKS && walk.live > 0);
            // What was noted lately may belong to a flow that the walk had passed already.
            if last_flow != 0 && !used && began.saturating_sub(last_flow) > UNUSED {
                self.maps.interface_flows.put(row, &InterfaceUse::default())?;
            }
        }
        Ok(())
    }

    fn sweep_fragments(&mut self, now: u32) -> Result<usize, MapError> {
        let dead = |fragment: &Fragment| now.saturating_sub(fragment.seen) > flow::FRAGMENT_TIMEOUT;
        let rows = self.maps.fragments.all()?;
        let keys: Vec<_> = rows
            .into_iter()
            .filter(|(_, row)| dead(row))
            .map(|(key, _)| key)
            .collect();
        self.maps.fragments.delete_dead(&keys, dead)
    }

    /// Walks every [`SWEEP_INTERVAL`] and sends each result, until nobody receives any more.
    pub async fn run(mut self, walks: mpsc::Sender<Walk>) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.walk(clock::monotonic_seconds).await {
                Ok(walk) => {
                    tracing::trace!(live = walk.live, expired = walk.expired, "flow table swept");
                    if walks.send(walk).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the flow table was not swept; trying again"),
            }
        }
    }
}

/// Whose the frontends of flows are now, each looked up once in a walk.
#[derive(Default)]
struct Owners(HashMap<(Ip, u16), Option<u32>>);

impl Owners {
    /// Rows of UDP flows whose frontend is another Service's by now: a conversation that never pauses would stay with the endpoints
    /// of the one that had it (`cleanup.go` of kube-proxy deletes these as well). TCP is left to end by itself, as there.
    fn moved<E>(
        &mut self,
        rows: &[(FlowKey, Flow)],
        find: impl Fn(&ServiceKey) -> Result<Option<Service>, E>,
    ) -> Result<Vec<FlowKey>, E> {
        let mut moved = Vec::new();
        for (key, row) in rows.iter().filter(|(_, row)| row.protocol == UDP) {
            if let Entry::Vacant(unknown) = self.0.entry((row.frontend, row.frontend_port)) {
                unknown.insert(owner((row.frontend, row.frontend_port), row.protocol, &find)?);
            }
            if self.has_moved(row) {
                moved.push(*key);
            }
        }
        Ok(moved)
    }

    /// Whether the row is of a Service that has the frontend no more. One that nobody has may be about to get its row back; its
    /// endpoints tell when it is over.
    fn has_moved(&self, row: &Flow) -> bool {
        let owner = self.0.get(&(row.frontend, row.frontend_port));
        row.protocol == UDP && owner.copied().flatten().is_some_and(|owner| owner != row.service)
    }
}

/// The Service whose frontend it is, by its address or as a node port, as packets find it.
pub(super) fn owner<E>(
    (address, port): (Ip, u16),
    protocol: u8,
    find: impl Fn(&ServiceKey) -> Result<Option<Service>, E>,
) -> Result<Option<u32>, E> {
    let node_port = if address.is_v4() {
        Scope::NodePortV4
    } else {
        Scope::NodePortV6
    };
    for (address, scope) in [(address, Scope::Address), (Ip::UNSPECIFIED, node_port)] {
        let key = ServiceKey {
            address,
            port,
            protocol,
            scope: scope.code(),
        };
        if let Some(service) = find(&key)? {
            return Ok(Some(service.id));
        }
    }
    Ok(None)
}

/// Whether a row is to go.
fn is_due(row: &Flow, now: u32) -> bool {
    flow::expired(row, now.saturating_sub(MARGIN))
}

/// Which of these rows are to go; counts the others. `find` reads a row that is not among them.
fn judge<E>(
    rows: &[(FlowKey, Flow)],
    now: u32,
    find: impl Fn(&FlowKey) -> Result<Option<Flow>, E>,
    walk: &mut Walk,
) -> Result<Vec<FlowKey>, E> {
    let known: HashMap<FlowKey, Flow> = rows.iter().copied().collect();
    let mut dead = Vec::new();
    for (key, row) in rows {
        // Most rows are alive by themselves: the twin is looked up only for those that are not.
        let expired = is_due(row, now) && {
            let key = twin(key, row);
            let twin = known
                .get(&key)
                .copied()
                .map_or_else(|| find(&key), |twin| Ok(Some(twin)))?;
            // Another connection, or the same to another backend, may have taken the twin's place.
            twin.is_none_or(|twin| !flow::same_translation(&twin, row) || is_due(&twin, now))
        };
        if expired {
            dead.push(*key);
        } else {
            walk.live += 1;
            walk.frontends.insert(row.frontend);
            walk.interfaces.insert(InterfaceUse::row(row.interface));
        }
    }
    Ok(dead)
}

/// Key of the other row of a connection.
fn twin(key: &FlowKey, row: &Flow) -> FlowKey {
    let (to_service, from_backend) = flow::keys(row);
    if *key == to_service {
        from_backend
    } else {
        to_service
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proxy_common::Protocol;

    use super::*;

    const NOW: u32 = 1_000;

    /// Both rows of a UDP flow that nobody answered, last seen at these times.
    fn connection(client_port: u16, to_service: u32, from_backend: u32) -> [(FlowKey, Flow); 2] {
        let flow = Flow {
            client: Ip::v4([10, 0, 0, 1]),
            frontend: Ip::v4([10, 96, 0, 1]),
            source: Ip::v4([10, 0, 0, 1]),
            backend: Ip::v4([10, 0, 0, 2]),
            client_port,
            frontend_port: 53,
            source_port: client_port,
            backend_port: 5353,
            protocol: Protocol::Udp.number(),
            ..Flow::default()
        };
        let keys = flow::keys(&flow);
        [
            (
                keys.0,
                Flow {
                    last_seen: to_service,
                    ..flow
                },
            ),
            (
                keys.1,
                Flow {
                    last_seen: from_backend,
                    ..flow
                },
            ),
        ]
    }

    fn judged(rows: &[(FlowKey, Flow)], elsewhere: &[(FlowKey, Flow)]) -> (Vec<FlowKey>, Walk) {
        let mut walk = Walk::default();
        let find =
            |key: &FlowKey| Ok::<_, Infallible>(elsewhere.iter().find(|(at, _)| at == key).map(|row| row.1));
        let Ok(dead) = judge(rows, NOW, find, &mut walk);
        (dead, walk)
    }

    #[test]
    fn both_rows_go_when_both_are_silent() {
        let rows = connection(4000, NOW - 40, NOW - 50);
        let (dead, walk) = judged(&rows, &[]);
        assert_eq!(dead, [rows[0].0, rows[1].0]);
        assert_eq!((walk.live, walk.frontends.len()), (0, 0));
    }

    #[test]
    fn the_younger_row_keeps_the_older_one() {
        let rows = connection(4000, NOW - 1, NOW - 500);
        assert_eq!(judged(&rows, &[]).0, []);
        let (dead, walk) = judged(&rows[1..], &rows[..1]);
        assert_eq!(dead, []);
        assert_eq!(walk.frontends, BTreeSet::from([Ip::v4([10, 96, 0, 1])]));
    }

    #[test]
    fn a_udp_flow_ends_when_its_frontend_moved() {
        let rows = connection(4000, NOW, NOW);
        let moved = |scope: Scope, id: u32, rows: &[(FlowKey, Flow)]| {
            let find = |key: &ServiceKey| {
                let there = key.scope == scope.code() && key.port == 53;
                Ok::<_, Infallible>(there.then(|| Service {
                    id,
                    ..Service::default()
                }))
            };
            let Ok(moved) = Owners::default().moved(rows, find);
            moved
        };
        let both = [rows[0].0, rows[1].0];
        assert_eq!(moved(Scope::Address, 7, &rows), both);
        assert_eq!(moved(Scope::NodePortV4, 7, &rows), both);
        assert_eq!(moved(Scope::Address, 0, &rows), [], "its own");
        assert_eq!(moved(Scope::NodePortV6, 7, &rows), [], "nobody's");
        let tcp = rows.map(|(key, row)| {
            let protocol = Protocol::Tcp.number();
            (FlowKey { protocol, ..key }, Flow { protocol, ..row })
        });
        assert_eq!(moved(Scope::Address, 7, &tcp), []);
    }

    #[test]
    fn a_row_in_its_last_second_is_left_for_a_packet() {
        let rows = connection(4000, NOW - 32, NOW - 32);
        assert_eq!(judged(&rows, &[]).0, []);
        let rows = connection(4000, NOW - 33, NOW - 33);
        assert_eq!(judged(&rows, &[]).0.len(), 2);
    }

    #[test]
    fn a_row_without_its_twin_goes_by_its_own_time() {
        let rows = connection(4000, NOW - 40, NOW);
        assert_eq!(judged(&rows[..1], &[]).0, [rows[0].0]);
    }

    #[test]
    fn another_connection_in_the_place_of_the_twin_keeps_nothing_alive() {
        let rows = connection(4000, NOW - 40, NOW);
        let mut other = rows[1];
        other.1.client_port = 4001;
        assert_eq!(judged(&rows[..1], &[other]).0, [rows[0].0]);
    }

    #[test]
    fn the_same_client_at_another_backend_keeps_nothing_alive() {
        let rows = connection(4000, NOW - 40, NOW);
        let mut other = rows[1];
        other.1.backend = Ip::v4([10, 0, 0, 3]);
        assert_eq!(judged(&rows[..1], &[other]).0, [rows[0].0]);
    }
}
