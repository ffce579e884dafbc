//! The access log: what is in its lines, when they are written, and that nobody waits for them.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use proxy_ingress::telemetry::{AccessLog, Destination, Field};
use serde_json::{Value, json};

use crate::common::{Front, Plan, wait};
use crate::peers::Backing;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A file of its own, deleted at the end.
struct Log(PathBuf);

impl Log {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-access-{}-{number}.log", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn settings(&self, fields: &[Field]) -> AccessLog {
        AccessLog {
            to: Destination::File(self.0.clone()),
            fields: fields.to_vec(),
            one_of: 1,
        }
    }

    /// The lines, once there are so many.
    fn lines(&self, count: usize) -> Vec<Value> {
        let read = || fs::read_to_string(&self.0).unwrap_or_default();
        wait("the lines", || read().lines().count() >= count);
        let text = read();
        assert_eq!(text.lines().count(), count, "{text}");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

fn start(log: &Log, fields: &[Field], backing: &Backing) -> Front {
    let mut plan = Plan::to(&[backing.address]);
    plan.telemetry.access_log = Some(log.settings(fields));
    plan.start()
}

/// All that is the same each time.
const SURE: &[Field] = &[
    Field::Client,
    Field::Method,
    Field::Scheme,
    Field::Host,
    Field::Path,
    Field::Query,
    Field::Protocol,
    Field::Status,
    Field::BytesIn,
    Field::BytesOut,
    Field::Upstream,
    Field::UpstreamStatus,
    Field::Route,
    Field::Ingress,
    Field::Retries,
    Field::RequestId,
    Field::TraceId,
    Field::UserAgent,
    Field::Referer,
    Field::TlsVersion,
    Field::Sni,
    Field::Refusal,
    Field::Aborted,
];

#[test]
fn a_line_tells_all_that_was_asked_for() {
    let (log, backing) = (
        Log::new(),
        Backing::raw(|session| {
            session.head();
            session.bytes(5);
            session.say("HTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\nok");
        }),
    );
    let front = start(&log, SURE, &backing);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    front.says(format!(
        "POST /a%20b?token=x HTTP/1.1\r\nHost: A.example:80\r\nContent-Length: 5\r\nUser-Agent: me\r\nX-Request-Id: 77\r\n\
         traceparent: 00-{trace}-b7ad6b7169203331-00\r\nReferer: http://b/c?secret#d\r\nCookie: secret\r\n\
         Authorization: secret\r\nConnection: close\r\n\r\nhello"
    ));
    let expected = json!({
        "client": "127.0.0.1", "method": "POST", "scheme": "http", "host": "A.example:80", "path": "/a%20b",
        "query": "token=x", "protocol": "HTTP/1.1", "status": 201, "bytes_in": 5, "bytes_out": 2,
        "upstream": backing.address.to_string(), "upstream_status": 201, "route": "/", "ingress": "test/ingress",
        "retries": 0, "request_id": "77", "trace_id": trace, "user_agent": "me", "referer": "http://b/c",
    });
    assert_eq!(log.lines(1), [expected]);
}

#[test]
fn times_are_from_the_head_on() {
    let (log, backing) = (
        Log::new(),
        Backing::raw(|session| {
            session.head();
            session.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
            session.byte();
            session.say("k");
        }),
    );
    let front = start(
        &log,
        &[
            Field::Time,
            Field::Duration,
            Field::UpstreamTime,
            Field::RequestId,
        ],
        &backing,
    );
    let mut raw = front.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\n");
    raw.until("\r\n\r\no");
    assert!(
        !log.0.exists() || fs::read_to_string(&log.0).unwrap().is_empty(),
        "it has not ended"
    );
    raw.send("x");
    raw.rest();
    let line = &log.lines(1)[0];
    let millis = |field: &str| line[field].as_f64().unwrap();
    assert!(
        millis("upstream_ms") > 0.0 && millis("upstream_ms") < millis("duration_ms"),
        "{line}"
    );
    assert!(
        line["time"].as_str().unwrap().starts_with("20") && line["time"].as_str().unwrap().len() == 24,
        "{line}"
    );
    assert_eq!(
        line["request_id"].as_str().unwrap().len(),
        32,
        "the one that the backend got"
    );
}

#[test]
fn how_a_request_ended_is_told() {
    let (log, backing) = (
        Log::new(),
        Backing::raw(|session| {
            while let Some(head) = session.head() {
                if head.contains("/half") {
                    session.say("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf");
                    return;
                } else if head.contains("/up") {
                    session.say("HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                    while let Some(byte) = session.byte() {
                        let _sent = session.stream.write_all(&[byte, byte]);
                    }
                } else if head.contains("/much") {
                    session.say("HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n");
                    while session.stream.write_all(&[0; 10_000]).is_ok() {}
                }
            }
        }),
    );
    let fields = [Field::Path, Field::Status, Field::Refusal, Field::Aborted];
    let front = start(&log, &fields, &backing);
    let mut raw = front.raw();
    raw.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    wait("the request", || backing.seen().contains("/gone"));
    drop(raw);
    log.lines(1);
    front.says("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    log.lines(2);
    let mut raw = front.raw();
    raw.send("GET /much HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.until("\r\n\r\n");
    drop(raw);
    log.lines(3);
    front.says("GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    log.lines(4);
    let mut raw = front.raw();
    raw.send("GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    raw.until("\r\n\r\n");
    raw.send("abc");
    raw.until("aabbcc");
    front.counts("weir_ingress_tunnels", 1.0);
    drop(raw);
    let expected = [
        json!({"path": "/gone", "status": 499, "aborted": "client"}),
        json!({"path": "/half", "status": 200, "aborted": "backend"}),
        json!({"path": "/much", "status": 200, "aborted": "client"}),
        json!({"path": "/bad", "status": 400, "refusal": "host"}),
        json!({"path": "/up", "status": 101}),
    ];
    assert_eq!(log.lines(5), expected);
    front.counts("weir_ingress_access_log_lines_total{result=\"written\"}", 5.0);
}

#[test]
fn strangers_write_no_lines_of_their_own() {
    let (log, backing) = (Log::new(), Backing::always(OK));
    let front = start(&log, &[Field::Status, Field::Path, Field::UserAgent], &backing);
    let request = b"GET /\"\\{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: \"}\t\xff\xc2\x9b\\n{\"status\":1}\r\n\r\n";
    front.says(request);
    let line = &log.lines(1)[0];
    assert_eq!(line["user_agent"], "\"}\t\u{fffd}\u{9b}\\n{\"status\":1}");
    let text = fs::read_to_string(&log.0).unwrap();
    assert_eq!(
        text.chars().filter(|letter| letter.is_control()).count(),
        1,
        "{text:?}"
    );
}

#[test]
fn a_file_that_was_renamed_or_deleted_is_left_alone() {
    let (log, old) = (Log::new(), Log::new());
    let backing = Backing::always(OK);
    let front = start(&log, &[Field::Path], &backing);
    let ask = |path: &str| {
        front.says(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ))
    };
    ask("/one");
    log.lines(1);
    fs::rename(&log.0, &old.0).unwrap();
    fs::write(&log.0, "").unwrap();
    let new = || fs::read_to_string(&log.0).unwrap();
    wait("a line in the new file", || {
        ask("/two");
        new().contains("/two")
    });
    let before = fs::read_to_string(&old.0).unwrap();
    fs::remove_file(&log.0).unwrap();
    wait("a file again", || {
        ask("/three");
        log.0.exists() && new().contains("/three")
    });
    assert!(before.contains("/one") && !fs::read_to_string(&old.0).unwrap().contains("/three"));
}

#[test]
fn what_is_at_work_at_the_end_is_told_too() {
    let (log, backing) = (Log::new(), Backing::always(OK));
    let mut plan = Plan::to(&[backing.address]).settings(|settings| {
        settings.tick = std::time::Duration::from_secs(1);
        settings.drain = std::time::Duration::ZERO;
    });
    plan.telemetry.access_log = Some(log.settings(&[Field::Status]));
    let front = plan.start();
    front.says("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    front.engine.drain();
    front.engine.join();
    assert_eq!(fs::read_to_string(&log.0).unwrap(), "{\"status\":200}\n");
}

#[test]
fn a_reader_that_takes_nothing_holds_up_nobody() {
    let log = Log::new();
    assert!(Command::new("mkfifo").arg(&log.0).status().unwrap().success());
    // Open in both directions, so that opening waits for nobody; read by nobody.
    let pipe = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&log.0)
        .unwrap();
    let backing = Backing::always(OK);
    let mut plan = Plan::to(&[backing.address]);
    plan.settings.tick = std::time::Duration::from_millis(1);
    plan.telemetry.access_log = Some(log.settings(&[Field::UserAgent]));
    let front = plan.start();
    let mut raw = front.raw();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: {}\r\n\r\n",
        "x".repeat(2_000)
    );
    wait("dropped lines", || {
        for _ in 0..200 {
            raw.send(&request);
            assert!(raw.response(2).starts_with("HTTP/1.1 200 "));
        }
        front.sample("weir_ingress_access_log_lines_total{result=\"dropped\"}") > 0.0
    });
    drop(pipe);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_at_once() {
    let mut plan = Plan::to(&[]);
    let log = Log(PathBuf::from("/nowhere/at/all.log"));
    plan.telemetry.access_log = Some(log.settings(&[Field::Status]));
    let error = plan.try_start().err().unwrap().to_string();
    assert!(
        error.contains("/nowhere/at/all.log") && error.contains("--access-log"),
        "{error}"
    );
}
