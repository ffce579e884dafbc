//! Objects by name and kind: what a source hands in, and what a problem is about.

use std::fmt;

use serde_json::Value;

use crate::api::{
    ApiEndpointSlice, ApiIngress, ApiIngressClass, ApiNode, ApiSecret, ApiService, ApiServiceCidr, Metadata,
};
use crate::slips;

/// Namespace and name of an object; the namespace of a Node is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl ObjectName {
    /// Whether these are names as the API server takes them (RFC 1123): labels, and for what is no Service names with
    /// dots. They are written to terminals and logs as they are. How long a name is, is judged where it has to fit.
    pub fn is_dns(&self, kind: Kind) -> bool {
        let name = if kind.has_dots() {
            is_dns_name(&self.name)
        } else {
            is_label(&self.name)
        };
        name && (self.namespace.is_empty() || is_label(&self.namespace))
    }
}

/// Labels, with dots between them.
pub(crate) fn is_dns_name(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-')
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.pad(&self.name)
        } else {
            f.pad(&format!("{}/{}", self.namespace, self.name))
        }
    }
}

/// A kind of object that weir reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Node.
    Node,
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr,
    /// `networking.k8s.io/v1` Ingress.
    Ingress,
    /// `networking.k8s.io/v1` IngressClass.
    IngressClass,
    /// `v1` Secret.
    Secret,
}

impl Kind {
    /// Every kind that a node's agent reads; those that are needed at the end.
    pub const ALL: [Self; 4] = [Self::ServiceCidr, Self::Node, Self::EndpointSlice, Self::Service];

    /// Those without which nothing can be done. An API server before Kubernetes 1.33 has no ServiceCIDRs.
    pub const NEEDED: [Self; 3] = [Self::Service, Self::EndpointSlice, Self::Node];

    /// Every kind that the ingress reads.
    pub const INGRESS: [Self; 5] = [
        Self::IngressClass,
        Self::Secret,
        Self::Service,
        Self::EndpointSlice,
        Self::Ingress,
    ];

    /// By the words of a manifest; `None` if weir does not read it.
    pub fn from_words(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            ("v1", "Node") => Some(Self::Node),
            ("networking.k8s.io/v1", "ServiceCIDR") => Some(Self::ServiceCidr),
            ("networking.k8s.io/v1", "Ingress") => Some(Self::Ingress),
            ("networking.k8s.io/v1", "IngressClass") => Some(Self::IngressClass),
            ("v1", "Secret") => Some(Self::Secret),
            _ => None,
        }
    }

    /// Whether there may be dots in a name.
    const fn has_dots(self) -> bool {
        match self {
            Self::Service => false,
            Self::EndpointSlice
            | Self::Node
            | Self::ServiceCidr
            | Self::Ingress
            | Self::IngressClass
            | Self::Secret => true,
        }
    }

    /// These kinds for people, each with its group and version.
    pub(crate) fn list(kinds: &[Self]) -> String {
        let words: Vec<String> = kinds
            .iter()
            .map(|kind| format!("{kind} ({})", kind.api_version()))
            .collect();
        words.join(", ")
    }

    /// Group and version that weir reads it in.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Node | Self::Secret => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ServiceCidr | Self::Ingress | Self::IngressClass => "networking.k8s.io/v1",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Ingress => "Ingress",
            Self::IngressClass => "IngressClass",
            Self::Secret => "Secret",
        })
    }
}

/// An object as a source read it.
#[expect(
    clippy::large_enum_variant,
    reason = "an object is moved once, from the source to the model"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// A Service.
    Service(ApiService),
    /// An EndpointSlice.
    EndpointSlice(ApiEndpointSlice),
    /// A Node.
    Node(ApiNode),
    /// A ServiceCIDR.
    ServiceCidr(ApiServiceCidr),
    /// An Ingress.
    Ingress(Box<ApiIngress>),
    /// An IngressClass.
    IngressClass(ApiIngressClass),
    /// A Secret.
    Secret(ApiSecret),
}

impl Object {
    /// Reads one manifest for a node's agent. `None`: a kind that it does not use, and that nobody can have meant for it.
    pub fn from_value(value: Value) -> Result<Option<Self>, DecodeError> {
        Self::read(value, &Kind::ALL)
    }

