//! How each family is read; the families themselves are in [`super::families`].

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::collect::{Reading, Samples};
use super::tally::{ABORTS, CLASSES, CONNECTS, Count, KINDS, LIMITS, PROTOCOLS, SCHEMES, VERSIONS};
use crate::proxied::Fault;

pub(super) fn requests(reading: &Reading<'_>, samples: &mut Samples) {
    for (http2, protocol) in [false, true].into_iter().zip(PROTOCOLS) {
        for (tls, scheme) in [false, true].into_iter().zip(SCHEMES) {
            for (place, class) in CLASSES.into_iter().enumerate() {
                let counts = reading.shared.tallies.iter();
                let counts = counts.filter_map(|tally| tally.requests(http2, tls, place));
                let sum = counts.map(Count::get).fold(0, u64::wrapping_add);
                samples.add(&[class, protocol, scheme], sum);
            }
        }
    }
}

pub(super) fn refused(reading: &Reading<'_>, samples: &mut Samples) {
    let mut all: BTreeMap<(&str, u16), u64> = BTreeMap::new();
    for tally in &reading.shared.tallies {
        let refused = tally.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in refused.iter() {
            *all.entry(*name).or_default() += count;
        }
    }
    for ((reason, code), count) in all {
        samples.add(&[&code.to_string(), reason], count);
    }
}

pub(super) fn hosts(reading: &Reading<'_>, samples: &mut Samples) {
    let Some(hosts) = &reading.shared.hosts else {
        return;
    };
    for (host, counts) in hosts.sum() {
        for (class, count) in CLASSES.iter().zip(counts) {
            if count > 0 {
                samples.add(&[class, &host], count);
            }
        }
    }
}

pub(super) fn handshakes(reading: &Reading<'_>, samples: &mut Samples) {
    for (newest, version) in [false, true].into_iter().zip(VERSIONS) {
        for (resumed, kind) in [false, true].into_iter().zip(KINDS) {
            let counts = reading.shared.tallies.iter();
            let counts = counts.filter_map(|tally| tally.handshakes(newest, resumed));
            let sum = counts.map(Count::get).fold(0, u64::wrapping_add);
            samples.add(&[kind, version], sum);
        }
    }
}

pub(super) fn duration(reading: &Reading<'_>, samples: &mut Samples) {
    samples.histogram(reading, |tally| &tally.duration);
}

pub(super) fn answered(reading: &Reading<'_>, samples: &mut Samples) {
    samples.histogram(reading, |tally| &tally.answered);
}

pub(super) fn received(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.sum(|tally| &tally.received));
}

pub(super) fn sent(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.sum(|tally| &tally.sent));
}

pub(super) fn aborted(reading: &Reading<'_>, samples: &mut Samples) {
    samples.list(ABORTS, reading.each(|tally| &tally.aborted));
}

pub(super) fn accepted(reading: &Reading<'_>, samples: &mut Samples) {
    samples.list(SCHEMES, reading.each(|tally| &tally.accepted));
}

pub(super) fn open(reading: &Reading<'_>, samples: &mut Samples) {
    samples.list(SCHEMES, reading.each(|tally| &tally.open));
}

pub(super) fn accept_errors(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.counters().accept_errors.load(Ordering::Relaxed));
}

pub(super) fn handshake_errors(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.counters().handshake_errors.load(Ordering::Relaxed));
}

pub(super) fn connects(reading: &Reading<'_>, samples: &mut Samples) {
    samples.list(CONNECTS, reading.each(|tally| &tally.connects));
}

pub(super) fn reused(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.sum(|tally| &tally.reused));
}

pub(super) fn retries(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.sum(|tally| &tally.retries));
}

pub(super) fn ejections(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.sum(|tally| &tally.ejections));
}

pub(super) fn upgrades(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.sum(|tally| &tally.upgrades));
}

pub(super) fn tunnels(reading: &Reading<'_>, samples: &mut Samples) {
    samples.add(&[], reading.sum(|tally| &tally.tunnels));
}

pub(super) fn limits(reading: &Reading<'_>, samples: &mut Samples) {
    samples.list(LIMITS, reading.each(|tally| &tally.limits));
}

pub(super) fn checks(reading: &Reading<'_>, samples: &mut Samples) {
    let counters = reading.counters();
    let counts = [&counters.checks, &counters.check_failures].map(|count| count.load(Ordering::Relaxed));
    samples.list(["passed", "failed"], counts);
}

pub(super) fn passthrough(reading: &Reading<'_>, samples: &mut Samples) {
    let counters = reading.counters();
    let counts = [&counters.tunnels, &counters.tunnel_errors].map(|count| count.load(Ordering::Relaxed));
    samples.list(["connected", "failed"], counts);
}

pub(super) fn proxy_faults(reading: &Reading<'_>, samples: &mut Samples) {
    let faults = &reading.counters().proxy_faults;
    let faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
    for name in Fault::ALL.map(Fault::name) {
        samples.add(&[name], faults.get(name).copied().unwrap_or_default());
    }
}

pub(super) fn log_lines(reading: &Reading<'_>, samples: &mut Samples) {
    let lines = &reading.shared.told.lines;
    let counts = [&lines.written, &lines.dropped].map(|count| count.load(Ordering::Relaxed));
    samples.list(["written", "dropped"], counts);
}

pub(super) fn spans(reading: &Reading<'_>, samples: &mut Samples) {
    let spans = &reading.shared.told.spans;
    let counts = [&spans.sent, &spans.dropped].map(|count| count.load(Ordering::Relaxed));
    samples.list(["sent", "dropped"], counts);
}

pub(super) fn in_flight(reading: &Reading<'_>, samples: &mut Samples) {
    samples.count(&[], reading.shared.requests.load(Ordering::Relaxed));
}

pub(super) fn routes(reading: &Reading<'_>, samples: &mut Samples) {
    let hosts = reading.snapshot.routes.table.hosts();
    samples.count(&[], hosts.map(|host| host.routes().count()).sum());
}

pub(super) fn table_hosts(reading: &Reading<'_>, samples: &mut Samples) {
    samples.count(&[], reading.snapshot.routes.table.hosts().count());
}

pub(super) fn backends(reading: &Reading<'_>, samples: &mut Samples) {
    samples.count(&[], reading.snapshot.backends.len());
}

pub(super) fn endpoints(reading: &Reading<'_>, samples: &mut Samples) {
    samples.count(&[], reading.backends.endpoints);
}

pub(super) fn ejected(reading: &Reading<'_>, samples: &mut Samples) {
    samples.count(&[], reading.backends.ejected);
}

pub(super) fn backend_connections(reading: &Reading<'_>, samples: &mut Samples) {
    samples.count(&[], reading.backends.connections);
}

pub(super) fn certificates(reading: &Reading<'_>, samples: &mut Samples) {
    samples.count(&[], reading.certificates);
}

/// Nothing is shown where there is none: 0 would be 1970.
pub(super) fn expiry(reading: &Reading<'_>, samples: &mut Samples) {
    if let Some(expiry) = reading.expiry {
        samples.add(&[], u64::try_from(expiry).unwrap_or(0));
    }
}
