//! Whom a client sticks to, found out from the slots of the service, which the datapath does not ask about that.

use anyhow::{Context, Result, ensure};
use proxy_common::{Affinity, AffinityKey, Backend, BackendSet};

use super::translation::{asked, offered};
use crate::decode::Decoded;
use crate::memory::{Memory, Touched};
use crate::user::Arrival;

/// A client goes where its last connection went, if it came back in time and that backend is still offered; only who goes
/// nowhere yet takes a turn. Either way it sticks there from now on.
pub(super) fn sticks(
    memory: &Memory,
    (arrival, packet): (&Arrival, &Decoded),
    chosen: &Backend,
    touched: &Touched,
) -> Result<()> {
    let (service, local) = asked(memory, arrival, packet).context("a new flow to no service")?;
    let timeout = service.affinity_timeout;
    if timeout == 0 {
        ensure!(touched.affinity.is_empty(), "affinity of a service that has none");
        return Ok(());
    }
    let listed = offered(memory, &service, local);
    let now = memory.now.get();
    let good = |row: &Affinity| {
        let age = now.saturating_sub(row.last_seen);
        let listed = listed.iter().find(|backend| backend.id == row.backend_id);
        let alike = listed.is_some_and(|backend| age <= 1 || backend.generation == row.backend_generation);
        age <= timeout && alike
    };
    let key = |set: BackendSet| AffinityKey {
        client: packet.source,
        service: service.id,
        set: u32::from(set.code()),
    };
    let (own, other) = if local {
        (BackendSet::Local, BackendSet::Cluster)
    } else {
        (BackendSet::Cluster, BackendSet::Local)
    };
    let before = |set| {
        let rows = touched.affinity.iter();
        rows.filter(|(touched, _)| *touched == key(set))
            .find_map(|(_, row)| row.filter(good))
    };
    let turns = touched.cursors.len();
    match before(own).or_else(|| before(other)) {
        Some(row) => ensure!(
            (row.backend_id, turns) == (chosen.id, 0),
            "{row:?} holds, but {turns} turns were taken, to {chosen:?}"
        ),
        None => ensure!(
            turns == 1,
            "nothing holds the client, but {turns} turns were taken"
        ),
    }
    let after = memory.affinity.borrow().get(&key(own)).copied();
    ensure!(
        after.is_some_and(|row| row.backend_id == chosen.id && row.last_seen == now),
        "the client went to {chosen:?}, and sticks to {after:?}"
    );
    Ok(())
}