    /// The same for who reads these kinds, and no others.
    pub fn read(value: Value, kinds: &[Kind]) -> Result<Option<Self>, DecodeError> {
        let word = |name: &str| {
            value
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        if kind.is_empty() {
            return Err(DecodeError::NoKind);
        }
        let known = Kind::from_words(&api_version, &kind).filter(|kind| kinds.contains(kind));
        let Some(kind) = known else {
            return slips::check(&value, &api_version, &kind, kinds).map(|()| None);
        };
        let metadata = |name: &str| {
            let text = value
                .get("metadata")
                .and_then(|metadata| metadata.get(name))
                .and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let name = full_name(kind, metadata("namespace"), metadata("name"));
        if name.name.is_empty() {
            return Err(DecodeError::NoName { kind });
        }
        if !name.is_dns(kind) {
            return Err(DecodeError::BadName { kind, name });
        }
        Self::decode(kind, value)
            .map(Some)
            .map_err(|error| DecodeError::Shape {
                kind,
                name,
                field: error.path().to_string(),
                source: without_content(kind, error.into_inner()),
            })
    }

    fn decode(kind: Kind, value: Value) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
        match kind {
            Kind::Service => serde_path_to_error::deserialize(value).map(Self::Service),
            Kind::EndpointSlice => serde_path_to_error::deserialize(value).map(Self::EndpointSlice),
            Kind::Node => serde_path_to_error::deserialize(value).map(Self::Node),
            Kind::ServiceCidr => serde_path_to_error::deserialize(value).map(Self::ServiceCidr),
            Kind::Ingress => serde_path_to_error::deserialize(value).map(Self::Ingress),
            Kind::IngressClass => serde_path_to_error::deserialize(value).map(Self::IngressClass),
            Kind::Secret => serde_path_to_error::deserialize(value).map(Self::Secret),
        }
    }

    /// What kind of object this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
            Self::Ingress(_) => Kind::Ingress,
            Self::IngressClass(_) => Kind::IngressClass,
            Self::Secret(_) => Kind::Secret,
        }
    }

    /// Its name, with the namespace that a missing one stands for.
    pub fn name(&self) -> ObjectName {
        let metadata = self.metadata();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        full_name(self.kind(), text(&metadata.namespace), text(&metadata.name))
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Service(service) => &service.metadata,
            Self::EndpointSlice(slice) => &slice.metadata,
            Self::Node(node) => &node.metadata,
            Self::ServiceCidr(cidr) => &cidr.metadata,
            Self::Ingress(ingress) => &ingress.metadata,
            Self::IngressClass(class) => &class.metadata,
            Self::Secret(secret) => &secret.metadata,
        }
    }
}

/// What serde says repeats the value that it did not like; that of a Secret is nobody's business.
fn without_content(kind: Kind, error: serde_json::Error) -> serde_json::Error {
    match kind {
        Kind::Secret => serde::de::Error::custom("what stands there is not shown"),
        _ => error,
    }
}

/// The name under which an object is known: no namespace for what has none, `default` where none is written.
fn full_name(kind: Kind, namespace: String, name: String) -> ObjectName {
    let namespace = match kind {
        Kind::Node | Kind::ServiceCidr | Kind::IngressClass => String::new(),
        _ if namespace.is_empty() => "default".to_owned(),
        _ => namespace,
    };
    ObjectName { namespace, name }
}

