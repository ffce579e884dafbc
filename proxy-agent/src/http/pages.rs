//! What is answered at the agent's own two ports.

use std::future::ready;
use std::sync::Arc;

use prometheus::IntCounterVec;
use proxy_daemon::http::{Page, Pages};

use crate::clock;
use crate::health::{Health, Probe};
use crate::metrics::{Metrics, Scraper};

/// `/healthz` and `/livez`.
pub(super) struct Probes {
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
}

impl Pages for Probes {
    fn page(&self, path: &str) -> impl Future<Output = Page> + Send {
        ready(match path {
            "/healthz" => self.answer(Probe::Healthy, &self.metrics.healthz),
            "/livez" => self.answer(Probe::Live, &self.metrics.livez),
            _ => Page::text(404, "try /healthz or /livez\n"),
        })
    }
}

impl Probes {
    fn answer(&self, probe: Probe, counter: &IntCounterVec) -> Page {
        let answer = self.health.answer(probe, clock::monotonic());
        counter.with_label_values(&[answer.code().to_string()]).inc();
        Page::json(answer.code(), serde_json::to_string(&answer).unwrap_or_default())
    }
}

/// `/metrics`, and what else kube-proxy answers there.
pub(super) struct Scrapes(pub(super) Arc<Scraper>);

impl Pages for Scrapes {
    async fn page(&self, path: &str) -> Page {
        match path {
            "/metrics" => self.scrape().await,
            // What kube-proxy answers at this port: that it does, and what it is.
            "/healthz" => Page::text(200, "ok"),
            "/proxyMode" => Page::text(200, "weir"),
            _ => Page::text(404, "try /metrics, /healthz or /proxyMode\n"),
        }
    }
}

impl Scrapes {
    /// Beside this thread, which has probes to answer.
    async fn scrape(&self) -> Page {
        let scraper = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || scraper.text()).await {
            Ok(Ok(body)) => Page::metrics(body),
            Ok(Err(error)) => Page::text(500, format!("{error}\n")),
            Err(error) => Page::text(500, format!("{error}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn probes_are_answered_as_kube_proxy_answers_them() {
        let (health, metrics) = (Arc::<Health>::default(), Arc::new(Metrics::new().unwrap()));
        let probes = Probes {
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
        };
        for path in ["/healthz", "/livez"] {
            let page = probes.page(path).await;
            assert_eq!((page.code, page.kind), (200, "application/json"), "{page:?}");
            assert!(page.body.contains(r#""healthy":true"#), "{page:?}");
            assert_eq!(
                page.body.contains(r#""nodeEligible":true"#),
                path == "/healthz",
                "{page:?}"
            );
        }
        health.began(Duration::ZERO);
        assert_eq!(probes.page("/livez").await.code, 503);
        assert_eq!(probes.page("/").await.code, 404);
        let counted = |code: &str| metrics.livez.with_label_values(&[code]).get();
        assert_eq!((counted("200"), counted("503")), (1, 1));
    }

    #[tokio::test]
    async fn metrics_are_answered_even_if_the_maps_cannot_be_read() {
        let nowhere = crate::kernel::Pins::new("/nowhere");
        let scraper = Scraper::new(Arc::new(Metrics::new().unwrap()), nowhere);
        let pages = Scrapes(Arc::new(scraper));
        let page = pages.page("/metrics").await;
        assert_eq!((page.code, page.kind), (200, "text/plain; version=0.0.4"));
        assert!(page.body.contains("\nweir_scrape_errors_total 1\n"), "{page:?}");
        assert_eq!(pages.page("/healthz").await, Page::text(200, "ok"));
        assert_eq!(pages.page("/proxyMode").await, Page::text(200, "weir"));
        assert_eq!(pages.page("/configz").await.code, 404);
    }
}
