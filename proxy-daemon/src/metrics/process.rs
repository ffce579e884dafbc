//! What Prometheus' clients tell about their own process, with their names: read from `/proc/self` at each scrape.

use std::fs;

use prometheus::{Counter, Gauge, IntGauge};
use rustix::param::{clock_ticks_per_second, page_size};

use super::{Adder, number};

/// This process.
#[derive(Debug)]
pub struct Process {
    cpu: Counter,
    resident: IntGauge,
    descriptors: IntGauge,
    start: Gauge,
}

/// The fields of `/proc/self/stat` that are shown.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    started_ticks: f64,
    resident_pages: u64,
}

impl Process {
    /// Nothing is read yet. An error would be a name that this process has registered already.
    pub fn new(add: &Adder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpu: add.add(Counter::new(
                "process_cpu_seconds_total",
                "Time on a CPU, in the kernel and outside",
            )?)?,
            resident: add.int_gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM",
            )?,
            descriptors: add.int_gauge("process_open_fds", "Open file descriptors")?,
            start: add.add(Gauge::new(
                "process_start_time_seconds",
                "When the process started",
            )?)?,
        })
    }

    /// Before a scrape. What cannot be read stays as it was.
    pub fn read(&self) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(stat) = parse(&stat) {
            #[expect(clippy::cast_precision_loss, reason = "a hundred or a thousand")]
            let ticks = clock_ticks_per_second() as f64;
            self.cpu
                .inc_by((stat.cpu_ticks / ticks - self.cpu.get()).max(0.0));
            let bytes = stat
                .resident_pages
                .saturating_mul(page_size().try_into().unwrap_or(0));
            self.resident.set(bytes.try_into().unwrap_or(i64::MAX));
            self.start.set(boot_time() + stat.started_ticks / ticks);
        }
        // Less the one that reads the folder.
        let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.descriptors.set(number(descriptors.saturating_sub(1)));
    }
}

/// The name of the process may hold anything, also brackets; it ends with the last one.
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    // proc_pid_stat(5) counts from 1; the first of these is its third.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok().map(f64::from);
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        started_ticks: fields.get(22 - 3)?.parse().ok()?,
        resident_pages: fields.get(24 - 3)?.parse().ok()?,
    })
}

/// When the machine started, in seconds since 1970: a process's start is counted from there.
fn boot_time() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_kernel_is_read() {
        let line = "77 (we ) ir) S 1 77 77 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 4321 99999744 1234 18446744073709551615";
        let expected = Stat {
            cpu_ticks: 300.0,
            started_ticks: 4321.0,
            resident_pages: 1234,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
        let own = parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(own.resident_pages > 10 && boot_time() > 1e9, "{own:?}");
    }
}
