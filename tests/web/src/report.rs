//! What came of requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Failures that are told in full.
const TOLD: usize = 10;

/// What came of requests; one JSON value on the standard output of `weir-web load`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Answered as they should be.
    pub ok: u64,
    /// Not.
    pub failed: u64,
    /// The first failures.
    pub failures: Vec<String>,
    /// Connections that were made.
    pub connections: u64,
    /// Connections that the server ended, as it may, between two requests or messages.
    pub ended: u64,
    /// When it first did, in milliseconds from the beginning.
    pub first_end_ms: Option<u64>,
    /// Answers by the name of who gave them.
    pub pods: BTreeMap<String, u64>,
    /// Connections by the serial number of the certificate that was shown.
    pub certificates: BTreeMap<String, u64>,
    /// Half of the requests took less, in microseconds from when they were due.
    pub p50: u64,
    /// All but one in a hundred took less.
    pub p99: u64,
    /// The longest.
    pub max: u64,
    /// How long all of it took.
    pub elapsed_ms: u64,
    #[serde(skip)]
    micros: Vec<u64>,
}

impl Report {
    /// A request was answered by this pod.
    pub fn answered(&mut self, pod: &str, micros: u64) {
        self.ok += 1;
        *self.pods.entry(pod.to_owned()).or_default() += 1;
        self.micros.push(micros);
    }

    /// A request failed.
    pub fn lost(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(why);
        }
    }

    /// A connection stands.
    pub fn connected(&mut self, certificate: Option<String>) {
        self.connections += 1;
        if let Some(serial) = certificate {
            *self.certificates.entry(serial).or_default() += 1;
        }
    }

    /// The server ended a connection.
    pub fn end(&mut self, elapsed_ms: u64) {
        self.ended += 1;
        self.first_end_ms.get_or_insert(elapsed_ms);
    }

    /// Works out what is told at the end.
    pub fn close(&mut self, elapsed_ms: u64) {
        self.micros.sort_unstable();
        let quantile = |percent: usize| {
            let place = (self.micros.len() * percent / 100).min(self.micros.len().saturating_sub(1));
            self.micros.get(place).copied().unwrap_or(0)
        };
        (self.p50, self.p99, self.max) = (quantile(50), quantile(99), quantile(100));
        self.elapsed_ms = elapsed_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_told_by_rank_and_failures_up_to_a_number() {
        let mut report = Report::default();
        for micros in (1..=200).rev() {
            report.answered("web-1", micros);
        }
        for number in 0..20 {
            report.lost(number.to_string());
        }
        report.connected(Some("01".to_owned()));
        report.close(7);
        assert_eq!((report.p50, report.p99, report.max), (101, 199, 200));
        assert_eq!((report.failed, report.failures.len()), (20, TOLD));
        let text = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!((read.ok, read.max), (200, 200));
        assert_eq!(read.certificates.get("01"), Some(&1));
    }
}
