//! The machine: which CPU does what, and what a reader must know to compare numbers.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Who runs where.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// The CPU of what is measured.
    pub measured: usize,
    /// How many there are.
    pub count: usize,
}

/// Keeps this process, and those that it will start, off the CPU that is measured.
pub fn place(wanted: Option<usize>) -> Result<Cpus> {
    let count = std::thread::available_parallelism()
        .context("cannot count the CPUs")?
        .get();
    let measured = wanted.unwrap_or(count - 1);
    ensure!(
        measured < count,
        "there is no CPU {measured}: the machine has {count}"
    );
    if count > 1 {
        let mut others = CpuSet::new();
        for cpu in (0..count).filter(|cpu| *cpu != measured) {
            others.set(cpu);
        }
        sched_setaffinity(None, &others).context("cannot choose the CPUs to run on")?;
    }
    Ok(Cpus { measured, count })
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// What the numbers depend on, as (name, value); `pinning` says who runs where.
pub fn describe(pinning: &str) -> Result<Vec<(String, String)>> {
    let uname = rustix::system::uname();
    let cpu = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let mut models = cpu
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("unknown", |(_, model)| model);
    Ok(vec![
        fact("kernel", &uname.release().to_string_lossy()),
        fact("CPU", &format!("{model}, {}", models.count() + 1)),
        fact("pinning", pinning),
        fact(
            "spectre_v2",
            &read("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
        ),
        fact("load average", &read("/proc/loadavg")),
    ])
}

/// A line of the report's head.
pub fn fact(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.trim().to_owned())
}

/// What a file of the kernel says.
pub fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Nanoseconds that a process has been on a CPU, with the softirqs that it ran on the way.
pub fn cpu_nanos(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = text.split(' ').next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("{path} begins with {first:?}"))
}
