//! What probes and scrapes are answered.

use std::future::ready;
use std::sync::Arc;

use prometheus::{Registry, TextEncoder};
use proxy_daemon::http::{Page, Pages};

use crate::probes::Probes;

/// The pages of the status port.
pub struct StatusPages {
    /// How far the process is.
    pub probes: Arc<Probes>,
    /// What is counted.
    pub registry: Registry,
}

impl Pages for StatusPages {
    fn page(&self, path: &str) -> impl Future<Output = Page> + Send {
        ready(match path {
            // The loop answers here itself: if it is stuck, nobody does.
            "/livez" | "/healthz" => Page::text(200, "ok\n"),
            "/readyz" => {
                let (code, word) = self.probes.ready();
                Page::text(code, word)
            }
            "/metrics" => match TextEncoder::new().encode_to_string(&self.registry.gather()) {
                Ok(body) => Page::metrics(body),
                Err(error) => Page::text(500, format!("{error}\n")),
            },
            _ => Page::text(404, "try /livez, /readyz or /metrics\n"),
        })
    }
}
