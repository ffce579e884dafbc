//! An API server as small as a test needs: lists by pages, streamed lists, watches with history, and every way to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

mod read;
mod write;

pub(super) use read::Path;

/// What the server holds, and how it behaves.
pub(super) struct State {
    /// By the plural of their kind, then by name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// All events, with the version they made.
    history: Vec<(u64, String, Value)>,
    version: u64,
    /// Versions below this one are forgotten: who asks for them is told "gone".
    oldest: u64,
    /// Each watch ends with a cut when this number changes.
    cuts: u64,
    /// Each watch is told "gone" in its stream when this number changes.
    gone: u64,
    /// Whether streamed lists work.
    pub(super) streams: Streams,
    /// Most objects in a page.
    pub(super) page: usize,
    /// Answer to lists and watches of this kind instead.
    pub(super) refuse: BTreeMap<String, u16>,
    /// Answer to the second page of a list instead.
    pub(super) refuse_second_page: Option<u16>,
    /// Paths with queries, as they were asked.
    pub(super) asked: Vec<String>,
    /// The same, once each, for what is written.
    pub(super) refuse_once: Vec<(String, u16)>,
    /// Nothing is answered.
    pub(super) silent: bool,
    /// Secrets, by namespace and name, whose answers wait: what was there when they were asked for is answered later.
    pub(super) hold: BTreeSet<String>,
    /// Single objects that are being answered, and the most at a time.
    pub(super) at_once: (usize, usize),
    /// What was asked to be written: method, path, body.
    pub(super) written: Vec<(String, String, Value)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// As Kubernetes 1.32 and later.
    Yes,
    /// As a server with the feature switched off.
    Refused,
    /// As a server that has never heard of it: the events come, but never the end of the list.
    Ignored,
}

#[derive(Clone)]
pub(super) struct FakeApi {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
    pub(super) port: u16,
}

/// A second address of the same state.
pub(super) struct Another {
    pub(super) port: u16,
    task: AbortHandle,
}

