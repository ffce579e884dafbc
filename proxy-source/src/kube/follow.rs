//! Which objects are followed: kinds, and of namespaced ones all or what is in some namespaces.

use std::sync::Arc;

use kube::Client;
use kube::api::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use proxy_model::{Kind, ObjectName};

use crate::Metrics;
use crate::watch::{Learn, Link, Scope, Watch};

/// kube-proxy leaves out the same slices (KEP-2447; headless Services have nothing to balance).
const PROXIED: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// Whoever goes to the pods themselves needs those of headless Services, too, and of every other proxy's.
const OF_A_SERVICE: &str = "kubernetes.io/service-name";
/// Most of what many clusters have, and never a certificate.
const NO_CERTIFICATES: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";
/// A silent connection is given up after this and 5 s; the API server's bookmarks come about once a minute.
const WATCH_SECONDS: u32 = 240;

/// A kind that is followed.
#[derive(Clone, Debug)]
pub struct Follow {
    kind: Kind,
    config: watcher::Config,
    /// Each is followed apart.
    scopes: Vec<Scope>,
}

impl Follow {
    /// All objects of a kind.
    pub fn all(kind: Kind) -> Self {
        Self {
            kind,
            config: watcher::Config::default(),
            scopes: vec![Scope::default()],
        }
    }

    /// The EndpointSlices of Services that are balanced here.
    pub fn proxied_slices() -> Self {
        Self {
            config: watcher::Config::default().labels(PROXIED),
            ..Self::all(Kind::EndpointSlice)
        }
    }

    /// The EndpointSlices of all Services, headless ones too.
    pub fn service_slices() -> Self {
        Self {
            config: watcher::Config::default().labels(OF_A_SERVICE),
            ..Self::all(Kind::EndpointSlice)
        }
    }

    /// Names and versions of Secrets, where [`super::Options::secrets`] asks for some of them.
    pub fn secrets() -> Self {
        Self {
            config: watcher::Config::default().fields(NO_CERTIFICATES),
            ..Self::all(Kind::Secret)
        }
    }

    /// One object of a kind without namespaces.
    pub fn one(kind: Kind, name: &str) -> Self {
        Self::named(kind, &ObjectName::new("", name))
    }

    /// One object. It may stand beside a [`Follow`] of the same kind for namespaces that its own is not among.
    pub fn named(kind: Kind, name: &ObjectName) -> Self {
        let namespace = Some(name.namespace.clone()).filter(|namespace| !namespace.is_empty());
        Self {
            config: watcher::Config::default().fields(&format!("metadata.name={}", name.name)),
            scopes: vec![Scope {
                namespace,
                name: Some(name.name.clone()),
            }],
            ..Self::all(kind)
        }
    }

    /// Only what is in these namespaces; none means all. Kinds without namespaces stay as they are.
    #[must_use]
    pub fn within(self, namespaces: &[String]) -> Self {
        if namespaces.is_empty() || !has_namespaces(self.kind) {
            return self;
        }
        let in_each = |namespace: &String| Scope {
            namespace: Some(namespace.clone()),
            name: None,
        };
        Self {
            scopes: namespaces.iter().map(in_each).collect(),
            ..self
        }
    }

    /// What a node's agent follows.
    pub fn of_node(node: &str) -> Vec<Self> {
        vec![
            Self::one(Kind::Node, node),
            // Also those of another proxy: their ClusterIPs are not unallocated.
            Self::all(Kind::Service),
            Self::proxied_slices(),
            Self::all(Kind::ServiceCidr),
        ]
    }

    /// What an ingress follows, in these namespaces or, without any, in all; Secrets only where some are asked for.
    pub fn of_ingress(namespaces: &[String]) -> Vec<Self> {
        vec![
            Self::all(Kind::IngressClass),
            Self::all(Kind::Service).within(namespaces),
            Self::service_slices().within(namespaces),
            Self::all(Kind::Ingress).within(namespaces),
            Self::secrets().within(namespaces),
        ]
    }

    /// Of which kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// One watch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    config: watcher::Config,
    pub(super) scope: Scope,
}

impl Part {
    pub(super) fn watch<L: Learn>(self, client: Client, known: L, metrics: Arc<Metrics>) -> Watch<L> {
        let resource = resource(self.kind);
        let api = self.scope.api(client, &resource);
        let config = self.config.timeout(WATCH_SECONDS);
        Watch::new(
            self.kind,
            (api, config),
            known,
            Link::new(resource, self.scope, metrics),
        )
    }
}

/// What a kind is followed in, each object once: what another part has too is left out.
pub(super) fn parts(follows: &[Follow], kind: Kind) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for follow in follows.iter().filter(|follow| follow.kind == kind) {
        for scope in &follow.scopes {
            if parts.iter().all(|part| !part.scope.covers(scope)) {
                parts.retain(|part| !scope.covers(&part.scope));
                parts.push(Part {
                    kind,
                    config: follow.config.clone(),
                    scope: scope.clone(),
                });
            }
        }
    }
    parts
}

fn has_namespaces(kind: Kind) -> bool {
    !matches!(kind, Kind::Node | Kind::ServiceCidr | Kind::IngressClass)
}

/// How the API calls a kind.
pub(super) fn resource(kind: Kind) -> ApiResource {
    let (group, version) = kind
        .api_version()
        .split_once('/')
        .unwrap_or(("", kind.api_version()));
    let plural = match kind {
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Node => "nodes",
        Kind::ServiceCidr => "servicecidrs",
        Kind::Ingress => "ingresses",
        Kind::IngressClass => "ingressclasses",
        Kind::Secret => "secrets",
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind.to_string()), plural)
}

#[cfg(test)]
mod tests;
