//! Manifests: objects of Kubernetes, in files that appear whole.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::pki::Pair;

/// The namespace of all objects, unless a test says another.
pub const NAMESPACE: &str = "trial";

/// The folder that the ingress watches.
pub struct Objects {
    folder: PathBuf,
}

impl Objects {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// These objects are what is in the file from now on.
    pub fn put(&self, name: &str, objects: &[Value]) -> Result<()> {
        let texts: Vec<String> = objects.iter().map(|object| format!("{object:#}\n")).collect();
        self.put_text(name, &texts.concat())
    }

    /// This text is.
    pub fn put_text(&self, name: &str, text: &str) -> Result<()> {
        let draft = self.folder.join(format!("{name}.draft"));
        let place = self.folder.join(format!("{name}.json"));
        let context = || format!("cannot write {}", place.display());
        fs::write(&draft, text).with_context(context)?;
        fs::rename(&draft, &place).with_context(context)
    }

    /// The file is no more.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.folder.join(format!("{name}.json"));
        fs::remove_file(&place).with_context(|| format!("cannot remove {}", place.display()))
    }

    /// What nearly all tests have: the class, and host `web.test` with all paths at the Service `web` with these pods.
    pub fn web(&self, pods: &[SocketAddr]) -> Result<()> {
        self.put("class", &[class()])?;
        self.put(
            "web",
            &[ingress("web", "web.test", &[("/", "web")]), service("web")],
        )?;
        self.put("web-pods", &[slice("web", pods)])
    }
}

/// The `IngressClass` of the ingress.
pub fn class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "weir"}, "spec": {"controller": "weir.network/ingress"},
    })
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z"})
}

/// An Ingress of one host, with prefixes and their Services.
pub fn ingress(name: &str, host: &str, paths: &[(&str, &str)]) -> Value {
    let path = |(path, service): &(&str, &str)| json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"name": "http"}}}});
    let paths: Vec<Value> = paths.iter().map(path).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata(name),
        "spec": {"ingressClassName": "weir", "rules": [{"host": host, "http": {"paths": paths}}]},
    })
}

/// The same object with something else at this place: `with(object, "/spec/tls", …)`; the parent must be there.
#[must_use]
pub fn with(mut object: Value, place: &str, value: Value) -> Value {
    let (parent, key) = place.rsplit_once('/').unwrap_or(("", place));
    if let Some(Value::Object(parent)) = object.pointer_mut(parent) {
        parent.insert(key.to_owned(), value);
    }
    object
}

/// The same Ingress, over TLS too, and in clear text without a redirect.
#[must_use]
pub fn with_tls(ingress: Value, host: &str, secret: &str) -> Value {
    let both = json!({"ingress.weir.network/https-redirect": "false"});
    let ingress = with(ingress, "/metadata/annotations", both);
    with(
        ingress,
        "/spec/tls",
        json!([{"hosts": [host], "secretName": secret}]),
    )
}

/// A Service with the port `http`.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
        "spec": {"clusterIP": "172.20.0.10", "clusterIPs": ["172.20.0.10"], "ipFamilies": ["IPv4"],
                 "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
    })
}

/// The pods of a Service; they must have the same port.
pub fn slice(service: &str, pods: &[SocketAddr]) -> Value {
    let endpoint =
        |pod: &SocketAddr| json!({"addresses": [pod.ip().to_string()], "conditions": {"ready": true}});
    let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
    let port = pods.first().map_or(8080, SocketAddr::port);
    let metadata = with(
        metadata(service),
        "/labels",
        json!({"kubernetes.io/service-name": service}),
    );
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

/// A certificate and its key.
pub fn secret(name: &str, pair: &Pair) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata(name),
        "data": {"tls.crt": STANDARD.encode(&pair.chain), "tls.key": STANDARD.encode(&pair.key)},
    })
}
