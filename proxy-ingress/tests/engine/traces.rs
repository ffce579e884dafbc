//! Traces: what backends are told, and what a collector gets. It is one of our own, which reads what it gets with the
//! messages that OpenTelemetry generates.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use proxy_ingress::telemetry::Tracing;

use crate::common::{Front, Plan, wait};
use crate::peers::{Backing, runtime};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Takes spans, and answers with the statuses that it is told to, then with 200.
struct Collecting {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<ExportTraceServiceRequest>,
    heads: Vec<String>,
    statuses: Vec<StatusCode>,
}

impl Collecting {
    fn start(statuses: &[u16]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen {
            statuses: statuses
                .iter()
                .rev()
                .map(|status| StatusCode::from_u16(*status).unwrap())
                .collect(),
            ..Seen::default()
        }));
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let all = Arc::clone(&all);
                    let service = hyper::service::service_fn(move |request| take(Arc::clone(&all), request));
                    let builder = hyper::server::conn::http1::Builder::new();
                    tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
                }
            });
        });
        Self { address, seen }
    }

    fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock().unwrap();
        let resources = seen.requests.iter().flat_map(|request| &request.resource_spans);
        resources
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| scope.spans.clone())
            .collect()
    }

    /// The spans, once there are so many.
    fn wait(&self, count: usize) -> Vec<Span> {
        wait("the spans", || self.spans().len() >= count);
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

async fn take(
    all: Arc<Mutex<Seen>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let head = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut all = all.lock().unwrap();
    all.heads.push(head);
    let status = all.statuses.pop().unwrap_or(StatusCode::OK);
    if status == StatusCode::OK {
        all.requests
            .push(ExportTraceServiceRequest::decode(body).unwrap());
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}

fn start(collector: SocketAddr, endpoints: &[SocketAddr], change: impl FnOnce(&mut Tracing)) -> Front {
    let mut tracing = Tracing::new(format!("http://{collector}").parse().unwrap());
    tracing.back_off = Duration::from_millis(10);
    change(&mut tracing);
    let mut plan = Plan::to(endpoints);
    plan.telemetry.tracing = Some(tracing);
    plan.start()
}

fn ask(front: &Front, headers: &str) -> String {
    front.says(format!(
        "GET /a/b?token=secret HTTP/1.1\r\nHost: a.example:80\r\nUser-Agent: me\r\n{headers}Connection: close\r\n\r\n"
    ))
}

/// The value of a header that the backend saw.
fn header(head: &str, name: &str) -> Option<String> {
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.map(ToOwned::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    all.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_sampled_parent_gets_a_span_of_the_request_and_one_of_each_try() {
    let (collecting, backing) = (Collecting::start(&[]), Backing::echo());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let front = start(collecting.address, &[nobody, backing.address], |tracing| {
        tracing.resource = vec![("k8s.pod.name".into(), "one".into())];
    });
    let head = ask(
        &front,
        &format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\n"),
    );
    let spans = collecting.wait(3);
    let second = &spans[2];
    assert_of_one_trace(&spans);
    assert_of_a_request(&spans[0]);
    assert_tries(&spans, (nobody.port(), backing.address.port()));
    let told = format!("00-{TRACE}-{}-01", hex(&second.span_id));
    assert_eq!(header(&head, "traceparent"), Some(told), "{head}");
    assert_eq!(header(&head, "tracestate").as_deref(), Some("a=1"));
    front.counts("weir_ingress_spans_total{result=\"sent\"}", 3.0);
    assert_resource(&collecting);
}

fn assert_of_one_trace(spans: &[Span]) {
    let server = &spans[0];
    for span in spans {
        assert_eq!(
            (
                hex(&span.trace_id).as_str(),
                span.trace_state.as_str(),
                span.flags & 1
            ),
            (TRACE, "a=1", 1)
        );
        assert!(span.start_time_unix_nano > 1_700_000_000_000_000_000);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(span.start_time_unix_nano >= server.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= server.end_time_unix_nano);
    }
}

fn assert_of_a_request(server: &Span) {
    assert_eq!(
        (
            hex(&server.parent_span_id).as_str(),
            server.kind(),
            server.name.as_str()
        ),
        (PARENT, SpanKind::Server, "GET /")
    );
    assert_eq!(
        attributes(&server.attributes),
        map(&[
            ("http.request.method", "GET"),
            ("url.scheme", "http"),
            ("url.path", "/a/b"),
            ("http.response.status_code", "200"),
            ("http.route", "/"),
            ("weir.ingress", "test/ingress"),
            ("server.address", "a.example"),
            ("server.port", "80"),
            ("client.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "me"),
        ])
    );
}

/// The first try finds nobody, the second an endpoint.
fn assert_tries(spans: &[Span], (ill, well): (u16, u16)) {
    let (server, first, second) = (&spans[0], &spans[1], &spans[2]);
    for span in [first, second] {
        assert_eq!(
            (&span.parent_span_id, span.kind(), span.name.as_str()),
            (&server.span_id, SpanKind::Client, "GET")
        );
    }
    let (ill, well) = (ill.to_string(), well.to_string());
    assert_eq!(
        attributes(&first.attributes),
        map(&[
            ("http.request.method", "GET"),
            ("server.address", "127.0.0.1"),
            ("server.port", &ill),
            ("error.type", "connect"),
        ])
    );
    assert_eq!(first.status.as_ref().unwrap().code, 2);
    assert_eq!(
        attributes(&second.attributes),
        map(&[
            ("http.request.method", "GET"),
            ("server.address", "127.0.0.1"),
            ("server.port", &well),
            ("http.request.resend_count", "1"),
            ("http.response.status_code", "200"),
        ])
    );
}

fn assert_resource(collecting: &Collecting) {
    let seen = collecting.seen.lock().unwrap();
    assert!(
        seen.heads[0].starts_with("POST /v1/traces ") && seen.heads[0].contains("application/x-protobuf"),
        "{:?}",
        seen.heads
    );
    let resource = seen.requests[0].resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(
        attributes(&resource.attributes),
        map(&[
            ("service.name", "weir-ingress"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("k8s.pod.name", "one"),
        ])
    );
}

#[test]
fn who_is_not_sampled_is_handed_on_and_nonsense_is_not() {
    let (collecting, backing) = (Collecting::start(&[]), Backing::echo());
    let front = start(collecting.address, &[backing.address], |_| ());
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let head = ask(
        &front,
        &format!("traceparent: {unsampled}\r\ntracestate: a=1\r\n"),
    );
    assert_eq!(header(&head, "traceparent"), Some(unsampled));
    assert_eq!(header(&head, "tracestate").as_deref(), Some("a=1"));
    for bad in [
        format!("00-{TRACE}-{PARENT}-01-x"),
        format!("00-{TRACE}-{PARENT}-01\r\ntraceparent: 00-{TRACE}-{PARENT}-01"),
    ] {
        let head = ask(&front, &format!("traceparent: {bad}\r\ntracestate: a=1\r\n"));
        assert!(!head.contains("trace"), "{head}");
    }
    let head = ask(&front, "");
    assert!(!head.contains("trace"), "no trace begins here: {head}");
    // Had one of those been traced, its spans would be here with these.
    ask(&front, &format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"));
    collecting.wait(2);
}

#[test]
fn without_a_collector_nothing_is_looked_at() {
    let backing = Backing::echo();
    let front = Plan::to(&[backing.address]).start();
    let head = ask(&front, "traceparent: whatever\r\n");
    assert_eq!(header(&head, "traceparent").as_deref(), Some("whatever"));
}

#[test]
fn traces_begin_here_if_that_is_asked_for() {
    let (collecting, backing) = (Collecting::start(&[]), Backing::echo());
    let front = start(collecting.address, &[backing.address], |tracing| {
        tracing.ratio = 1.0;
    });
    let head = ask(&front, "traceparent: nonsense\r\ntracestate: a=1\r\n");
    let spans = collecting.wait(2);
    assert_eq!(spans[0].parent_span_id, b"");
    let told = format!("00-{}-{}-01", hex(&spans[0].trace_id), hex(&spans[1].span_id));
    assert_eq!(header(&head, "traceparent"), Some(told));
    assert_eq!(header(&head, "tracestate"), None);
}

#[test]
fn errors_are_marked() {
    let collecting = Collecting::start(&[]);
    let front = start(collecting.address, &[], |tracing| tracing.ratio = 1.0);
    ask(&front, "");
    let spans = collecting.wait(1);
    let all = attributes(&spans[0].attributes);
    assert_eq!(
        (
            all["http.response.status_code"].as_str(),
            all["error.type"].as_str()
        ),
        ("503", "no_endpoint")
    );
    assert_eq!(spans[0].status.as_ref().unwrap().code, 2);
    front.says("MADE-UP / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let spans = collecting.wait(2);
    assert_eq!(spans[1].name, "HTTP /");
    assert_eq!(
        attributes(&spans[1].attributes)["http.request.method_original"],
        "MADE-UP"
    );
}

#[test]
fn a_collector_that_has_no_time_is_asked_again_and_one_that_refuses_is_not() {
    let (collecting, backing) = (Collecting::start(&[503, 429, 200, 400]), Backing::echo());
    let front = start(collecting.address, &[backing.address], |tracing| {
        tracing.ratio = 1.0;
    });
    ask(&front, "");
    collecting.wait(2);
    front.counts("weir_ingress_spans_total{result=\"sent\"}", 2.0);
    ask(&front, "");
    front.counts("weir_ingress_spans_total{result=\"dropped\"}", 2.0);
    ask(&front, "");
    collecting.wait(4);
}

#[test]
fn a_collector_that_is_away_holds_up_nobody() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let backing = Backing::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let front = start(nobody, &[backing.address], |tracing| {
        tracing.ratio = 1.0;
        tracing.back_off = Duration::from_mins(1);
    });
    let mut raw = front.raw();
    wait("dropped spans", || {
        for _ in 0..200 {
            raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(raw.response(2).starts_with("HTTP/1.1 200 "));
        }
        front.sample("weir_ingress_spans_total{result=\"dropped\"}") > 0.0
    });
}

#[test]
fn the_last_spans_are_sent_at_the_end() {
    let (collecting, backing) = (Collecting::start(&[]), Backing::echo());
    let front = start(collecting.address, &[backing.address], |tracing| {
        tracing.ratio = 1.0;
    });
    ask(&front, "");
    front.engine.drain();
    front.engine.join();
    assert_eq!(collecting.spans().len(), 2);
}
