//! The JSON shapes of Ingress and IngressClass (`networking.k8s.io/v1`), and of a Secret's `data`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Metadata;

api! {
    /// An Ingress.
    pub struct ApiIngress {
        /// `metadata`.
        pub metadata: Metadata,
        /// `spec`.
        pub spec: Option<IngressSpec>,
        /// `status`.
        pub status: Option<IngressStatus>,
    }

    /// `spec` of an Ingress.
    pub struct IngressSpec {
        /// Name of an IngressClass.
        pub ingress_class_name: Option<String>,
        /// For what no rule matches.
        pub default_backend: Option<IngressBackend>,
        /// Certificates.
        pub tls: Option<Vec<IngressTls>>,
        /// Hosts and paths.
        pub rules: Option<Vec<IngressRule>>,
    }

    /// A backend: a Service or, which nobody can route to, another object.
    pub struct IngressBackend {
        /// A Service in the Ingress's namespace.
        pub service: Option<IngressServiceBackend>,
        /// Another object there.
        pub resource: Option<TypedReference>,
    }

    /// A Service as a backend.
    pub struct IngressServiceBackend {
        /// Its name.
        pub name: Option<String>,
        /// One of its ports.
        pub port: Option<ServiceBackendPort>,
    }

    /// A port of a Service: by name or by number.
    pub struct ServiceBackendPort {
        /// The port's name in the Service.
        pub name: Option<String>,
        /// The port's number in the Service.
        pub number: Option<i64>,
    }

    /// A reference to an object of any kind.
    pub struct TypedReference {
        /// Group; empty for the core group.
        pub api_group: Option<String>,
        /// Kind.
        pub kind: Option<String>,
        /// Name.
        pub name: Option<String>,
    }

    /// An element of `spec.tls`.
    pub struct IngressTls {
        /// Names that the certificate is for.
        pub hosts: Option<Vec<String>>,
        /// The Secret with the certificate.
        pub secret_name: Option<String>,
    }

    /// A rule: a host, and where its paths lead.
    pub struct IngressRule {
        /// A name, a wildcard of one label, or nothing for all.
        pub host: Option<String>,
        /// Paths.
        pub http: Option<HttpIngressRule>,
    }

    /// `http` of a rule.
    pub struct HttpIngressRule {
        /// Paths.
        pub paths: Option<Vec<HttpIngressPath>>,
    }

    /// A path of a rule.
    pub struct HttpIngressPath {
        /// The path.
        pub path: Option<String>,
        /// `Exact`, `Prefix` or `ImplementationSpecific`.
        pub path_type: Option<String>,
        /// Where it leads.
        pub backend: Option<IngressBackend>,
    }

    /// `status` of an Ingress.
    pub struct IngressStatus {
        /// What clients connect to.
        pub load_balancer: Option<IngressLoadBalancerStatus>,
    }

    /// `status.loadBalancer` of an Ingress.
    pub struct IngressLoadBalancerStatus {
        /// Addresses and names.
        pub ingress: Option<Vec<IngressLoadBalancerIngress>>,
    }

    /// An address or a name that clients connect to.
    pub struct IngressLoadBalancerIngress {
        /// An address.
        pub ip: Option<String>,
        /// A name.
        pub hostname: Option<String>,
    }

    /// An IngressClass.
    pub struct ApiIngressClass {
        /// `metadata`; an annotation says whether it is the default class.
        pub metadata: Metadata,
        /// `spec`.
        pub spec: Option<IngressClassSpec>,
    }

    /// `spec` of an IngressClass.
    pub struct IngressClassSpec {
        /// Who serves Ingresses of this class.
        pub controller: Option<String>,
        /// Settings of it.
        pub parameters: Option<TypedReference>,
    }
}

/// A Secret (`v1`): names of keys, and base64 as it stands in the object. It is never printed.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiSecret {
    /// `metadata`.
    pub metadata: Metadata,
    /// `kubernetes.io/tls` or another type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What it holds, in base64.
    pub data: Option<BTreeMap<String, String>>,
    /// What a manifest may hold instead, as text; it wins over `data`, as in the API server.
    pub string_data: Option<BTreeMap<String, String>>,
}

impl fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.data.iter().chain(&self.string_data).flat_map(BTreeMap::keys);
        f.debug_struct("ApiSecret")
            // Annotations may hold a copy of the whole object.
            .field("namespace", &self.metadata.namespace)
            .field("name", &self.metadata.name)
            .field("kind", &self.kind)
            .field("keys", &keys.collect::<Vec<_>>())
            .finish()
    }
}
