//! Reading, as the API server understands paths: namespaces, selectors, single objects, and objects without what is in
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::{FakeApi, State, status};

/// What is asked for.
pub(in crate::kube) struct Path {
    pub(super) text: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) query: BTreeMap<String, String>,
    metadata_only: bool,
}

impl Path {
    pub(super) fn read(text: &str, metadata_only: bool) -> Self {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let mut words = path.split('/').filter(|word| !word.is_empty());
        // "api", version; or "apis", group, version.
        let skip = if words.next() == Some("apis") { 2 } else { 1 };
        let mut words = words.skip(skip).map(str::to_owned).peekable();
        let namespace = words
            .next_if(|word| word == "namespaces")
            .and_then(|_| words.next());
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        Self {
            text: text.to_owned(),
            namespace,
            plural: words.next().unwrap_or_default(),
            name: words.next(),
            subresource: words.next(),
            query: query
                .map(|(key, value)| (key.to_owned(), decoded(value)))
                .collect(),
            metadata_only,
        }
    }

    /// Whether the selectors and the namespace let it in.
    pub(super) fn admits(&self, object: &Value) -> bool {
        let namespace = object["metadata"]["namespace"].as_str();
        let fields = self.query.get("fieldSelector").map_or("", String::as_str);
        let field = |term: &str| {
            let (name, value) = term.split_once('=').unwrap();
            let negated = name.strip_suffix('!');
            let path = format!("/{}", negated.unwrap_or(name).replace('.', "/"));
            let found = object.pointer(&path).and_then(Value::as_str).unwrap_or_default();
            (found == value) != negated.is_some()
        };
        self.namespace
            .as_deref()
            .is_none_or(|known| namespace == Some(known))
            && fields.split(',').filter(|term| !term.is_empty()).all(field)
    }

    /// What of it is answered.
    pub(super) fn shown(&self, object: &Value) -> Value {
        if !self.metadata_only {
            return object.clone();
        }
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.metadata_only { " (metadata)" } else { "" };
        write!(f, "{}{what}", self.text)
    }
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        all.push(u8::from_str_radix(code, 16).unwrap().into());
        all += rest;
    }
    all
}

impl FakeApi {
    /// One object.
    pub(super) async fn get(&self, path: &Path) -> (u16, Value) {
        let name = path.name.as_deref().unwrap();
        let key = format!("{}/{name}", path.namespace.as_deref().unwrap_or_default());
        let found = {
            let mut state = self.state();
            state.at_once.0 += 1;
            state.at_once.1 = state.at_once.1.max(state.at_once.0);
            state.find(path)
        };
        // So that others may come meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
        while self.state().hold.contains(&key) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.state().at_once.0 -= 1;
        match found {
            Some((_, object)) => (200, path.shown(&object)),
            None => (404, status(404)),
        }
    }
}

impl State {
    /// An answer that is no answer: by namespace and kind (`shop:services`), by kind, by kind and name, by kind and subresource; lists and watches alone by `kind?`.
    pub(super) fn refusal(&self, path: &Path) -> Option<u16> {
        let plural = &path.plural;
        let narrow = match path.subresource.as_ref().or(path.name.as_ref()) {
            Some(second) => format!("{plural}/{second}"),
            None => format!("{plural}?"),
        };
        let namespace = path.namespace.as_deref().unwrap_or_default();
        let there = self.refuse.get(&format!("{namespace}:{plural}"));
        there
            .or_else(|| self.refuse.get(&narrow))
            .or_else(|| self.refuse.get(&path.plural))
            .copied()
    }

    /// The key, and the object.
    pub(super) fn find(&self, path: &Path) -> Option<(String, Value)> {
        let name = path.name.as_deref();
        let all = self.objects.get(&path.plural)?;
        let key = format!("{}/{}", path.namespace.as_deref()?, name?);
        if let Some(object) = all.get(&key) {
            return Some((key, object.clone()));
        }
        let mut all = all
            .iter()
            .filter(|(_, object)| object["metadata"]["name"].as_str() == name && path.admits(object));
        all.next().map(|(key, object)| (key.clone(), object.clone()))
    }
}
