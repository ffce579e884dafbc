//! Passive health: an endpoint to which connections fail is left alone for a while, and comes back slowly. It is one
//! value per endpoint, shared by all routes that lead there: what one request has learnt, the next need not.
//!
//! Only connects count. A backend that answers with errors is alive, and its clients should see them; unless it is asked on
//! purpose (`check.rs`), and then it gets nothing until that is over.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::settings::Upstreams;

/// Doubling ends here.
const MOST_DOUBLINGS: u32 = 6;

/// What is known of an endpoint's connections.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failed connects in a row.
    failures: AtomicU32,
    /// How often it was left alone, since it last was well.
    ejections: AtomicU32,
    /// Until when it is left alone; 0 if it is well.
    until: AtomicU64,
}

/// How many of the requests that are its turn an endpoint gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Share {
    /// All.
    Full,
    /// None.
    None,
    /// So many of 256.
    Part(u8),
}

impl Health {
    /// What it gets now. Without trouble this asks for no time.
    pub(crate) fn share(&self, now: impl FnOnce() -> u64, slow_return: Duration) -> Share {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return Share::Full;
        }
        let Some(since) = now().checked_sub(until) else {
            return Share::None;
        };
        let whole = u64::try_from(slow_return.as_millis()).unwrap_or(u64::MAX);
        match since.saturating_mul(255).checked_div(whole).map(u8::try_from) {
            // From 1 in 16: a first request must come, or nobody learns that it is back.
            Some(Ok(part)) if part < 255 => Share::Part(part.max(16)),
            _ => {
                self.until.store(0, Ordering::Relaxed);
                self.ejections.store(0, Ordering::Relaxed);
                Share::Full
            }
        }
    }

    /// A connection stands.
    pub(crate) fn connected(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// It has said itself that it cannot serve: until it says otherwise.
    pub(crate) fn ill(&self) {
        self.until.store(u64::MAX, Ordering::Relaxed);
    }

    /// It has said that it can serve again. It comes back slowly, as after failed connects.
    pub(crate) fn well(&self, now: u64) {
        self.failures.store(0, Ordering::Relaxed);
        self.ejections.store(0, Ordering::Relaxed);
        self.until.store(now.max(1), Ordering::Relaxed);
    }

    /// Whether it is left alone.
    pub(crate) fn is_ejected(&self, now: u64) -> bool {
        self.until.load(Ordering::Relaxed) > now
    }

    /// A connection could not be made; whether it is left alone from now on.
    pub(crate) fn failed(&self, now: u64, limits: &Upstreams) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        // Requests that were on their way when it was found out say nothing new.
        if until > now {
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        // One that has just come back has one chance.
        let returning = until != 0;
        if failures < limits.failures && !returning {
            return false;
        }
        let ejections = self.ejections.fetch_add(1, Ordering::Relaxed).min(MOST_DOUBLINGS);
        let time = limits.ejection.saturating_mul(1 << ejections);
        let until = now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.failures.store(0, Ordering::Relaxed);
        self.until.store(until.max(1), Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(health: &Health, now: u64) -> Share {
        health.share(|| now, Duration::from_secs(20))
    }

    #[test]
    fn three_failures_in_a_row_and_it_is_left_alone_then_comes_back_slowly() {
        let (health, limits) = (Health::default(), Upstreams::default());
        health.failed(0, &limits);
        health.failed(0, &limits);
        health.connected();
        health.failed(0, &limits);
        health.failed(0, &limits);
        assert_eq!(share(&health, 0), Share::Full);
        health.failed(1000, &limits);
        assert_eq!(share(&health, 1000), Share::None);
        assert_eq!(share(&health, 5999), Share::None);
        assert_eq!(share(&health, 6000), Share::Part(16));
        assert_eq!(share(&health, 16_000), Share::Part(127));
        assert_eq!(share(&health, 26_001), Share::Full);
        assert_eq!(share(&health, 0), Share::Full, "and all is forgotten");
    }

    #[test]
    fn what_is_ill_stays_so_until_it_is_well() {
        let (health, limits) = (Health::default(), Upstreams::default());
        health.ill();
        health.failed(1, &limits);
        health.connected();
        assert_eq!(share(&health, u64::MAX - 1), Share::None);
        health.well(50_000);
        assert_eq!(share(&health, 50_000), Share::Part(16));
        assert_eq!(share(&health, 70_001), Share::Full);
    }

    #[test]
    fn each_time_it_is_left_alone_for_longer() {
        let (health, limits) = (Health::default(), Upstreams::default());
        for _ in 0..3 {
            health.failed(0, &limits);
        }
        health.failed(5000, &limits);
        assert_eq!(share(&health, 14_999), Share::None);
        assert_eq!(share(&health, 15_000), Share::Part(16));
        for _ in 0..40 {
            health.failed(15_000, &limits);
        }
        assert_eq!(share(&health, 35_000), Share::Part(16), "those were one event");
        for round in 0..40 {
            health.failed(1_000_000 * round, &limits);
        }
        assert_eq!(share(&health, 39_000_000 + 64 * 5000), Share::Part(16));
    }
}
