//! The lab's clock: the one place of this crate that reads the time.

use std::thread;
use std::time::{Duration, Instant};

/// The current instant.
#[expect(clippy::disallowed_methods, reason = "a lab measures and waits in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks `done` every few milliseconds until it says yes; whether it did within `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
