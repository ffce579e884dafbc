//! The agent's reading of the clock that the rows are written with.

use rustix::time::{ClockId, clock_gettime};

/// Seconds of `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` counts them in the kernel programs.
pub fn monotonic_seconds() -> u32 {
    let seconds = clock_gettime(ClockId::Monotonic).tv_sec;
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
