//! Requests by host, for those who ask for it. The names are those of the table's rules, so clients invent none, and there
//! are no more than [`MOST`] of them: who has more hosts sees the rest under one name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics::tally::CLASSES;
use crate::route::HostMatch;

/// Hosts with a series of their own: those that were asked for first.
const MOST: usize = 1_000;

/// Requests of a host, by class of status.
pub(crate) type Counts = [u64; CLASSES.len()];

/// What all workers counted.
#[derive(Debug)]
pub(crate) struct Hosts {
    slots: Box<[Slot]>,
    named: Mutex<HashSet<HostMatch>>,
    most: usize,
}

/// Of a worker: only it and a scrape lock it.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Slot(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    hosts: HashMap<HostMatch, Counts>,
    /// What no route was found for, and hosts without a series.
    other: Counts,
}

impl Hosts {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            slots: (0..workers.max(1)).map(|_| Slot::default()).collect(),
            named: Mutex::default(),
            most: MOST,
        }
    }

    /// A request for a rule's host has ended.
    pub(crate) fn count(&self, worker: usize, host: Option<&HostMatch>, class: usize) {
        let Some(slot) = self.slots.get(worker) else {
            return;
        };
        let mut counted = lock(&slot.0);
        let counted = &mut *counted;
        let counts = match host {
            Some(host) if counted.hosts.contains_key(host) || self.names(host) => {
                if !counted.hosts.contains_key(host) {
                    counted.hosts.insert(host.clone(), Counts::default());
                }
                counted.hosts.get_mut(host)
            }
            _ => None,
        };
        if let Some(count) = counts.unwrap_or(&mut counted.other).get_mut(class) {
            *count += 1;
        }
    }

    /// Whether the host has a series, or gets one.
    fn names(&self, host: &HostMatch) -> bool {
        let mut named = lock(&self.named);
        named.contains(host) || named.len() < self.most && named.insert(host.clone())
    }

    /// All of them, by name.
    pub(crate) fn sum(&self) -> BTreeMap<String, Counts> {
        let mut sum = BTreeMap::new();
        for slot in &self.slots {
            let counted = lock(&slot.0);
            let named = counted
                .hosts
                .iter()
                .map(|(host, counts)| (Label(host).to_string(), counts));
            for (name, counts) in named.chain([("other".to_owned(), &counted.other)]) {
                let all: &mut Counts = sum.entry(name).or_default();
                for (all, count) in all.iter_mut().zip(counts) {
                    *all += count;
                }
            }
        }
        sum
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A rule's host as it is written in an Ingress; `*` if it has none.
pub(crate) struct Label<'a>(pub(crate) &'a HostMatch);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            HostMatch::Exact(name) => f.write_str(name),
            HostMatch::Wildcard { suffix, .. } => write!(f, "*.{suffix}"),
            HostMatch::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hosts_have_series_and_the_rest_shares_one() {
        let mut hosts = Hosts::new(2);
        hosts.most = 2;
        let named = |name: &str| HostMatch::Exact(name.into());
        for (worker, name) in [(0, "a"), (1, "b"), (0, "c"), (1, "a"), (0, "b")] {
            hosts.count(worker, Some(&named(name)), 1);
        }
        hosts.count(0, None, 3);
        hosts.count(9, None, 3);
        let sum = hosts.sum();
        let all: Vec<_> = sum
            .iter()
            .map(|(name, counts)| (name.as_str(), counts[1]))
            .collect();
        assert_eq!(all, [("a", 2), ("b", 2), ("other", 1)]);
        assert_eq!(sum["other"][3], 1);
    }
}