impl Another {
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The server ends, and its connections with it.
    pub(super) fn end(&self) {
        self.task.abort();
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

impl FakeApi {
    pub(super) async fn start() -> Self {
        let (listener, port) = listener().await;
        let api = Self {
            state: Arc::new(Mutex::new(State {
                objects: BTreeMap::new(),
                history: Vec::new(),
                version: 100,
                oldest: 0,
                cuts: 0,
                gone: 0,
                streams: Streams::Yes,
                page: 500,
                refuse: BTreeMap::new(),
                refuse_second_page: None,
                refuse_once: Vec::new(),
                silent: false,
                hold: BTreeSet::new(),
                at_once: (0, 0),
                asked: Vec::new(),
                written: Vec::new(),
            })),
            changed: watch::channel(()).0,
            port,
        };
        api.accept(listener);
        api
    }

    /// Another server of the same cluster.
    pub(super) async fn another(&self) -> Another {
        let (listener, port) = listener().await;
        let task = self.accept(listener);
        Another { port, task }
    }

    fn accept(&self, listener: TcpListener) -> AbortHandle {
        let server = self.clone();
        let task = tokio::spawn(async move {
            // Connections end with their server.
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                // A client that goes away in mid-answer is no error here.
                clients.spawn(async move { drop(server.serve(stream).await) });
            }
        });
        task.abort_handle()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Creates or changes an object, and tells the watches.
    pub(super) fn put(&self, plural: &str, name: &str, fields: &Value) {
        let mut state = self.state();
        let known = state
            .objects
            .get(plural)
            .is_some_and(|all| all.contains_key(name));
        let object = state.store(plural, name, fields);
        let event = json!({"type": if known { "MODIFIED" } else { "ADDED" }, "object": object});
        state.tell(plural, event);
        drop(state);
        self.changed.send_replace(());
    }

    pub(super) fn delete(&self, plural: &str, name: &str) {
        let mut state = self.state();
        let mut object = state.objects.get_mut(plural).unwrap().remove(name).unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.tell(plural, json!({"type": "DELETED", "object": object}));
        drop(state);
        self.changed.send_replace(());
    }

    /// Changes that no watch sees, as while a connection was lost for long.
    pub(super) fn unseen(&self, plural: &str, put: &[(&str, Value)], delete: &[&str]) {
        let mut state = self.state();
        for (name, fields) in put {
            state.store(plural, name, fields);
        }
        for name in delete {
            state.objects.get_mut(plural).unwrap().remove(*name).unwrap();
        }
        state.version += 1;
        state.oldest = state.version;
    }

    /// Tells every watch that it is too old, inside its stream.
    pub(super) fn gone(&self) {
        self.state().gone += 1;
        self.changed.send_replace(());
    }

    /// Cuts every watch in the middle of a line.
    pub(super) fn cut(&self) {
        self.state().cuts += 1;
        self.changed.send_replace(());
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
        while stream.read_line(&mut line).await? > 2 {}
        while self.state().silent {
            sleep(Duration::from_millis(5)).await;
        }
        if method != "GET" {
            return self.write(stream, method, path, &line).await;
        }
        let stream = stream.into_inner();
        let metadata_only = line.contains("as=PartialObjectMetadata");
        let path = Path::read(&path, metadata_only);
        self.state().asked.push(path.to_string());
        let refused = self.state().refusal(&path);
        if let Some(code) = refused {
            return respond(stream, code, &status(code)).await;
        }
        if path.name.is_some() {
            let (code, body) = self.get(&path).await;
            respond(stream, code, &body).await
        } else if path.query.get("watch").is_some_and(|watch| watch == "true") {
            self.watch(stream, &path).await
        } else {
            let (code, body) = self.state().page(&path);
            respond(stream, code, &body).await
        }
    }

    async fn watch(&self, mut stream: TcpStream, path: &Path) -> std::io::Result<()> {
        let query = &path.query;
        let asks_for_list = query.contains_key("sendInitialEvents");
        let (streams, mut at, oldest, cuts, gone) = {
            let state = self.state();
            let at: u64 = query["resourceVersion"].parse().unwrap();
            (state.streams, at, state.oldest, state.cuts, state.gone)
        };
        if asks_for_list && streams == Streams::Refused {
            return respond(stream, 422, &status(422)).await;
        }
        if !asks_for_list && at < oldest {
            return respond(stream, 410, &status(410)).await;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        let mut changes = self.changed.subscribe();
        if asks_for_list {
            let (events, version) = self.state().initial(path, streams);
            at = version;
            for event in events {
                chunk(&mut stream, &event).await?;
            }
        }
        loop {
            let (events, version, now) = {
                let state = self.state();
                (state.since(path, at), state.version, (state.cuts, state.gone))
            };
            for event in events {
                chunk(&mut stream, &event).await?;
            }
            at = version;
            if now.0 != cuts {
                return stream.write_all(b"40\r\n{\"type\": \"MODIF").await;
            }
            if now.1 != gone {
                return chunk(&mut stream, &json!({"type": "ERROR", "object": status(410)})).await;
            }
            if changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

impl State {
    /// By name, or by namespace and name.
    fn store(&mut self, plural: &str, name: &str, fields: &Value) -> Value {
        self.version += 1;
        let mut object = fields.clone();
        if let Some((namespace, _)) = name.split_once('/') {
            object["metadata"]["namespace"] = namespace.into();
        }
        let own = name.rsplit('/').next().unwrap();
        object["metadata"]["name"] = own.into();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let all = self.objects.entry(plural.to_owned()).or_default();
        all.insert(name.to_owned(), object.clone());
        object
    }

    /// Objects of a kind.
    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        let all = self.objects.get(plural).into_iter().flat_map(BTreeMap::values);
        all.cloned().collect()
    }

    fn tell(&mut self, plural: &str, event: Value) {
        self.history.push((self.version, plural.to_owned(), event));
    }

    fn since(&self, path: &Path, version: u64) -> Vec<Value> {
        let new = self.history.iter().filter(|(at, kind, event)| {
            *at > version && *kind == path.plural && path.admits(&event["object"])
        });
        new.map(|(_, _, event)| json!({"type": event["type"], "object": path.shown(&event["object"])}))
            .collect()
    }

    fn initial(&self, path: &Path, streams: Streams) -> (Vec<Value>, u64) {
        let all = self.listed(path).into_iter();
        let mut events: Vec<_> = all
            .map(|object| json!({"type": "ADDED", "object": object}))
            .collect();
        if streams == Streams::Yes {
            events.push(json!({"type": "BOOKMARK", "object": {
                "kind": "Bookmark", "apiVersion": "v1",
                "metadata": {
                    "resourceVersion": self.version.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"},
                },
            }}));
        }
        (events, self.version)
    }

    fn listed(&self, path: &Path) -> Vec<Value> {
        let all = self
            .objects
            .get(&path.plural)
            .into_iter()
            .flat_map(BTreeMap::values);
        let all = all.filter(|object| path.admits(object));
        all.map(|object| path.shown(object)).collect()
    }

    fn page(&self, path: &Path) -> (u16, Value) {
        let token = path.query.get("continue");
        let start: usize = token.map_or(0, |token| token.parse().unwrap());
        if start > 0
            && let Some(code) = self.refuse_second_page
        {
            return (code, status(code));
        }
        let all = self.listed(path);
        let end = all.len().min(start + self.page);
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if end < all.len() {
            metadata["continue"] = end.to_string().into();
        }
        (200, json!({"metadata": metadata, "items": all[start..end]}))
    }
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
           "reason": "Test", "message": format!("the test says {code}")})
}

async fn respond(mut stream: TcpStream, code: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code} Test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).await
}

async fn chunk(stream: &mut TcpStream, event: &Value) -> std::io::Result<()> {
    let line = format!("{event}\n");
    stream
        .write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
        .await
}
