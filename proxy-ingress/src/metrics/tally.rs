//! What a worker counts. Each has a tally of its own and is the only one that writes to it: a count is a load and a store,
//! without a locked instruction and without a cache line that another worker's requests want too. Whoever scrapes adds the
//! tallies up.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::refusal::Refusal;
use crate::upstream::connect::ConnectError;
use crate::worker::Worker;

/// Upper bounds of a histogram's buckets, in nanoseconds: 0.5 ms to 60 s.
pub(crate) const BOUNDS: [u64; 16] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Classes of statuses.
pub(crate) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The place of a status in [`CLASSES`].
pub(crate) fn class(status: u16) -> usize {
    match status {
        100..600 => usize::from(status / 100 - 1),
        _ => CLASSES.len() - 1,
    }
}

/// A number that one thread changes, and any reads.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn less(&self) {
        self.add(u64::MAX);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, how often.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Not cumulative; the last is for what took longer than all bounds.
    pub(crate) buckets: [Count; BOUNDS.len() + 1],
    /// Nanoseconds.
    pub(crate) sum: Count,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < nanos);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.one();
        }
        self.sum.add(nanos);
    }
}

/// A limit that was met. The names are those of the settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limit {
    /// All places for connections were taken: the next waited in the kernel's queue.
    Connections,
    /// An address had that many, and its next was closed.
    ConnectionsPerClient,
    /// More requests than that at work.
    Requests,
    /// Memory was short.
    Memory,
    /// A head did not become whole.
    HeaderTimeout,
    /// A client took nothing.
    WriteTimeout,
    /// A client gave up too many requests.
    GivenUp,
    /// A client sent too many frames that carry nothing, and was read later.
    IdleFrames,
}

/// In the order of [`Limit`].
pub(crate) const LIMITS: [&str; 8] = [
    "connections",
    "connections_per_client",
    "requests",
    "memory",
    "header_timeout",
    "write_timeout",
    "given_up",
    "idle_frames",
];

/// What became of a wish for a connection to an endpoint that was not open yet.
pub(crate) const CONNECTS: [&str; 5] = ["done", "timeout", "tcp", "tls", "http"];

/// Who ended a response before its end.
pub(crate) const ABORTS: [&str; 3] = ["client", "backend", "timeout"];

/// Listeners, and schemes.
pub(crate) const SCHEMES: [&str; 2] = ["http", "https"];

/// The protocols that requests come in.
pub(crate) const PROTOCOLS: [&str; 2] = ["http1", "http2"];

/// Versions of TLS.
pub(crate) const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// How TLS came to stand.
pub(crate) const KINDS: [&str; 2] = ["full", "resumed"];