/// Why a manifest is not an object.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not even a kind.
    #[error("a document without `kind`: every manifest needs `apiVersion` and `kind`")]
    NoKind,
    /// No name to know it by.
    #[error("{kind} without `metadata.name`: give it one")]
    NoName {
        /// Its kind.
        kind: Kind,
    },
    /// No group and version.
    #[error("{object} has no apiVersion: write {wanted}")]
    NoApiVersion {
        /// Its kind and name.
        object: String,
        /// What to write.
        wanted: &'static str,
    },
    /// A kind of ours in a group or version that is not.
    #[error("{object} has apiVersion {found}, which has no such kind today: write {wanted}")]
    Version {
        /// Its kind and name.
        object: String,
        /// As it is.
        found: String,
        /// As it should be.
        wanted: &'static str,
    },
    /// A kind that the group does not have.
    #[error("{object}: {api_version} has no such kind: correct it; read here: {known}")]
    UnknownKind {
        /// Its kind and name.
        object: String,
        /// Group and version.
        api_version: String,
        /// The kinds that are read.
        known: String,
    },
    /// A name that the API server refuses.
    #[error(
        "{kind} {name:?}: namespace and name must be of a-z, 0-9 and -{dots}, with a letter or digit at each end; correct it",
        name = .name.to_string(), dots = if kind.has_dots() { " (the name also of dots between such parts)" } else { "" }
    )]
    BadName {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: ObjectName,
    },
    /// A field has another type than the API says.
    #[error("{kind} {name} is left out: {field} has another type than the API says; correct it")]
    Shape {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: ObjectName,
        /// The field, with its place in lists.
        field: String,
        /// What serde says.
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(kind: Kind, namespace: &str, name: &str) -> Result<Option<Object>, DecodeError> {
        let metadata = json!({"namespace": namespace, "name": name});
        let object =
            json!({"apiVersion": kind.api_version(), "kind": kind.to_string(), "metadata": metadata});
        Object::from_value(object)
    }

    #[test]
    fn names_are_those_that_the_api_server_takes() {
        let good = [
            (Kind::Service, "shop", "web-1"),
            (Kind::Service, "", "1web"),
            (Kind::EndpointSlice, "shop", "web.example-abc12"),
            (Kind::Node, "", "node-a.example.org"),
        ];
        for (kind, namespace, name) in good {
            assert!(named(kind, namespace, name).is_ok(), "{kind} {namespace}/{name}");
        }
        let bad = [
            (Kind::Service, "shop", "a\u{1b}[31mb"),
            (Kind::Service, "shop", "web.example"),
            (Kind::Service, "sh\nop", "web"),
            (Kind::Service, "shop", "Web"),
            (Kind::EndpointSlice, "shop", "a..b"),
            (Kind::Node, "", "-a"),
        ];
        for (kind, namespace, name) in bad {
            let refused = named(kind, namespace, name).unwrap_err();
            assert!(matches!(refused, DecodeError::BadName { .. }), "{refused}");
            assert_eq!(
                refused.to_string().contains("dots"),
                kind != Kind::Service,
                "{refused}"
            );
            assert!(!refused.to_string().contains(char::is_control), "{refused:?}");
        }
    }

    #[test]
    fn each_reader_has_its_kinds() {
        let object = |kind: Kind| json!({"apiVersion": kind.api_version(), "kind": kind.to_string(), "metadata": {"name": "web"}, "spec": 5});
        for kind in [Kind::Ingress, Kind::IngressClass, Kind::Secret] {
            let value = object(kind);
            assert!(matches!(Object::from_value(value.clone()), Ok(None)), "{kind}");
            let read = Object::read(value, &Kind::INGRESS);
            // A Secret has no spec.
            assert_eq!(read.is_ok(), kind == Kind::Secret, "{kind}");
        }
        let node = Object::read(object(Kind::Node), &Kind::INGRESS);
        assert!(matches!(node, Err(DecodeError::Shape { .. }) | Ok(None)));
        let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "a.b"}});
        let class = Object::read(class, &Kind::INGRESS).unwrap().unwrap();
        assert_eq!(
            (class.kind(), class.name()),
            (Kind::IngressClass, ObjectName::new("", "a.b"))
        );
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "type": "kubernetes.io/tls",
                            "data": {"tls.key": "c2VjcmV0"}});
        let secret = Object::read(secret, &Kind::INGRESS).unwrap().unwrap();
        assert_eq!(secret.name(), ObjectName::new("default", "tls"));
        assert!(!format!("{secret:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn what_is_in_a_secret_is_not_shown() {
        let annotations =
            json!({"kubectl.kubernetes.io/last-applied-configuration": "{\"data\": \"c2VjcmV0\"}"});
        for (data, wrong) in [(json!({"tls.key": "c2VjcmV0"}), false), (json!("c2VjcmV0"), true)] {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": data,
                                "metadata": {"name": "tls", "annotations": annotations}});
            let read = Object::read(secret, &Kind::INGRESS);
            assert_eq!(read.is_err(), wrong);
            let mut text = format!("{read:?}");
            if let Err(error) = read {
                let source = std::error::Error::source(&error).unwrap();
                text.push_str(
                    &[
                        " ",
                        &error.to_string(),
                        &source.to_string(),
                        &format!("{source:?}"),
                    ]
                    .concat(),
                );
            }
            assert!(text.contains("tls") && !text.contains("c2VjcmV0"), "{text}");
        }
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        let ports = json!([{"port": 80}, {"name": 5, "port": 81}]);
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": ports}});
        let refused = Object::from_value(object).unwrap_err().to_string();
        assert!(refused.contains("left out: spec.ports[1].name has"), "{refused}");
    }
}
