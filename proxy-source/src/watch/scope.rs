//! Which part of a kind is followed.

use std::fmt;

use kube::Client;
use kube::Resource;
use kube::api::{Api, ApiResource};
use kube::core::DynamicResourceScope;
use proxy_model::ObjectName;

/// All objects, those of a namespace, or one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Scope {
    /// None: of all namespaces, or of a kind that has none.
    pub(crate) namespace: Option<String>,
    /// None: whatever they are called.
    pub(crate) name: Option<String>,
}

impl Scope {
    /// Whether an object of this name is in it.
    pub(crate) fn has(&self, name: &ObjectName) -> bool {
        let namespace = self.namespace.as_ref();
        let own = self.name.as_ref();
        namespace.is_none_or(|known| *known == name.namespace) && own.is_none_or(|known| *known == name.name)
    }

    /// Whether all that is in the other one is in it.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let namespace = self.namespace.is_none() || self.namespace == other.namespace;
        namespace && (self.name.is_none() || self.name == other.name)
    }

    /// The objects in it; which of them, by name, is a matter of selectors.
    pub(crate) fn api<K>(&self, client: Client, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        }
    }

    /// What gives the right to look there.
    pub(crate) fn role(&self) -> &'static str {
        match self.namespace {
            Some(_) => "Role",
            None => "ClusterRole",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, " named {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}