/// All of a worker. On cache lines of its own, with the neighbour's that the processor fetches along.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By protocol, scheme and class, in this order.
    requests: [Count; PROTOCOLS.len() * SCHEMES.len() * CLASSES.len()],
    pub(crate) duration: Histogram,
    /// Until the backend's head was there.
    pub(crate) answered: Histogram,
    /// Bytes of bodies and tunnels from clients.
    pub(crate) received: Count,
    /// Bytes of bodies and tunnels to clients.
    pub(crate) sent: Count,
    pub(crate) aborted: [Count; ABORTS.len()],
    pub(crate) accepted: [Count; SCHEMES.len()],
    pub(crate) open: [Count; SCHEMES.len()],
    /// By version and kind.
    handshakes: [Count; VERSIONS.len() * KINDS.len()],
    pub(crate) connects: [Count; CONNECTS.len()],
    pub(crate) reused: Count,
    pub(crate) retries: Count,
    pub(crate) ejections: Count,
    pub(crate) upgrades: Count,
    pub(crate) tunnels: Count,
    pub(crate) limits: [Count; LIMITS.len()],
    /// By name and status. Only its worker and a scrape lock it, and refusals are rare.
    pub(crate) refused: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Tally {
    pub(crate) fn requests(&self, http2: bool, tls: bool, class: usize) -> Option<&Count> {
        let protocol = usize::from(http2) * SCHEMES.len() + usize::from(tls);
        self.requests.get(protocol * CLASSES.len() + class)
    }

    pub(crate) fn handshakes(&self, newest: bool, resumed: bool) -> Option<&Count> {
        let place = usize::from(newest) * KINDS.len() + usize::from(resumed);
        self.handshakes.get(place)
    }

    /// TLS stands.
    pub(crate) fn shaken(&self, session: &rustls::ServerConnection) {
        let newest = session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        if let Some(count) = self.handshakes(newest, resumed) {
            count.one();
        }
    }

    pub(crate) fn limited(&self, limit: Limit) {
        let place = match limit {
            Limit::Connections => 0,
            Limit::ConnectionsPerClient => 1,
            Limit::Requests => 2,
            Limit::Memory => 3,
            Limit::HeaderTimeout => 4,
            Limit::WriteTimeout => 5,
            Limit::GivenUp => 6,
            Limit::IdleFrames => 7,
        };
        one(&self.limits, place);
    }

    /// A connection to an endpoint was wanted, and none that is kept would do.
    pub(crate) fn connected(&self, error: Option<&ConnectError>) {
        let place = match error {
            None => 0,
            Some(ConnectError::Slow(_)) => 1,
            Some(ConnectError::Tcp(_)) => 2,
            Some(ConnectError::Tls(_)) => 3,
            Some(ConnectError::Gone | ConnectError::Http(_)) => 4,
        };
        one(&self.connects, place);
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        match refusal {
            Refusal::Busy => self.limited(Limit::Requests),
            Refusal::Memory => self.limited(Limit::Memory),
            _ => {}
        }
        let name = (refusal.name(), refusal.status().as_u16());
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(name).or_default() += 1;
    }
}

/// One more at this place.
pub(crate) fn one(counts: &[Count], place: usize) {
    if let Some(count) = counts.get(place) {
        count.one();
    }
}

/// Something that is there until this is dropped, on the worker's thread.
pub(crate) struct Held {
    worker: Rc<Worker>,
    which: fn(&Tally) -> &Count,
}

impl Held {
    pub(crate) fn new(worker: &Rc<Worker>, which: fn(&Tally) -> &Count) -> Self {
        which(&worker.tally).one();
        Self {
            worker: Rc::clone(worker),
            which,
        }
    }

    /// An open connection at a listener.
    pub(crate) fn connection(worker: &Rc<Worker>, tls: bool) -> Self {
        let [clear, secure] = &worker.tally.accepted;
        if tls { secure } else { clear }.one();
        Self::new(
            worker,
            if tls {
                |tally| &tally.open[1]
            } else {
                |tally| &tally.open[0]
            },
        )
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.which)(&self.worker.tally).less();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_as_long_as_a_bound_is_within_it() {
        let histogram = Histogram::default();
        for nanos in [0, 500_000, 500_001, 60_000_000_000, 60_000_000_001, u64::MAX / 2] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Count::get).collect();
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 1, 1, 2));
        assert_eq!(counts.iter().sum::<u64>(), 6);
    }

    #[test]
    fn every_series_has_a_place_of_its_own() {
        let tally = Tally::default();
        for http2 in [false, true] {
            for tls in [false, true] {
                for status in [101, 200, 304, 404, 503, 999] {
                    tally.requests(http2, tls, class(status)).unwrap().one();
                }
                tally.handshakes(http2, tls).unwrap().one();
            }
        }
        assert!(tally.requests.iter().all(|count| count.get() == 1));
        assert!(tally.handshakes.iter().all(|count| count.get() == 1));
        assert_eq!((class(99), class(600), class(599)), (5, 5, 4));
    }

    #[test]
    fn a_count_can_go_down_again() {
        let count = Count::default();
        count.add(2);
        count.less();
        assert_eq!(count.get(), 1);
    }
}
