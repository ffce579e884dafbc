//! What a client saw: counts that tests compare, as JSON between the processes.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of a client's run. A snapshot of a running one has the same shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Connections (or UDP exchanges) that were tried.
    pub attempted: u64,
    /// Those that a server answered.
    pub ok: u64,
    /// Answered connections by the name of the server.
    pub backends: BTreeMap<String, u64>,
    /// Answered connections by the client's address as the server saw it.
    pub seen_as: BTreeMap<String, u64>,
    /// Connections that failed, while opening or while held.
    pub errors: Errors,
    /// The first few errors, for people.
    pub error_texts: Vec<String>,
    /// Messages answered on held connections.
    pub messages: u64,
    /// Answers on held connections that came from another server than the greeting.
    pub wrong_backend: u64,
    /// Time from `connect()` to the greeting, in microseconds.
    pub latency: Latency,
    /// Time from `connect()` to the error of connections that failed, in microseconds; not of held ones.
    pub error_latency: Latency,
    /// Length of the run.
    pub elapsed_ms: u64,
}

/// Failed connections by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// `ECONNREFUSED`.
    pub refused: u64,
    /// `ECONNRESET` or `EPIPE`.
    pub reset: u64,
    /// No answer in time.
    pub timeout: u64,
    /// `EHOSTUNREACH`, `ENETUNREACH` and relatives.
    pub unreachable: u64,
    /// The server closed the connection without an answer.
    pub closed: u64,
    /// Anything else; see `error_texts`.
    pub other: u64,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: u64,
    /// 99 of 100 were faster.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

impl Errors {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.refused + self.reset + self.timeout + self.unreachable + self.closed + self.other
    }
}

impl Report {
    /// How many connections went to this server.
    pub fn backend(&self, name: &str) -> u64 {
        self.backends.get(name).copied().unwrap_or(0)
    }

    /// The counts of all servers that answered, in the order of their names.
    pub fn counts(&self) -> Vec<u64> {
        self.backends.values().copied().collect()
    }

    /// Whether all connections were answered, and by the server that greeted.
    pub fn is_clean(&self) -> bool {
        self.errors.total() == 0 && self.wrong_backend == 0 && self.ok == self.attempted
    }

    pub(crate) fn count_error(&mut self, error: &io::Error) {
        const UNREACHABLE: [io::ErrorKind; 3] = [
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::PermissionDenied,
        ];
        let counter = match error.kind() {
            io::ErrorKind::ConnectionRefused => &mut self.errors.refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => &mut self.errors.reset,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => &mut self.errors.timeout,
            io::ErrorKind::UnexpectedEof => &mut self.errors.closed,
            kind if UNREACHABLE.contains(&kind) => &mut self.errors.unreachable,
            _ => &mut self.errors.other,
        };
        *counter += 1;
        if self.error_texts.len() < 5 {
            self.error_texts.push(error.to_string());
        }
    }
}

/// A report that grows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) report: Report,
    latencies: Vec<u64>,
    error_latencies: Vec<u64>,
}

impl Tally {
    pub(crate) fn answered(&mut self, backend: &str, seen_as: &str, latency: Duration) {
        self.report.ok += 1;
        *self.report.backends.entry(backend.to_owned()).or_default() += 1;
        *self.report.seen_as.entry(seen_as.to_owned()).or_default() += 1;
        self.latencies.push(micros(latency));
    }

    pub(crate) fn failed(&mut self, error: &io::Error, after: Option<Duration>) {
        self.report.count_error(error);
        self.error_latencies.extend(after.map(micros));
    }

    /// The report as of now.
    pub(crate) fn snapshot(&self, elapsed: Duration) -> Report {
        let mut report = self.report.clone();
        report.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        report
    }

    /// The report at the end, with the latencies.
    pub(crate) fn finish(self, elapsed: Duration) -> Report {
        let mut report = self.snapshot(elapsed);
        report.latency = rank(self.latencies);
        report.error_latency = rank(self.error_latencies);
        report
    }
}

fn rank(mut latencies: Vec<u64>) -> Latency {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = latencies.len().saturating_sub(1) * percent / 100;
        latencies.get(index).copied().unwrap_or(0)
    };
    Latency {
        p50: at(50),
        p99: at(99),
        max: at(100),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_ranked() {
        let mut tally = Tally::default();
        for micros in (1..=101).rev() {
            tally.answered("web-1", "10.0.0.1", Duration::from_micros(micros));
        }
        let report = tally.finish(Duration::from_millis(7));
        assert_eq!(
            report.latency,
            Latency {
                p50: 51,
                p99: 100,
                max: 101
            }
        );
        assert_eq!(report.backend("web-1"), 101);
        assert_eq!(report.elapsed_ms, 7);
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let mut report = Report::default();
        report.count_error(&io::Error::from(io::ErrorKind::ConnectionRefused));
        report.count_error(&io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!((report.errors.refused, report.errors.closed), (1, 1));
        assert_eq!(report.errors.total(), 2);
    }
}
