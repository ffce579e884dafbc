//! Traces: which requests belong to one, and the spans of those that are sampled.
//!
//! ```text
//!  traceparent ─▶ context.rs ─┬─ sampled ─────▶ spans.rs ─▶ bounded queue ─▶ export.rs ─▶ collector (otlp.rs)
//!                             └─ not sampled ─▶ handed on as it came, and that is all
//! ```
//!
//! Without a collector nothing is looked at, and nothing changed: a proxy that takes no part in a trace hands it on.

pub(crate) mod context;
pub(crate) mod export;
pub(crate) mod otlp;
pub(crate) mod spans;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::HeaderMap;
use tokio::sync::mpsc::Sender;

use self::context::{Came, Context};
use self::export::Sent;
use self::otlp::Span;
use crate::mix::Random;

/// What is traced, and who is told.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Who takes spans.
    pub collector: Collector,
    /// Of requests that bring no trace, this part begins one: 0 for none, 1 for all.
    pub ratio: f64,
    /// `service.name`.
    pub service: String,
    /// What else is known of this process: `k8s.pod.name`, for example.
    pub resource: Vec<(String, String)>,
    /// Until a collector that is away is asked again; doubled each time.
    pub back_off: Duration,
}

impl Tracing {
    /// To this collector: traces that others began, and no more.
    pub fn new(collector: Collector) -> Self {
        Self {
            collector,
            ratio: 0.0,
            service: "weir-ingress".into(),
            resource: Vec::new(),
            back_off: Duration::from_secs(1),
        }
    }
}

/// Where a collector is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collector {
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
    pub(crate) authority: Box<str>,
    pub(crate) path: Box<str>,
}

/// What is no address of a collector.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address of a collector; give one like http://collector.observability:4318. Clear text only: for TLS and \
     credentials let a collector in the cluster pass spans on"
)]
pub struct NoCollector(String);

impl FromStr for Collector {
    type Err = NoCollector;

    fn from_str(text: &str) -> Result<Self, NoCollector> {
        let wrong = || NoCollector(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong());
        }
        // As OTEL_EXPORTER_OTLP_ENDPOINT: the place of all signals, or that of traces.
        let path = match uri.path().trim_end_matches('/') {
            "" => "/v1/traces",
            path => path,
        };
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).into(),
            port: authority.port_u16().unwrap_or(4318),
            authority: authority.as_str().into(),
            path: path.into(),
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// A worker's side of it.
pub(crate) struct Tracer {
    /// What the upper 63 bits of a trace's lower half must be below.
    threshold: u64,
    to: Sender<Vec<Span>>,
    counts: Arc<Sent>,
}

/// The part that a request has in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) context: Context,
    /// The span that it is under; 0 if the trace begins here.
    pub(crate) parent: u64,
}

impl Tracer {
    pub(crate) fn new(tracing: &Tracing, counts: &Arc<Sent>, to: Sender<Vec<Span>>) -> Self {
        Self {
            threshold: threshold(tracing.ratio),
            to,
            counts: Arc::clone(counts),
        }
    }

    /// What a request's headers say, with what is nonsense taken off, and a beginning where there is none.
    pub(crate) fn part(&self, headers: &mut HeaderMap, random: &Random) -> Option<Part> {
        let came = context::of(headers);
        match came {
            Came::Of(came) if came.is_sampled() => {
                if headers.contains_key(context::STATE) && context::state(headers).is_none() {
                    headers.remove(context::STATE);
                }
                return Some(Part {
                    parent: came.span,
                    context: Context {
                        span: fresh(random),
                        ..came
                    },
                });
            }
            // Nobody will see a span of ours: the parent stays who it was.
            Came::Of(context) => return Some(Part { context, parent: 0 }),
            Came::Nonsense => {
                headers.remove(context::PARENT);
                headers.remove(context::STATE);
            }
            Came::Nothing => {
                if headers.contains_key(context::STATE) {
                    headers.remove(context::STATE);
                }
            }
        }
        if self.threshold == 0 {
            return None;
        }
        let low = fresh(random);
        let trace = u128::from(random.next()) << 64 | u128::from(low);
        let context = Context::begin(trace, fresh(random), low >> 1 < self.threshold);
        // It was decided here that this trace is not sampled, and those behind are to know.
        if let Some(header) = context.header(context.span) {
            headers.insert(context::PARENT, header);
        }
        Some(Part { context, parent: 0 })
    }

    /// A request has ended.
    pub(crate) fn tell(&self, spans: Vec<Span>) {
        let count = spans.len();
        if self.to.try_send(spans).is_err() {
            self.counts.lost(count);
        }
    }
}

/// An id; none is 0.
pub(crate) fn fresh(random: &Random) -> u64 {
    random.next().max(1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a ratio is not exact, and the cast of what is out of range saturates"
)]
fn threshold(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;

    fn tracer(ratio: f64) -> Tracer {
        let mut tracing = Tracing::new("http://a".parse().unwrap());
        tracing.ratio = ratio;
        Tracer::new(&tracing, &Arc::default(), channel(1).0)
    }

    fn headers(parent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(context::PARENT, parent.parse().unwrap());
        headers.insert(context::STATE, "a=1".parse().unwrap());
        headers
    }

    #[test]
    fn a_parent_decides_and_nonsense_is_replaced() {
        let random = Random::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut sampled = headers(parent);
        let part = tracer(0.0).part(&mut sampled, &random).unwrap();
        assert!(
            part.context.is_sampled()
                && part.parent == 0x00f0_67aa_0ba9_02b7
                && part.context.span != part.parent
        );
        let unsampled = parent.replace("-01", "-00");
        let mut there = headers(&unsampled);
        let part = tracer(1.0).part(&mut there, &random).unwrap();
        assert!(!part.context.is_sampled());
        assert_eq!(there, headers(&unsampled));
        let mut bad = headers("00-bad");
        assert_eq!(tracer(0.0).part(&mut bad, &random), None);
        assert!(bad.is_empty(), "{bad:?}");
        let mut bad = headers("00-bad");
        let part = tracer(1.0).part(&mut bad, &random).unwrap();
        assert!(part.context.is_sampled() && part.parent == 0);
        assert_eq!(
            bad.get(context::PARENT),
            part.context.header(part.context.span).as_ref()
        );
        assert!(!bad.contains_key(context::STATE));
    }

    #[test]
    fn so_many_traces_begin_here_as_was_asked_for() {
        let random = Random::new();
        for (ratio, expected) in [(0.0, 0..1), (0.25, 2_200..2_800), (1.0, 10_000..10_001)] {
            let tracer = tracer(ratio);
            let parts = (0..10_000).filter_map(|_| tracer.part(&mut HeaderMap::new(), &random));
            let begun = parts.filter(|part| part.context.is_sampled()).count();
            assert!(expected.contains(&begun), "{ratio}: {begun}");
        }
    }

    #[test]
    fn a_collector_is_a_place_in_clear_text() {
        let collector: Collector = "http://[::1]:4000/".parse().unwrap();
        assert_eq!(
            (&*collector.host, collector.port, &*collector.path),
            ("::1", 4000, "/v1/traces")
        );
        let collector: Collector = "http://otel.obs/custom/v1".parse().unwrap();
        assert_eq!(
            (&*collector.host, collector.port, &*collector.path),
            ("otel.obs", 4318, "/custom/v1")
        );
        for bad in [
            "",
            "otel:4318",
            "https://otel",
            "http://u:p@otel",
            "http://otel?x",
            "grpc://otel",
        ] {
            assert!(bad.parse::<Collector>().is_err(), "{bad}");
        }
    }
}
