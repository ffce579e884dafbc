//! The clock of the ingress: milliseconds since it was first asked. Pure parts get them as an argument.

use std::sync::OnceLock;

use tokio::time::Instant;

static FIRST: OnceLock<Instant> = OnceLock::new();

/// Now.
pub(crate) fn now() -> u64 {
    let now = Instant::now();
    let first = *FIRST.get_or_init(|| now);
    u64::try_from(now.saturating_duration_since(first).as_millis()).unwrap_or(u64::MAX)
}
