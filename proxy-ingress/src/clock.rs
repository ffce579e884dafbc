//! The clock of the ingress: milliseconds since it was first asked. Pure parts get them as an argument.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

static FIRST: OnceLock<Instant> = OnceLock::new();

/// Now.
pub(crate) fn now() -> u64 {
    let now = Instant::now();
    let first = *FIRST.get_or_init(|| now);
    u64::try_from(now.saturating_duration_since(first).as_millis()).unwrap_or(u64::MAX)
}

/// Since 1970, by the clock of the wall: for what people and other programs read.
#[expect(clippy::disallowed_methods, reason = "this is the clock of the ingress")]
pub(crate) fn wall() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default()
}
