//! Objects by name and kind: what a source hands in, and what a problem is about.

use std::fmt;

use serde_json::Value;

use crate::api::{ApiEndpointSlice, ApiNode, ApiService, ApiServiceCidr, Metadata};

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
}

impl Kind {
    /// Every kind; those that are needed at the end.
    pub const ALL: [Self; 4] = [Self::ServiceCidr, Self::Service, Self::EndpointSlice, Self::Node];

    /// Those without which nothing can be done. An API server before Kubernetes 1.33 has no ServiceCIDRs.
    pub const NEEDED: [Self; 3] = [Self::Service, Self::EndpointSlice, Self::Node];

    /// By the words of a manifest; `None` if weir does not read it.
    pub fn from_words(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            ("v1", "Node") => Some(Self::Node),
            ("networking.k8s.io/v1", "ServiceCIDR") => Some(Self::ServiceCidr),
            _ => None,
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
        })
    }
}

/// An object as a source read it.
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
}

impl Object {
    /// Reads one manifest. `None`: a kind that weir does not use.
    pub fn from_value(value: Value) -> Result<Option<Self>, DecodeError> {
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
        let Some(kind) = Kind::from_words(&api_version, &kind) else {
            return Ok(None);
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
        let object = match kind {
            Kind::Service => serde_json::from_value(value).map(Self::Service),
            Kind::EndpointSlice => serde_json::from_value(value).map(Self::EndpointSlice),
            Kind::Node => serde_json::from_value(value).map(Self::Node),
            Kind::ServiceCidr => serde_json::from_value(value).map(Self::ServiceCidr),
        };
        object
            .map(Some)
            .map_err(|source| DecodeError::Shape { kind, name, source })
    }

    /// What kind of object this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
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
        }
    }
}

/// The name under which an object is known: no namespace for a Node or a ServiceCIDR, `default` where none is written.
fn full_name(kind: Kind, namespace: String, name: String) -> ObjectName {
    let namespace = match kind {
        Kind::Node | Kind::ServiceCidr => String::new(),
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
    /// A field has another type than the API says.
    #[error("{kind} {name} is left out: a field has another type than the API says; correct it")]
    Shape {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: ObjectName,
        /// What serde says.
        source: serde_json::Error,
    },
}

/// Something an operator should know about one object. It costs what the sentence says, and nothing else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Kind and name, as `Service default/web`.
    pub object: String,
    /// What is wrong, what it costs, and what to do.
    pub what: String,
    /// Why, in one word.
    pub reason: Reason,
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object.
    pub name: ObjectName,
    /// Its `metadata.uid`, if it has one.
    pub uid: Option<String>,
}

/// What sort of problem it is: the reason of its Event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// The object asks for something that cannot be done, whatever the node.
    NotServed,
    /// It asks for a frontend that it does not get: somebody else has it, or the node itself.
    FrontendRefused,
    /// The kernel refuses its rows, or has no room for them.
    FailedToProgram,
    /// Its health check node port cannot be listened on; the word is kube-proxy's.
    FailedToStartServiceHealthcheck,
}

impl Reason {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotServed => "NotServed",
            Self::FrontendRefused => "FrontendRefused",
            Self::FailedToProgram => "FailedToProgram",
            Self::FailedToStartServiceHealthcheck => "FailedToStartServiceHealthcheck",
        }
    }
}

impl Problem {
    /// About one object; [`Reason::NotServed`].
    pub fn new(kind: Kind, name: &ObjectName, what: impl Into<String>) -> Self {
        Self {
            object: format!("{kind} {name}"),
            what: what.into(),
            reason: Reason::NotServed,
            kind,
            name: name.clone(),
            uid: None,
        }
    }

    /// For another reason.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}
